//! The promises, one file each, tested from outside on the built binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

mod attacks;
mod compaction;
mod compose;
mod conformance;
mod contract;
mod curl;
mod deb;
mod documented;
mod faults;
mod flat;
mod get;
mod has;
mod hostile;
mod http;
mod image;
mod instances;
mod interop;
mod kept;
mod list;
mod local;
mod matrix;
mod mended;
mod moves;
mod one_at_a_time;
mod operations;
mod page;
mod postgres;
mod proxied;
mod proxies;
mod proxy_variables;
mod put;
mod remote;
mod rights;
mod rm;
mod serve;
mod service;
mod settings;
mod shards;
mod soak;
mod stats;
mod tls;
mod token;
mod upstream;
mod verify;
