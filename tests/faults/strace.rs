//! System calls that fail, do nothing or kill, by strace's injection.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What happens to calls.
pub struct Injection {
    /// Names of calls, and what happens to them, as strace says it: `error=EIO:when=3`.
    expressions: Vec<(&'static str, String)>,
    /// Only calls on these files; none: on any.
    paths: Vec<PathBuf>,
}

impl Injection {
    pub fn new(call: &'static str, what: impl Into<String>) -> Self {
        Self { expressions: vec![(call, what.into())], paths: Vec::new() }
    }

    pub fn with_call(mut self, call: &'static str, what: impl Into<String>) -> Self {
        self.expressions.push((call, what.into()));
        self
    }

    pub fn on_paths(self, paths: Vec<PathBuf>) -> Self {
        Self { paths, ..self }
    }

    /// The command under strace, which writes what it did to `trace`.
    pub fn wrap(&self, command: &Command, trace: &Path) -> Command {
        let mut wrapped = Command::new("strace");
        wrapped.args(["-f", "-qq", "-o"]).arg(trace);
        let calls: Vec<_> = self.expressions.iter().map(|(call, _)| *call).collect();
        wrapped.args(["-e", &format!("trace={}", calls.join(","))]);
        for (call, what) in &self.expressions {
            wrapped.args(["-e", &format!("inject={call}:{what}")]);
        }
        for path in &self.paths {
            wrapped.arg("-P").arg(path);
        }
        exec_under(&mut wrapped, command);
        wrapped
    }
}

/// Lets `wrapper` run `command`, in its environment.
pub fn exec_under(wrapper: &mut Command, command: &Command) {
    wrapper.env_clear().arg(command.get_program()).args(command.get_args());
    wrapper.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
}

/// How often the injection took place.
pub fn injected_count(trace: &Path) -> usize {
    let trace = std::fs::read(trace).unwrap_or_default();
    String::from_utf8_lossy(&trace).matches("(INJECTED)").count()
}
