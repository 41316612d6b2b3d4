//! A store that format version 1 has written opens and reads. `tests/golden/store-1` was written with
//! `--segment-size 1KiB`: three messages, one of them compressed, and a removal in the second segment.

use std::fs;
use std::path::Path;

use predicates::prelude::*;

use crate::common::{Sandbox, digest};

#[test]
fn a_store_of_format_1_is_verified_and_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store-1");
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.store().join("log")).unwrap();
    for name in ["format", "log/00000001.log", "log/00000002.log"] {
        fs::copy(golden.join(name), sandbox.store().join(name)).unwrap();
    }
    let whole = "3 messages, 1843 bytes: whole\n";
    sandbox.sha_api(["verify"]).assert().code(0).stdout(whole).stderr("");
    let text = "to be or not to be ".repeat(60);
    for message in ["one", &text] {
        sandbox.sha_api(["get", &digest(message.as_bytes())]).assert().code(0).stdout(message.to_owned());
    }
    let incompressible = "fd4493e7125ad5b66414638092703e4aee3a9c5604368fc8ab8aab244586f2f6";
    let is_complete = predicate::function(|bytes: &[u8]| digest(bytes) == incompressible);
    sandbox.sha_api(["get", incompressible]).assert().code(0).stdout(is_complete);
    sandbox.sha_api(["get", &digest(b"removed")]).assert().code(1).stdout("");
}
