//! An elastic thread pool. [`ThreadPool::try_dispatch`] returns the task if no worker is idle; the caller then starts a
//! worker. A role for which no worker can be started stays unfilled until a worker is idle. No task is lost.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// Callback that runs when the last worker has ended.
pub(super) type OnDrained = Box<dyn FnOnce() + Send>;

/// A pool of workers. The callers start the threads.
pub(super) struct ThreadPool<T> {
    /// Time after which an idle worker ends.
    keep_alive: Duration,
    state: Mutex<PoolState<T>>,
    task_ready: Condvar,
}

struct PoolState<T> {
    threads: usize,
    /// Number of workers that wait for a task. There are never more tasks than that.
    idle: usize,
    tasks: VecDeque<Task<T>>,
    /// Roles for which no worker could be started.
    unfilled_roles: Vec<Role>,
    shutting_down: bool,
    on_drained: Option<OnDrained>,
}

impl<T> ThreadPool<T> {
    /// Creates a pool without workers.
    pub(super) fn new(keep_alive: Duration) -> Self {
        let tasks = VecDeque::new();
        let state = PoolState {
            threads: 0,
            idle: 0,
            tasks,
            unfilled_roles: Vec::new(),
            shutting_down: false,
            on_drained: None,
        };
        Self { keep_alive, state: Mutex::new(state), task_ready: Condvar::new() }
    }

    /// Registers a worker that is about to start.
    pub(super) fn register_worker(&self) {
        self.lock().threads += 1;
    }

    /// Removes a worker that has ended or did not start. Returns the shutdown callback if it was the last one.
    pub(super) fn unregister_worker(&self) -> Option<OnDrained> {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 { state.on_drained.take() } else { None }
    }

    /// Hands `task` to an idle worker, or returns it if there is none. After a shutdown, tasks are dropped.
    pub(super) fn try_dispatch(&self, task: Task<T>) -> Result<(), Task<T>> {
        let mut state = self.lock();
        if state.shutting_down {
            return Ok(());
        }
        if state.tasks.len() == state.idle {
            return Err(task);
        }
        state.tasks.push_back(task);
        drop(state);
        self.task_ready.notify_one();
        Ok(())
    }

    /// Leaves a role, for which no worker could be started, to the next idle worker.
    pub(super) fn offer_role(&self, role: Role) {
        self.lock().unfilled_roles.push(role);
        // A worker may have become idle meanwhile.
        self.task_ready.notify_one();
    }

    /// Blocks until there is a task and returns it. `None`: the worker must end, because it was idle for too long or
    /// the pool is shut down.
    pub(super) fn next_task(&self) -> Option<Task<T>> {
        let mut state = self.lock();
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
            let (guard, wait) =
                self.task_ready.wait_timeout(state, self.keep_alive).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if wait.timed_out() && state.tasks.is_empty() && state.unfilled_roles.is_empty() {
                return None;
            }
        }
    }

    /// Ends all workers after their current tasks. Returns `on_drained` if there are no workers; else the last
    /// [`ThreadPool::unregister_worker`] returns it.
    pub(super) fn shutdown(&self, on_drained: OnDrained) -> Option<OnDrained> {
        let mut state = self.lock();
        state.shutting_down = true;
        if state.threads == 0 {
            return Some(on_drained);
        }
        state.on_drained = Some(on_drained);
        drop(state);
        self.task_ready.notify_all();
        None
    }

    fn lock(&self) -> MutexGuard<'_, PoolState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    const LONG_KEEP_ALIVE: Duration = Duration::from_secs(60);

    /// Starts a worker that runs until the pool is shut down and returns its tasks.
    fn spawn_worker(pool: &Arc<ThreadPool<u32>>) -> thread::JoinHandle<Vec<Task<u32>>> {
        pool.register_worker();
        let pool = Arc::clone(pool);
        thread::spawn(move || {
            let completed = iter::from_fn(|| pool.next_task()).collect();
            pool.unregister_worker();
            completed
        })
    }

    #[test]
    fn a_task_goes_to_an_idle_worker_or_is_returned() {
        let pool = Arc::new(ThreadPool::new(LONG_KEEP_ALIVE));
        assert_eq!(pool.try_dispatch(Task::NewConnection(1)), Err(Task::NewConnection(1)));
        let thread = spawn_worker(&pool);
        while pool.try_dispatch(Task::NewConnection(2)).is_err() {
            thread::yield_now();
        }
        while !pool.lock().tasks.is_empty() {
            thread::yield_now();
        }
        pool.shutdown(Box::new(|| ()));
        assert_eq!(thread.join().unwrap(), [Task::NewConnection(2)]);
    }

    #[test]
    fn no_task_is_lost_to_an_expiring_worker_or_waits_without_an_idle_one() {
        let pool = ThreadPool::new(Duration::from_micros(20));
        let assert_invariant =
            |state: &PoolState<u32>| assert!(state.tasks.len() <= state.idle, "a task without an idle worker");
        let (is_over, completed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let accepted = thread::scope(|scope| {
            // The worker ends after each timeout and starts again.
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    completed.fetch_add(iter::from_fn(|| pool.next_task()).count(), SeqCst);
                    assert_invariant(&pool.lock());
                }
            });
            let accepted = (0..500_000).filter(|number| {
                let accepted = pool.try_dispatch(Task::NewConnection(*number)).is_ok();
                assert_invariant(&pool.lock());
                thread::yield_now();
                accepted
            });
            let accepted = accepted.count();
            is_over.store(true, SeqCst);
            accepted
        });
        assert_eq!(completed.into_inner(), accepted);
        assert!(pool.lock().tasks.is_empty() && accepted > 0);
    }

    #[test]
    fn an_unfilled_role_is_taken_by_the_next_idle_worker() {
        let pool = ThreadPool::<()>::new(LONG_KEEP_ALIVE);
        pool.offer_role(Role::Poll);
        assert_eq!(pool.next_task(), Some(Task::Lead(Role::Poll)));
        thread::scope(|scope| {
            let worker = scope.spawn(|| pool.next_task());
            while pool.lock().idle == 0 {
                thread::yield_now();
            }
            pool.offer_role(Role::Resume);
            assert_eq!(worker.join().unwrap(), Some(Task::Lead(Role::Resume)));
        });
    }

    #[test]
    fn the_last_worker_to_exit_gets_the_drained_callback() {
        let pool = ThreadPool::<()>::new(LONG_KEEP_ALIVE);
        let (drained_tx, drained_rx) = mpsc::channel();
        pool.register_worker();
        pool.register_worker();
        let on_drained = Box::new(move || drained_tx.send(()).unwrap());
        assert!(pool.shutdown(on_drained).is_none() && pool.next_task().is_none());
        assert!(pool.unregister_worker().is_none());
        pool.unregister_worker().unwrap()();
        drained_rx.recv().unwrap();
        assert_eq!(pool.try_dispatch(Task::Lead(Role::Poll)), Ok(()));
        assert!(pool.shutdown(Box::new(|| ())).is_some());
    }
}
