//! The requests that there are, written in one place.

use std::borrow::Cow;

use serde::Serialize;
use ureq::http::Method;

use crate::digest::{Digest, Prefix};

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    /// The type of the body; none, no body.
    pub(super) kind: &'static str,
    pub(super) accept: &'static str,
    pub(super) body: Cow<'a, [u8]>,
}

impl<'a> Ask<'a> {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), kind: "", accept: "application/json", body: Cow::default() }
    }

    /// For JSON.
    pub(super) fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// For the bytes of a message.
    pub(super) fn bytes(digest: Digest) -> Self {
        Self { accept: "application/octet-stream", ..Self::new(Method::GET, format!("/messages/{digest}")) }
    }

    /// For the length of a message.
    pub(super) fn head(digest: Digest) -> Self {
        Self { method: Method::HEAD, ..Self::bytes(digest) }
    }

    /// For a page of a list.
    pub(super) fn list(prefix: &Prefix, after: Option<Digest>, limit: usize) -> Self {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        Self::get(&format!("/messages?limit={limit}&prefix={prefix}{after}"))
    }

    /// With one JSON value.
    pub(super) fn json(path: &str, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("what is sent can be JSON");
        Self { kind: "application/json", body: body.into(), ..Self::new(Method::POST, path) }
    }

    /// With a JSON value a line, for the same.
    pub(super) fn lines(path: &str, body: Vec<u8>) -> Self {
        let kind = "application/x-ndjson";
        Self { kind, accept: kind, body: body.into(), ..Self::new(Method::POST, path) }
    }

    /// To keep a message.
    pub(super) fn put(digest: Digest, message: &'a [u8]) -> Self {
        let kind = "application/octet-stream";
        Self { kind, body: message.into(), ..Self::new(Method::PUT, format!("/messages/{digest}")) }
    }
}
