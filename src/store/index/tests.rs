//! The index as a whole, with what goes on in it at the same time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::store::log::{Appender, Kind};

/// An index over a log that is written here.
struct Scene {
    dir: TempDir,
    index: Index,
    appender: Appender,
    said: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    fn new() -> Self {
        let (dir, said) = (tempfile::tempdir().unwrap(), Arc::default());
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let log = Arc::new(Log::open(&dir.path().join("log"), [7; 16], 1 << 12).unwrap());
        let heard: Arc<Mutex<Vec<_>>> = Arc::clone(&said);
        let notes: Notes = Arc::new(move |note| {
            if let Note::Said(text) = note {
                heard.lock().unwrap().push(text);
            }
        });
        let (index, tail) = Index::open(&dir.path().join("index"), 1 << 20, Arc::clone(&log), notes).unwrap();
        let appender = Appender::new(log, &tail).unwrap();
        Self { dir, index, appender, said }
    }

    /// Appends a message.
    fn append(appender: &mut Appender, message: &[u8]) -> (Entry, Point) {
        let digest = Digest::of(message);
        ((digest, Some(appender.append_one(Kind::Message, digest, message))), appender.end())
    }

    /// Appends a removal.
    fn remove(appender: &mut Appender, digest: Digest) -> (Entry, Point) {
        ((digest, Some(appender.append_one(Kind::Removal, digest, &[]))), appender.end())
    }

    /// What was said but for the reason that `renew` gives.
    fn said(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|text| !text.ends_with("it does not fit it")).cloned().collect()
    }
}

/// One thread puts messages, while others make the index anew, flush and measure it.
#[test]
fn an_index_that_is_made_anew_while_messages_are_put_knows_them_all_and_leaves_nothing_open() {
    const MESSAGES: u32 = 3000;
    let mut scene = Scene::new();
    let (index, log, appender) = (&scene.index, &scene.index.place.log, &mut scene.appender);
    let (is_over, failed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let again_and_again = |act: fn(&Index) -> Result<(), String>| {
        while !is_over.load(Ordering::Relaxed) {
            failed.lock().unwrap().extend(act(index).err());
        }
    };
    thread::scope(|scope| {
        let filled = scope.spawn(|| index.run());
        scope.spawn(|| again_and_again(|index| index.renew().map_err(|error| error.to_string())));
        scope.spawn(|| again_and_again(|index| index.disk().map(drop).map_err(|error| error.to_string())));
        let flushed = scope.spawn(|| {
            again_and_again(|index| {
                index.flush();
                Ok(())
            });
        });
        for number in 0..MESSAGES {
            let (entry, end) = Scene::append(appender, &number.to_le_bytes());
            index.add([entry].into_iter(), end, 1);
            log.ends_at(end);
        }
        is_over.store(true, Ordering::Relaxed);
        flushed.join().unwrap();
        index.overlay.settle();
        index.close();
        filled.join().unwrap();
    });
    assert_eq!(failed.into_inner().unwrap(), Vec::<String>::new());
    assert!((0..MESSAGES).all(|number| index.get(&Digest::of(&number.to_le_bytes())).unwrap().is_some()));
    assert_eq!(index.counted().messages, u64::from(MESSAGES));
    assert_eq!(*index.messages.lock().unwrap(), u64::from(MESSAGES));
    assert_eq!(scene.said(), Vec::<String>::new());
    assert!(!scene.said.lock().unwrap().is_empty(), "it was made anew");
    let Scene { dir, index, .. } = scene;
    drop(index);
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let left: Vec<_> = open.filter(|path| path.starts_with(dir.path())).collect();
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("index")), "{left:?}");
}

#[test]
fn who_asks_while_others_make_the_index_anew_is_answered_however_often_they_do() {
    let scene = Scene::new();
    let asked = Mutex::new(0);
    let answer = scene.index.with_table(|_| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        if *asked > 5 {
            return Ok(*asked);
        }
        scene.index.renew().unwrap();
        Err(Damaged::given_up())
    });
    assert_eq!(answer.unwrap(), 6);
    assert!(scene.index.with_table(|_| Err::<(), _>(Damaged::new("it fails"))).is_err());
}

#[test]
fn a_segment_that_was_compacted_is_not_said_to_be_missing_and_one_that_was_lost_is() {
    let mut scene = Scene::new();
    let (index, log) = (&scene.index, &scene.index.place.log);
    // With the segment goes the removal, too, which has nothing left to remove: but the index learns that only later.
    let (removal, end) = Scene::remove(&mut scene.appender, Digest::of(b"removed"));
    index.insert(&[removal], end);
    for message in [[1; 3000], [2; 3000]] {
        let (entry, end) = Scene::append(&mut scene.appender, &message);
        log.ends_at(end);
        index.insert(&[entry], end);
        index.flush();
    }
    let (moved, end) = Scene::append(&mut scene.appender, &[1; 3000]);
    log.ends_at(end);
    index.insert(&[moved], end);
    log.remove(1).unwrap();
    index.renew().unwrap();
    assert_eq!((index.counted().messages, scene.said()), (2, Vec::new()));
    log.remove(2).unwrap();
    index.renew().unwrap();
    let said = "00000002.log is missing in the log, and what stood there with it";
    assert_eq!((index.counted().messages, scene.said()), (1, vec![said.to_owned()]));
}

#[test]
fn many_that_are_asked_for_together_are_answered_in_the_order_in_which_they_were() {
    let mut scene = Scene::new();
    let index = &scene.index;
    let mut asked = vec![Digest::of(b"absent")];
    for number in 0..9_u8 {
        let (entry, end) = Scene::append(&mut scene.appender, &[number]);
        match number % 3 {
            0 => index.add([entry].into_iter(), end, 1),
            _ => index.insert(&[entry], end),
        }
        asked.push(entry.0);
        if number == 4 {
            index.flush();
        }
    }
    let (removal, end) = Scene::remove(&mut scene.appender, asked[2]);
    index.insert(&[removal], end);
    asked.push(asked[1]);
    let one_by_one: Vec<_> = asked.iter().map(|digest| index.get(digest).unwrap()).collect();
    assert_eq!(one_by_one.iter().filter(|found| found.is_none()).count(), 2);
    assert_eq!(index.get_all(&asked).unwrap(), one_by_one);
}

#[test]
fn what_came_while_the_index_could_not_be_made_anew_is_found_once_it_can() {
    let mut scene = Scene::new();
    let (index, log) = (&scene.index, &scene.index.place.log);
    let in_the_way = scene.dir.path().join("index.damaged");
    std::fs::write(&in_the_way, "no directory").unwrap();
    assert!(index.renew().is_err());
    let ((digest, position), end) = Scene::append(&mut scene.appender, b"foo");
    log.ends_at(end);
    index.insert(&[(digest, position)], end);
    assert!(scene.said()[1].starts_with("the index cannot be kept"), "{:?}", scene.said());
    // To say that it is absent would be wrong.
    assert!(index.get(&digest).is_err() && index.get_all(&[digest]).is_err());
    std::fs::remove_file(&in_the_way).unwrap();
    assert_eq!(index.get(&digest).unwrap(), position);
    assert_eq!(index.counted().messages, 1);
    // How many messages there are with those to come is not known well enough to be sealed.
    index.flush();
    assert!(!index.can_leave());
}
