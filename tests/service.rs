//! The service and its socket, its settings and its log: checked by systemd's own tools, and run by systemd itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::machine::Machine;
use crate::common::packages::run;
use crate::common::podman::text;
use crate::common::server::until;
use crate::common::{FOO, Sandbox, asking, digest, has_tool};

/// systemd's own measure of what a service could do, of 100; less is better. That of most services is 90 and more.
const EXPOSED: &str = "--threshold=15";

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

#[test]
fn systemd_finds_no_fault_in_the_units_and_little_that_the_service_could_do() {
    if !has_tool("systemd-analyze") {
        return;
    }
    let sandbox = Sandbox::new();
    for name in ["sha-api.service", "sha-api.socket"] {
        let unit = fs::read_to_string(deploy(name)).unwrap();
        // Where it would be once it is installed.
        sandbox.file(name, unit.replace("/usr/bin/sha-api", env!("CARGO_BIN_EXE_sha-api")).as_bytes());
    }
    let (service, socket) = (sandbox.dir().join("sha-api.service"), sandbox.dir().join("sha-api.socket"));
    let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&service, &socket]));
    let said = String::from_utf8(verified.stderr).unwrap();
    assert!(!said.contains("sha-api"), "{said}");
    run(Command::new("systemd-analyze").args(["security", "--offline=true", EXPOSED]).arg(&service));
}

#[test]
fn every_setting_of_the_example_is_one() {
    let sandbox = Sandbox::new();
    let example = fs::read_to_string(deploy("sha-api.toml")).unwrap();
    let check = |settings: &str| {
        let file = sandbox.file("sha-api.toml", settings.as_bytes());
        let checked = sandbox.sha_api(["serve", "--check", "--config"]).arg(file).env_remove("SHA_API_STORE").assert();
        String::from_utf8(checked.code(0).stderr("").get_output().stdout.clone()).unwrap()
    };
    let said = check(&example);
    for line in ["store = /var/lib/sha-api  # file", "listen = 127.0.0.1:8443  # file", "scrub-interval = 30d  # file"]
    {
        assert!(said.lines().any(|one| one == line), "{line}\n{said}");
    }
    let examples: Vec<_> = example.lines().filter_map(|line| line.strip_prefix('#')).collect();
    let examples: Vec<_> = examples.into_iter().filter(|line| line.starts_with(char::is_lowercase)).collect();
    assert!(examples.len() > 10);
    for line in examples {
        let key = line.split_once(" = ").unwrap().0;
        let others = if key == "tls-key" { "tls-cert = 'x'\n" } else { "" };
        assert!(("\n".to_owned() + &check(&format!("{others}{line}\n"))).contains(&format!("\n{key} = ")), "{line}");
    }
}

/// With the service to be watched: what the filter of system calls forbids ends it, and the log is written.
fn watched() -> Option<Machine> {
    let machine = Machine::new()?;
    let more = "[Service]\nSystemCallErrorNumber=\nStandardOutput=append:/var/log/said\nStandardError=append:/var/log/said\n\
        Environment=SHA_API_LOG_FILE=/var/log/sha-api/access.log SHA_API_SCRUB_INTERVAL=1s SHA_API_SEGMENT_SIZE=1MiB\n";
    machine.write("etc/systemd/system/sha-api.service.d/watched.conf", more);
    machine.boot();
    Some(machine)
}

