//! How a cluster starts and ends: in order, all at once, or not at all while it still seems to be there.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;
use crate::common::server::wait_until;

impl Cluster {
    /// Starts it, again after it was killed.
    pub fn start(&mut self) {
        assert!(self.try_start(), "{}", self.server_log());
    }

    pub(super) fn try_start(&mut self) -> bool {
        // Another may have been killed with its files left behind.
        let _ = std::fs::remove_file(self.data_dir().join("postmaster.pid"));
        let mut command = self.postgres_command("postgres");
        let addresses = if self.listens_on_tcp { "listen_addresses=127.0.0.1" } else { "listen_addresses=" };
        command.arg("-D").arg(self.data_dir()).arg("-k").arg(self.dir.path()).args(["-c", addresses]);
        command.arg("-p").arg(self.port.to_string());
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut has_ended = false;
        self.postmaster = Some(started);
        wait_until("PostgreSQL is ready", || {
            has_ended = self.postmaster.as_mut().unwrap().try_wait().unwrap().is_some();
            has_ended || self.try_sql("postgres", "SELECT 1").status.success()
        });
        if has_ended {
            self.postmaster = None;
        }
        !has_ended
    }

    /// What it has written into its log since it was started.
    pub fn server_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Kills all of its processes at once, as far as that can be.
    pub fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        let pid = Pid::from_child(&postmaster);
        let children = children(pid);
        kill_process(pid, Signal::KILL).unwrap();
        signal(&children, Signal::KILL);
        postmaster.wait().unwrap();
        wait_until("all of PostgreSQL has ended", || {
            children.iter().all(|child| !Path::new(&format!("/proc/{}/exe", child.as_raw_nonzero())).exists())
        });
    }

    /// Stops it in order: sessions are ended, what they were at is rolled back.
    pub fn stop(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else { return };
        kill_process(Pid::from_child(&postmaster), Signal::INT).unwrap();
        wait_until("PostgreSQL has stopped", || postmaster.try_wait().unwrap().is_some());
    }

    /// Holds all of its processes: connections are open, and nothing comes back on them.
    pub fn freeze(&self) {
        let postmaster = Pid::from_child(self.postmaster.as_ref().unwrap());
        // No new ones meanwhile.
        kill_process(postmaster, Signal::STOP).unwrap();
        signal(&children(postmaster), Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        let postmaster = Pid::from_child(self.postmaster.as_ref().unwrap());
        signal(&children(postmaster), Signal::CONT);
        kill_process(postmaster, Signal::CONT).unwrap();
    }
}

fn children(of: Pid) -> Vec<Pid> {
    let path = format!("/proc/{0}/task/{0}/children", of.as_raw_nonzero());
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

fn signal(processes: &[Pid], signal: Signal) {
    for process in processes {
        // It may have ended by itself.
        let _ = kill_process(*process, signal);
    }
}
