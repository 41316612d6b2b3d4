//! A full disk under a database is reported as such. Reads still work, no acknowledged message is lost, and writes work
//! again when there is free space.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use predicates::str::contains;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::{Server, build_request};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes, report_skip};

/// An in-memory file system of 48 MiB, unmounted on drop.
struct SmallFileSystem {
    sandbox: Sandbox,
}

impl SmallFileSystem {
    /// Mounts the file system. Returns `None`, and reports that the test is skipped, if mounting is not permitted.
    fn new() -> Option<Self> {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.dir().join("disk")).unwrap();
        let small = Self { sandbox };
        // The user `postgres` must be able to search the parent directory, which is private by default.
        let searchable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(small.sandbox.dir(), searchable).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=48m", "tmpfs"]).arg(small.mount_point()).output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            report_skip("mounting a file system requires root");
            return None;
        }
        let owned = Command::new("chown").arg("postgres").arg(small.mount_point()).status();
        assert!(owned.unwrap().success());
        Some(small)
    }

    fn mount_point(&self) -> PathBuf {
        self.sandbox.dir().join("disk")
    }

    /// Fills the file system except for 1 MiB.
    fn fill(&self) {
        let available = statvfs(self.mount_point()).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
        let filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        let length = filler.metadata().unwrap().len();
        fallocate(&filler, FallocateFlags::empty(), length, available - (1 << 20)).unwrap();
    }

    /// Removes the filler file.
    fn release_space(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.mount_point().join("filler")
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        // Lazy, because a cluster that is dropped later may still use the file system.
        let _ =
            Command::new("umount").arg("--lazy").arg(self.mount_point()).stderr(std::process::Stdio::null()).status();
    }
}

/// Creates a database in a tablespace at `point` and returns its URL.
fn database_in_tablespace(cluster: &Cluster, point: &Path) -> String {
    cluster.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", point.display()));
    cluster.sql("postgres", "CREATE DATABASE one TABLESPACE small");
    cluster.url("one")
}

/// Returns `count` lines of `length` pseudorandom hex digits, which PostgreSQL does not compress.
fn random_lines(count: u64, length: usize, seed: u64) -> Vec<u8> {
    let line = |number| {
        pseudorandom_bytes(length / 2, seed + number).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    (0..count).flat_map(|number| (line(number) + "\n").into_bytes()).collect()
}

#[test]
fn a_full_disk_is_reported_and_loses_nothing() {
    let Some(small) = SmallFileSystem::new() else { return };
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = database_in_tablespace(&cluster, &small.mount_point());
    let sandbox = database_sandbox(&url);
    sandbox.sha_api(["put", "foo"]).assert().code(0);
    let server = Server::start(database_sandbox(&url), &["--http", "--max-body", "8MiB"]);
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        small.fill();
        // The input is larger than the free space.
        let input = random_lines(2000, 4000, 1 + round * 10_000);
        let put = sandbox.sha_api(["put", "--lines"]).write_stdin(input).assert().code(3);
        let put =
            put.stderr(contains("cannot write to postgres://postgres@/one: no space left on device; free some space"));
        acknowledged.extend(String::from_utf8_lossy(&put.get_output().stdout).lines().map(str::to_owned));
        let message = pseudorandom_bytes(4 << 20, 5 + round);
        let path = format!("/messages/{}", digest(&message));
        let upload = || server.client().call_bytes(build_request("PUT", &path, "", &message));
        let refused = upload();
        assert_eq!((refused.status, refused.text()), (507, r#"{"err_msg": "No space left"}"#));
        // The disk is still full: stored messages can be read.
        assert_eq!(server.get(&format!("/messages/{FOO}")).status, 200);
        sandbox.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
        assert_eq!(server.get(&path).status, 404);
        small.release_space();
        assert_eq!(upload().status, 201);
        sandbox.sha_api(["put", &format!("round {round}")]).assert().code(0).stderr("");
        server.wait_ready();
    }
    sandbox.sha_api(["has", "-"]).write_stdin(acknowledged.join("\n")).assert().code(0).stdout("");
    assert!(!server.read_stderr().contains("panicked"), "{}", server.read_stderr());
    drop((server, cluster, small));
}

#[test]
fn the_disk_full_error_of_postgresql_is_recognised() {
    let Some(cluster) = Cluster::new(&[]) else { return };
    let url = cluster.database("one");
    let server = Server::start(database_sandbox(&url), &["--http"]);
    // The trigger raises the error that PostgreSQL raises on a full disk, so that this test needs no mount.
    cluster.sql(
        "one",
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
        END $$;
        CREATE TRIGGER is_full BEFORE INSERT ON messages EXECUTE FUNCTION full_disk()",
    );
    let put =
        database_sandbox(&url).sha_api(["put", "foo"]).timeout(super::COMMAND_TIMEOUT).assert().code(3).stdout("");
    put.stderr(contains("cannot write to postgres://postgres@/one: no space left on device"));
    let response = server.client().call(&crate::common::server::post_request("foo", ""));
    assert_eq!((response.status, response.text()), (507, r#"{"err_msg": "No space left"}"#));
    cluster.sql("one", "DROP TRIGGER is_full ON messages");
    server.assert_healthy();
}
