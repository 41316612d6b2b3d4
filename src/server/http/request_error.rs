//! Rejection of a request by the codec.

use crate::server::api::Response;

/// Rejection of a request. The bytes that follow the request on the connection must not be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestError {
    pub(super) status: u16,
    pub(super) message: &'static str,
}

impl RequestError {
    pub(super) const fn new(status: u16, message: &'static str) -> Self {
        Self { status, message }
    }

    pub(super) const fn bad_request(message: &'static str) -> Self {
        Self::new(400, message)
    }
}

impl From<RequestError> for Response {
    fn from(error: RequestError) -> Self {
        Self::error(error.status, error.message)
    }
}
