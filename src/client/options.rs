//! Options of a client, and the access token, which is never printed.

use std::fmt;
use std::time::Duration;

use super::tls::TlsOptions;

/// Options of a client.
#[derive(Debug, Clone)]
pub struct Options {
    /// Trusted CAs and client certificate.
    pub tls: TlsOptions,
    /// Bearer token, sent with each request.
    pub token: Option<Token>,
    /// Maximum time without data from the server.
    pub read_timeout: Duration,
    /// Time during which requests to a server that is not ready are repeated.
    pub ready_timeout: Duration,
    /// Maximum length of a message to send, in bytes.
    pub max_message: u64,
}

/// A bearer token. Its `Debug` form does not contain the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}
