//! `stats` reports the number of messages, their size and the disk usage.

use predicates::prelude::*;

use crate::common::Sandbox;

#[test]
fn stats_count_each_message_once() {
    let sandbox = Sandbox::with_messages(&[b"foo", b"", b"barbaz", b"foo"]);
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    let counted = predicate::str::starts_with("messages  3\nbytes     9\ndisk      ")
        .and(predicate::str::ends_with("health    ok\n"));
    sandbox.sha_api(["stats"]).assert().code(0).stdout(counted).stderr("");
}

#[test]
fn stats_of_an_empty_store_have_no_ratio() {
    let sandbox = Sandbox::new();
    sandbox.sha_api(["put", "--lines"]).write_stdin("").assert().code(0);
    let output = sandbox.sha_api(["stats", "--json"]).assert().code(0).get_output().stdout.clone();
    let stats: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((&stats["messages"], &stats["ratio"], &stats["newest"]), (&0.into(), &().into(), &().into()));
}

#[test]
fn disk_usage_agrees_with_du() {
    let sandbox = Sandbox::with_messages(&[b"foo"]);
    let output = sandbox.run_shell(
        "sha-api stats --json > stats; cd store; cat <(du -c --block-size=1 log index/* | tail -n 1) ../stats",
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (du, stats) = text.split_once('\n').unwrap();
    let du: u64 = du.split_whitespace().next().unwrap().parse().unwrap();
    let stats: serde_json::Value = serde_json::from_str(stats).unwrap();
    let disk = stats["disk"].as_u64().unwrap();
    // du counts the blocks of the directories, too.
    assert!(disk <= du && du - disk <= 64 << 10, "{disk} of {du}");
}
