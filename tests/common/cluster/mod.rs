//! A PostgreSQL of a test's own, from the system's packages: in a temporary directory, on a socket there, gone with it.

mod sql;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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

    /// Starts it, again after it was killed.
    pub fn start(&mut self) {
        assert!(self.try_start(), "{}", self.said());
    }

    fn try_start(&mut self) -> bool {
        // Another may have been killed with its files left behind.
        let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
        let mut command = self.tool("postgres");
        let addresses = if self.listens { "listen_addresses=127.0.0.1" } else { "listen_addresses=" };
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path()).args(["-c", addresses]);
        command.arg("-p").arg(self.port.to_string());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut postmaster = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut has_ended = false;
        until("PostgreSQL is ready", || {
            has_ended = postmaster.try_wait().unwrap().is_some();
            has_ended || self.try_sql("postgres", "SELECT 1").status.success()
        });
        self.postmaster = Some(postmaster).filter(|_| !has_ended);
        !has_ended
    }

    /// What it has written into its log since it was started.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
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

    /// Stops it in order: sessions are ended, what they were at is rolled back.
    pub fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        kill_process(Pid::from_child(&postmaster), Signal::INT).unwrap();
        until("PostgreSQL has stopped", || postmaster.try_wait().unwrap().is_some());
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
