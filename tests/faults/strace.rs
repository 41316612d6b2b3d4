//! Fault injection with strace: system calls that fail, do nothing or kill the process.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Faults that strace injects into system calls.
pub struct Injection {
    /// System calls, each with a fault in the syntax of strace, for example `error=EIO:when=3`.
    faults: Vec<(&'static str, String)>,
    /// Files that a system call must concern. Empty: any call.
    paths: Vec<PathBuf>,
}

impl Injection {
    /// Returns an injection of `fault`, in the syntax of strace, into `call`.
    pub fn new(call: &'static str, fault: impl Into<String>) -> Self {
        Self { faults: vec![(call, fault.into())], paths: Vec::new() }
    }

    /// Adds the injection of `fault` into `call`.
    pub fn with_call(mut self, call: &'static str, fault: impl Into<String>) -> Self {
        self.faults.push((call, fault.into()));
        self
    }

    /// Restricts the injection to calls on `paths`. Empty: any call.
    pub fn on_paths(self, paths: Vec<PathBuf>) -> Self {
        Self { paths, ..self }
    }

    /// Returns `command` under strace, which writes its output to `trace`.
    pub fn wrap(&self, command: &Command, trace: &Path) -> Command {
        let mut wrapped = Command::new("strace");
        wrapped.args(["-f", "-qq", "-o"]).arg(trace);
        let calls: Vec<_> = self.faults.iter().map(|(call, _)| *call).collect();
        wrapped.args(["-e", &format!("trace={}", calls.join(","))]);
        for (call, fault) in &self.faults {
            wrapped.args(["-e", &format!("inject={call}:{fault}")]);
        }
        for path in &self.paths {
            wrapped.arg("-P").arg(path);
        }
        exec_under(&mut wrapped, command);
        wrapped
    }
}

/// Appends `command` to the arguments of `wrapper`, which gets the environment of `command`.
pub fn exec_under(wrapper: &mut Command, command: &Command) {
    wrapper.env_clear().arg(command.get_program()).args(command.get_args());
    wrapper.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
}

/// Returns the number of injected faults in the output of strace.
pub fn injected_count(trace: &Path) -> usize {
    let trace = std::fs::read(trace).unwrap_or_default();
    String::from_utf8_lossy(&trace).matches("(INJECTED)").count()
}
