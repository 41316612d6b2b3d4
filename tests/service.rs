//! The service and its socket, its settings and its log: checked by systemd's own tools, and run by systemd itself.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::packages::run_checked;
use crate::common::podman::stdout_text;
use crate::common::server::wait_until;
use crate::common::systemd_container::SystemdContainer;
use crate::common::{FOO, Sandbox, command_without_proxy, digest, has_tool};

/// systemd's own measure of what a service could do, of 100; less is better. That of most services is 90 and more.
const EXPOSURE_THRESHOLD: &str = "--threshold=15";

fn deploy_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
}

#[test]
fn systemd_accepts_the_units_and_rates_their_exposure_low() {
    if !has_tool("systemd-analyze") {
        return;
    }
    let sandbox = Sandbox::new();
    for name in ["sha-api.service", "sha-api.socket"] {
        let unit = fs::read_to_string(deploy_file(name)).unwrap();
        // The unit names the path of the installed program.
        sandbox.write_file(name, unit.replace("/usr/bin/sha-api", env!("CARGO_BIN_EXE_sha-api")).as_bytes());
    }
    let (service, socket) = (sandbox.dir().join("sha-api.service"), sandbox.dir().join("sha-api.socket"));
    let verified = run_checked(Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&service, &socket]));
    let said = String::from_utf8(verified.stderr).unwrap();
    assert!(!said.contains("sha-api"), "{said}");
    run_checked(Command::new("systemd-analyze").args(["security", "--offline=true", EXPOSURE_THRESHOLD]).arg(&service));
}

