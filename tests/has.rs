//! `has` prints the digests that are not stored. The exit code is 0 if all are stored, else 1.

use crate::common::{FOO, Sandbox, digest};

#[test]
fn has_exits_0_if_all_are_stored_and_prints_nothing() {
    let sandbox = Sandbox::with_messages(&[b"foo", b""]);
    sandbox.sha_api(["has", FOO, &digest(b"")]).assert().code(0).stdout("").stderr("");
    sandbox.sha_api(["has", "-"]).write_stdin("").assert().code(0).stdout("").stderr("");
}

#[test]
fn has_exits_1_and_prints_the_absent_digests_in_order() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let (first, second) = (digest(b"1"), digest(b"2"));
    sandbox.sha_api(["has", &second, FOO, &first]).assert().code(1).stdout(format!("{second}\n{first}\n")).stderr("");
    let stdin = format!("{second}\n{FOO}\n{first}\n");
    sandbox.sha_api(["has", "-"]).write_stdin(stdin).assert().code(1).stdout(format!("{second}\n{first}\n")).stderr("");
    sandbox.sha_api(["has", "--quiet", &second]).assert().code(1).stdout("").stderr("");
}

#[test]
fn has_as_json_prints_one_object_per_digest() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let absent = digest(b"1");
    let expected = format!("{{\"digest\":\"{FOO}\",\"stored\":true}}\n{{\"digest\":\"{absent}\",\"stored\":false}}\n");
    sandbox.sha_api(["has", "--json", FOO, &absent]).assert().code(1).stdout(expected).stderr("");
}

#[test]
fn has_rejects_prefixes() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let has = sandbox.sha_api(["has", &FOO[..8]]).assert();
    has.code(2).stdout("").stderr(format!("sha-api: `{}` is not a digest: expected 64 hex digits, got 8\n", &FOO[..8]));
}
