//! Who goes together, and that nobody is left behind.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::*;

/// Each who was told, and what.
type Told = (usize, Option<Digest>);

/// One whose groups wait until it is their turn.
pub(in crate::server) fn patient() -> Together {
    Together::new(Duration::from_secs(60))
}

fn line(number: usize) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

fn join<'a>(together: &'a Together, number: usize, told: &Sender<Told>) -> Joined<'a> {
    let told = told.clone();
    together.join(&line(number), Box::new(move |stored| told.send((number, stored)).unwrap()))
}

fn first<'a>(together: &'a Together, number: usize, told: &Sender<Told>) -> Lead<'a> {
    match join(together, number, told) {
        Joined::First(lead) => lead,
        Joined::Later | Joined::Full(_) => panic!("not the first"),
    }
}

fn answers(lines: &[u8]) -> Vec<Option<Digest>> {
    lines.split_inclusive(|byte| *byte == b'\n').map(|line| Some(Digest::of(line))).collect()
}

/// Takes the only turn.
fn on_its_way(together: &Together) -> Lead<'_> {
    let mut lead = first(together, 0, &channel().0);
    mem::take(&mut together.gathering().members);
    assert_eq!(lead.gather(), None);
    lead
}

fn all(told: &Receiver<Told>) -> Vec<Told> {
    let mut all: Vec<_> = told.try_iter().collect();
    all.sort_unstable();
    all
}

#[test]
fn who_comes_while_one_is_on_its_way_goes_with_the_next_and_gets_its_own_answer() {
    let (together, (tell, told)) = (patient(), channel());
    let on_its_way = on_its_way(&together);
    let mut lead = first(&together, 1, &tell);
    thread::scope(|scope| {
        let lead = scope.spawn(move || {
            let lines = lead.gather().unwrap();
            lead.tell(answers(&lines));
        });
        for number in 2..=50 {
            assert!(matches!(join(&together, number, &tell), Joined::Later));
        }
        assert_eq!(all(&told), []);
        drop(on_its_way);
        lead.join().unwrap();
    });
    assert_eq!(all(&told), (1..=50).map(|number| (number, Some(Digest::of(&line(number))))).collect::<Vec<_>>());
}

#[test]
fn who_is_alone_asks_for_itself() {
    let (together, (tell, told)) = (patient(), channel());
    let mut lead = first(&together, 1, &tell);
    assert_eq!(lead.gather(), None);
    drop(lead);
    assert_eq!(all(&told), [(1, None)]);
}

#[test]
fn who_goes_without_a_word_leaves_each_to_ask_alone() {
    let (together, (tell, told)) = (patient(), channel());
    for gathers in [true, false] {
        let mut lead = first(&together, 1, &tell);
        assert!(matches!(join(&together, 2, &tell), Joined::Later));
        if gathers {
            assert_eq!(lead.gather().as_deref(), Some(&b"1\n2\n"[..]));
        }
        drop(lead);
        assert_eq!(all(&told), [(1, None), (2, None)]);
    }
}

#[test]
fn who_has_told_does_not_speak_for_those_who_came_meanwhile() {
    let (together, (tell, told)) = (patient(), channel());
    let mut lead = first(&together, 1, &tell);
    assert!(matches!(join(&together, 2, &tell), Joined::Later));
    let lines = lead.gather().unwrap();
    let next = first(&together, 3, &tell);
    // A line that was not answered is left to ask alone.
    lead.tell(answers(&lines)[..1].to_vec());
    assert_eq!(all(&told), [(1, Some(Digest::of(&line(1)))), (2, None)]);
    drop(next);
    assert_eq!(all(&told), [(3, None)]);
}

#[test]
fn who_finds_a_full_group_is_not_made_to_wait() {
    let (together, (tell, told)) = (patient(), channel());
    let _lead = first(&together, 1, &tell);
    let long = together.join(&vec![b' '; FULL], Box::new(move |stored| tell.send((2, stored)).unwrap()));
    let Joined::Full(then) = long else { panic!("there was room") };
    then(None);
    assert_eq!(all(&told), [(2, None)]);
}

#[test]
fn who_is_held_up_long_enough_goes_all_the_same() {
    let (together, (tell, _told)) = (Together::default(), channel());
    let _held_up = on_its_way(&together);
    assert_eq!(first(&together, 1, &tell).gather(), None);
}