#[test]
fn every_setting_of_the_example_exists() {
    let sandbox = Sandbox::new();
    let example = fs::read_to_string(deploy_file("sha-api.toml")).unwrap();
    let check = |settings: &str| {
        let file = sandbox.write_file("sha-api.toml", settings.as_bytes());
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
fn logging_container() -> Option<SystemdContainer> {
    let machine = SystemdContainer::new()?;
    let more = "[Service]\nSystemCallErrorNumber=\nStandardOutput=append:/var/log/output\nStandardError=append:/var/log/output\n\
        Environment=SHA_API_ACCESS_LOG=/var/log/sha-api/access.log SHA_API_SCRUB_INTERVAL=1s SHA_API_SEGMENT_SIZE=1MiB\n";
    machine.write_file("etc/systemd/system/sha-api.service.d/watched.conf", more);
    machine.boot();
    Some(machine)
}

#[test]
fn the_service_works_under_a_killing_syscall_filter_and_reloads_restarts_and_stops() {
    let Some(machine) = logging_container() else { return };
    machine.run(&["systemctl", "start", "sha-api.service"]);
    let pid = machine.unit_property("MainPID");
    let store = machine.path("var/lib/private/sha-api");
    assert_ne!(fs::metadata(&store).unwrap().uid(), 0);
    let numbers: String = (0..20_000).map(|number| format!("{number} {}\n", "long ".repeat(40))).collect();
    let put = machine.sha_api(&["put", "--lines"]).write_stdin(numbers).assert().code(0).get_output().stdout.clone();
    assert_eq!(put.split(|byte| *byte == b'\n').count(), 20_001);
    machine.sha_api(&["rm", "-"]).write_stdin(put).assert().code(0);
    machine.sha_api(&["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    machine.sha_api(&["verify"]).assert().code(0);
    assert_eq!(stdout_text(&machine.try_run(&["sha-api", "health"])), "ready");
    machine.run(&["systemctl", "reload", "sha-api.service"]);
    wait_until("it is verified in the background", || {
        let metrics = machine.sha_api(&["stats"]).output().unwrap();
        String::from_utf8(metrics.stdout).unwrap().contains("verified")
    });
    assert_eq!((machine.unit_property("MainPID"), machine.unit_property("NRestarts")), (pid.clone(), "0".to_owned()));

    machine.run(&["systemctl", "kill", "--signal=KILL", "sha-api.service"]);
    let again = || machine.unit_property("NRestarts") == "1" && machine.unit_property("ActiveState") == "active";
    wait_until("it is started again", again);
    machine.sha_api(&["get", FOO]).assert().code(0).stdout("foo");

    // The next version of the package is installed.
    let pid = machine.unit_property("MainPID");
    machine.run(&["sh", "/var/lib/dpkg/info/sha-api.postinst", "configure", "0.0.0-1"]);
    assert_ne!(machine.unit_property("MainPID"), pid);
    machine.sha_api(&["get", FOO]).assert().code(0).stdout("foo");
    // It is removed.
    machine.run(&["sh", "/var/lib/dpkg/info/sha-api.prerm", "remove"]);
    assert_eq!(
        (machine.unit_property("ActiveState"), machine.unit_property("Result")),
        ("inactive".into(), "success".into())
    );
    let said = fs::read_to_string(machine.path("var/log/output")).unwrap();
    let strange = said
        .lines()
        .find(|line| !line.contains("listening on ") && !line.contains("self-signed") && !line.contains("SHA-256"));
    assert_eq!(strange, None, "{said}");
}

#[test]
fn the_socket_unit_starts_the_service_and_replaces_its_listen_address() {
    let Some(machine) = logging_container() else { return };
    machine.run(&["systemctl", "start", "sha-api.socket"]);
    assert_eq!(machine.unit_property("ActiveState"), "inactive");
    // Else it would listen at both, or fail.
    machine.write_file("etc/sha-api/sha-api.toml", "store = '/var/lib/sha-api'\nlisten = '192.0.2.1:1'\n");
    let health = ["sha-api", "health", "https://127.0.0.1:8443"];
    wait_until("the first connection has started it", || machine.try_run(&health).status.success());
    assert_eq!(machine.unit_property("ActiveState"), "active");
    machine.run(&["systemctl", "stop", "sha-api.service"]);
    wait_until("the next one, too", || machine.try_run(&health).status.success());
}

#[test]
fn the_service_reads_files_of_its_supplementary_group() {
    let Some(machine) = logging_container() else { return };
    machine.write_file("etc/group", "root:x:0:\nkeepers:x:4711:\n");
    machine.write_file("etc/sha-api/tokens", "");
    let tokens = machine.path("etc/sha-api/tokens");
    run_checked(Command::new("chmod").arg("640").arg(&tokens));
    run_checked(Command::new("chown").arg("0:4711").arg(&tokens));
    machine.write_file("etc/sha-api/sha-api.toml", "store = '/var/lib/sha-api'\ntoken-file = '/etc/sha-api/tokens'\n");
    let start = || machine.try_run(&["systemctl", "start", "sha-api.service"]).status.success();
    assert!(!start());
    assert!(machine.diagnostics().contains("/etc/sha-api/tokens: Permission denied"), "{}", machine.diagnostics());
    machine.write_file("etc/systemd/system/sha-api.service.d/group.conf", "[Service]\nSupplementaryGroups=keepers\n");
    machine.run(&["systemctl", "daemon-reload"]);
    machine.run(&["systemctl", "reset-failed", "sha-api.service"]);
    assert!(start(), "{}", machine.diagnostics());
}

/// Returns the number of GET requests in a log, which may be compressed.
fn count_log_lines(log: &Path) -> usize {
    let lines = stdout_text(&run_checked(Command::new("gzip").args(["-dcf"]).arg(log)));
    lines.lines().filter(|line| line.contains("\"GET /messages/")).count()
}

#[test]
fn rotating_the_access_log_under_load_loses_no_line() {
    let Some(machine) = logging_container() else { return };
    machine.run(&["systemctl", "start", "sha-api.service"]);
    let absent = digest(b"absent");
    let logs = machine.path("var/log/private/sha-api");
    let written = || fs::metadata(logs.join("access.log")).is_ok_and(|log| log.len() > 0);
    let rotate = || {
        for _ in 0..3 {
            wait_until("there is something to rotate", written);
            machine.run(&["logrotate", "--force", "/etc/logrotate.d/sha-api"]);
        }
        wait_until("the last one is written", written);
    };
    let socket = machine.path("var/lib/private/sha-api/sha-api.sock");
    let url = format!("http://localhost/messages/{absent}");
    let count = std::thread::scope(|scope| {
        let (rotating, mut count) = (scope.spawn(rotate), 0);
        while !rotating.is_finished() {
            run_checked(
                command_without_proxy("curl").args(["-sS", "-o", "/dev/null", "--unix-socket"]).arg(&socket).arg(&url),
            );
            count += 1;
        }
        rotating.join().unwrap();
        count
    });
    let files = ["access.log", "access.log.1", "access.log.2.gz", "access.log.3.gz"];
    let lines = || files.iter().map(|file| count_log_lines(&logs.join(file))).sum::<usize>();
    wait_until("the last line is written", || lines() == count);
    assert!(files.iter().all(|file| count_log_lines(&logs.join(file)) > 0));
}
