//! What the server is told: how to serve, and what connections speak.

use std::path::PathBuf;
use std::time::Duration;

use super::{Limits, LogFormat, Scopes};

/// How to serve.
#[derive(Debug, Clone)]
pub struct Options {
    /// `ADDRESS:PORT`, at least one.
    pub listen: Vec<String>,
    /// What connections speak.
    pub tls: Tls,
    /// Who may connect with TLS: only holders of certificates from the authorities in this file, PEM.
    pub client_ca: Option<PathBuf>,
    /// Who may do what, if not everyone: see [`token_file`](super::token_file).
    pub token_file: Option<PathBuf>,
    /// Where those come who have the store's files anyway, and may do everything: a socket that is made once the store
    /// is open.
    pub local_socket: Option<PathBuf>,
    /// The longest message that the store takes, in bytes.
    pub max_message: u64,
    /// Where the metrics are shown, in plain HTTP, if not where the messages are.
    pub metrics_listen: Option<String>,
    /// How requests are written down, if they are.
    pub access_log_format: Option<LogFormat>,
    /// Where to; `None`: on stderr.
    pub access_log: Option<PathBuf>,
    /// What is done at all.
    pub enabled_scopes: Scopes,
    /// Whether there is a page for people.
    pub ui_enabled: bool,
    /// What is allowed, and how long it may take.
    pub limits: Limits,
    /// Bytes for replies that can be sent again as they are; 0 is none.
    pub cache_size: u64,
    /// How often everything is verified, if it is.
    pub scrub_interval: Option<Duration>,
    /// How long requests in flight may take to finish at the end.
    pub drain_timeout: Duration,
}

/// What connections speak.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// HTTPS with the user's pair, PEM. The key may stand in the certificate's file.
    Files {
        /// The chain.
        cert: PathBuf,
        /// The key; `None`: in the chain's file.
        key: Option<PathBuf>,
    },
    /// HTTPS with a pair made once in this directory.
    SelfSigned(PathBuf),
}
