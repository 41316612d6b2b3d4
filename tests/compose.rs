//! `deploy/compose.yaml`, as far as it goes without its images: what each service is told is what its program takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::packages::run_checked;
use crate::common::{Sandbox, find_tool, report_skip};

fn deploy_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// The file, with anchors resolved and variables put in; `None`: nothing here reads YAML.
fn compose_config() -> Option<Value> {
    find_tool("python3")?;
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let text = std::fs::read_to_string(deploy_dir().join("compose.yaml")).unwrap();
    let password = "${PGPASSWORD:?the password of the database}";
    assert!(text.contains(password));
    let mut python = assert_cmd::Command::new("python3");
    let read = python.args(["-c", script]).write_stdin(text.replace(password, "confidential")).output().unwrap();
    if String::from_utf8_lossy(&read.stderr).contains("No module named 'yaml'") {
        report_skip("python3 has no yaml");
        return None;
    }
    Some(serde_json::from_slice(&read.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&read.stderr))))
}

#[test]
fn compose_servers_share_the_database_trust_the_proxy_and_contain_no_password() {
    let Some(compose) = compose_config() else { return };
    for name in ["one", "two"] {
        let service = &compose["services"][name];
        // As in the image, whose settings are a file.
        let mut check = Sandbox::new().sha_api(["serve", "--check", "--config"]);
        check.arg(deploy_dir().join("image.toml")).env_remove("SHA_API_STORE");
        for (variable, value) in service["environment"].as_object().unwrap() {
            check.env(variable, value.as_str().unwrap_or_else(|| panic!("{variable} must be text")));
        }
        let said = String::from_utf8(check.assert().code(0).stderr("").get_output().stdout.clone()).unwrap();
        let subnet = compose["networks"]["default"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
        for line in [
            "store = postgres://sha-api@postgres/sha-api  # variable",
            "listen = 0.0.0.0:8443  # file",
            "http = true  # variable",
            &format!("trusted-proxy = {subnet}  # variable"),
        ] {
            assert!(said.lines().any(|one| one == line), "{line}\n{said}");
        }
        assert!(!said.contains("confidential"), "{said}");
        assert_eq!(service.get("command"), None);
        assert_eq!((&service["image"], &service["read_only"]), (&"sha-api".into(), &true.into()));
    }
    let postgres = &compose["services"]["postgres"];
    assert_eq!(postgres["environment"]["POSTGRES_USER"], "sha-api");
    assert_eq!(postgres["environment"]["POSTGRES_PASSWORD"], "confidential");
}

#[test]
fn compose_nginx_accepts_its_configuration_with_both_servers() {
    let Some(compose) = compose_config() else { return };
    let Some(nginx) = find_tool("nginx") else { return };
    let service = &compose["services"]["nginx"];
    let dir = tempfile::tempdir().unwrap();
    let place = |path: &str| dir.path().join(path).display().to_string();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let mounts: Vec<_> = service["volumes"].as_array().unwrap().iter().map(|mount| mount.as_str().unwrap()).collect();
    let [conf, cert, key] = mounts.as_slice() else { panic!("{mounts:?}") };
    assert_eq!(*conf, "./nginx.conf:/etc/nginx/sha-api.conf:ro");
    let inside = |mount: &str| mount.split(':').nth(1).unwrap().to_owned();
    // The command as it is, but for places.
    let [shell, flag, script] = service["command"].as_array().unwrap().as_slice() else { panic!("{service}") };
    let script = script.as_str().unwrap();
    let (prepare, start) = script.split_once(" && exec nginx ").unwrap();
    assert_eq!(start, "-c /tmp/nginx.conf -g 'daemon off;'");
    let prepare =
        prepare.replace("/tmp/", &place("")).replace(&inside(conf), deploy_dir().join("nginx.conf").to_str().unwrap());
    run_checked(Command::new(shell.as_str().unwrap()).args([flag.as_str().unwrap(), &prepare]));
    let file = std::fs::read_to_string(dir.path().join("nginx.conf")).unwrap();
    for server in ["server one:8443 max_fails=0;", "server two:8443 max_fails=0;"] {
        assert_eq!(file.matches(server).count(), 1, "{file}");
    }
    // Their names are known only beside them.
    let file = file.replace("server one:", "server 127.0.0.1:").replace("server two:", "server 127.0.0.2:");
    let file = file.replace(&inside(cert), &place("cert.pem")).replace(&inside(key), &place("key.pem"));
    std::fs::write(dir.path().join("nginx.conf"), format!("pid {};\n{file}", place("pid"))).unwrap();
    let mut test = Command::new(nginx);
    test.args(["-t", "-q", "-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
    assert_eq!(String::from_utf8(run_checked(&mut test).stderr).unwrap(), "");
}
