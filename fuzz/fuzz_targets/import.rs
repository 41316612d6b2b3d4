//! Fuzz target: arbitrary bytes as the input of `import`. The parser must not panic, and its result must not depend on
//! how the input is split.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sha_api::commands::check_import(bytes));
