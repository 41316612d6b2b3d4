//! `get` prints exactly the stored bytes, or nothing.

use predicates::prelude::*;

use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

#[test]
fn get_prints_the_exact_bytes() {
    let messages: [&[u8]; 4] = [b"foo", b"", b"line\n", &[0xff, 0xfe, 0x1b, b'[']];
    let sandbox = Sandbox::with_messages(&messages);
    for message in messages {
        sandbox.sha_api(["get", &digest(message)]).assert().code(0).stdout(message.to_vec()).stderr("");
    }
    sandbox.sha_api(["get", &FOO.to_uppercase()]).assert().code(0).stdout("foo");
}

#[test]
fn get_of_several_digests_prints_the_messages_in_order() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    let digests = [digest(b"bar"), digest(b"foo"), digest(b"bar")];
    sandbox.sha_api(["get"]).args(&digests).assert().code(0).stdout("barfoobar").stderr("");
    sandbox.sha_api(["get", "--lines"]).args(&digests).assert().code(0).stdout("bar\nfoo\nbar\n");
    sandbox.sha_api(["get", "--null"]).args(&digests).assert().code(0).stdout("bar\0foo\0bar\0");
}

#[test]
fn get_of_an_absent_digest_exits_1_and_prints_nothing() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let absent = digest(b"absent");
    let get = sandbox.sha_api(["get", &absent]).assert();
    get.code(1).stdout("").stderr(format!("sha-api: absent: {absent}\n"));
    let get = sandbox.sha_api(["get", &absent, FOO]).assert();
    get.code(1).stdout("foo").stderr(format!("sha-api: absent: {absent}\n"));
    let get = sandbox.sha_api(["get", "--json", &absent]).assert();
    get.code(1).stdout("").stderr(format!("{{\"err_msg\":\"absent: {absent}\"}}\n"));
}

#[test]
fn get_does_not_create_a_missing_store() {
    let sandbox = Sandbox::new();
    let get = sandbox.sha_api(["get", FOO]).assert();
    get.code(3).stdout("").stderr(predicate::str::contains("directory not found; the first put creates it"));
    assert!(!sandbox.store().exists());
}

#[test]
fn a_unique_prefix_of_eight_digits_is_accepted() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    sandbox.sha_api(["get", &FOO[..8]]).assert().code(0).stdout("foo");
    sandbox.sha_api(["get", &FOO[..63].to_uppercase()]).assert().code(0).stdout("foo");
    sandbox.sha_api(["get", "00000000"]).assert().code(1).stdout("").stderr("sha-api: absent: 00000000\n");
}

#[test]
fn an_ambiguous_prefix_is_rejected_with_two_candidates() {
    // Among a million digests, two share a prefix of eight digits (32 bits).
    let mut seen = std::collections::HashMap::new();
    let collision = (0..1_000_000_u32).find_map(|number| {
        let text = digest(number.to_string().as_bytes());
        let previous = seen.insert(text[..8].to_owned(), number)?;
        Some((previous.to_string(), number.to_string(), text))
    });
    let (first, second, text) = collision.unwrap();
    let sandbox = Sandbox::new();
    sandbox.sha_api(["put", "--lines"]).write_stdin(format!("{first}\n{second}\n")).assert().code(0);
    let candidates =
        predicate::str::contains(digest(first.as_bytes())).and(predicate::str::contains(digest(second.as_bytes())));
    sandbox.sha_api(["get", &text[..8]]).assert().code(2).stdout("").stderr(candidates);
    sandbox.sha_api(["get", &text]).assert().code(0).stdout(second);
}

#[test]
fn an_invalid_digest_is_a_usage_error_that_names_it() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    for bad in ["xyz", "2c26", "", &format!("{FOO}0"), "../../etc/passwd"] {
        let get = sandbox.sha_api(["get", "--", bad]).assert();
        get.code(2).stdout("").stderr(predicate::str::contains(format!("`{bad}` is not a digest")));
    }
}

