//! `serve`, and the verbs for who looks after a server.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum, ValueHint};
use humantime::Duration;

use crate::client::Address;
use crate::server::{IpNet, Scopes};

/// Serve the store over HTTPS
///
/// Prints `listening on URL` once it accepts connections. SIGTERM and SIGINT end it cleanly.
#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen; port 0 picks a free one [repeatable]
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// Plain HTTP, for use behind a proxy that does TLS
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub http: bool,
    /// The certificate chain, PEM [default: a self-signed one, made once in the store]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub tls_cert: Option<PathBuf>,
    /// The private key, PEM [default: in the certificate's file]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Let in only who has a certificate from an authority in FILE, PEM
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "http")]
    pub tls_client_ca: Option<PathBuf>,
    /// Who may do what: a token a line, made by `sha-api token` [default: everyone reads and writes]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
    /// Where /metrics is shown, in plain HTTP, to who needs no token [default: where the messages are]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<String>,
    /// Write down each request in FILE; SIGHUP opens it anew
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub access_log: Option<PathBuf>,
    /// Write down each request so, on stderr if there is no --access-log [default with --access-log: combined]
    #[arg(long, value_name = "FORMAT")]
    pub access_log_format: Option<LogFormat>,
    /// Print each setting, its value and where that comes from, and serve nothing
    #[arg(long)]
    pub check: bool,
    /// Keep near what passes from and to this server; several URLs serve the same [repeatable]
    #[arg(long, value_name = "URL", value_delimiter = ',', value_hint = ValueHint::Url)]
    pub upstream: Vec<Address>,
    /// Take no messages and remove none
    #[arg(long, conflicts_with = "append_only")]
    pub read_only: bool,
    /// Remove no messages
    #[arg(long)]
    pub append_only: bool,
    /// No page for people at /
    #[arg(long)]
    pub no_ui: bool,
    /// The longest request body
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub max_body: ByteSize,
    /// Connections at a time; beyond it 503
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    pub max_connections: usize,
    /// Connections at a time from one address
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    pub max_connections_per_address: usize,
    /// Believe this peer, or any in this network, whose requests it hands on (X-Forwarded-For) [repeatable]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub trusted_proxy: Vec<IpNet>,
    /// Requests on one connection before it is closed
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub max_requests: u64,
    /// Memory for replies that can be sent again as they are
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub cache_size: ByteSize,
    /// For the TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub handshake_timeout: Duration,
    /// For the head of a request, from its first byte
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub head_timeout: Duration,
    /// For the body of a request, and more as long as --min-rate is kept
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub body_timeout: Duration,
    /// For taking the reply, and more as long as --min-rate is kept
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub write_timeout: Duration,
    /// The slowest that a body may come and a reply be taken, a second
    #[arg(long, value_name = "SIZE", default_value = "240B")]
    pub min_rate: ByteSize,
    /// How long a connection may idle between requests
    #[arg(long, value_name = "TIME", default_value = "15s")]
    pub idle_timeout: Duration,
    /// Verify everything so often, gently [default: never]
    #[arg(long, value_name = "TIME")]
    pub scrub_interval: Option<Duration>,
    /// How long requests in flight may take to finish at the end
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub drain_timeout: Duration,
}

/// How the access log is written
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    Combined,
    Json,
}

/// Ask a server whether it is ready
///
/// Exits with 0 if it is. For the health checks of containers.
#[derive(Debug, Args)]
pub struct Health {
    /// Where the server is [default: the first --listen]
    ///
    /// A server on this machine is trusted without --cacert.
    pub url: Option<String>,
    /// Where the server listens, as it was told
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443", value_delimiter = ',')]
    pub listen: Vec<String>,
    /// The server speaks plain HTTP
    #[arg(long)]
    pub http: bool,
}

/// Make a token for `serve`, and print it
///
/// It is printed this once: the token file keeps only its SHA-256.
#[derive(Debug, Args)]
pub struct Token {
    /// What to call it
    pub name: String,
    /// What it permits: some of read, write, list and rm, with commas between
    #[arg(long, value_name = "SCOPES")]
    pub scope: Scopes,
    /// The file to add it to, made if it is not there
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token_file: PathBuf,
}
