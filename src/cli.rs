//! The command line: clap types and help lines, nothing else. `man/` and `completions/` are made from it.

#![allow(clippy::struct_excessive_bools, reason = "a switch is a bool")]
#![allow(missing_docs, reason = "the doc comments here are the help texts")]

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use humantime::Duration;

use crate::client::{self, Address};
use crate::digest::{Digest, Prefix};
use crate::server::{Network, Scopes};

/// Keep messages by their SHA-256.
///
/// A message goes in, its digest comes out; the digest goes in, the very same bytes come out.
#[derive(Debug, Parser)]
#[command(name = "sha-api", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 absent, 2 usage, 3 I/O, network or store, 4 corrupt, 5 not permitted.")]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the messages are: a directory, or the URL of a PostgreSQL database [default: $XDG_DATA_HOME/sha-api]
    #[arg(long, global = true, value_name = "LOCATION", value_hint = ValueHint::DirPath)]
    pub store: Option<Location>,
    /// Where a server has the messages: https://HOST:PORT, http://HOST:PORT or unix:PATH; the next is tried if one does not answer [repeatable]
    #[arg(long, global = true, value_name = "URL", value_hint = ValueHint::Url, value_delimiter = ',')]
    pub server: Vec<Address>,
    /// The authorities that vouch for servers, PEM [default: those of the system]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cacert: Option<PathBuf>,
    /// Our certificate chain, for a server that asks for one, PEM
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,
    /// Its private key, PEM [default: in the certificate's file]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// For how long a server may say nothing
    #[arg(long, global = true, value_name = "TIME", default_value = "60s")]
    pub timeout: Duration,
    /// Settings, as TOML: the keys are the long flags [default: $XDG_CONFIG_HOME/sha-api/config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Print every result and every error as one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress bar and no notes; `has` prints nothing
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// How long to wait for a store that another process holds, or for a server to be ready
    #[arg(long, global = true, value_name = "TIME", default_value = "10s")]
    pub wait: Duration,
    /// The longest message that is taken
    #[arg(long, global = true, value_name = "SIZE", default_value = "64MiB")]
    pub max_message: ByteSize,
    /// Memory for the pages of the index
    #[arg(long, global = true, value_name = "SIZE", default_value = "128MiB")]
    pub index_cache: ByteSize,
    /// How long the files of the log grow; a compaction needs room for one of them
    #[arg(long, global = true, value_name = "SIZE", default_value = "1GiB")]
    pub segment_size: ByteSize,
    /// How hard to compress what is put, as a level of zstd from 1 to 19; what does not shrink is left as it is
    #[arg(long, global = true, value_name = "LEVEL", default_value = "none")]
    pub compression: Compression,
    /// Connections to a database at a time
    #[arg(long, global = true, value_name = "COUNT", default_value_t = 16)]
    pub pool_size: usize,
    /// How long to wait for a connection to a database
    #[arg(long, global = true, value_name = "TIME", default_value = "5s")]
    pub connect_timeout: Duration,
    /// How long a database may work on one statement; 0s: for ever
    #[arg(long, global = true, value_name = "TIME", default_value = "60s")]
    pub statement_timeout: Duration,
    /// Who we are to a server; no flag, since other users of the machine see those.
    #[arg(skip)]
    pub token: Option<client::Token>,
    /// The name of the command, for who finds the store held.
    #[arg(skip)]
    pub verb: String,
}

/// A directory, or a URL. That of a database may hold a password, so it is never shown as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(pub OsString);

impl From<OsString> for Location {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::database::public(&self.0.to_string_lossy()))
    }
}

/// `none`, or a level of zstd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression(Option<u8>);

impl Compression {
    /// The level; `None` compresses nothing.
    pub fn level(self) -> Option<i32> {
        self.0.map(i32::from)
    }
}

impl std::str::FromStr for Compression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(level @ 1..=19) => Ok(Self(Some(level))),
            _ if text == "none" => Ok(Self(None)),
            _ => Err("it is `none`, or a level from 1 to 19"),
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Put(Put),
    Get(Get),
    Has(Has),
    List(List),
    Rm(Rm),
    Stats(Stats),
    Verify(Verify),
    Export(Export),
    Import(Import),
    Copy(Copy),
    Serve(Box<Serve>),
    Health(Health),
    Token(Token),
    Man(Man),
    Completions(Completions),
}

