//! Which threads there are, and what there is for them to do. No task is lost: one that nobody is free for goes back to
//! who brought it, who starts a thread for it; a duty, for which none can be started, to the next who is free.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a thread may be called for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task<T> {
    /// Take over a duty.
    Duty(To),
    /// See to someone who is new.
    Welcome(T),
}

/// What a thread is on duty for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// Serve clients that wake up, always.
    Serve,
    /// Go on with those who are told what is stored, while there are any.
    GoOn,
}

/// What is to be done when the last thread has left.
pub(super) type Last = Box<dyn FnOnce() + Send>;

/// The threads.
pub(super) struct Crew<T> {
    /// How long a free thread stays.
    patience: Duration,
    state: Mutex<State<T>>,
    called: Condvar,
}

struct State<T> {
    threads: usize,
    /// Of these, who waits to be called. There are never more tasks than that.
    free: usize,
    tasks: VecDeque<Task<T>>,
    /// Duties that nobody has, since no thread could be started.
    vacant: Vec<To>,
    dismissed: bool,
    last: Option<Last>,
}

impl<T> Crew<T> {
    /// Nobody yet.
    pub(super) fn new(patience: Duration) -> Self {
        let tasks = VecDeque::new();
        let state = State { threads: 0, free: 0, tasks, vacant: Vec::new(), dismissed: false, last: None };
        Self { patience, state: Mutex::new(state), called: Condvar::new() }
    }

    /// A thread is about to start.
    pub(super) fn joins(&self) {
        self.lock().threads += 1;
    }

    /// A thread is gone, or did not start. Answers with what is to be done if it was the last.
    pub(super) fn leaves(&self) -> Option<Last> {
        let mut state = self.lock();
        state.threads -= 1;
        if state.threads == 0 { state.last.take() } else { None }
    }

    /// Calls a free thread for `task`, which comes back if there is none. Who was dismissed is not called any more.
    pub(super) fn call(&self, task: Task<T>) -> Result<(), Task<T>> {
        let mut state = self.lock();
        if state.dismissed {
            return Ok(());
        }
        if state.tasks.len() == state.free {
            return Err(task);
        }
        state.tasks.push_back(task);
        drop(state);
        self.called.notify_one();
        Ok(())
    }

    /// A duty that nobody could be found for: the next who has nothing else to do takes it over.
    pub(super) fn vacate(&self, duty: To) {
        self.lock().vacant.push(duty);
        // Somebody may have become free meanwhile.
        self.called.notify_one();
    }

    /// What a thread that has nothing to do is to do next. `None`: leave.
    pub(super) fn next(&self) -> Option<Task<T>> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.dismissed {
                return None;
            }
            if let Some(duty) = state.vacant.pop() {
                return Some(Task::Duty(duty));
            }
            state.free += 1;
            let (again, waited) =
                self.called.wait_timeout(state, self.patience).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.free -= 1;
            if waited.timed_out() && state.tasks.is_empty() && state.vacant.is_empty() {
                return None;
            }
        }
    }

    /// Sends all away once they have done what they are at. `last` comes back if nobody is there, else from
    /// [`Crew::leaves`].
    pub(super) fn dismiss(&self, last: Last) -> Option<Last> {
        let mut state = self.lock();
        state.dismissed = true;
        if state.threads == 0 {
            return Some(last);
        }
        state.last = Some(last);
        drop(state);
        self.called.notify_all();
        None
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
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

    const LONG: Duration = Duration::from_secs(60);

    /// A thread that does what it is called for as long as anything comes, and what that was.
    fn employ(crew: &Arc<Crew<u32>>) -> thread::JoinHandle<Vec<Task<u32>>> {
        crew.joins();
        let crew = Arc::clone(crew);
        thread::spawn(move || {
            let done = iter::from_fn(|| crew.next()).collect();
            crew.leaves();
            done
        })
    }

    #[test]
    fn a_task_goes_to_who_is_free_or_comes_back() {
        let crew = Arc::new(Crew::new(LONG));
        assert_eq!(crew.call(Task::Welcome(1)), Err(Task::Welcome(1)));
        let thread = employ(&crew);
        while crew.call(Task::Welcome(2)).is_err() {
            thread::yield_now();
        }
        while !crew.lock().tasks.is_empty() {
            thread::yield_now();
        }
        crew.dismiss(Box::new(|| ()));
        assert_eq!(thread.join().unwrap(), [Task::Welcome(2)]);
    }

    #[test]
    fn no_task_is_lost_to_who_is_about_to_leave_and_none_waits_for_who_is_not_free() {
        let crew = Crew::new(Duration::from_micros(20));
        let in_order = |state: &State<u32>| assert!(state.tasks.len() <= state.free, "a task for nobody");
        let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let accepted = thread::scope(|scope| {
            // It leaves, and comes again.
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    done.fetch_add(iter::from_fn(|| crew.next()).count(), SeqCst);
                    in_order(&crew.lock());
                }
            });
            let accepted = (0..500_000).filter(|number| {
                let accepted = crew.call(Task::Welcome(*number)).is_ok();
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
    fn a_vacant_duty_is_taken_over_by_the_next_who_has_nothing_to_do() {
        let crew = Crew::<()>::new(LONG);
        crew.vacate(To::Serve);
        assert_eq!(crew.next(), Some(Task::Duty(To::Serve)));
        thread::scope(|scope| {
            let waits = scope.spawn(|| crew.next());
            while crew.lock().free == 0 {
                thread::yield_now();
            }
            crew.vacate(To::GoOn);
            assert_eq!(waits.join().unwrap(), Some(Task::Duty(To::GoOn)));
        });
    }

    #[test]
    fn the_last_who_leaves_hears_what_is_to_be_done_then() {
        let crew = Crew::<()>::new(LONG);
        let (sent, came) = mpsc::channel();
        crew.joins();
        crew.joins();
        let last = Box::new(move || sent.send(()).unwrap());
        assert!(crew.dismiss(last).is_none() && crew.next().is_none());
        assert!(crew.leaves().is_none());
        crew.leaves().unwrap()();
        came.recv().unwrap();
        assert_eq!(crew.call(Task::Duty(To::Serve)), Ok(()));
        assert!(crew.dismiss(Box::new(|| ())).is_some());
    }
}
