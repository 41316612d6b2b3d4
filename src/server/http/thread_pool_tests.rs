//! Dispatch to idle workers, their end, and the hand-over of roles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;
use std::{iter, thread};

use super::*;

const LONG_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Fails to start a worker.
fn no_thread<T>(_: Task<T>) -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}

#[test]
fn a_task_goes_to_an_idle_worker_or_to_a_new_one() {
    let pool = Arc::new(ThreadPool::new(LONG_KEEP_ALIVE));
    assert!(pool.dispatch(Task::NewConnection(0), no_thread).is_err());
    let (done, done_rx) = std::sync::mpsc::channel();
    let worker_pool = Arc::clone(&pool);
    let spawn = |task| {
        thread::spawn(move || {
            let mut next = Some(task);
            while let Some(task) = next {
                done.send(task).unwrap();
                next = worker_pool.next_task();
            }
            worker_pool.unregister_worker();
        });
        Ok(())
    };
    pool.dispatch(Task::NewConnection(1), spawn).unwrap();
    while pool.dispatch(Task::NewConnection(2), no_thread).is_err() {
        thread::yield_now();
    }
    while !pool.state.lock().tasks.is_empty() {
        thread::yield_now();
    }
    pool.shut_down();
    pool.wait_until_empty();
    assert_eq!(done_rx.iter().collect::<Vec<_>>(), [Task::NewConnection(1), Task::NewConnection(2)]);
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
                assert_invariant(&pool.state.lock());
            }
        });
        let accepted = (0..500_000).filter(|number| {
            let accepted = pool.dispatch(Task::NewConnection(*number), no_thread).is_ok();
            assert_invariant(&pool.state.lock());
            thread::yield_now();
            accepted
        });
        let accepted = accepted.count();
        is_over.store(true, SeqCst);
        accepted
    });
    assert_eq!(completed.into_inner(), accepted);
    assert!(pool.state.lock().tasks.is_empty() && accepted > 0);
}

#[test]
fn an_unfilled_role_is_taken_by_the_next_idle_worker() {
    let pool = ThreadPool::<()>::new(LONG_KEEP_ALIVE);
    pool.pass_on(Role::Poll, no_thread);
    assert_eq!(pool.next_task(), Some(Task::Lead(Role::Poll)));
    thread::scope(|scope| {
        let worker = scope.spawn(|| pool.next_task());
        while pool.state.lock().idle == 0 {
            thread::yield_now();
        }
        pool.pass_on(Role::Resume, no_thread);
        assert_eq!(worker.join().unwrap(), Some(Task::Lead(Role::Resume)));
    });
}

#[test]
fn a_pool_that_is_shut_down_drops_tasks_and_waits_for_its_workers() {
    let pool = ThreadPool::<()>::new(LONG_KEEP_ALIVE);
    for _ in 0..2 {
        pool.dispatch(Task::Lead(Role::Poll), |_| Ok(())).unwrap();
    }
    pool.shut_down();
    assert!(pool.next_task().is_none() && pool.dispatch(Task::Lead(Role::Poll), no_thread).is_ok());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.wait_until_empty());
        pool.unregister_worker();
        thread::yield_now();
        assert!(!waiting.is_finished(), "a worker is left");
        pool.unregister_worker();
    });
}

/// A model of an endpoint: workers hold roles, and pass them on at random while other tasks arrive and threads cannot
/// always be started.
struct Model {
    pool: ThreadPool<()>,
    /// Number of workers that hold a role, and its maximum.
    held: AtomicUsize,
    max_held: AtomicUsize,
    /// Number of hand-overs that are left. Afterwards, leaders keep their roles.
    hand_overs_left: AtomicUsize,
    is_over: AtomicBool,
    seed: AtomicUsize,
}

const ROLES: usize = 3;

impl Model {
    /// Returns a random number below `bound` (xorshift).
    fn random(&self, bound: usize) -> usize {
        let mut state = self.seed.fetch_add(0x9e37_79b9, SeqCst);
        for shift in [13, 7] {
            state ^= state << shift;
            state ^= state >> 5;
        }
        state % bound
    }

    fn spawn(self: &Arc<Self>, task: Task<()>) -> io::Result<()> {
        if self.random(4) == 0 {
            return no_thread(task);
        }
        let model = Arc::clone(self);
        thread::spawn(move || {
            let mut next = Some(task);
            while let Some(task) = next {
                model.run(&task);
                next = model.pool.next_task();
            }
            model.pool.unregister_worker();
        });
        Ok(())
    }

    fn run(self: &Arc<Self>, task: &Task<()>) {
        let Task::Lead(role) = *task else { return thread::yield_now() };
        self.max_held.fetch_max(self.held.fetch_add(1, SeqCst) + 1, SeqCst);
        while !self.is_over.load(SeqCst) {
            let may_hand_over = |left: usize| left.checked_sub(1);
            if self.random(3) == 0 && self.hand_overs_left.fetch_update(SeqCst, SeqCst, may_hand_over).is_ok() {
                self.held.fetch_sub(1, SeqCst);
                self.pool.pass_on(role, |task| self.spawn(task));
                // The former leader is busy for a while.
                (0..self.random(3)).for_each(|_| thread::yield_now());
                return;
            }
            thread::yield_now();
        }
    }

    /// Calls `step` until no hand-over is left and workers hold all roles. Panics if that does not happen in time.
    fn wait_until_all_roles_are_held(&self, step: impl Fn()) {
        let deadline = Instant::now() + LONG_KEEP_ALIVE;
        while self.hand_overs_left.load(SeqCst) > 0 || self.held.load(SeqCst) < ROLES {
            assert!(Instant::now() < deadline, "a role is lost");
            step();
            thread::yield_now();
        }
    }
}

#[test]
fn roles_are_neither_lost_nor_doubled_when_they_are_passed_on() {
    for round in 0..20 {
        let model = Arc::new(Model {
            // Workers expire between tasks.
            pool: ThreadPool::new(Duration::from_micros(50)),
            held: AtomicUsize::new(0),
            max_held: AtomicUsize::new(0),
            hand_overs_left: AtomicUsize::new(500),
            is_over: AtomicBool::new(false),
            seed: AtomicUsize::new(round),
        });
        for _ in 0..ROLES {
            while model.pool.dispatch(Task::Lead(Role::Poll), |task| model.spawn(task)).is_err() {}
        }
        model.wait_until_all_roles_are_held(|| {
            // Other tasks compete for the workers. They may find no thread.
            let _ = model.pool.dispatch(Task::NewConnection(()), |task| model.spawn(task));
        });
        model.is_over.store(true, SeqCst);
        model.pool.shut_down();
        model.pool.wait_until_empty();
        assert_eq!(model.max_held.load(SeqCst), ROLES, "no role is doubled");
    }
}
