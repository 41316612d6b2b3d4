//! `PgBouncer` in front of a cluster, on a Unix socket in the directory of the cluster.

use std::process::{Child, Stdio};

use super::Cluster;
use crate::common::find_tool;
use crate::common::server::wait_until;

/// Part of the port number in the name of the Unix socket.
const PORT: u16 = 6432;

/// When `PgBouncer` gives a connection to another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Session,
    Transaction,
}

/// A running `PgBouncer`. The process is killed on drop.
pub struct Pooler<'a> {
    cluster: &'a Cluster,
    child: Child,
}

impl<'a> Pooler<'a> {
    /// Starts `PgBouncer` with at most `connections` connections to each database. Returns `None` if it is not
    /// installed.
    pub fn start(cluster: &'a Cluster, mode: PoolMode, connections: usize) -> Option<Self> {
        let program = find_tool("pgbouncer")?;
        let dir = cluster.dir.path().display();
        let mode = match mode {
            PoolMode::Session => "session",
            PoolMode::Transaction => "transaction",
        };
        let config = format!(
            "[databases]\n* = host={dir} port={} user=postgres\n\
             [pgbouncer]\nlisten_addr =\nunix_socket_dir = {dir}\nlisten_port = {PORT}\nauth_type = any\n\
             pool_mode = {mode}\ndefault_pool_size = {connections}\nmax_client_conn = 500\n",
            cluster.port
        );
        std::fs::write(cluster.dir.path().join("pgbouncer.ini"), config).unwrap();
        let log = std::fs::File::create(cluster.dir.path().join("pgbouncer.log")).unwrap();
        let mut command = cluster.command_as_postgres(&program);
        let command = command.arg("pgbouncer.ini").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut pooler = Self { cluster, child: command.spawn().unwrap() };
        let socket = cluster.dir.path().join(format!(".s.PGSQL.{PORT}"));
        wait_until("PgBouncer listens", || {
            assert_eq!(pooler.child.try_wait().unwrap(), None, "{}", pooler.log());
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        Some(pooler)
    }

    /// Returns the URL of a database through the pooler.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres:not-to-be-seen@/{name}?host={}&port={PORT}", self.cluster.dir.path().display())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.dir.path().join("pgbouncer.log")).unwrap()
    }
}

impl Drop for Pooler<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
