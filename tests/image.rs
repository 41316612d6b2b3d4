//! The image of `make image`, run as a container that may do nothing: what it serves, keeps and is told.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

use crate::common::packages::{pack, run};
use crate::common::podman::{Podman, text};
use crate::common::server::until;
use crate::common::{FOO, has_tool};

const IMAGE: &str = concat!("sha-api:", env!("CARGO_PKG_VERSION"));

/// As little as a container can be allowed.
const CONFINED: [&str; 6] =
    ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=none", "--volume", "kept:/data"];

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// With the image; `None`: what that takes is not here.
fn podman() -> Option<Podman> {
    let podman = Podman::new()?;
    if !has_tool("buildah") || !has_tool("curl") {
        return None;
    }
    // It lays out its files at one place.
    let one = ONE_AT_A_TIME.lock().unwrap();
    run(podman.settle(&mut pack(&["image"])?));
    drop(one);
    Some(podman)
}

/// Starts it and waits until it is healthy.
fn serve(podman: &Podman, name: &str) {
    podman.run(&[&["run", "--detach", "--name", name], CONFINED.as_slice(), &[IMAGE]].concat());
    until("it is healthy", || podman.command(&["healthcheck", "run", name]).output().unwrap().status.success());
}

/// Asks it over HTTPS, from beside it.
fn curl(podman: &Podman, name: &str, args: &[&str], path: &str) -> String {
    let data = podman.run(&["volume", "inspect", "--format", "{{.Mountpoint}}", "kept"]);
    let (cert, url) = (format!("{data}/tls/cert.pem"), format!("https://localhost:8443{path}"));
    let asked = podman.beside(name, &[&["curl", "-sS", "--cacert", &cert], args, &[&url]].concat());
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    text(&asked)
}

#[test]
fn a_container_that_may_do_nothing_serves_and_the_next_one_has_what_it_acknowledged() {
    let Some(podman) = podman() else { return };
    serve(&podman, "one");
    let process = Path::new("/proc").join(podman.run(&["inspect", "--format", "{{.State.Pid}}", "one"]));
    assert_eq!(process.metadata().unwrap().uid(), 65532);
    let json = ["-H", "Content-Type: application/json", "-d", r#"{"message": "foo"}"#];
    assert_eq!(curl(&podman, "one", &json, "/messages"), format!(r#"{{"digest": "{FOO}"}}"#));
    assert_eq!(podman.run(&["exec", "one", "sha-api", "has", FOO]), "");
    podman.run(&["kill", "one"]);
    podman.run(&["rm", "one"]);
    serve(&podman, "two");
    assert_eq!(curl(&podman, "two", &[], &format!("/messages/{FOO}")), r#"{"message": "foo"}"#);
    podman.run(&["stop", "two"]);
    assert_eq!(podman.run(&["inspect", "--format", "{{.State.ExitCode}}", "two"]), "0");
    let sick = podman.command(&["healthcheck", "run", "two"]).output().unwrap();
    assert!(!sick.status.success());
}

#[test]
fn the_image_is_told_by_a_file_and_before_that_by_variables() {
    let Some(podman) = podman() else { return };
    let told = |args: &[&str]| {
        let check = ["serve", "--check"];
        podman.run(&[&["run", "--rm"], CONFINED.as_slice(), args, &[IMAGE], check.as_slice()].concat())
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
fn the_image_holds_the_binary_and_its_settings_and_says_how_it_is_used() {
    let Some(podman) = podman() else { return };
    let tar = podman.dir().join("files.tar");
    podman.run(&["create", "--name", "made", IMAGE]);
    podman.run(&["export", "--output", tar.to_str().unwrap(), "made"]);
    let files = text(&run(std::process::Command::new("tar").arg("-tf").arg(&tar)));
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
fn without_a_program_that_builds_images_that_is_said() {
    let Some(mut image) = pack(&["image", "ENGINE="]) else { return };
    let made = image.output().unwrap();
    assert_eq!(made.status.code(), Some(2));
    let said = String::from_utf8(made.stderr).unwrap();
    assert!(said.contains("an image is built by buildah, podman or docker; none is here"), "{said}");
}
