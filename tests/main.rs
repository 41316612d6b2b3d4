//! Integration tests. Each file tests one promise from outside, on the built binary.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

mod attacks;
mod authorization;
mod compaction;
mod completions;
mod compose;
mod conformance;
mod contract;
mod curl;
mod deb;
mod docs;
mod durability;
mod export_import;
mod faults;
mod get;
mod golden;
mod has;
mod hostile;
mod http;
mod image;
mod index_rebuild;
mod instances;
mod interop;
mod list;
mod local_socket;
mod losses;
mod matrix;
mod operations;
mod postgres;
mod proxy_env;
mod put;
mod remote;
mod reverse_proxy;
mod rm;
mod serve;
mod service;
mod settings;
mod shards;
mod soak;
mod stats;
mod store_lock;
mod streaming_memory;
mod tls;
mod token;
mod trusted_proxies;
mod ui;
mod upstream;
mod verify;
