//! One process at a time has a store; others wait for it, and say who has it when that takes too long.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use predicates::prelude::*;

use crate::common::{Sandbox, digest};

#[test]
fn a_command_waits_for_the_store_and_says_who_has_it() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.process(["put", "--lines"]);
    let mut put = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (put.stdin.take().unwrap(), BufReader::new(put.stdout.take().unwrap()));
    stdin.write_all(b"mine\n").unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    let held = predicate::str::contains(format!("is held by process {} (sha-api put)", put.id()));
    let wait = sandbox.sha_api(["get", "--wait", "50ms", &digest(b"mine")]).assert();
    wait.code(3).stdout("").stderr(held.and(predicate::str::contains("--wait")));
    let mut command = sandbox.process(["get", "--wait", "60s", &digest(b"mine")]);
    let waiting = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(stdin);
    assert!(put.wait().unwrap().success());
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"mine");
}

#[test]
fn forty_processes_at_once_all_store_their_message() {
    let sandbox = Sandbox::new();
    let start = |number: u32| {
        let mut command = sandbox.process(["put", "--wait", "100s", &number.to_string()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let puts: Vec<_> = (0..40).map(start).collect();
    for (number, put) in puts.into_iter().enumerate() {
        let output = put.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), digest(number.to_string().as_bytes()), "{output:?}");
        assert_eq!(output.stderr, b"");
    }
    sandbox.shell("test $(sha-api list | wc -l) = 40").status.success().then_some(()).unwrap();
}
