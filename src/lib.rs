//! `sha-api` keeps messages by their SHA-256. The rooms, from the door inwards; arrows point down only.
//!
//! The program is the product; the library is public so that the program's tests and benches can reach its rooms.

pub mod cli;
pub mod config;

pub mod commands;

pub mod location;
pub mod server;

pub mod client;

pub mod message_store;
pub mod store;

pub mod digest;
pub mod fs;
pub mod json_message;
pub mod pem;
pub mod postgres_url;
pub mod random;
pub mod sandbox;
pub mod unix_path;

#[cfg(test)]
mod testing;
