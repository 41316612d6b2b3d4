//! `has` tells by its exit code whether all are stored, and prints those that are not.

use crate::common::{FOO, Sandbox, digest};

#[test]
fn has_exits_0_if_all_are_stored_and_prints_nothing() {
    let sandbox = Sandbox::with_messages(&[b"foo", b""]);
    sandbox.sha_api(["has", FOO, &digest(b"")]).assert().code(0).stdout("").stderr("");
    sandbox.sha_api(["has", "-"]).write_stdin("").assert().code(0).stdout("").stderr("");
}

#[test]
fn has_exits_1_and_prints_the_absent_ones_in_order() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let (one, two) = (digest(b"1"), digest(b"2"));
    sandbox.sha_api(["has", &two, FOO, &one]).assert().code(1).stdout(format!("{two}\n{one}\n")).stderr("");
    let stdin = format!("{two}\n{FOO}\n{one}\n");
    sandbox.sha_api(["has", "-"]).write_stdin(stdin).assert().code(1).stdout(format!("{two}\n{one}\n")).stderr("");
    sandbox.sha_api(["has", "--quiet", &two]).assert().code(1).stdout("").stderr("");
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
    has.code(2)
        .stdout("")
        .stderr(format!("sha-api: `{}` is no digest: a digest has 64 hex digits, this has 8\n", &FOO[..8]));
}
