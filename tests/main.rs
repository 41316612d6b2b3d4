//! The promises, one file each, tested from outside on the built binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

mod attacks;
mod conformance;
mod contract;
mod documented;
mod faults;
mod flat;
mod get;
mod has;
mod hostile;
mod kept;
mod list;
mod mended;
mod one_at_a_time;
mod operations;
mod put;
mod rights;
mod serve;
mod settings;
mod soak;
mod stats;
mod tls;
mod token;
