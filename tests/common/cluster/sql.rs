//! Databases of a cluster, and psql commands and sessions on them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use super::Cluster;

/// An open psql session. The process is killed on drop.
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
    /// Creates an empty database and returns its URL.
    pub fn database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    /// Returns the URL of the database `name` over the Unix socket.
    pub fn url(&self, name: &str) -> String {
        let port = if self.listens_on_tcp { format!("&port={}", self.port) } else { String::new() };
        format!("postgres://postgres:not-to-be-seen@/{name}?host={}{port}", self.dir.path().display())
    }

    /// Executes SQL and returns the unaligned output of psql. Panics if a statement fails.
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

    /// Opens a session, executes `sql` and keeps the session open, for example with locks held, until it is dropped.
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
