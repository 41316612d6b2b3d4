//! Fuzz target: arbitrary bytes as a token file. The parser must not panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sha_api::server::check_token_file(bytes));