/// Store messages and print their digests
///
/// A digest is printed only once its message is safe on disk. `put foo` prints what `printf %s foo | sha256sum` does.
#[derive(Debug, Args)]
pub struct Put {
    /// The message; none or `-`: all of stdin, the exact bytes
    #[arg(conflicts_with_all = ["file", "lines", "null"], allow_hyphen_values = false)]
    pub message: Option<OsString>,
    /// Each FILE is one message; prints lines that `sha256sum -c` can check
    #[arg(long, short, num_args = 1.., value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["lines", "null"])]
    pub file: Vec<PathBuf>,
    /// Each line of stdin is one message, without its newline
    #[arg(long, short, conflicts_with = "null")]
    pub lines: bool,
    /// Each NUL-ended record of stdin is one message, without its NUL
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Print the messages of digests
///
/// The exact bytes, one message after the other. Exits with 1 if any is absent.
#[derive(Debug, Args)]
pub struct Get {
    /// Digests, or unique prefixes of at least 8 hex digits; `-`: from stdin, one a line
    #[arg(required_unless_present_any = ["lines", "null"], value_name = "DIGEST")]
    pub digests: Vec<String>,
    /// Write to FILE instead of stdout, whole or not at all
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// End each message with a newline; without digests, read them from stdin
    #[arg(long, short, conflicts_with = "null")]
    pub lines: bool,
    /// End each message with a NUL; without digests, read them from stdin
    #[arg(long, short = '0')]
    pub null: bool,
}

/// Tell whether digests are stored
///
/// Exits with 0 if all are; else with 1, printing the absent ones.
#[derive(Debug, Args)]
pub struct Has {
    /// Digests; `-`: from stdin, one a line
    #[arg(required = true, value_name = "DIGEST")]
    pub digests: Vec<String>,
}

/// Remove messages
///
/// Their space is used again. Exits with 1 if any was absent.
#[derive(Debug, Args)]
pub struct Rm {
    /// Digests; `-`: from stdin, one a line
    #[arg(required = true, value_name = "DIGEST")]
    pub digests: Vec<String>,
}

/// Read everything and hash it again
///
/// Prints what is wrong, and exits with 4 if there is anything.
#[derive(Debug, Args)]
pub struct Verify {
    /// Move what is corrupt into quarantine, and make the index anew if it does not fit the log
    #[arg(long)]
    pub repair: bool,
    /// Where to fetch messages from that are corrupt or lost here
    #[arg(long, value_name = "LOCATION", requires = "repair", value_hint = ValueHint::DirPath)]
    pub from: Option<Location>,
}

/// Write all messages as JSON, one a line
///
/// In the order of their digests: {"digest", "message"}, or "base64" in place of "message" where it is not UTF-8.
#[derive(Debug, Args)]
pub struct Export {
    /// Where to, whole or not at all, compressed if it ends in .zst; none or `-`: stdout
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// Store the messages that `export` wrote
///
/// Each must hash to its digest. What is stored already is passed over, so an import that was broken off can be begun
/// again.
#[derive(Debug, Args)]
pub struct Import {
    /// Where from; none or `-`: stdin. It may be compressed with zstd
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Stop at the first bad line
    #[arg(long)]
    pub strict: bool,
}

/// Bring one store up to date with another
///
/// Only what is missing is sent, and all of it is verified on the way. Nothing is removed.
#[derive(Debug, Args)]
pub struct Copy {
    /// Where the messages are
    #[arg(value_hint = ValueHint::DirPath)]
    pub from: Location,
    /// Where they shall be, too
    #[arg(value_hint = ValueHint::DirPath)]
    pub to: Location,
}

/// Print the digests of all that is stored, in order
#[derive(Debug, Args)]
pub struct List {
    /// Only digests after this one
    #[arg(long, value_name = "DIGEST")]
    pub after: Option<Digest>,
    /// At most so many
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<u64>,
    /// Only digests that begin with these hex digits
    #[arg(long, value_name = "HEX")]
    pub prefix: Option<Prefix>,
    /// Also the length in bytes, and when it was stored
    #[arg(long)]
    pub long: bool,
}

/// Count what is stored
#[derive(Debug, Args)]
pub struct Stats {}

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
    pub log_file: Option<PathBuf>,
    /// Write down each request so, on stderr if there is no --log-file [default with --log-file: combined]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
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
    pub trusted_proxy: Vec<Network>,
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

/// Print the manual page, as roff
///
/// With --dir, write the pages of all commands there.
#[derive(Debug, Args)]
pub struct Man {
    /// Write sha-api.1 and a page a command into DIR
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// Print the completions for a shell
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    pub shell: Shell,
}
