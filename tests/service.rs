//! The systemd units, the example settings and the log rotation in `deploy/`, checked by the tools of systemd and run
//! by systemd in a container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::packages::run_checked;
use crate::common::podman::stdout_text;
use crate::common::server::wait_until;
use crate::common::systemd_container::SystemdContainer;
use crate::common::{FOO, Sandbox, command_without_proxy, digest, has_tool};

/// Maximum exposure level for `systemd-analyze security`, from 0 to 100. Most services have 90 and more.
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
        // The installed path does not exist here, and `verify` rejects a missing program.
        sandbox.write_file(name, unit.replace("/usr/bin/sha-api", env!("CARGO_BIN_EXE_sha-api")).as_bytes());
    }
    let (service, socket) = (sandbox.dir().join("sha-api.service"), sandbox.dir().join("sha-api.socket"));
    let verified = run_checked(Command::new("systemd-analyze").args(["verify", "--man=no"]).args([&service, &socket]));
    let stderr = String::from_utf8(verified.stderr).unwrap();
    assert!(!stderr.contains("sha-api"), "{stderr}");
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
    let stdout = check(&example);
    for expected in
        ["store = /var/lib/sha-api  # file", "listen = 127.0.0.1:8443  # file", "scrub-interval = 30d  # file"]
    {
        assert!(stdout.lines().any(|line| line == expected), "{expected}\n{stdout}");
    }
    let comments = example.lines().filter_map(|line| line.strip_prefix('#'));
    let disabled_settings: Vec<_> = comments.filter(|line| line.starts_with(char::is_lowercase)).collect();
    assert!(disabled_settings.len() > 10);
    for line in disabled_settings {
        let key = line.split_once(" = ").unwrap().0;
        let required = if key == "tls-key" { "tls-cert = 'x'\n" } else { "" };
        let stdout = "\n".to_owned() + &check(&format!("{required}{line}\n"));
        assert!(stdout.contains(&format!("\n{key} = ")), "{line}");
    }
}

/// Boots a container with the installed service. A forbidden system call kills the process instead of failing, and the
/// access log and the output are written to files.
fn logging_container() -> Option<SystemdContainer> {
    let container = SystemdContainer::new()?;
    let drop_in = "[Service]\nSystemCallErrorNumber=\n\
        StandardOutput=append:/var/log/output\nStandardError=append:/var/log/output\n\
        Environment=SHA_API_ACCESS_LOG=/var/log/sha-api/access.log SHA_API_SCRUB_INTERVAL=1s SHA_API_SEGMENT_SIZE=1MiB\n";
    container.write_file("etc/systemd/system/sha-api.service.d/test.conf", drop_in);
    container.boot();
    Some(container)
}

#[test]
fn the_service_works_under_a_killing_syscall_filter_and_reloads_restarts_and_stops() {
    let Some(container) = logging_container() else { return };
    container.run(&["systemctl", "start", "sha-api.service"]);
    let pid = container.unit_property("MainPID");
    let store = container.path("var/lib/private/sha-api");
    assert_ne!(fs::metadata(&store).unwrap().uid(), 0);
    let numbers: String = (0..20_000).map(|number| format!("{number} {}\n", "long ".repeat(40))).collect();
    let put = container.sha_api(&["put", "--lines"]).write_stdin(numbers).assert().code(0).get_output().stdout.clone();
    assert_eq!(put.split(|byte| *byte == b'\n').count(), 20_001);
    container.sha_api(&["rm", "-"]).write_stdin(put).assert().code(0);
    container.sha_api(&["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n"));
    container.sha_api(&["verify"]).assert().code(0);
    assert_eq!(stdout_text(&container.try_run(&["sha-api", "health"])), "ready");
    container.run(&["systemctl", "reload", "sha-api.service"]);
    wait_until("the store is verified in the background", || {
        let stats = container.sha_api(&["stats"]).output().unwrap();
        String::from_utf8(stats.stdout).unwrap().contains("verified")
    });
    assert_eq!(
        (container.unit_property("MainPID"), container.unit_property("NRestarts")),
        (pid.clone(), "0".to_owned())
    );

    container.run(&["systemctl", "kill", "--signal=KILL", "sha-api.service"]);
    let restarted =
        || container.unit_property("NRestarts") == "1" && container.unit_property("ActiveState") == "active";
    wait_until("systemd restarts the service", restarted);
    container.sha_api(&["get", FOO]).assert().code(0).stdout("foo");

    // An upgrade of the package restarts the service.
    let pid = container.unit_property("MainPID");
    container.run(&["sh", "/var/lib/dpkg/info/sha-api.postinst", "configure", "0.0.0-1"]);
    assert_ne!(container.unit_property("MainPID"), pid);
    container.sha_api(&["get", FOO]).assert().code(0).stdout("foo");
    // Removing the package stops the service.
    container.run(&["sh", "/var/lib/dpkg/info/sha-api.prerm", "remove"]);
    assert_eq!(
        (container.unit_property("ActiveState"), container.unit_property("Result")),
        ("inactive".into(), "success".into())
    );
    let output = fs::read_to_string(container.path("var/log/output")).unwrap();
    let expected = ["listening on ", "self-signed", "SHA-256"];
    let unexpected = output.lines().find(|line| !expected.iter().any(|part| line.contains(part)));
    assert_eq!(unexpected, None, "{output}");
}

