//! The container image of `make image`, run without privileges: serving, persistence, settings and content.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use crate::common::packages::{packaging_command, run_checked};
use crate::common::podman::{Podman, stdout_text};
use crate::common::server::wait_until;
use crate::common::{FOO, has_tool};

const IMAGE: &str = concat!("sha-api:", env!("CARGO_PKG_VERSION"));

/// Flags of `podman run` that remove all privileges and mount the volume `messages` at `/data`.
const CONFINEMENT_FLAGS: [&str; 6] = [
    "--read-only",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--volume",
    "messages:/data",
];

/// Serializes image builds, which use one output directory.
static IMAGE_BUILD_LOCK: Mutex<()> = Mutex::new(());

/// Creates a Podman instance and builds the image. Returns `None` if a required tool is not installed.
fn podman_with_image() -> Option<Podman> {
    let podman = Podman::new()?;
    if !has_tool("buildah") || !has_tool("curl") {
        return None;
    }
    let guard = IMAGE_BUILD_LOCK.lock().unwrap();
    run_checked(podman.configure(&mut packaging_command(&["image"])?));
    drop(guard);
    Some(podman)
}

/// Starts a container and waits until its health check succeeds.
fn start_and_wait_healthy(podman: &Podman, name: &str) {
    podman.run(&[&["run", "--detach", "--name", name], CONFINEMENT_FLAGS.as_slice(), &[IMAGE]].concat());
    wait_until("the container is healthy", || {
        podman.command(&["healthcheck", "run", name]).output().unwrap().status.success()
    });
}

/// Runs curl in the network namespace of the container and returns the body of the response.
fn curl(podman: &Podman, name: &str, args: &[&str], path: &str) -> String {
    let data = podman.run(&["volume", "inspect", "--format", "{{.Mountpoint}}", "messages"]);
    let (cert, url) = (format!("{data}/tls/cert.pem"), format!("https://localhost:8443{path}"));
    let output = podman.run_in_network_of(name, &[&["curl", "-sS", "--cacert", &cert], args, &[&url]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    stdout_text(&output)
}

#[test]
fn a_confined_container_serves_and_its_messages_survive_it() {
    let Some(podman) = podman_with_image() else { return };
    start_and_wait_healthy(&podman, "one");
    let process = Path::new("/proc").join(podman.run(&["inspect", "--format", "{{.State.Pid}}", "one"]));
    assert_eq!(process.metadata().unwrap().uid(), 65532);
    let json = ["-H", "Content-Type: application/json", "-d", r#"{"message": "foo"}"#];
    assert_eq!(curl(&podman, "one", &json, "/messages"), format!(r#"{{"digest": "{FOO}"}}"#));
    assert_eq!(podman.run(&["exec", "one", "sha-api", "has", FOO]), "");
    podman.run(&["kill", "one"]);
    podman.run(&["rm", "one"]);
    start_and_wait_healthy(&podman, "two");
    assert_eq!(curl(&podman, "two", &[], &format!("/messages/{FOO}")), r#"{"message": "foo"}"#);
    podman.run(&["stop", "two"]);
    assert_eq!(podman.run(&["inspect", "--format", "{{.State.ExitCode}}", "two"]), "0");
    let health_check = podman.command(&["healthcheck", "run", "two"]).output().unwrap();
    assert!(!health_check.status.success());
}

#[test]
fn the_image_reads_a_settings_file_and_variables_take_precedence() {
    let Some(podman) = podman_with_image() else { return };
    let check_settings = |args: &[&str]| {
        let check = ["serve", "--check"];
        podman.run(&[&["run", "--rm"], CONFINEMENT_FLAGS.as_slice(), args, &[IMAGE], check.as_slice()].concat())
    };
    let assert_line = |settings: &str, expected: &str| {
        assert!(settings.lines().any(|line| line == expected), "{expected}\n{settings}");
    };
    let settings = check_settings(&[]);
    assert_line(&settings, "store = /data  # file");
    assert_line(&settings, "listen = 0.0.0.0:8443  # file");
    let file = podman.dir().join("own.toml");
    std::fs::write(&file, "store = '/data/own'\nlisten = '0.0.0.0:1'\nhttp = true\n").unwrap();
    let mounted = format!("{}:/etc/sha-api/sha-api.toml:ro", file.display());
    let settings = check_settings(&["--volume", &mounted, "--env", "SHA_API_LISTEN=0.0.0.0:2"]);
    assert_line(&settings, "store = /data/own  # file");
    assert_line(&settings, "listen = 0.0.0.0:2  # variable");
    assert_line(&settings, "http = true  # file");
}

#[test]
fn the_image_has_the_binary_settings_and_labels() {
    let Some(podman) = podman_with_image() else { return };
    let tar = podman.dir().join("files.tar");
    podman.run(&["create", "--name", "created", IMAGE]);
    podman.run(&["export", "--output", tar.to_str().unwrap(), "created"]);
    let files = stdout_text(&run_checked(std::process::Command::new("tar").arg("-tf").arg(&tar)));
    // Directories that Podman adds to each container.
    let added_dirs = ["dev", "proc", "run", "sys", "tmp", "var"];
    let entries: Vec<_> = files.lines().filter(|file| !added_dirs.contains(&file.split('/').next().unwrap())).collect();
    let files: Vec<_> = entries.iter().filter(|file| !file.ends_with('/')).collect();
    assert_eq!(files, [&"etc/sha-api/sha-api.toml", &"usr/bin/sha-api"], "{entries:?}");
    let field = |format: &str| podman.run(&["image", "inspect", "--format", format, IMAGE]);
    assert_eq!(field("{{.Config.User}}"), "65532:65532");
    assert_eq!(field("{{.Config.ExposedPorts}} {{.Config.Volumes}}"), "map[8443/tcp:{}] map[/data:{}]");
    assert!(field("{{.HealthCheck}} {{.Config.Healthcheck}}").contains("sha-api health"));
}

#[test]
fn a_missing_image_builder_is_reported() {
    let Some(mut make) = packaging_command(&["image", "ENGINE="]) else { return };
    let output = make.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("buildah, podman or docker not found"), "{stderr}");
}
