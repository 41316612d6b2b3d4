//! The requests that there are, written in one place.

use std::borrow::Cow;

use serde::Serialize;
use ureq::http::Method;

use crate::digest::{Digest, Prefix};

/// What is asked.
pub(super) struct ApiRequest<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    /// The type of the body; none, no body.
    pub(super) content_type: &'static str,
    pub(super) accept: &'static str,
    pub(super) body: Cow<'a, [u8]>,
}

impl<'a> ApiRequest<'a> {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), content_type: "", accept: "application/json", body: Cow::default() }
    }

    /// For JSON.
    pub(super) fn get_json(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// For the bytes of a message.
    pub(super) fn get_message(digest: Digest) -> Self {
        Self { accept: "application/octet-stream", ..Self::new(Method::GET, format!("/messages/{digest}")) }
    }

    /// For the length of a message.
    pub(super) fn head_message(digest: Digest) -> Self {
        Self { method: Method::HEAD, ..Self::get_message(digest) }
    }

    /// For a page of a list.
    pub(super) fn list(prefix: &Prefix, after: Option<Digest>, limit: usize) -> Self {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        Self::get_json(&format!("/messages?limit={limit}&prefix={prefix}{after}"))
    }

    /// With one JSON value.
    pub(super) fn post_json(path: &str, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("what is sent can be JSON");
        Self { content_type: "application/json", body: body.into(), ..Self::new(Method::POST, path) }
    }

    /// With a JSON value a line, for the same.
    pub(super) fn post_lines(path: &str, body: Vec<u8>) -> Self {
        let kind = "application/x-ndjson";
        Self { content_type: kind, accept: kind, body: body.into(), ..Self::new(Method::POST, path) }
    }

    /// To keep a message.
    pub(super) fn put_message(digest: Digest, message: &'a [u8]) -> Self {
        let kind = "application/octet-stream";
        Self { content_type: kind, body: message.into(), ..Self::new(Method::PUT, format!("/messages/{digest}")) }
    }
}