#[test]
fn the_service_does_its_work_under_a_filter_that_kills_and_is_reloaded_restarted_and_stopped() {
    let Some(machine) = watched() else { return };
    machine.run(&["systemctl", "start", "sha-api.service"]);
    let pid = machine.property("MainPID");
    let store = machine.path("var/lib/private/sha-api");
    assert_ne!(fs::metadata(&store).unwrap().uid(), 0);
    let numbers: String = (0..20_000).map(|number| format!("{number} {}\n", "long ".repeat(40))).collect();
    let put = machine.sha_api(&["put", "--lines"]).write_stdin(numbers).assert().code(0).get_output().stdout.clone();
    assert_eq!(put.split(|byte| *byte == b'\n').count(), 20_001);
    machine.sha_api(&["rm", "-"]).write_stdin(put).assert().code(0);
    machine.sha_api(&["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    machine.sha_api(&["verify"]).assert().code(0);
    assert_eq!(text(&machine.try_run(&["sha-api", "health"])), "ready");
    machine.run(&["systemctl", "reload", "sha-api.service"]);
    until("it is verified in the background", || {
        let metrics = machine.sha_api(&["stats"]).output().unwrap();
        String::from_utf8(metrics.stdout).unwrap().contains("verified")
    });
    assert_eq!((machine.property("MainPID"), machine.property("NRestarts")), (pid.clone(), "0".to_owned()));

    machine.run(&["systemctl", "kill", "--signal=KILL", "sha-api.service"]);
    let again = || machine.property("NRestarts") == "1" && machine.property("ActiveState") == "active";
    until("it is started again", again);
    machine.sha_api(&["get", FOO]).assert().code(0).stdout("foo");

    // The next version of the package is installed.
    let pid = machine.property("MainPID");
    machine.run(&["sh", "/var/lib/dpkg/info/sha-api.postinst", "configure", "0.0.0-1"]);
    assert_ne!(machine.property("MainPID"), pid);
    machine.sha_api(&["get", FOO]).assert().code(0).stdout("foo");
    // It is removed.
    machine.run(&["sh", "/var/lib/dpkg/info/sha-api.prerm", "remove"]);
    assert_eq!((machine.property("ActiveState"), machine.property("Result")), ("inactive".into(), "success".into()));
    let said = fs::read_to_string(machine.path("var/log/said")).unwrap();
    let strange = said
        .lines()
        .find(|line| !line.contains("listening on ") && !line.contains("self-signed") && !line.contains("SHA-256"));
    assert_eq!(strange, None, "{said}");
}

#[test]
fn the_socket_starts_the_service_and_takes_the_place_of_where_it_would_listen() {
    let Some(machine) = watched() else { return };
    machine.run(&["systemctl", "start", "sha-api.socket"]);
    assert_eq!(machine.property("ActiveState"), "inactive");
    // Else it would listen at both, or fail.
    machine.write("etc/sha-api/sha-api.toml", "store = '/var/lib/sha-api'\nlisten = '192.0.2.1:1'\n");
    let health = ["sha-api", "health", "https://127.0.0.1:8443"];
    until("the first connection has started it", || machine.try_run(&health).status.success());
    assert_eq!(machine.property("ActiveState"), "active");
    machine.run(&["systemctl", "stop", "sha-api.service"]);
    until("the next one, too", || machine.try_run(&health).status.success());
}

#[test]
fn a_file_that_a_group_may_read_is_read_by_a_service_in_that_group() {
    let Some(machine) = watched() else { return };
    machine.write("etc/group", "root:x:0:\nkeepers:x:4711:\n");
    machine.write("etc/sha-api/tokens", "");
    let tokens = machine.path("etc/sha-api/tokens");
    run(Command::new("chmod").arg("640").arg(&tokens));
    run(Command::new("chown").arg("0:4711").arg(&tokens));
    machine.write("etc/sha-api/sha-api.toml", "store = '/var/lib/sha-api'\ntoken-file = '/etc/sha-api/tokens'\n");
    let start = || machine.try_run(&["systemctl", "start", "sha-api.service"]).status.success();
    assert!(!start());
    assert!(machine.said().contains("/etc/sha-api/tokens: Permission denied"), "{}", machine.said());
    machine.write("etc/systemd/system/sha-api.service.d/group.conf", "[Service]\nSupplementaryGroups=keepers\n");
    machine.run(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "reset-failed", "sha-api.service"]);
    assert!(start(), "{}", machine.said());
}

/// How many requests a log has, compressed or not.
fn requests(log: &Path) -> usize {
    let lines = text(&run(Command::new("gzip").args(["-dcf"]).arg(log)));
    lines.lines().filter(|line| line.contains("\"GET /messages/")).count()
}

#[test]
fn no_line_of_the_log_is_lost_when_it_is_rotated_while_it_is_written() {
    let Some(machine) = watched() else { return };
    machine.run(&["systemctl", "start", "sha-api.service"]);
    let absent = digest(b"absent");
    let logs = machine.path("var/log/private/sha-api");
    let written = || fs::metadata(logs.join("access.log")).is_ok_and(|log| log.len() > 0);
    let rotate = || {
        for _ in 0..3 {
            until("there is something to rotate", written);
            machine.run(&["logrotate", "--force", "/etc/logrotate.d/sha-api"]);
        }
        until("the last one is written", written);
    };
    let socket = machine.path("var/lib/private/sha-api/sha-api.sock");
    let url = format!("http://localhost/messages/{absent}");
    let count = std::thread::scope(|scope| {
        let (rotating, mut count) = (scope.spawn(rotate), 0);
        while !rotating.is_finished() {
            run(asking("curl").args(["-sS", "-o", "/dev/null", "--unix-socket"]).arg(&socket).arg(&url));
            count += 1;
        }
        rotating.join().unwrap();
        count
    });
    let files = ["access.log", "access.log.1", "access.log.2.gz", "access.log.3.gz"];
    let lines = || files.iter().map(|file| requests(&logs.join(file))).sum::<usize>();
    until("the last line is written", || lines() == count);
    assert!(files.iter().all(|file| requests(&logs.join(file)) > 0));
}
