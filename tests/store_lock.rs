//! One process at a time opens a store. Other processes wait for the lock, and report its holder after the timeout.

use std::process::Stdio;

use predicates::prelude::*;

use crate::common::{FOO, Sandbox};

#[test]
fn a_command_waits_for_the_store_lock_and_names_its_holder() {
    let sandbox = Sandbox::new();
    let mut put = sandbox.spawn_put_holding_lock("foo");
    let locked = predicate::str::contains(format!("locked by process {} (sha-api put)", put.id()));
    let get = sandbox.sha_api(["get", "--lock-timeout", "50ms", FOO]).assert();
    get.code(3).stdout("").stderr(locked.and(predicate::str::contains("--lock-timeout")));
    let mut command = sandbox.std_command(["get", "--lock-timeout", "60s", FOO]);
    let waiting = command.stdout(Stdio::piped()).spawn().unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"foo");
}

#[test]
fn forty_concurrent_processes_all_store_their_message() {
    let sandbox = Sandbox::new();
    sandbox.put_concurrently(40);
    sandbox.run_shell("test $(sha-api list | wc -l) = 40").status.success().then_some(()).unwrap();
}
