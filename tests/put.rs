//! `put` stores exactly the bytes of its input and prints their digest.

use predicates::prelude::*;

use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

#[test]
fn put_of_an_argument_prints_its_digest() {
    Sandbox::new().sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
}

#[test]
fn put_stores_all_of_stdin_untrimmed() {
    for message in [b"foo\n".as_slice(), b"", b"\n\n", b"\0\xff\0", &pseudorandom_bytes(3 << 20, 1)] {
        for arguments in [&["put"][..], &["put", "-"]] {
            let put = Sandbox::new().sha_api(arguments).write_stdin(message).assert();
            put.code(0).stdout(format!("{}\n", digest(message))).stderr("");
        }
    }
}

#[test]
fn put_agrees_with_sha256sum_on_a_file_tree() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.dir().join("tree")).unwrap();
    for (name, length) in [("empty", 0), ("one", 1), ("a name with spaces", 100), ("new\nline", 5), ("back\\slash", 6)]
    {
        sandbox.write_file(&format!("tree/{name}"), &pseudorandom_bytes(length, 7));
    }
    sandbox.write_file("tree/large", &pseudorandom_bytes(5 << 20, 8));
    let output = sandbox.run_shell(
        "find tree -type f -print0 | xargs -0 sha-api put --file > sums
        sha256sum -c --quiet sums && wc -l < sums",
    );
    assert_eq!((String::from_utf8_lossy(&output.stdout).trim(), output.stderr.as_slice()), ("6", b"".as_slice()));
}

#[test]
fn a_file_round_trips_unchanged() {
    let sandbox = Sandbox::new();
    for length in [0, 1, 4096, 64 << 20] {
        sandbox.write_file("X", &pseudorandom_bytes(length, 3));
        let output = sandbox.run_shell("sha-api get $(sha-api put --file X | cut -c1-64) | cmp - X");
        assert!(output.status.success() && output.stdout.is_empty(), "{length}: {output:?}");
    }
}

#[test]
fn put_lines_stores_every_line_and_prints_the_digests_in_order() {
    let sandbox = Sandbox::new();
    let put = sandbox.sha_api(["put", "--lines"]).write_stdin("one\n\ntwo\r\none\nlast").assert();
    let expected: String = ["one", "", "two\r", "one", "last"].map(|line| digest(line.as_bytes()) + "\n").concat();
    put.code(0).stdout(expected).stderr("");
}

#[test]
fn put_null_stores_every_record() {
    let put = Sandbox::new().sha_api(["put", "--null"]).write_stdin("a\nb\0\0c").assert();
    put.code(0).stdout(format!("{}\n{}\n{}\n", digest(b"a\nb"), digest(b""), digest(b"c"))).stderr("");
}

#[test]
fn put_lines_of_empty_input_prints_nothing() {
    Sandbox::new().sha_api(["put", "--lines"]).write_stdin("").assert().code(0).stdout("").stderr("");
}

#[test]
fn put_of_a_stored_message_appends_nothing() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"bar"]);
    let log = || std::fs::read(sandbox.store().join("log/00000001.log")).unwrap();
    let before = log();
    sandbox.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    sandbox.sha_api(["put", "--lines"]).write_stdin("bar\nfoo\nbar\n").assert().code(0);
    assert!(log() == before);
    sandbox.sha_api(["put", "baz"]).assert().code(0);
    assert!(log() != before);
}

#[test]
fn a_message_over_the_limit_is_rejected_and_not_stored() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let limit = ["--max-message", "4B"];
    let refused = || predicate::str::contains("over the limit of 4").and(predicate::str::contains("--max-message"));
    sandbox.sha_api(["put", "12345"]).args(limit).assert().code(3).stdout("").stderr(refused());
    sandbox.sha_api(["put"]).args(limit).write_stdin("12345").assert().code(3).stdout("").stderr(refused());
    let file = sandbox.write_file("five", b"12345");
    sandbox.sha_api(["put", "--file"]).arg(&file).args(limit).assert().code(3).stdout("").stderr(refused());
    sandbox.sha_api(["put", "1234"]).args(limit).assert().code(0);
    sandbox.sha_api(["has", &digest(b"12345")]).assert().code(1);
}

#[test]
fn a_line_over_the_limit_stops_put_lines_and_its_number_is_reported() {
    let sandbox = Sandbox::new();
    let put = sandbox.sha_api(["put", "--lines", "--max-message", "4B"]).write_stdin("a\nb\n12345\nc\n").assert();
    put.code(3).stdout(format!("{}\n{}\n", digest(b"a"), digest(b"b"))).stderr(predicate::str::contains("record 3"));
    sandbox.sha_api(["has", &digest(b"a"), &digest(b"b")]).assert().code(0);
    sandbox.sha_api(["has", &digest(b"c")]).assert().code(1);
}

#[test]
fn an_unreadable_file_is_reported_and_the_others_are_stored() {
    let sandbox = Sandbox::new();
    let file = sandbox.write_file("file", b"foo");
    let put = sandbox.sha_api(["put", "--file", "/no/such/file"]).arg(&file).assert();
    let stored = format!("{FOO}  {}\n", file.display());
    put.code(3)
        .stdout(stored)
        .stderr(predicate::str::contains("/no/such/file").and(predicate::str::contains("No such file")));
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let sandbox = Sandbox::new();
    let output =
        sandbox.run_shell("set +o pipefail; seq 200000 | sha-api put --lines | head -n 1; echo ${PIPESTATUS[1]}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\n0\n", digest(b"1")));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn the_digest_of_a_line_is_printed_before_the_next_line_arrives() {
    use std::io::{BufRead, BufReader, Write};
    let sandbox = Sandbox::new();
    let mut put = sandbox.std_command(["put", "--lines"]);
    let mut put = put.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (put.stdin.take().unwrap(), BufReader::new(put.stdout.take().unwrap()));
    for line in ["one", "two", "three"] {
        writeln!(stdin, "{line}").unwrap();
        let mut printed = String::new();
        stdout.read_line(&mut printed).unwrap();
        assert_eq!(printed.trim(), digest(line.as_bytes()));
    }
    drop(stdin);
    assert!(put.wait().unwrap().success());
}

#[test]
fn json_prints_one_object_per_line() {
    let sandbox = Sandbox::new();
    sandbox.sha_api(["put", "--json", "foo"]).assert().code(0).stdout(format!("{{\"digest\":\"{FOO}\"}}\n"));
    let file = sandbox.write_file("file", b"foo");
    let expected = format!("{{\"digest\":\"{FOO}\",\"file\":\"{}\"}}\n", file.display());
    sandbox.sha_api(["put", "--json", "--file"]).arg(&file).assert().code(0).stdout(expected);
    let error = sandbox.sha_api(["put", "--json", "12345", "--max-message", "4B"]).assert().code(3).stdout("");
    error.stderr(predicate::str::starts_with("{\"err_msg\":\"").and(predicate::str::ends_with("\"}\n")));
}

#[test]
fn conflicting_flags_are_rejected() {
    for arguments in [&["put", "foo", "--lines"][..], &["put", "--lines", "--null"], &["put", "--file", "x", "--lines"]]
    {
        let put = Sandbox::new().sha_api(arguments).assert();
        put.code(2).stdout("").stderr(predicate::str::contains("cannot be used with"));
    }
}

#[test]
fn usage_errors_are_printed_as_json() {
    let put = Sandbox::new().sha_api(["put", "--json", "--frob"]).assert();
    put.code(2).stdout("").stderr("{\"err_msg\":\"unexpected argument '--frob' found\"}\n");
}
