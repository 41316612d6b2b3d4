//! A PostgreSQL of a test's own, from the system's packages: in a temporary directory, on a socket there, gone with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::server::until;
use super::{Sandbox, skipped};

/// Its processes end with it.
pub struct Cluster {
    dir: TempDir,
    bin: PathBuf,
    postmaster: Option<Child>,
    settings: Vec<String>,
}

impl Cluster {
    /// Started; `None`: there is no PostgreSQL here, and the test is skipped.
    pub fn new(settings: &[&str]) -> Option<Self> {
        let Some(bin) = bin() else {
            skipped("there is no PostgreSQL");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        if is_root() {
            let owned = Command::new("chown").arg("postgres").arg(dir.path()).status();
            assert!(owned.unwrap().success());
        }
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut cluster = Self { dir, bin, postmaster: None, settings };
        let mut initdb = cluster.tool("initdb");
        initdb.args(["-U", "postgres", "--auth", "trust", "-N", "-E", "UTF8", "--locale", "C", "-D"]);
        let made = initdb.arg(cluster.data()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster.start();
        Some(cluster)
    }

    /// Starts it, again after it was killed.
    pub fn start(&mut self) {
        // Another may have been killed with its files left behind.
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let mut command = self.tool("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path()).args(["-c", "listen_addresses="]);
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        self.postmaster = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        until("PostgreSQL is ready", || self.try_sql("postgres", "SELECT 1").status.success());
    }

    /// Kills all of its processes at once, as far as that can be.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        let pid = Pid::from_child(&postmaster);
        let path = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
        let children = std::fs::read_to_string(path).unwrap_or_default();
        kill_process(pid, Signal::KILL).unwrap();
        for child in children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().unwrap())) {
            // It may have ended by itself.
            let _ = kill_process(child, Signal::KILL);
        }
        postmaster.wait().unwrap();
        until("all of PostgreSQL has ended", || {
            children.split_whitespace().all(|child| !Path::new(&format!("/proc/{child}/exe")).exists())
        });
    }

    /// An empty database, by its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgres://postgres:not-to-be-seen@/{name}?host={}", self.dir.path().display())
    }

    /// What SQL answers, in plain lines.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let Output { status, stdout, stderr } = self.try_sql(database, sql);
        assert!(status.success(), "{sql}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    fn try_sql(&self, database: &str, sql: &str) -> Output {
        let mut psql = self.tool("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql, "-h"]);
        psql.arg(self.dir.path()).output().unwrap()
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
