//! Any bytes to the request parser: it answers or refuses, the same however they come in pieces, and never panics.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sha_api::server::check_parser(bytes));
