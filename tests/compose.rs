//! `deploy/compose.yaml` without its images: each program accepts the configuration that its service passes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::packages::run_checked;
use crate::common::{Sandbox, find_tool, report_skip};

fn deploy_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// Returns the parsed file with anchors resolved and the password inserted. Returns `None` if Python or its YAML module
/// is not installed.
fn compose_config() -> Option<Value> {
    find_tool("python3")?;
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
    let text = std::fs::read_to_string(deploy_dir().join("compose.yaml")).unwrap();
    let password = "${PGPASSWORD:?the password of the database}";
    assert!(text.contains(password));
    let mut python = assert_cmd::Command::new("python3");
    let output = python.args(["-c", script]).write_stdin(text.replace(password, "confidential")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("No module named 'yaml'") {
        report_skip("the Python module `yaml` is not installed");
        return None;
    }
    Some(serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}")))
}

#[test]
fn compose_servers_share_the_database_trust_the_proxy_and_contain_no_password() {
    let Some(compose) = compose_config() else { return };
    for name in ["one", "two"] {
        let service = &compose["services"][name];
        // The image sets this configuration file.
        let mut check = Sandbox::new().sha_api(["serve", "--check", "--config"]);
        check.arg(deploy_dir().join("image.toml")).env_remove("SHA_API_STORE");
        for (variable, value) in service["environment"].as_object().unwrap() {
            check.env(variable, value.as_str().unwrap_or_else(|| panic!("{variable} must be text")));
        }
        let settings = String::from_utf8(check.assert().code(0).stderr("").get_output().stdout.clone()).unwrap();
        let subnet = compose["networks"]["default"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
        for expected in [
            "store = postgres://sha-api@postgres/sha-api  # variable",
            "listen = 0.0.0.0:8443  # file",
            "http = true  # variable",
            &format!("trusted-proxy = {subnet}  # variable"),
        ] {
            assert!(settings.lines().any(|line| line == expected), "{expected}\n{settings}");
        }
        assert!(!settings.contains("confidential"), "{settings}");
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
    let temp_path = |name: &str| dir.path().join(name).display().to_string();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    let mounts: Vec<_> = service["volumes"].as_array().unwrap().iter().map(|mount| mount.as_str().unwrap()).collect();
    let [conf, cert, key] = mounts.as_slice() else { panic!("{mounts:?}") };
    assert_eq!(*conf, "./nginx.conf:/etc/nginx/sha-api.conf:ro");
    let container_path = |mount: &str| mount.split(':').nth(1).unwrap().to_owned();
    // The command of the service, with paths replaced.
    let [shell, flag, script] = service["command"].as_array().unwrap().as_slice() else { panic!("{service}") };
    let script = script.as_str().unwrap();
    let (prepare, nginx_args) = script.split_once(" && exec nginx ").unwrap();
    assert_eq!(nginx_args, "-c /tmp/nginx.conf -g 'daemon off;'");
    let prepare = prepare
        .replace("/tmp/", &temp_path(""))
        .replace(&container_path(conf), deploy_dir().join("nginx.conf").to_str().unwrap());
    run_checked(Command::new(shell.as_str().unwrap()).args([flag.as_str().unwrap(), &prepare]));
    let config = std::fs::read_to_string(dir.path().join("nginx.conf")).unwrap();
    for server in ["server one:8443 max_fails=0;", "server two:8443 max_fails=0;"] {
        assert_eq!(config.matches(server).count(), 1, "{config}");
    }
    // The host names of the servers resolve only in the network of the containers.
    let config = config.replace("server one:", "server 127.0.0.1:").replace("server two:", "server 127.0.0.2:");
    let config = config
        .replace(&container_path(cert), &temp_path("cert.pem"))
        .replace(&container_path(key), &temp_path("key.pem"));
    std::fs::write(dir.path().join("nginx.conf"), format!("pid {};\n{config}", temp_path("pid"))).unwrap();
    let mut test = Command::new(nginx);
    test.args(["-t", "-q", "-e", "stderr", "-p"]).arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
    assert_eq!(String::from_utf8(run_checked(&mut test).stderr).unwrap(), "");
}
