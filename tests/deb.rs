//! The Debian package: what is in it, and that it comes and goes as a package should.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::machine::Machine;
use crate::common::packages::{deb, run};
use crate::common::podman::text;
use crate::common::{FOO, has_tool};

#[test]
fn the_package_holds_what_is_documented_and_its_binary_needs_nothing() {
    let Some(deb) = deb() else { return };
    let field = |name: &str| text(&run(Command::new("dpkg-deb").arg("--field").arg(deb).arg(name)));
    assert_eq!(field("Version"), concat!(env!("CARGO_PKG_VERSION"), "-1"));
    assert_eq!(field("Depends"), "");
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("dpkg-deb").arg("--raw-extract").arg(deb).arg(dir.path()));
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
        let found = std::fs::metadata(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{file}");
    }
    let pages = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/man")).unwrap();
    for page in pages {
        let page = page.unwrap().file_name().into_string().unwrap();
        assert!(path(&format!("usr/share/man/man1/{page}.gz")).exists(), "{page}");
    }
    let settings = std::fs::read_to_string(path("DEBIAN/conffiles")).unwrap();
    assert_eq!(settings, "/etc/logrotate.d/sha-api\n/etc/sha-api/sha-api.toml\n");
    run(Command::new("md5sum").args(["--check", "--quiet", "DEBIAN/md5sums"]).current_dir(dir.path()));
    let put = |binary: &mut Command| text(&run(binary.args(["put", "foo", "--store"]).arg(dir.path().join("store"))));
    assert_eq!(put(Command::new(path("usr/bin/sha-api")).env_clear()), FOO);
}

#[test]
fn lintian_finds_nothing_that_is_not_justified() {
    let Some(deb) = deb() else { return };
    if !has_tool("lintian") {
        return;
    }
    let lintian = ["--no-cfg", "--allow-root", "--fail-on", "error,warning"];
    // Tests build what is not stripped, and not for others.
    let hidden = "unstripped-binary-or-object";
    let said = text(&run(Command::new("lintian").args(lintian).args(["--suppress-tags", hidden]).arg(deb)));
    assert_eq!(said, "");
}

#[test]
fn settings_that_were_changed_outlive_an_upgrade_and_the_messages_outlive_the_package() {
    let Some(machine) = Machine::new() else { return };
    let settings = "etc/sha-api/sha-api.toml";
    machine.write(settings, "store = '/var/lib/mine'\n");
    machine.write("var/lib/private/sha-api/log/00000001.log", "messages");
    machine.dpkg(&["--install", deb().unwrap().to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(machine.path(settings)).unwrap(), "store = '/var/lib/mine'\n");
    machine.dpkg(&["--remove", "sha-api"]);
    assert!(machine.path(settings).exists() && !machine.path("usr/bin/sha-api").exists());
    machine.dpkg(&["--purge", "sha-api"]);
    assert!(!machine.path(settings).exists());
    assert!(machine.path("var/lib/private/sha-api/log/00000001.log").exists());
}
