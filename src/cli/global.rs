//! Flags that every command takes, and the values that only they have.

use std::ffi::OsString;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueHint};
use humantime::Duration;

use crate::client::{self, Address};

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
    pub read_timeout: Duration,
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
    pub db_pool_size: usize,
    /// How long to wait for a connection to a database
    #[arg(long, global = true, value_name = "TIME", default_value = "5s")]
    pub db_connect_timeout: Duration,
    /// How long a database may work on one statement; 0s: for ever
    #[arg(long, global = true, value_name = "TIME", default_value = "60s")]
    pub db_statement_timeout: Duration,
    /// Who we are to a server; no flag, since other users of the machine see those.
    #[arg(skip)]
    pub token: Option<client::Token>,
    /// The name of the command, for who finds the store held.
    #[arg(skip)]
    pub command_name: String,
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
        f.write_str(&crate::postgres_url::redacted(&self.0.to_string_lossy()))
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
