//! Fuzz target: arbitrary bytes as input of the request parser. It must not panic, and its result must not depend on
//! how the input is split.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sha_api::server::check_parser(bytes));
