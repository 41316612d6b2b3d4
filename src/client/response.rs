//! Responses of a server, and the conversion of an unexpected status into an error.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::HeaderMap;

use crate::message_store::Error;

/// Maximum pause in seconds before a request is sent again, even if `Retry-After` is longer.
const MAX_RETRY_AFTER_SECS: u64 = 5;

/// One response of the HTTP API.
pub(super) struct ApiResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) headers: HeaderMap,
    /// URL of the server, for error messages.
    pub(super) server: String,
    /// Store directory, or URL of the server, for [`Error::NoSpace`].
    pub(super) store: PathBuf,
}

impl ApiResponse {
    /// Returns the value of a header field if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the error message in the body, if there is one.
    pub(super) fn err_msg(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct ErrorBody {
            err_msg: String,
        }
        Some(serde_json::from_slice::<ErrorBody>(&self.body).ok()?.err_msg)
    }

    /// Returns the response if its status is 2xx, otherwise an error.
    pub(super) fn error_for_status(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.to_error()) }
    }

    /// Converts the status and the error message of the server into an error.
    pub(super) fn to_error(&self) -> Error {
        let err_msg = self.err_msg();
        let err_msg = err_msg.as_deref();
        match self.status {
            401 | 403 | 405 => Error::NotPermitted {
                server: self.server.clone(),
                cause: err_msg.unwrap_or("no reason given").to_owned(),
            },
            300..=399 => {
                let target = self.header("Location").unwrap_or("another location");
                self.server_error(format!("unexpected redirect to {target}: redirects are not followed; check the URL"))
            }
            507 => Error::NoSpace(self.store.clone()),
            503 if err_msg == Some("Writing has stopped") => Error::WriteFailed("see the stderr of the server".into()),
            500 => self.server_error("internal server error (500); see the stderr of the server"),
            status => self.server_error(err_msg.map_or_else(|| format!("unexpected status {status}"), str::to_owned)),
        }
    }

    /// Creates the error for a response that does not fit the request or the API.
    pub(super) fn invalid_response(&self, cause: &dyn Display) -> Error {
        self.server_error(format!("invalid response: {cause}"))
    }

    /// Creates an error that names this server.
    pub(super) fn server_error(&self, cause: impl Into<String>) -> Error {
        Error::Server { server: self.server.clone(), cause: cause.into() }
    }

    /// Returns the pause before the request is sent again, if the server answered 503 with `Retry-After`.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.header("Retry-After").filter(|_| self.status == 503)?.parse().ok()?;
        Some(Duration::from_secs(seconds.clamp(1, MAX_RETRY_AFTER_SECS)))
    }
}
