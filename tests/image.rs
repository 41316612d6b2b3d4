//! The image of `make image`, run as a container that may do nothing: what it serves, keeps and is told.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use crate::common::packages::{packaging_command, run_checked};
use crate::common::podman::{Podman, stdout_text};
use crate::common::server::wait_until;
use crate::common::{FOO, has_tool};

const IMAGE: &str = concat!("sha-api:", env!("CARGO_PKG_VERSION"));

/// As little as a container can be allowed.
const CONFINEMENT_FLAGS: [&str; 6] =
    ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none", "--volume", "kept:/data"];

static PODMAN_LOCK: Mutex<()> = Mutex::new(());

/// With the image; `None`: what that takes is not here.
fn podman_with_image() -> Option<Podman> {
    let podman = Podman::new()?;
    if !has_tool("buildah") || !has_tool("curl") {
        return None;
    }
    // It lays out its files at one place.
    let one = PODMAN_LOCK.lock().unwrap();
    run_checked(podman.configure(&mut packaging_command(&["image"])?));
    drop(one);
    Some(podman)
}

/// Starts it and waits until it is healthy.
fn run_server(podman: &Podman, name: &str) {
    podman.run(&[&["run", "--detach", "--name", name], CONFINEMENT_FLAGS.as_slice(), &[IMAGE]].concat());
    wait_until("it is healthy", || podman.command(&["healthcheck", "run", name]).output().unwrap().status.success());
}

/// Asks it over HTTPS, from beside it.
fn curl(podman: &Podman, name: &str, args: &[&str], path: &str) -> String {
    let data = podman.run(&["volume", "inspect", "--format", "{{.Mountpoint}}", "kept"]);
    let (cert, url) = (format!("{data}/tls/cert.pem"), format!("https://localhost:8443{path}"));
    let asked = podman.run_in_network_of(name, &[&["curl", "-sS", "--cacert", &cert], args, &[&url]].concat());
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    stdout_text(&asked)
}

#[test]
fn a_confined_container_serves_and_its_messages_survive_it() {
    let Some(podman) = podman_with_image() else { return };
    run_server(&podman, "one");
    let process = Path::new("/proc").join(podman.run(&["inspect", "--format", "{{.State.Pid}}", "one"]));
    assert_eq!(process.metadata().unwrap().uid(), 65532);
    let json = ["-H", "Content-Type: application/json", "-d", r#"{"message": "foo"}"#];
    assert_eq!(curl(&podman, "one", &json, "/messages"), format!(r#"{{"digest": "{FOO}"}}"#));
    assert_eq!(podman.run(&["exec", "one", "sha-api", "has", FOO]), "");
    podman.run(&["kill", "one"]);
    podman.run(&["rm", "one"]);
    run_server(&podman, "two");
    assert_eq!(curl(&podman, "two", &[], &format!("/messages/{FOO}")), r#"{"message": "foo"}"#);
    podman.run(&["stop", "two"]);
    assert_eq!(podman.run(&["inspect", "--format", "{{.State.ExitCode}}", "two"]), "0");
    let sick = podman.command(&["healthcheck", "run", "two"]).output().unwrap();
    assert!(!sick.status.success());
}

#[test]
fn the_image_reads_a_settings_file_and_variables_take_precedence() {
    let Some(podman) = podman_with_image() else { return };
    let told = |args: &[&str]| {
        let check = ["serve", "--check"];
        podman.run(&[&["run", "--rm"], CONFINEMENT_FLAGS.as_slice(), args, &[IMAGE], check.as_slice()].concat())
    };
    let has = |said: &str, line: &str| assert!(said.lines().any(|one| one == line), "{line}\n{said}");
    let said = told(&[]);
    has(&said, "store = /data  # file");
    has(&said, "listen = 0.0.0.0:8443  # file");
    let file = podman.dir().join("own.toml");
    std::fs::write(&file, "store = '/data/own'\nlisten = '0.0.0.0:1'\nhttp = true\n").unwrap();
    let mounted = format!("{}:/etc/sha-api/sha-api.toml:ro", file.display());
    let said = told(&["--volume", &mounted, "--env", "SHA_API_LISTEN=0.0.0.0:2"]);
    has(&said, "store = /data/own  # file");
    has(&said, "listen = 0.0.0.0:2  # variable");
    has(&said, "http = true  # file");
}

#[test]
fn the_image_has_the_binary_settings_and_labels() {
    let Some(podman) = podman_with_image() else { return };
    let tar = podman.dir().join("files.tar");
    podman.run(&["create", "--name", "made", IMAGE]);
    podman.run(&["export", "--output", tar.to_str().unwrap(), "made"]);
    let files = stdout_text(&run_checked(std::process::Command::new("tar").arg("-tf").arg(&tar)));
    // Places of the container itself, empty in the image.
    let its_own = ["dev", "proc", "run", "sys", "tmp", "var"];
    let files: Vec<_> = files.lines().filter(|file| !its_own.contains(&file.split('/').next().unwrap())).collect();
    let of_files: Vec<_> = files.iter().filter(|file| !file.ends_with('/')).collect();
    assert_eq!(of_files, [&"etc/sha-api/sha-api.toml", &"usr/bin/sha-api"], "{files:?}");
    let field = |format: &str| podman.run(&["image", "inspect", "--format", format, IMAGE]);
    assert_eq!(field("{{.Config.User}}"), "65532:65532");
    assert_eq!(field("{{.Config.ExposedPorts}} {{.Config.Volumes}}"), "map[8443/tcp:{}] map[/data:{}]");
    assert!(field("{{.HealthCheck}} {{.Config.Healthcheck}}").contains("sha-api health"));
}

#[test]
fn a_missing_image_builder_is_reported() {
    let Some(mut image) = packaging_command(&["image", "ENGINE="]) else { return };
    let made = image.output().unwrap();
    assert_eq!(made.status.code(), Some(2));
    let said = String::from_utf8(made.stderr).unwrap();
    assert!(said.contains("an image is built by buildah, podman or docker; none is here"), "{said}");
}
