//! Which threads there are, and what there is for them to do. No task is lost: one that nobody is free for goes back to
//! who brought it, who starts a thread for it; a duty, for which none can be started, to the next who is free.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a thread may be called for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task<T> {
    /// Take over a duty.
    Lead(Role),
    /// See to someone who is new.
    NewConnection(T),
}

/// What a thread is on duty for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Serve clients that wake up, always.
    Poll,
    /// Go on with those who are told what is stored, while there are any.
    Resume,
}

/// What is to be done when the last thread has left.
pub(super) type OnDrained = Box<dyn FnOnce() + Send>;

/// The threads.
pub(super) struct ThreadPool<T> {
    /// How long a free thread stays.
    keep_alive: Duration,
    state: Mutex<PoolState<T>>,
    task_ready: Condvar,
}

struct PoolState<T> {
    threads: usize,
    /// Of these, who waits to be called. There are never more tasks than that.
    idle: usize,
    tasks: VecDeque<Task<T>>,
    /// Duties that nobody has, since no thread could be started.
    unfilled_roles: Vec<Role>,
    shutting_down: bool,
    on_drained: Option<OnDrained>,
}

impl<T> ThreadPool<T> {
    /// Nobody yet.
    pub(super) fn new(patience: Duration) -> Self {
        let tasks = VecDeque::new();
        let state = PoolState {
            threads: 0,
            idle: 0,
            tasks,
            unfilled_roles: Vec::new(),
            shutting_down: false,
            on_drained: None,
        };
        Self { keep_alive: patience, state: Mutex::new(state), task_ready: Condvar::new() }
    }

    /// A thread is about to start.
    pub(super) fn register_worker(&self) {
        self.lock().threads += 1;
    }

    /// A thread is gone, or did not start. Answers with what is to be done if it was the last.
    pub(super) fn unregister_worker(&self) -> Option<OnDrained> {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 { state.on_drained.take() } else { None }
    }

    /// Calls a free thread for `task`, which comes back if there is none. Who was dismissed is not called any more.
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

    /// A duty that nobody could be found for: the next who has nothing else to do takes it over.
    pub(super) fn offer_role(&self, duty: Role) {
        self.lock().unfilled_roles.push(duty);
        // Somebody may have become free meanwhile.
        self.task_ready.notify_one();
    }

    /// What a thread that has nothing to do is to do next. `None`: leave.
    pub(super) fn next_task(&self) -> Option<Task<T>> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.shutting_down {
                return None;
            }
            if let Some(duty) = state.unfilled_roles.pop() {
                return Some(Task::Lead(duty));
            }
            state.idle += 1;
            let (again, waited) =
                self.task_ready.wait_timeout(state, self.keep_alive).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if waited.timed_out() && state.tasks.is_empty() && state.unfilled_roles.is_empty() {
                return None;
            }
        }
    }

    /// Sends all away once they have done what they are at. `last` comes back if nobody is there, else from
    /// [`ThreadPool::unregister_worker`].
    pub(super) fn shutdown(&self, last: OnDrained) -> Option<OnDrained> {
        let mut state = self.lock();
        state.shutting_down = true;
        if state.threads == 0 {
            return Some(last);
        }
        state.on_drained = Some(last);
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

    /// A thread that does what it is called for as long as anything comes, and what that was.
    fn spawn_worker(crew: &Arc<ThreadPool<u32>>) -> thread::JoinHandle<Vec<Task<u32>>> {
        crew.register_worker();
        let crew = Arc::clone(crew);
        thread::spawn(move || {
            let done = iter::from_fn(|| crew.next_task()).collect();
            crew.unregister_worker();
            done
        })
    }

    #[test]
    fn a_task_goes_to_an_idle_worker_or_is_returned() {
        let crew = Arc::new(ThreadPool::new(LONG_KEEP_ALIVE));
        assert_eq!(crew.try_dispatch(Task::NewConnection(1)), Err(Task::NewConnection(1)));
        let thread = spawn_worker(&crew);
        while crew.try_dispatch(Task::NewConnection(2)).is_err() {
            thread::yield_now();
        }
        while !crew.lock().tasks.is_empty() {
            thread::yield_now();
        }
        crew.shutdown(Box::new(|| ()));
        assert_eq!(thread.join().unwrap(), [Task::NewConnection(2)]);
    }

    #[test]
    fn no_task_is_lost_to_an_expiring_worker_or_waits_without_an_idle_one() {
        let crew = ThreadPool::new(Duration::from_micros(20));
        let in_order = |state: &PoolState<u32>| assert!(state.tasks.len() <= state.idle, "a task for nobody");
        let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let accepted = thread::scope(|scope| {
            // It leaves, and comes again.
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    done.fetch_add(iter::from_fn(|| crew.next_task()).count(), SeqCst);
                    in_order(&crew.lock());
                }
            });
            let accepted = (0..500_000).filter(|number| {
                let accepted = crew.try_dispatch(Task::NewConnection(*number)).is_ok();
                in_order(&crew.lock());
                thread::yield_now();
                accepted
            });
            let accepted = accepted.count();
            is_over.store(true, SeqCst);
            accepted
        });
        assert_eq!(done.into_inner(), accepted);
        assert!(crew.lock().tasks.is_empty() && accepted > 0);
    }

    #[test]
    fn an_unfilled_role_is_taken_by_the_next_idle_worker() {
        let crew = ThreadPool::<()>::new(LONG_KEEP_ALIVE);
        crew.offer_role(Role::Poll);
        assert_eq!(crew.next_task(), Some(Task::Lead(Role::Poll)));
        thread::scope(|scope| {
            let waits = scope.spawn(|| crew.next_task());
            while crew.lock().idle == 0 {
                thread::yield_now();
            }
            crew.offer_role(Role::Resume);
            assert_eq!(waits.join().unwrap(), Some(Task::Lead(Role::Resume)));
        });
    }

    #[test]
    fn the_last_worker_to_exit_gets_the_drained_callback() {
        let crew = ThreadPool::<()>::new(LONG_KEEP_ALIVE);
        let (sent, came) = mpsc::channel();
        crew.register_worker();
        crew.register_worker();
        let last = Box::new(move || sent.send(()).unwrap());
        assert!(crew.shutdown(last).is_none() && crew.next_task().is_none());
        assert!(crew.unregister_worker().is_none());
        crew.unregister_worker().unwrap()();
        came.recv().unwrap();
        assert_eq!(crew.try_dispatch(Task::Lead(Role::Poll)), Ok(()));
        assert!(crew.shutdown(Box::new(|| ())).is_some());
    }
}
