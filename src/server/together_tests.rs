//! Who goes together, and that nobody is left behind.

use std::thread;

use super::*;

/// Waits until so many gather.
pub(in crate::server) fn until(together: &Together, count: usize) {
    while together.gathering().count < count {
        thread::yield_now();
    }
}

/// One whose groups wait until it is their turn.
pub(in crate::server) fn patient() -> Together {
    Together::new(Duration::from_secs(60))
}

fn first(together: &Together) -> Lead<'_> {
    match together.join(b"first\n") {
        Part::First(lead) => lead,
        Part::Other(stored) => panic!("not the first: {stored:?}"),
    }
}

fn answers(lines: &[u8]) -> Vec<Option<Digest>> {
    lines.split_inclusive(|byte| *byte == b'\n').map(|line| Some(Digest::of(line))).collect()
}

#[test]
fn who_comes_while_one_is_on_its_way_goes_with_the_next_and_gets_its_own_answer() {
    let together = patient();
    let on_its_way = first(&together);
    assert!(on_its_way.is_alone());
    let come = |number: usize| {
        let line = format!("{number}\n").into_bytes();
        let (stored, groups) = match together.join(&line) {
            Part::Other(stored) => (stored, 0),
            Part::First(mut lead) => {
                let lines = lead.lines();
                (lead.tell(answers(&lines)), 1)
            }
        };
        assert_eq!(stored, Some(Digest::of(&line)));
        groups
    };
    let groups: usize = thread::scope(|scope| {
        let come = &come;
        let all: Vec<_> = (0..50).map(|number| scope.spawn(move || come(number))).collect();
        until(&together, 50);
        drop(on_its_way);
        all.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(groups, 1);
}

#[test]
fn who_goes_without_a_word_leaves_each_to_ask_alone() {
    let together = patient();
    let on_its_way = first(&together);
    thread::scope(|scope| {
        let come = || matches!(together.join(b"line\n"), Part::Other(None));
        let lead = scope.spawn(|| drop(first(&together)));
        until(&together, 1);
        let others = [scope.spawn(come), scope.spawn(come)];
        until(&together, 3);
        drop(on_its_way);
        lead.join().unwrap();
        assert!(others.into_iter().all(|other| other.join().unwrap()));
    });
}

#[test]
fn a_line_that_was_not_answered_is_left_to_ask_alone() {
    let together = patient();
    let on_its_way = first(&together);
    thread::scope(|scope| {
        let lead = scope.spawn(|| first(&together).tell(vec![None]));
        until(&together, 1);
        let other = scope.spawn(|| matches!(together.join(b"line\n"), Part::Other(None)));
        until(&together, 2);
        drop(on_its_way);
        assert_eq!(lead.join().unwrap(), None);
        assert!(other.join().unwrap());
    });
}

#[test]
fn who_finds_a_full_group_is_not_made_to_wait() {
    let together = Together::new(Duration::from_secs(2));
    let on_its_way = first(&together);
    thread::scope(|scope| {
        let lead = scope.spawn(|| first(&together).tell(vec![Some(Digest::of(b"")); 2]));
        until(&together, 1);
        assert!(matches!(together.join(&vec![b' '; FULL]), Part::Other(None)));
        drop(on_its_way);
        lead.join().unwrap();
    });
}

#[test]
fn who_is_held_up_long_enough_goes_all_the_same() {
    let together = Together::default();
    let _held_up = first(&together);
    assert!(first(&together).is_alone());
}
