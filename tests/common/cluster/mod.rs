//! A temporary PostgreSQL cluster from the installed packages. Data and Unix socket are in a temporary directory, which
//! is deleted on drop.

mod lifecycle;
mod pooler;
mod protocol_proxy;
mod sql;

pub use pooler::{PoolMode, Pooler};
pub use protocol_proxy::{Fault, ProtocolProxy};

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{Sandbox, report_skip};

/// A PostgreSQL cluster. Its processes are killed on drop.
pub struct Cluster {
    dir: TempDir,
    bin_dir: PathBuf,
    postmaster: Option<Child>,
    settings: Vec<String>,
    port: u16,
    /// `true` if the cluster also listens on `port` of 127.0.0.1.
    listens_on_tcp: bool,
}

impl Cluster {
    /// Starts a cluster with `settings`. Returns `None` if PostgreSQL is not installed.
    pub fn new(settings: &[&str]) -> Option<Self> {
        let mut cluster = Self::initialized(settings)?;
        cluster.start();
        Some(cluster)
    }

    /// Starts a cluster that also listens on a free TCP port. `change` may edit the files of the data directory before
    /// the start. Returns `None` if PostgreSQL is not installed.
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
            // Another process has bound the port since it was found to be free.
            assert!(cluster.server_log().contains("Address already in use"), "{}", cluster.server_log());
        }
        panic!("no free port was found");
    }

    fn initialized(settings: &[&str]) -> Option<Self> {
        let cluster = Self::without_data_dir(settings)?;
        let mut initdb = cluster.postgres_command("initdb");
        initdb.args(["-U", "postgres", "--auth", "trust", "-N", "-E", "UTF8", "--locale", "C", "-D"]);
        let output = initdb.arg(cluster.data_dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(cluster)
    }

    /// Starts a streaming standby of this cluster, which is read-only until it is promoted.
    pub fn standby(&self) -> Self {
        let mut standby = Self::without_data_dir(&[]).unwrap();
        let mut copy = self.postgres_command("pg_basebackup");
        copy.args(["-U", "postgres", "-c", "fast", "-R", "-h"])
            .arg(self.dir.path())
            .arg("-p")
            .arg(self.port.to_string());
        // pg_basebackup can write to the directory of the standby because both clusters belong to the same user.
        let output = copy.arg("-D").arg(standby.data_dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        standby.start();
        standby
    }

    fn without_data_dir(settings: &[&str]) -> Option<Self> {
        let Some(bin_dir) = find_bin_dir() else {
            report_skip("PostgreSQL is not installed");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let cluster = Self { dir, bin_dir, postmaster: None, settings, port: 5432, listens_on_tcp: false };
        cluster.chown_files();
        Some(cluster)
    }

    /// Gives all files to the user that runs PostgreSQL.
    fn chown_files(&self) {
        if is_root() {
            let status = Command::new("chown").args(["-R", "postgres:postgres"]).arg(self.dir.path()).status();
            assert!(status.unwrap().success());
        }
    }

    /// Returns the port, which is also part of the name of the Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Returns a command that runs the PostgreSQL program `name`. As root it switches to the user `postgres`, because
    /// PostgreSQL refuses to run as root.
    fn postgres_command(&self, name: &str) -> Command {
        self.command_as_postgres(&self.bin_dir.join(name))
    }

    /// Returns a command that runs `program` in the directory of the cluster, as the user `postgres` if this is root.
    fn command_as_postgres(&self, program: &Path) -> Command {
        let mut command = match is_root() {
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
                command
            }
            false => Command::new(program),
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

/// Returns a sandbox whose store is the database at `url`.
pub fn database_sandbox(url: &str) -> Sandbox {
    Sandbox::new().on_database(url)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn find_bin_dir() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let dirs = installed.map(|version| version.path().join("bin")).chain(std::env::split_paths(&paths));
    dirs.into_iter().find(|dir| dir.join("initdb").is_file())
}
