//! Starting, stopping, killing and freezing of a PostgreSQL cluster.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;
use crate::common::server::wait_until;

impl Cluster {
    /// Starts the cluster and waits until it accepts queries. The cluster may have been killed before.
    pub fn start(&mut self) {
        assert!(self.try_start(), "{}", self.server_log());
    }

    /// Starts the cluster. Returns `false` if the postmaster exits before it accepts queries.
    pub(super) fn try_start(&mut self) -> bool {
        // A killed postmaster leaves its pid file behind.
        let _ = std::fs::remove_file(self.data_dir().join("postmaster.pid"));
        let mut command = self.postgres_command("postgres");
        let addresses = if self.listens_on_tcp { "listen_addresses=127.0.0.1" } else { "listen_addresses=" };
        command.arg("-D").arg(self.data_dir()).arg("-k").arg(self.dir.path()).args(["-c", addresses]);
        command.arg("-p").arg(self.port.to_string());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let postmaster = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut has_exited = false;
        self.postmaster = Some(postmaster);
        wait_until("PostgreSQL is ready", || {
            has_exited = self.postmaster.as_mut().unwrap().try_wait().unwrap().is_some();
            has_exited || self.try_sql("postgres", "SELECT 1").status.success()
        });
        if has_exited {
            self.postmaster = None;
        }
        !has_exited
    }

    /// Returns the server log since the last start.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Kills the postmaster and its children with SIGKILL and waits until all have exited.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        let pid = Pid::from_child(&postmaster);
        let children = children(pid);
        kill_process(pid, Signal::KILL).unwrap();
        signal(&children, Signal::KILL);
        postmaster.wait().unwrap();
        wait_until("all PostgreSQL processes have exited", || {
            children.iter().all(|child| !Path::new(&format!("/proc/{}/exe", child.as_raw_nonzero())).exists())
        });
    }

    /// Performs a fast shutdown: open transactions are rolled back and sessions are closed.
    pub fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        kill_process(Pid::from_child(&postmaster), Signal::INT).unwrap();
        wait_until("PostgreSQL has stopped", || postmaster.try_wait().unwrap().is_some());
    }

    /// Stops all processes with SIGSTOP: connections stay open, but no query is answered.
    pub fn freeze(&self) {
        let postmaster = Pid::from_child(self.postmaster.as_ref().unwrap());
        // The postmaster goes first so that it starts no new children.
        kill_process(postmaster, Signal::STOP).unwrap();
        signal(&children(postmaster), Signal::STOP);
    }

    /// Continues all processes after [`Cluster::freeze`].
    pub fn thaw(&self) {
        let postmaster = Pid::from_child(self.postmaster.as_ref().unwrap());
        signal(&children(postmaster), Signal::CONT);
        kill_process(postmaster, Signal::CONT).unwrap();
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // The process may have exited.
        let _ = kill_process(*process, signal);
    }
}
