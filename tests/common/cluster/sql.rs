//! Databases of a cluster, and what is said to them by psql, for the test or in the name of somebody else.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use super::Cluster;

/// A session of somebody else.
pub struct PsqlSession {
    child: Child,
    _stdin: ChildStdin,
}

impl Drop for PsqlSession {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Cluster {
    /// An empty database, by its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// A database over the socket.
    pub fn url(&self, name: &str) -> String {
        let port = if self.listens_on_tcp { format!("&port={}", self.port) } else { String::new() };
        format!("postgres://postgres:not-to-be-seen@/{name}?host={}{port}", self.dir.path().display())
    }

    /// What SQL answers, in plain lines.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let Output { status, stdout, stderr } = self.try_sql(database, sql);
        assert!(status.success(), "{sql}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    pub(super) fn try_sql(&self, database: &str, sql: &str) -> Output {
        self.psql(database).args(["-c", sql]).output().unwrap()
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = self.postgres_command("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-h"]);
        psql.arg(self.dir.path()).arg("-p").arg(self.port.to_string());
        psql
    }

    /// A session in which `sql` was done, and which stays as it is until it is dropped.
    pub fn open_session(&self, database: &str, sql: &str) -> PsqlSession {
        let mut child = self.psql(database).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{sql};\n\\echo done").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
        PsqlSession { child, _stdin: stdin }
    }
}
