//! A PostgreSQL of a test's own, from the system's packages: in a temporary directory, on a socket there, gone with it.

mod lifecycle;
mod sql;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{Sandbox, report_skip};

/// Its processes end with it.
pub struct Cluster {
    dir: TempDir,
    bin_dir: PathBuf,
    postmaster: Option<Child>,
    settings: Vec<String>,
    port: u16,
    /// Whether it is also there at that port of 127.0.0.1.
    listens_on_tcp: bool,
}

impl Cluster {
    /// Started; `None`: there is no PostgreSQL here, and the test is skipped.
    pub fn new(settings: &[&str]) -> Option<Self> {
        let mut cluster = Self::initialized(settings)?;
        cluster.start();
        Some(cluster)
    }

    /// The same, listening on a free port, after its files were changed.
    pub fn new_on_tcp(settings: &[&str], change: impl FnOnce(&Path)) -> Option<Self> {
        let mut cluster = Self::initialized(settings)?;
        change(&cluster.data_dir());
        cluster.chown_files();
        cluster.listens_on_tcp = true;
        for _ in 0..10 {
            cluster.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if cluster.try_start() {
                return Some(cluster);
            }
            // Somebody else has taken the port since it was found to be free.
            assert!(cluster.server_log().contains("Address already in use"), "{}", cluster.server_log());
        }
        panic!("no port stays free");
    }

    fn initialized(settings: &[&str]) -> Option<Self> {
        let cluster = Self::without_data_dir(settings)?;
        let mut initdb = cluster.postgres_command("initdb");
        initdb.args(["-U", "postgres", "--auth", "trust", "-N", "-E", "UTF8", "--locale", "C", "-D"]);
        let made = initdb.arg(cluster.data_dir()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(cluster)
    }

    /// A copy of it that follows it, and takes no changes until it is promoted.
    pub fn standby(&self) -> Self {
        let mut standby = Self::without_data_dir(&[]).unwrap();
        let mut copy = self.postgres_command("pg_basebackup");
        copy.args(["-U", "postgres", "-c", "fast", "-R", "-h"])
            .arg(self.dir.path())
            .arg("-p")
            .arg(self.port.to_string());
        // Each program works in its own directory, which the other's may not be able to enter: they have one owner.
        let copied = copy.arg("-D").arg(standby.data_dir()).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        standby.start();
        standby
    }

    fn without_data_dir(settings: &[&str]) -> Option<Self> {
        let Some(bin) = find_bin_dir() else {
            report_skip("there is no PostgreSQL");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let cluster = Self { dir, bin_dir: bin, postmaster: None, settings, port: 5432, listens_on_tcp: false };
        cluster.chown_files();
        Some(cluster)
    }

    /// Makes all of its files those of who runs it.
    fn chown_files(&self) {
        if is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:postgres"]).arg(self.dir.path()).status();
            assert!(owned.unwrap().success());
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One of its programs, as who may run it: PostgreSQL refuses root.
    fn postgres_command(&self, name: &str) -> Command {
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
                    .arg(self.bin_dir.join(name));
                command
            }
            false => Command::new(self.bin_dir.join(name)),
        };
        command.current_dir(self.dir.path()).env_remove("PGPASSWORD");
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A sandbox whose commands work on a database.
pub fn database_sandbox(url: &str) -> Sandbox {
    Sandbox::new().on_database(url)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn find_bin_dir() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let places = installed.map(|version| version.path().join("bin")).chain(std::env::split_paths(&paths));
    places.into_iter().find(|dir| dir.join("initdb").is_file())
}
