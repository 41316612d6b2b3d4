//! Batches: which puts they have, and the completion of each put.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

/// Number of a put, and the digest that its completion received.
type Completed = (usize, Option<Digest>);

/// Creates a coalescer whose batches wait for the batch in flight.
pub(in crate::server) fn coalescer_with_long_wait() -> PutCoalescer {
    PutCoalescer::new(Duration::from_secs(60))
}

fn batch_line(number: usize) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

fn enqueue<'a>(coalescer: &'a PutCoalescer, number: usize, completed_tx: &Sender<Completed>) -> Enqueued<'a> {
    let completed_tx = completed_tx.clone();
    coalescer.enqueue(&batch_line(number), Box::new(move |digest| completed_tx.send((number, digest)).unwrap()))
}

fn enqueue_leader<'a>(coalescer: &'a PutCoalescer, number: usize, completed_tx: &Sender<Completed>) -> BatchLeader<'a> {
    match enqueue(coalescer, number, completed_tx) {
        Enqueued::Leader(leader) => leader,
        Enqueued::Follower | Enqueued::Rejected(_) => panic!("the put is not the first of its batch"),
    }
}

fn line_digests(lines: &[u8]) -> Vec<Option<Digest>> {
    lines.split_inclusive(|byte| *byte == b'\n').map(|line| Some(Digest::compute(line))).collect()
}

/// Returns a leader that holds the only permit.
fn leader_in_flight(coalescer: &PutCoalescer) -> BatchLeader<'_> {
    let mut leader = enqueue_leader(coalescer, 0, &channel().0);
    mem::take(&mut coalescer.open_batch().waiters);
    assert_eq!(leader.seal(), None);
    leader
}

fn drain_completed(completed: &Receiver<Completed>) -> Vec<Completed> {
    let mut all: Vec<_> = completed.try_iter().collect();
    all.sort_unstable();
    all
}

#[test]
fn puts_enqueued_during_a_batch_join_the_next_and_get_their_own_digests() {
    let (coalescer, (completed_tx, completed)) = (coalescer_with_long_wait(), channel());
    let in_flight = leader_in_flight(&coalescer);
    let mut leader = enqueue_leader(&coalescer, 1, &completed_tx);
    thread::scope(|scope| {
        let leader = scope.spawn(move || {
            let lines = leader.seal().unwrap();
            leader.complete(line_digests(&lines));
        });
        for number in 2..=50 {
            assert!(matches!(enqueue(&coalescer, number, &completed_tx), Enqueued::Follower));
        }
        assert_eq!(drain_completed(&completed), []);
        drop(in_flight);
        leader.join().unwrap();
    });
    assert_eq!(
        drain_completed(&completed),
        (1..=50).map(|number| (number, Some(Digest::compute(&batch_line(number))))).collect::<Vec<_>>()
    );
}

#[test]
fn a_single_put_is_not_coalesced() {
    let (coalescer, (completed_tx, completed)) = (coalescer_with_long_wait(), channel());
    let mut leader = enqueue_leader(&coalescer, 1, &completed_tx);
    assert_eq!(leader.seal(), None);
    drop(leader);
    assert_eq!(drain_completed(&completed), [(1, None)]);
}

#[test]
fn a_dropped_leader_completes_every_waiter_without_a_digest() {
    let (coalescer, (completed_tx, completed)) = (coalescer_with_long_wait(), channel());
    for is_sealed in [true, false] {
        let mut leader = enqueue_leader(&coalescer, 1, &completed_tx);
        assert!(matches!(enqueue(&coalescer, 2, &completed_tx), Enqueued::Follower));
        if is_sealed {
            assert_eq!(leader.seal().as_deref(), Some(&b"1\n2\n"[..]));
        }
        drop(leader);
        assert_eq!(drain_completed(&completed), [(1, None), (2, None)]);
    }
}

#[test]
fn a_leader_completes_only_the_waiters_of_its_own_batch() {
    let (coalescer, (completed_tx, completed)) = (coalescer_with_long_wait(), channel());
    let mut leader = enqueue_leader(&coalescer, 1, &completed_tx);
    assert!(matches!(enqueue(&coalescer, 2, &completed_tx), Enqueued::Follower));
    let lines = leader.seal().unwrap();
    let next_leader = enqueue_leader(&coalescer, 3, &completed_tx);
    // A put without a digest in the response is completed with `None`.
    leader.complete(line_digests(&lines)[..1].to_vec());
    assert_eq!(drain_completed(&completed), [(1, Some(Digest::compute(&batch_line(1)))), (2, None)]);
    drop(next_leader);
    assert_eq!(drain_completed(&completed), [(3, None)]);
}

#[test]
fn a_put_that_does_not_fit_the_batch_is_rejected_at_once() {
    let (coalescer, (completed_tx, completed)) = (coalescer_with_long_wait(), channel());
    let _leader = enqueue_leader(&coalescer, 1, &completed_tx);
    let enqueued = coalescer
        .enqueue(&vec![b' '; MAX_BATCH_BYTES], Box::new(move |digest| completed_tx.send((2, digest)).unwrap()));
    let Enqueued::Rejected(completion) = enqueued else { panic!("the put was not rejected") };
    completion(None);
    assert_eq!(drain_completed(&completed), [(2, None)]);
}

#[test]
fn a_batch_is_sealed_after_the_maximum_wait() {
    let (coalescer, (completed_tx, _completed)) = (PutCoalescer::default(), channel());
    let _in_flight = leader_in_flight(&coalescer);
    assert_eq!(enqueue_leader(&coalescer, 1, &completed_tx).seal(), None);
}
