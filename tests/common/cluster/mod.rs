//! A PostgreSQL of a test's own, from the system's packages: in a temporary directory, on a socket there, gone with it.

mod life;
mod sql;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{Sandbox, skipped};

/// Its processes end with it.
pub struct Cluster {
    dir: TempDir,
    bin: PathBuf,
    postmaster: Option<Child>,
    settings: Vec<String>,
    port: u16,
    /// Whether it is also there at that port of 127.0.0.1.
    listens: bool,
}

impl Cluster {
    /// Started; `None`: there is no PostgreSQL here, and the test is skipped.
    pub fn new(settings: &[&str]) -> Option<Self> {
        let mut cluster = Self::made(settings)?;
        cluster.start();
        Some(cluster)
    }

    /// The same, listening on a free port, after its files were changed.
    pub fn on_a_port(settings: &[&str], change: impl FnOnce(&Path)) -> Option<Self> {
        let mut cluster = Self::made(settings)?;
        change(&cluster.data());
        cluster.is_owned();
        cluster.listens = true;
        for _ in 0..10 {
            cluster.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if cluster.try_start() {
                return Some(cluster);
            }
            // Somebody else has taken the port since it was found to be free.
            assert!(cluster.said().contains("Address already in use"), "{}", cluster.said());
        }
        panic!("no port stays free");
    }

    fn made(settings: &[&str]) -> Option<Self> {
        let cluster = Self::without_data(settings)?;
        let mut initdb = cluster.tool("initdb");
        initdb.args(["-U", "postgres", "--auth", "trust", "-N", "-E", "UTF8", "--locale", "C", "-D"]);
        let made = initdb.arg(cluster.data()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(cluster)
    }

    /// A copy of it that follows it, and takes no changes until it is promoted.
    pub fn standby(&self) -> Self {
        let mut standby = Self::without_data(&[]).unwrap();
        let mut copy = self.tool("pg_basebackup");
        copy.args(["-U", "postgres", "-c", "fast", "-R", "-h"])
            .arg(self.dir.path())
            .arg("-p")
            .arg(self.port.to_string());
        // Each program works in its own directory, which the other's may not be able to enter: they have one owner.
        let copied = copy.arg("-D").arg(standby.data()).output().unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        standby.start();
        standby
    }

    fn without_data(settings: &[&str]) -> Option<Self> {
        let Some(bin) = bin() else {
            skipped("there is no PostgreSQL");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let cluster = Self { dir, bin, postmaster: None, settings, port: 5432, listens: false };
        cluster.is_owned();
        Some(cluster)
    }

    /// Makes all of its files those of who runs it.
    fn is_owned(&self) {
        if is_root() {
            let owned = Command::new("chown").args(["-R", "postgres:postgres"]).arg(self.dir.path()).status();
            assert!(owned.unwrap().success());
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One of its programs, as who may run it: PostgreSQL refuses root.
    fn tool(&self, name: &str) -> Command {
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(self.bin.join(name));
                command
            }
            false => Command::new(self.bin.join(name)),
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
pub fn on(url: &str) -> Sandbox {
    Sandbox::new().at(url)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn bin() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let places = installed.map(|version| version.path().join("bin")).chain(std::env::split_paths(&paths));
    places.into_iter().find(|dir| dir.join("initdb").is_file())
}
