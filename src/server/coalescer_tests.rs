//! Who goes together, and that nobody is left behind.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

/// Each who was told, and what.
type Completed = (usize, Option<Digest>);

/// One whose groups wait until it is their turn.
pub(in crate::server) fn coalescer_with_long_wait() -> PutCoalescer {
    PutCoalescer::new(Duration::from_secs(60))
}

fn batch_line(number: usize) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

fn enqueue<'a>(together: &'a PutCoalescer, number: usize, told: &Sender<Completed>) -> Enqueued<'a> {
    let told = told.clone();
    together.enqueue(&batch_line(number), Box::new(move |stored| told.send((number, stored)).unwrap()))
}

fn enqueue_leader<'a>(together: &'a PutCoalescer, number: usize, told: &Sender<Completed>) -> BatchLeader<'a> {
    match enqueue(together, number, told) {
        Enqueued::Leader(lead) => lead,
        Enqueued::Follower | Enqueued::Rejected(_) => panic!("not the first"),
    }
}

fn line_digests(lines: &[u8]) -> Vec<Option<Digest>> {
    lines.split_inclusive(|byte| *byte == b'\n').map(|line| Some(Digest::compute(line))).collect()
}

/// Takes the only turn.
fn leader_in_flight(together: &PutCoalescer) -> BatchLeader<'_> {
    let mut lead = enqueue_leader(together, 0, &channel().0);
    mem::take(&mut together.open_batch().waiters);
    assert_eq!(lead.seal(), None);
    lead
}

fn drain_completed(told: &Receiver<Completed>) -> Vec<Completed> {
    let mut all: Vec<_> = told.try_iter().collect();
    all.sort_unstable();
    all
}

#[test]
fn puts_enqueued_during_a_batch_join_the_next_and_get_their_own_digests() {
    let (together, (tell, told)) = (coalescer_with_long_wait(), channel());
    let on_its_way = leader_in_flight(&together);
    let mut lead = enqueue_leader(&together, 1, &tell);
    thread::scope(|scope| {
        let lead = scope.spawn(move || {
            let lines = lead.seal().unwrap();
            lead.complete(line_digests(&lines));
        });
        for number in 2..=50 {
            assert!(matches!(enqueue(&together, number, &tell), Enqueued::Follower));
        }
        assert_eq!(drain_completed(&told), []);
        drop(on_its_way);
        lead.join().unwrap();
    });
    assert_eq!(
        drain_completed(&told),
        (1..=50).map(|number| (number, Some(Digest::compute(&batch_line(number))))).collect::<Vec<_>>()
    );
}

#[test]
fn a_single_put_is_not_coalesced() {
    let (together, (tell, told)) = (coalescer_with_long_wait(), channel());
    let mut lead = enqueue_leader(&together, 1, &tell);
    assert_eq!(lead.seal(), None);
    drop(lead);
    assert_eq!(drain_completed(&told), [(1, None)]);
}

#[test]
fn a_dropped_leader_completes_every_waiter_without_a_digest() {
    let (together, (tell, told)) = (coalescer_with_long_wait(), channel());
    for gathers in [true, false] {
        let mut lead = enqueue_leader(&together, 1, &tell);
        assert!(matches!(enqueue(&together, 2, &tell), Enqueued::Follower));
        if gathers {
            assert_eq!(lead.seal().as_deref(), Some(&b"1\n2\n"[..]));
        }
        drop(lead);
        assert_eq!(drain_completed(&told), [(1, None), (2, None)]);
    }
}

#[test]
fn a_leader_completes_only_the_waiters_of_its_own_batch() {
    let (together, (tell, told)) = (coalescer_with_long_wait(), channel());
    let mut lead = enqueue_leader(&together, 1, &tell);
    assert!(matches!(enqueue(&together, 2, &tell), Enqueued::Follower));
    let lines = lead.seal().unwrap();
    let next = enqueue_leader(&together, 3, &tell);
    // A line that was not answered is left to ask alone.
    lead.complete(line_digests(&lines)[..1].to_vec());
    assert_eq!(drain_completed(&told), [(1, Some(Digest::compute(&batch_line(1)))), (2, None)]);
    drop(next);
    assert_eq!(drain_completed(&told), [(3, None)]);
}

#[test]
fn a_put_that_does_not_fit_the_batch_is_rejected_at_once() {
    let (together, (tell, told)) = (coalescer_with_long_wait(), channel());
    let _lead = enqueue_leader(&together, 1, &tell);
    let long = together.enqueue(&vec![b' '; MAX_BATCH_BYTES], Box::new(move |stored| tell.send((2, stored)).unwrap()));
    let Enqueued::Rejected(then) = long else { panic!("there was room") };
    then(None);
    assert_eq!(drain_completed(&told), [(2, None)]);
}

#[test]
fn a_batch_is_sealed_after_the_maximum_wait() {
    let (together, (tell, _told)) = (PutCoalescer::default(), channel());
    let _held_up = leader_in_flight(&together);
    assert_eq!(enqueue_leader(&together, 1, &tell).seal(), None);
}
