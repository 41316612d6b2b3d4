//! One process at a time has a store; others wait for it, and say who has it when that takes too long.

use std::process::Stdio;

use predicates::prelude::*;

use crate::common::{Sandbox, digest};

#[test]
fn a_command_waits_for_the_store_lock_and_names_its_owner() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.spawn_put_holding_lock("mine");
    let held = predicate::str::contains(format!("locked by process {} (sha-api put)", put.id()));
    let wait = sandbox.sha_api(["get", "--lock-timeout", "50ms", &digest(b"mine")]).assert();
    wait.code(3).stdout("").stderr(held.and(predicate::str::contains("--lock-timeout")));
    let mut command = sandbox.std_command(["get", "--lock-timeout", "60s", &digest(b"mine")]);
    let waiting = command.stdout(Stdio::piped()).spawn().unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"mine");
}

#[test]
fn forty_concurrent_processes_all_store_their_message() {
    let sandbox = Sandbox::new();
    sandbox.put_concurrently(40);
    sandbox.run_shell("test $(sha-api list | wc -l) = 40").status.success().then_some(()).unwrap();
}
