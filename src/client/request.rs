//! All requests that the client sends.

use std::borrow::Cow;

use serde::Serialize;
use ureq::http::Method;

use crate::digest::{Digest, Prefix};

/// One request to the HTTP API.
pub(super) struct ApiRequest<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    /// Media type of the body; empty for a request without a body.
    pub(super) content_type: &'static str,
    pub(super) accept: &'static str,
    pub(super) body: Cow<'a, [u8]>,
}

impl<'a> ApiRequest<'a> {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), content_type: "", accept: "application/json", body: Cow::default() }
    }

    /// Creates a GET request for a JSON value.
    pub(super) fn get_json(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// Creates a GET request for the bytes of a message.
    pub(super) fn get_message(digest: Digest) -> Self {
        Self { accept: "application/octet-stream", ..Self::new(Method::GET, format!("/messages/{digest}")) }
    }

    /// Creates a HEAD request for the length of a message.
    pub(super) fn head_message(digest: Digest) -> Self {
        Self { method: Method::HEAD, ..Self::get_message(digest) }
    }

    /// Creates a request for one page of a listing.
    pub(super) fn list(prefix: &Prefix, after: Option<Digest>, limit: usize) -> Self {
        let after = after.map_or_else(String::new, |after| format!("&after={after}"));
        Self::get_json(&format!("/messages?limit={limit}&prefix={prefix}{after}"))
    }

    /// Creates a POST request with one JSON value.
    pub(super) fn post_json(path: &str, value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("the value can be serialized");
        Self { content_type: "application/json", body: body.into(), ..Self::new(Method::POST, path) }
    }

    /// Creates a POST request whose body and response are newline-delimited JSON.
    pub(super) fn post_lines(path: &str, body: Vec<u8>) -> Self {
        let content_type = "application/x-ndjson";
        Self { content_type, accept: content_type, body: body.into(), ..Self::new(Method::POST, path) }
    }

    /// Creates a POST request with one line of JSON per digest.
    pub(super) fn post_digests(path: &str, digests: &[Digest]) -> Self {
        let lines: String = digests.iter().map(|digest| format!("{{\"digest\":\"{digest}\"}}\n")).collect();
        Self::post_lines(path, lines.into_bytes())
    }

    /// Creates a PUT request that stores a message.
    pub(super) fn put_message(digest: Digest, message: &'a [u8]) -> Self {
        let content_type = "application/octet-stream";
        Self { content_type, body: message.into(), ..Self::new(Method::PUT, format!("/messages/{digest}")) }
    }
}
