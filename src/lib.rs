//! `sha-api` stores messages by their SHA-256. The modules are listed from the outermost to the innermost; a module
//! imports only modules in lower groups.
//!
//! The product is the program. The library is public only for its integration tests and benchmarks.

pub mod commands;

pub mod location;

pub mod config;

pub mod cli;

pub mod client;
pub mod server;
pub mod store;

pub mod pem;

pub mod message_store;

pub mod json_message;

pub mod digest;
pub mod fs;
pub mod postgres_url;
pub mod random;
pub mod sandbox;
pub mod unix_path;

#[cfg(test)]
mod testing;
