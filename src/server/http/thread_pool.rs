//! An elastic thread pool. A task goes to an idle worker, or a worker is started for it. A role for which no worker can
//! be started stays unfilled until a worker is idle. No role is lost or doubled.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Time after which an idle worker ends.
pub(super) const WORKER_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A task of a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task<T> {
    /// Become a leader.
    Lead(Role),
    /// Perform the handshake of a new connection.
    NewConnection(T),
}

/// Role of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serve connections that become readable, without end.
    Poll,
    /// Resume connections whose batch is complete, until none is left.
    Resume,
}

/// A pool of workers. The callers start the threads.
pub(super) struct ThreadPool<T> {
    /// Time after which an idle worker ends.
    keep_alive: Duration,
    state: Mutex<PoolState<T>>,
    task_ready: Condvar,
    all_ended: Condvar,
}

struct PoolState<T> {
    threads: usize,
    /// Number of workers that wait for a task. There are never more tasks than that.
    idle: usize,
    tasks: VecDeque<Task<T>>,
    /// Roles for which no worker could be started.
    unfilled_roles: Vec<Role>,
    shutting_down: bool,
}

impl<T> ThreadPool<T> {
    /// Creates a pool without workers.
    pub(super) fn new(keep_alive: Duration) -> Self {
        let state =
            PoolState { threads: 0, idle: 0, tasks: VecDeque::new(), unfilled_roles: Vec::new(), shutting_down: false };
        Self { keep_alive, state: Mutex::new(state), task_ready: Condvar::new(), all_ended: Condvar::new() }
    }

    /// Hands `task` to an idle worker, or has `spawn` start a worker for it. On error, the task is dropped, as all tasks
    /// are after a shutdown.
    ///
    /// The worker must call [`ThreadPool::unregister_worker`] when it ends.
    pub(super) fn dispatch(&self, task: Task<T>, spawn: impl FnOnce(Task<T>) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.shutting_down {
            return Ok(());
        }
        if state.tasks.len() < state.idle {
            state.tasks.push_back(task);
            drop(state);
            self.task_ready.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        spawn(task).inspect_err(|_| self.unregister_worker())
    }

    /// Hands a role to an idle worker, to a new one or, if none can be started, to the next that is idle.
    pub(super) fn pass_on(&self, role: Role, spawn: impl FnOnce(Task<T>) -> io::Result<()>) {
        if self.dispatch(Task::Lead(role), spawn).is_err() {
            self.state.lock().unfilled_roles.push(role);
            // A worker may have become idle meanwhile.
            self.task_ready.notify_one();
        }
    }

    /// Removes a worker that has ended or did not start.
    pub(super) fn unregister_worker(&self) {
        let mut state = self.state.lock();
        state.threads -= 1;
        if state.threads == 0 {
            self.all_ended.notify_all();
        }
    }

    /// Blocks until there is a task and returns it. `None`: the worker must end, because it was idle for too long or
    /// the pool is shut down.
    pub(super) fn next_task(&self) -> Option<Task<T>> {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.shutting_down {
                return None;
            }
            if let Some(role) = state.unfilled_roles.pop() {
                return Some(Task::Lead(role));
            }
            state.idle += 1;
            let wait = self.task_ready.wait_for(&mut state, self.keep_alive);
            state.idle -= 1;
            if wait.timed_out() && state.tasks.is_empty() && state.unfilled_roles.is_empty() {
                return None;
            }
        }
    }

    /// Ends all workers after their current tasks.
    pub(super) fn shut_down(&self) {
        self.state.lock().shutting_down = true;
        self.task_ready.notify_all();
    }

    /// Blocks until all workers have ended.
    pub(super) fn wait_until_empty(&self) {
        self.all_ended.wait_while(&mut self.state.lock(), |state| state.threads > 0);
    }
}

#[cfg(test)]
#[path = "thread_pool_tests.rs"]
mod tests;
