//! Fuzz target: arbitrary bytes as a segment of the log. A scan must not panic and must find valid records only.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sha_api::store::check_log(bytes));
