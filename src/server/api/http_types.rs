//! Requests and responses, as the HTTP front end, the engine and the API exchange them. A request holds only validated
//! parts of the received head. The headers of a response are complete lines that need no further escaping.

use std::fmt::Display;

use super::json;
use super::method::Method;
use super::route::{Route, RouteError};

/// A request without its framing. Path and query are not percent-decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Request {
    pub(in crate::server) method: Method,
    pub(in crate::server) path: String,
    /// The resource that the path names.
    pub(in crate::server) route: Route,
    pub(in crate::server) query: Option<String>,
    pub(in crate::server) accept: Option<String>,
    pub(in crate::server) content_type: Option<String>,
    pub(in crate::server) if_none_match: Option<String>,
    pub(in crate::server) range: Option<String>,
    pub(in crate::server) if_range: Option<String>,
    pub(in crate::server) content_digest: Option<String>,
    pub(in crate::server) repr_digest: Option<String>,
    pub(in crate::server) body: Vec<u8>,
}

/// A response without `Date`, `X-Request-Id`, `Connection` and `Content-Length`, which the HTTP front end adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Response {
    pub(in crate::server) status: u16,
    /// Header lines, each `Name: value\r\n`.
    pub(in crate::server) raw_headers: String,
    /// Value of `Content-Length` in bytes. A response to `HEAD` has the length of the omitted body.
    pub(in crate::server) content_length: usize,
    pub(in crate::server) body: Vec<u8>,
    /// Cause of an error, for the server's stderr. It is never sent to the client.
    pub(in crate::server) cause: Option<String>,
}

impl Request {
    /// Creates a request without query, headers and body.
    pub(in crate::server) fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            route: Route::resolve(path),
            query: None,
            accept: None,
            content_type: None,
            if_none_match: None,
            range: None,
            if_range: None,
            content_digest: None,
            repr_digest: None,
            body: Vec::new(),
        }
    }

    /// Returns the headers that the front end passes to the API, by name. All other headers are dropped.
    pub(in crate::server) const fn known_headers_mut(&mut self) -> [(&'static str, &mut Option<String>); 7] {
        [
            ("Accept", &mut self.accept),
            ("Content-Type", &mut self.content_type),
            ("If-None-Match", &mut self.if_none_match),
            ("Range", &mut self.range),
            ("If-Range", &mut self.if_range),
            ("Content-Digest", &mut self.content_digest),
            ("Repr-Digest", &mut self.repr_digest),
        ]
    }
}

impl From<RouteError> for Response {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => Self::error(404, "Not found"),
            RouteError::MethodNotAllowed(allowed) => {
                Self::error(405, "Method not allowed").with_header("Allow", &allowed)
            }
        }
    }
}

impl Response {
    /// `Cache-Control` value of responses that never change. The hot cache keeps only responses with this value.
    pub(in crate::server) const CACHE_CONTROL_IMMUTABLE: &'static str = "public, max-age=31536000, immutable";

    /// Creates a response with a body.
    pub(in crate::server) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { content_length: body.len(), body, ..Self::empty(status) }.with_header("Content-Type", content_type)
    }

    /// Creates a response without a body.
    pub(in crate::server) const fn empty(status: u16) -> Self {
        Self { status, raw_headers: String::new(), content_length: 0, body: Vec::new(), cause: None }
    }

    /// Creates a response with a JSON body.
    pub(in crate::server) fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/json", body)
    }

    /// Creates an error response: `{"err_msg": message}`.
    pub(in crate::server) fn error(status: u16, message: &str) -> Self {
        Self::json(status, json::single_field_object("err_msg", message))
    }

    /// Adds a header. `name` and `value` must come from the server itself: line breaks are not escaped.
    pub(in crate::server) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.raw_headers.reserve(name.len() + value.len() + 4);
        for part in [name, ": ", value, "\r\n"] {
            self.raw_headers.push_str(part);
        }
        self
    }

    /// Sets the cause that is logged.
    pub(in crate::server) fn with_cause(self, cause: impl Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    /// Iterates over the headers as pairs of name and value.
    pub(in crate::server) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.raw_headers.split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }

    /// Returns whether the hot cache may keep this response.
    pub(in crate::server) fn is_immutable(&self) -> bool {
        self.status == 200 && self.headers().any(|header| header == ("Cache-Control", Self::CACHE_CONTROL_IMMUTABLE))
    }
}
