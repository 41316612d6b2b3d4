//! The common options, which several commands share, and the types of their values. `groups.rs` lists those of each
//! command.

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueHint};
use humantime::Duration;

use crate::client::{self, Address};

/// Values of the options that several commands share.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Settings file, TOML [default: $XDG_CONFIG_HOME/sha-api/config.toml]
    ///
    /// The keys are the long names of the options without the dashes. The default file may be absent.
    #[arg(long, global = true, display_order = 900, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreOptions,
    #[command(flatten)]
    pub connection: ConnectionOptions,
    #[command(flatten)]
    pub output: OutputOptions,
    #[command(flatten)]
    pub database: DatabaseOptions,
    /// Name of the command. It is shown to processes that wait for the lock of the store.
    #[arg(skip)]
    pub command_name: String,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreOptions {
    /// Store directory, or URL of a database [default: $XDG_DATA_HOME/sha-api]
    #[arg(id = "store", long = "store", global = true, value_name = "LOCATION", value_hint = ValueHint::DirPath)]
    pub location: Option<Location>,
    /// Time to wait for a store that another process has locked
    #[arg(long, global = true, value_name = "TIME", default_value = "10s")]
    pub lock_timeout: Duration,
    /// Maximum size of a message
    #[arg(long, global = true, value_name = "SIZE", default_value = "64MiB")]
    pub max_message: ByteSize,
    /// Compression of new messages: none, or zstd level 1 to 19
    ///
    /// A message that does not shrink is stored uncompressed.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "none")]
    pub compression: Compression,
    /// Memory for pages of the index
    #[arg(long, global = true, value_name = "SIZE", default_value = "128MiB", hide_short_help = true)]
    pub index_cache: ByteSize,
    /// Maximum size of a log segment
    ///
    /// Compaction needs free disk space for one segment.
    #[arg(long, global = true, value_name = "SIZE", default_value = "1GiB", hide_short_help = true)]
    pub segment_size: ByteSize,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server connection")]
pub struct ConnectionOptions {
    /// Server to use instead of a store [repeatable]
    ///
    /// A URL is https://HOST:PORT, http://HOST:PORT or unix:PATH. If a server does not answer, the next one is asked.
    #[arg(
        id = "server",
        long = "server",
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        value_hint = ValueHint::Url
    )]
    pub servers: Vec<Address>,
    /// CA certificates for servers, PEM [default: those of the system]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cacert: Option<PathBuf>,
    /// Client certificate chain, PEM
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub cert: Option<PathBuf>,
    /// Private key of the certificate, PEM [default: in the --cert file]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Read timeout for server responses
    #[arg(long, global = true, value_name = "TIME", default_value = "60s")]
    pub read_timeout: Duration,
    /// Time to wait for a server or database that is not ready
    #[arg(long, global = true, value_name = "TIME", default_value = "10s")]
    pub ready_timeout: Duration,
    /// Access token for servers. It has no option, because other users of the machine can see arguments.
    #[arg(skip)]
    pub token: Option<client::Token>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Print each result and each error as one JSON object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress bar and no notes; `has` prints nothing
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "PostgreSQL")]
pub struct DatabaseOptions {
    /// Maximum number of connections to the database
    #[arg(
        id = "db_pool_size",
        long = "db-pool-size",
        global = true,
        value_name = "COUNT",
        default_value_t = 16,
        hide_short_help = true
    )]
    pub pool_size: usize,
    /// Time to wait for a connection to the database
    #[arg(
        id = "db_connect_timeout",
        long = "db-connect-timeout",
        global = true,
        value_name = "TIME",
        default_value = "5s",
        hide_short_help = true
    )]
    pub connect_timeout: Duration,
    /// Maximum duration of a database statement; 0s: no limit
    #[arg(
        id = "db_statement_timeout",
        long = "db-statement-timeout",
        global = true,
        value_name = "TIME",
        default_value = "60s",
        hide_short_help = true
    )]
    pub statement_timeout: Duration,
}

/// A directory or a URL. `Debug` hides the password of a database URL.
#[derive(Clone, PartialEq, Eq)]
pub struct Location(pub OsString);

impl From<OsString> for Location {
    fn from(text: OsString) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::postgres_url::redacted(&self.0.to_string_lossy()))
    }
}

/// Compression of new messages: none, or a zstd level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression(Option<u8>);

impl Compression {
    /// Highest zstd level that is accepted.
    pub const MAX_LEVEL: u8 = 19;

    /// Returns the zstd level; `None` disables compression.
    pub fn level(self) -> Option<i32> {
        self.0.map(i32::from)
    }
}

impl std::str::FromStr for Compression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(level @ 1..=Self::MAX_LEVEL) => Ok(Self(Some(level))),
            _ if text == "none" => Ok(Self(None)),
            _ => Err("not `none` or a level from 1 to 19"),
        }
    }
}
