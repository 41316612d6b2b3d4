//! The Debian package: its content, and its installation, upgrade and removal.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::packages::{debian_package, run_checked};
use crate::common::podman::stdout_text;
use crate::common::systemd_container::SystemdContainer;
use crate::common::{FOO, has_tool};

#[test]
fn the_package_has_the_documented_files_and_a_static_binary() {
    let Some(deb) = debian_package() else { return };
    let field = |name: &str| stdout_text(&run_checked(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name)));
    assert_eq!(field("Version"), concat!(env!("CARGO_PKG_VERSION"), "-1"));
    assert_eq!(field("Depends"), "");
    let dir = tempfile::tempdir().unwrap();
    run_checked(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(dir.path()));
    let path = |path: &str| dir.path().join(path);
    for (file, mode) in [
        ("usr/bin/sha-api", 0o755),
        ("lib/systemd/system/sha-api.service", 0o644),
        ("lib/systemd/system/sha-api.socket", 0o644),
        ("etc/sha-api/sha-api.toml", 0o644),
        ("etc/logrotate.d/sha-api", 0o644),
        ("usr/share/bash-completion/completions/sha-api", 0o644),
        ("usr/share/zsh/vendor-completions/_sha-api", 0o644),
        ("usr/share/fish/vendor_completions.d/sha-api.fish", 0o644),
        ("usr/share/doc/sha-api/copyright", 0o644),
        ("usr/share/doc/sha-api/changelog.gz", 0o644),
        ("usr/share/doc/sha-api/changelog.Debian.gz", 0o644),
    ] {
        let metadata = std::fs::metadata(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{file}");
    }
    let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/man")).unwrap();
    for page in pages {
        let page = page.unwrap().file_name().into_string().unwrap();
        assert!(path(&format!("usr/share/man/man1/{page}.gz")).exists(), "{page}");
    }
    let conffiles = std::fs::read_to_string(path("DEBIAN/conffiles")).unwrap();
    assert_eq!(conffiles, "/etc/logrotate.d/sha-api\n/etc/sha-api/sha-api.toml\n");
    run_checked(Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(dir.path()));
    let put = |binary: &mut Command| {
        stdout_text(&run_checked(binary.args(["put", "foo", "--store"]).arg(dir.path().join("store"))))
    };
    assert_eq!(put(Command::new(path("usr/bin/sha-api")).env_clear()), FOO);
}

#[test]
fn lintian_reports_only_overridden_tags() {
    let Some(deb) = debian_package() else { return };
    if !has_tool("lintian") {
        return;
    }
    let flags = ["--no-cfg", "--allow-root", "--fail-on", "error,warning"];
    // The build profile of the tests does not strip the binary.
    let suppressed = "unstripped-binary-or-object";
    let output =
        stdout_text(&run_checked(Command::new("lintian").args(flags).args(["--suppress-tags", suppressed]).arg(deb)));
    assert_eq!(output, "");
}

#[test]
fn changed_settings_survive_an_upgrade_and_messages_survive_removal() {
    let Some(container) = SystemdContainer::new() else { return };
    let settings = "etc/sha-api/sha-api.toml";
    container.write_file(settings, "store = '/var/lib/mine'\n");
    container.write_file("var/lib/private/sha-api/log/00000001.log", "messages");
    container.dpkg(&["--install", debian_package().unwrap().to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(container.path(settings)).unwrap(), "store = '/var/lib/mine'\n");
    container.dpkg(&["--remove", "sha-api"]);
    assert!(container.path(settings).exists() && !container.path("usr/bin/sha-api").exists());
    container.dpkg(&["--purge", "sha-api"]);
    assert!(!container.path(settings).exists());
    assert!(container.path("var/lib/private/sha-api/log/00000001.log").exists());
}
