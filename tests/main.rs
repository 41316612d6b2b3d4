//! The promises, one file each, tested from outside on the built binary.

#![allow(clippy::unwrap_used, reason = "a test says by panicking what went wrong")]

mod common;

mod hostile;
mod serve;