#[test]
fn the_socket_unit_starts_the_service_and_replaces_its_listen_address() {
    let Some(container) = logging_container() else { return };
    container.run(&["systemctl", "start", "sha-api.socket"]);
    assert_eq!(container.unit_property("ActiveState"), "inactive");
    // The service must not use this address, which the container does not have.
    container.write_file("etc/sha-api/sha-api.toml", "store = '/var/lib/sha-api'\nlisten = '192.0.2.1:1'\n");
    let health = ["sha-api", "health", "https://127.0.0.1:8443"];
    wait_until("the first connection starts the service", || container.try_run(&health).status.success());
    assert_eq!(container.unit_property("ActiveState"), "active");
    container.run(&["systemctl", "stop", "sha-api.service"]);
    wait_until("the next connection starts the service again", || container.try_run(&health).status.success());
}

#[test]
fn the_service_reads_files_of_its_supplementary_group() {
    let Some(container) = logging_container() else { return };
    container.write_file("etc/group", "root:x:0:\nkeepers:x:4711:\n");
    container.write_file("etc/sha-api/tokens", "");
    let tokens = container.path("etc/sha-api/tokens");
    run_checked(Command::new("chmod").arg("640").arg(&tokens));
    run_checked(Command::new("chown").arg("0:4711").arg(&tokens));
    container
        .write_file("etc/sha-api/sha-api.toml", "store = '/var/lib/sha-api'\ntoken-file = '/etc/sha-api/tokens'\n");
    let start = || container.try_run(&["systemctl", "start", "sha-api.service"]).status.success();
    assert!(!start());
    assert!(container.diagnostics().contains("/etc/sha-api/tokens: Permission denied"), "{}", container.diagnostics());
    container.write_file("etc/systemd/system/sha-api.service.d/group.conf", "[Service]\nSupplementaryGroups=keepers\n");
    container.run(&["systemctl", "daemon-reload"]);
    container.run(&["systemctl", "reset-failed", "sha-api.service"]);
    assert!(start(), "{}", container.diagnostics());
}

/// Returns the number of message requests in a log file, which may be compressed.
fn count_log_lines(log: &Path) -> usize {
    let lines = stdout_text(&run_checked(Command::new("gzip").args(["-dcf"]).arg(log)));
    lines.lines().filter(|line| line.contains("\"GET /messages/")).count()
}

#[test]
fn rotating_the_access_log_under_load_loses_no_line() {
    let Some(container) = logging_container() else { return };
    container.run(&["systemctl", "start", "sha-api.service"]);
    let absent = digest(b"absent");
    let logs = container.path("var/log/private/sha-api");
    let has_lines = || fs::metadata(logs.join("access.log")).is_ok_and(|log| log.len() > 0);
    let rotate = || {
        for _ in 0..3 {
            wait_until("the log has lines to rotate", has_lines);
            container.run(&["logrotate", "--force", "/etc/logrotate.d/sha-api"]);
        }
        wait_until("the log has lines after the last rotation", has_lines);
    };
    let socket = container.path("var/lib/private/sha-api/sha-api.sock");
    let url = format!("http://localhost/messages/{absent}");
    let count = std::thread::scope(|scope| {
        let (rotation, mut count) = (scope.spawn(rotate), 0);
        while !rotation.is_finished() {
            run_checked(
                command_without_proxy("curl").args(["-sS", "-o", "/dev/null", "--unix-socket"]).arg(&socket).arg(&url),
            );
            count += 1;
        }
        rotation.join().unwrap();
        count
    });
    let files = ["access.log", "access.log.1", "access.log.2.gz", "access.log.3.gz"];
    let lines = || files.iter().map(|file| count_log_lines(&logs.join(file))).sum::<usize>();
    wait_until("all requests are logged", || lines() == count);
    assert!(files.iter().all(|file| count_log_lines(&logs.join(file)) > 0));
}
