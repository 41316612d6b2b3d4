//! What came back, and the error that it stands for: what a status means is decided here alone.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::HeaderMap;

use crate::message_store::Error;

/// The longest pause before a server is asked again, in seconds.
const MAX_RETRY_AFTER_SECS: u64 = 5;

/// What came back.
pub(super) struct ApiResponse {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) headers: HeaderMap,
    /// Who says it.
    pub(super) server: String,
    /// Where its messages are, for people.
    pub(super) store: PathBuf,
}

impl ApiResponse {
    /// The text of a field.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What the server says went wrong.
    pub(super) fn err_msg(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct ErrorBody {
            err_msg: String,
        }
        Some(serde_json::from_slice::<ErrorBody>(&self.body).ok()?.err_msg)
    }

    /// Itself, if what was asked was done.
    pub(super) fn error_for_status(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) { Ok(self) } else { Err(self.to_error()) }
    }

    /// The error that the status stands for.
    pub(super) fn to_error(&self) -> Error {
        let said = self.err_msg();
        let said = said.as_deref();
        match self.status {
            401 | 403 | 405 => Error::NotPermitted {
                server: self.server.clone(),
                cause: said.unwrap_or("no reason is given").to_owned(),
            },
            300..=399 => {
                let to = self.header("Location").unwrap_or("somewhere else");
                self.server_error(format!("it refers to {to}, which is not followed"))
            }
            507 => Error::NoSpace(self.store.clone()),
            503 if said == Some("Writing has stopped") => {
                Error::WriteFailed("the server has said why on its stderr".into())
            }
            500 => self.server_error("it has failed, and has said why on its stderr"),
            status => self.server_error(said.map_or_else(|| format!("it answers with status {status}"), str::to_owned)),
        }
    }

    /// The error that this is no answer.
    pub(super) fn invalid_response(&self, why: &dyn Display) -> Error {
        self.server_error(format!("its answer makes no sense: {why}"))
    }

    /// An error of this server.
    pub(super) fn server_error(&self, why: impl Into<String>) -> Error {
        Error::Server { server: self.server.clone(), cause: why.into() }
    }

    /// How long to leave a server alone that is not ready yet.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.header("Retry-After").filter(|_| self.status == 503)?.parse().ok()?;
        Some(Duration::from_secs(seconds.clamp(1, MAX_RETRY_AFTER_SECS)))
    }
}
