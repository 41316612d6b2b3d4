//! `serve` and the commands for the operator of a server: `health`, `token`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum, ValueHint};
use humantime::Duration;

use crate::client::Address;
use crate::server::{IpNet, Scopes};

/// Serve the store over HTTPS
///
/// `listening on URL` is printed once connections are accepted. SIGTERM and SIGINT shut the server down cleanly.
#[derive(Debug, Args)]
pub struct Serve {
    /// Listen address; port 0: any free port [repeatable]
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Serve plain HTTP, for use behind a proxy that terminates TLS
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub http: bool,
    /// Certificate chain, PEM [default: self-signed, created in the store]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM [default: in the file of --tls-cert]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Require client certificates signed by a CA in FILE (PEM)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "http")]
    pub tls_client_ca: Option<PathBuf>,
    /// Access tokens, made by `sha-api token` [default: anonymous read and write]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// Serve /metrics on this address over plain HTTP, without authentication
    ///
    /// Without this option, /metrics is served on the addresses of --listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,
    /// Access log file, one line per request; SIGHUP reopens it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub access_log: Option<PathBuf>,
    /// Access log format; written to stderr without --access-log
    ///
    /// The default with --access-log is `combined`.
    #[arg(long, value_name = "FORMAT")]
    pub access_log_format: Option<LogFormat>,
    /// Least severe events reported on stderr
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Print each setting, its value and its origin, and exit
    #[arg(long)]
    pub check: bool,
    /// Cache messages that pass to and from this server [repeatable]
    ///
    /// Several URLs must name servers of the same messages.
    #[arg(long, value_name = "URL", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub upstream: Vec<Address>,
    /// Disable storing and removing
    #[arg(long, conflicts_with = "append_only")]
    pub read_only: bool,
    /// Disable removing
    #[arg(long)]
    pub append_only: bool,
    /// Disable the web page at /
    #[arg(long)]
    pub no_ui: bool,
    /// Maximum size of a request body
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub max_body: ByteSize,
    /// Maximum number of concurrent connections
    ///
    /// Further connections get status 503.
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    pub max_connections: usize,
    /// Maximum number of concurrent connections per client address
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub max_connections_per_address: usize,
    /// Trust X-Forwarded-For from this address or network [repeatable]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub trusted_proxy: Vec<IpNet>,
    /// Maximum number of requests per connection
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub max_requests: u64,
    /// Memory for cached responses; 0 disables the cache
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub cache_size: ByteSize,
    /// Time limit for a TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub handshake_timeout: Duration,
    /// Time limit for a request head, from its first byte
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub head_timeout: Duration,
    /// Time limit for a request body, extended at --min-rate
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub body_timeout: Duration,
    /// Time limit for sending a response, extended at --min-rate
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub write_timeout: Duration,
    /// Minimum rate of bodies and responses, per second
    #[arg(long, value_name = "SIZE", default_value = "240B")]
    pub min_rate: ByteSize,
    /// Maximum idle time of a connection between requests
    #[arg(long, value_name = "TIME", default_value = "15s")]
    pub idle_timeout: Duration,
    /// Interval of background verification of the whole store [default: never]
    #[arg(long, value_name = "TIME")]
    pub scrub_interval: Option<Duration>,
    /// Time limit for requests in flight at shutdown
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    Combined,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// Check whether a server is ready
///
/// The exit status is 0 if it is ready. For health checks of containers and load balancers.
#[derive(Debug, Args)]
pub struct Health {
    /// URL of the server [default: the first address of --listen]
    ///
    /// The certificate of a server on this machine is not verified without --cacert.
    pub url: Option<String>,
    /// Listen address of the server, as for `serve`
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Use plain HTTP instead of HTTPS
    #[arg(long)]
    pub http: bool,
}

/// Create an access token for a server
///
/// The token is printed once. The token file holds only its SHA-256.
#[derive(Debug, Args)]
pub struct Token {
    /// Name of the token
    pub name: String,
    /// Scopes of the token: read, write, list and rm, separated by commas
    #[arg(long, value_name = "SCOPES")]
    pub scope: Scopes,
    /// Token file; created if absent
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: PathBuf,
}
