//! Fuzz target: arbitrary bytes as pages of the index. The decoders must not panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sha_api::store::check_index(bytes));
