//! The two halves of an exchange, as the door, the engine and the api hand them to each other.
//! A request holds only what was understood; a reply's fields are whole lines, ready to be written.

use std::fmt::Display;

use super::json;

/// The methods that the server knows; all others are one to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Other,
}

/// A request whose framing is settled: the path and query as they came, undecoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Request {
    pub(in crate::server) method: Method,
    pub(in crate::server) path: String,
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

/// What goes back. The connection's own fields (`Date`, `Connection`, `Content-Length`) are the door's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Response {
    pub(in crate::server) status: u16,
    /// `Name: value\r\n`, any number of times.
    pub(in crate::server) raw_headers: String,
    /// The length that the reply speaks of; a reply to HEAD has it without the body.
    pub(in crate::server) content_length: usize,
    pub(in crate::server) body: Vec<u8>,
    /// For the operator: why it failed. Never sent.
    pub(in crate::server) cause: Option<String>,
}

impl Method {
    /// Reads a method's name, which is case-sensitive.
    pub(in crate::server) fn from_name(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }

    /// The name; the unknown ones share a name that no route allows.
    pub(in crate::server) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }
}

impl Request {
    /// One without a query, fields and body.
    pub(in crate::server) fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
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

    /// The fields that count, by their names: these go on from the door to the api, and no others.
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

impl Response {
    /// What marks a reply that the door may send again as it is.
    pub(in crate::server) const CACHE_CONTROL_IMMUTABLE: &'static str = "public, max-age=31536000, immutable";

    pub(in crate::server) fn new(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self { content_length: body.len(), body, ..Self::empty(status) }.with_header("Content-Type", content_type)
    }

    pub(in crate::server) const fn empty(status: u16) -> Self {
        Self { status, raw_headers: String::new(), content_length: 0, body: Vec::new(), cause: None }
    }

    pub(in crate::server) fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, "application/json", body)
    }

    pub(in crate::server) fn error(status: u16, message: &str) -> Self {
        Self::json(status, json::single_field_object("err_msg", message))
    }

    /// Adds a field. `name` and `value` are of the server's own making: they hold no line end.
    pub(in crate::server) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.raw_headers.reserve(name.len() + value.len() + 4);
        for part in [name, ": ", value, "\r\n"] {
            self.raw_headers.push_str(part);
        }
        self
    }

    pub(in crate::server) fn with_cause(self, cause: impl Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    /// The fields, taken apart again.
    pub(in crate::server) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.raw_headers.split_terminator("\r\n").filter_map(|line| line.split_once(": "))
    }

    /// Whether it may be sent again as it is.
    pub(in crate::server) fn is_immutable(&self) -> bool {
        self.status == 200 && self.headers().any(|field| field == ("Cache-Control", Self::CACHE_CONTROL_IMMUTABLE))
    }
}
