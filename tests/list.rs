//! `list` prints the digests of all stored messages in order.

use predicates::prelude::*;

use crate::common::{FOO, Sandbox, digest};

fn store_with_numbers(count: u32) -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    let lines: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    sandbox.sha_api(["put", "--lines"]).write_stdin(lines.join("\n")).assert().code(0);
    let mut digests: Vec<_> = lines.iter().map(|line| digest(line.as_bytes())).collect();
    digests.sort();
    (sandbox, digests)
}

fn digest_lines(digests: &[String]) -> String {
    digests.iter().map(|digest| format!("{digest}\n")).collect()
}

#[test]
fn list_prints_all_digests_in_order() {
    let (sandbox, digests) = store_with_numbers(2500);
    sandbox.sha_api(["list"]).assert().code(0).stdout(digest_lines(&digests)).stderr("");
}

#[test]
fn list_starts_after_a_digest_and_stops_at_the_limit() {
    let (sandbox, digests) = store_with_numbers(100);
    sandbox
        .sha_api(["list", "--after", &digests[9], "--limit", "5"])
        .assert()
        .code(0)
        .stdout(digest_lines(&digests[10..15]));
    sandbox.sha_api(["list", "--after", &digests[99]]).assert().code(0).stdout("");
    sandbox.sha_api(["list", "--limit", "0"]).assert().code(0).stdout("");
    sandbox.sha_api(["list", "--after", &"0".repeat(64)]).assert().code(0).stdout(digest_lines(&digests));
}

#[test]
fn list_filters_by_prefix() {
    let (sandbox, digests) = store_with_numbers(500);
    for prefix in ["", "a", "1F", "00", &digests[7], &digests[7][..13]] {
        let expected: Vec<_> =
            digests.iter().filter(|digest| digest.starts_with(&prefix.to_lowercase())).cloned().collect();
        sandbox.sha_api(["list", "--prefix", prefix]).assert().code(0).stdout(digest_lines(&expected));
    }
    // `--after` may name a digest before or behind all digests with the prefix.
    let before = format!("{:f<64}", "9");
    let matching: Vec<_> = digests.iter().filter(|digest| digest.starts_with('a')).cloned().collect();
    sandbox.sha_api(["list", "--prefix", "a", "--after", &before]).assert().code(0).stdout(digest_lines(&matching));
    sandbox.sha_api(["list", "--prefix", "9", "--after", &matching[0]]).assert().code(0).stdout("");
}

#[test]
fn list_long_prints_length_and_time() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let line =
        predicate::str::is_match(format!("^{FOO}           3  20[0-9]{{2}}-[01][0-9]-[0-3][0-9]T[0-9:]{{8}}Z\n$"))
            .unwrap();
    sandbox.sha_api(["list", "--long"]).assert().code(0).stdout(line);
    let object = predicate::str::starts_with(format!("{{\"digest\":\"{FOO}\",\"length\":3,\"stored_at\":\"20"));
    sandbox.sha_api(["list", "--long", "--json"]).assert().code(0).stdout(object);
}

#[test]
fn an_empty_store_lists_nothing() {
    let sandbox = Sandbox::new();
    sandbox.sha_api(["put", "--lines"]).write_stdin("").assert().code(0);
    sandbox.sha_api(["list"]).assert().code(0).stdout("").stderr("");
}