#[test]
fn get_reads_digests_from_stdin() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    let digests = format!("{FOO}\n  {}  \r\n", digest(b"bar"));
    for arguments in [&["get", "-", "--lines"][..], &["get", "--lines"], &["get", "--lines", "-"]] {
        sandbox.sha_api(arguments).write_stdin(digests.clone()).assert().code(0).stdout("foo\nbar\n").stderr("");
    }
}

#[test]
fn an_invalid_line_on_stdin_stops_get_and_is_named() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let get = sandbox.sha_api(["get", "-"]).write_stdin(format!("{FOO}\nnonsense\n{FOO}\n")).assert();
    get.code(2).stdout("foo").stderr("sha-api: line 2 of stdin is not a digest: `nonsense`\n");
}

#[test]
fn put_lines_and_get_lines_round_trip() {
    let sandbox = Sandbox::new();
    let output = sandbox.run_shell(
        "seq 20000 | sha-api put --lines > digests
        sha-api get --lines < digests | cmp - <(seq 20000)",
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn commands_in_one_pipeline_do_not_deadlock_on_the_store() {
    let sandbox = Sandbox::new();
    for _ in 0..10 {
        let output = sandbox.run_shell("sha-api put foo | sha-api get - | sha-api put | sha-api has -");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let output = sandbox.run_shell("sha-api put foo | sha-api get --lines | sha-api put --lines | sha-api get -");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "foo", "{output:?}");
    }
}

#[test]
fn the_output_file_is_written_atomically() {
    let message = pseudorandom_bytes(100_000, 5);
    let sandbox = Sandbox::new();
    let source = sandbox.write_file("source", &message);
    sandbox.sha_api(["put", "--file"]).arg(source).assert().code(0);
    let target = sandbox.dir().join("target");
    sandbox.sha_api(["get", &digest(&message), "-o"]).arg(&target).assert().code(0).stdout("").stderr("");
    assert_eq!(std::fs::read(&target).unwrap(), message);
    sandbox.sha_api(["get", &digest(&message), FOO, "-o"]).arg(&target).assert().code(1).stdout("");
    assert_eq!(std::fs::read(&target).unwrap(), message);
    sandbox.sha_api(["get", FOO, "-o"]).arg(sandbox.dir().join("other")).assert().code(1).stdout("");
    assert!(!sandbox.dir().join("other").exists());
    sandbox.sha_api(["get", &digest(&message), "-o", "/dev/null"]).assert().code(0);
    let failed = sandbox.sha_api(["get", &digest(&message), "-o", "/no/such/dir/file"]).assert();
    failed.code(3).stderr(predicate::str::contains("/no/such/dir/file"));
}

#[test]
fn json_has_utf8_as_text_and_other_bytes_as_base64() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"\xff\xfe"]);
    let binary = digest(b"\xff\xfe");
    let expected =
        format!("{{\"digest\":\"{FOO}\",\"message\":\"foo\"}}\n{{\"digest\":\"{binary}\",\"base64\":\"//4=\"}}\n");
    sandbox.sha_api(["get", "--json", FOO, &binary]).assert().code(0).stdout(expected).stderr("");
}

#[test]
fn changed_bytes_on_disk_are_never_printed() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"a message that will be damaged"]);
    sandbox.flip_message_bit(b"a message that will be damaged");
    let damaged = digest(b"a message that will be damaged");
    let get = sandbox.sha_api(["get", &damaged, FOO]).assert();
    get.code(4).stdout("foo").stderr(predicate::str::contains(format!("{damaged} is corrupt")));
    let target = sandbox.dir().join("target");
    sandbox.sha_api(["get", &damaged, "-o"]).arg(&target).assert().code(4);
    assert!(!target.exists());
    // A put of the same message repairs it.
    sandbox.sha_api(["put", "a message that will be damaged"]).assert().code(0).stdout(format!("{damaged}\n"));
    sandbox.sha_api(["get", &damaged]).assert().code(0).stdout("a message that will be damaged").stderr("");
}
