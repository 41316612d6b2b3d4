//! The promises, one file each, tested from outside on the built binary.

mod common;
