//! Options of a server, independent of the command line.

use std::path::PathBuf;
use std::time::Duration;

use super::access_log::Format as LogFormat;
use super::auth::scopes::Scopes;
use super::limits::Limits;
use super::log::LogLevel;

/// Options of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Addresses to listen on, as `ADDRESS:PORT`; at least one.
    pub listen: Vec<String>,
    /// TLS mode of the public endpoint.
    pub tls: Tls,
    /// Authorities in PEM that must have signed a client's certificate; `None`: no client certificate is required.
    pub client_ca: Option<PathBuf>,
    /// Path of the [token file](super::auth::token_file); `None`: clients are anonymous.
    pub token_file: Option<PathBuf>,
    /// Path of the local Unix socket. Clients that can connect to it get all scopes. Created after the store is opened.
    pub local_socket: Option<PathBuf>,
    /// Maximum length of a message in bytes.
    pub max_message: u64,
    /// Address of the metrics endpoint, over plain HTTP; `None`: the public endpoint serves the metrics.
    pub metrics_listen: Option<String>,
    /// Least severe events that are reported on stderr.
    pub log_level: LogLevel,
    /// Format of the access log; `None`: no access log.
    pub access_log_format: Option<LogFormat>,
    /// Path of the access log; `None`: stderr.
    pub access_log: Option<PathBuf>,
    /// Scopes that the server offers. Operations outside of them are disabled for all clients.
    pub enabled_scopes: Scopes,
    /// Serve the web page.
    pub ui_enabled: bool,
    /// Limits of requests and connections.
    pub limits: Limits,
    /// Size of the hot cache in bytes; 0 disables it.
    pub cache_size: u64,
    /// Interval of the background verification; `None`: no verification.
    pub scrub_interval: Option<Duration>,
    /// Maximum time that requests in flight get to finish on shutdown.
    pub drain_timeout: Duration,
}

/// TLS mode of the public endpoint.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// HTTPS with a certificate and key in PEM files.
    Files {
        /// Path of the certificate chain.
        cert: PathBuf,
        /// Path of the key; `None`: the key is in the file of the chain.
        key: Option<PathBuf>,
    },
    /// HTTPS with a self-signed certificate in this directory, created if it does not exist.
    SelfSigned(PathBuf),
}
