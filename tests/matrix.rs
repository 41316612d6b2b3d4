//! The same command says the same, whether the messages are in a directory, in one that is served, in a database, or
//! behind a URL.

use crate::common::place::Place;
use crate::common::side::{DATABASES, SIDES, Side, TOKEN, View};
use crate::common::{FOO, Sandbox, digest, noise};

/// What is stored before anything is asked.
fn stored() -> Vec<Vec<u8>> {
    let mut stored: Vec<Vec<u8>> = vec![b"".to_vec(), b"foo".to_vec(), b"line\n".to_vec(), b"\xff\0\x1b".to_vec()];
    stored.extend([noise(2 << 20, 1), "Grüße \u{1}\"\\\u{2028}".into()]);
    stored
}

/// Directories, and databases if there is a PostgreSQL.
fn places() -> Vec<Place> {
    [Some(Place::directories()), Place::databases()].into_iter().flatten().collect()
}

/// A store from every side.
fn views(places: &[Place], fill: impl Fn(&Place) -> Sandbox, flags: &[&str]) -> Vec<View> {
    let sides = places.iter().zip([SIDES.as_slice(), &DATABASES]);
    sides.flat_map(|(place, sides)| sides.iter().map(|side| View::new(*side, fill(place), flags))).collect()
}

/// Runs the commands from every side of a copy of `store`, and compares all that they say.
fn says_the_same(store: &Sandbox, commands: &[(&[&str], &[u8])]) {
    compare(&|place| place.copy_of(store), commands);
}

fn compare(fill: &dyn Fn(&Place) -> Sandbox, commands: &[(&[&str], &[u8])]) {
    let places = places();
    let views = views(&places, fill, &["--max-body", "8MiB"]);
    for (args, stdin) in commands {
        let (code, stdout, stderr) = views[0].outcome(args, stdin);
        for view in &views[1..] {
            let mut outcome = view.outcome(args, stdin);
            let mut expected = (code, stdout.clone(), stderr.clone());
            if args[0] == "stats" && view.side().is_database() {
                (outcome.1, expected.1) = (without_sizes(&outcome.1), without_sizes(&expected.1));
            }
            assert_eq!(expected, outcome, "{args:?} from the side {:?}", view.side());
        }
    }
}

/// Counts without what they take on disk, which is another thing in a database.
fn without_sizes(text: &str) -> String {
    let is_size = |figure: &&str| ["disk", "ratio", "dead"].iter().any(|name| figure.contains(name));
    text.split("\\n").flat_map(|line| line.split(',')).filter(|figure| !is_size(figure)).collect::<Vec<_>>().join(",")
}

const DAMAGED: &str = "a message that will be damaged";

/// A store in which one message is corrupt.
fn damaged(place: &Place) -> Sandbox {
    let sandbox = place.copy_of(&Sandbox::with(&[b"foo", DAMAGED.as_bytes(), b"bar"]));
    place.damage(&sandbox, DAMAGED.as_bytes());
    sandbox
}

fn full() -> Sandbox {
    let sandbox = Sandbox::new();
    for message in stored() {
        sandbox.sha_api(["put"]).write_stdin(message).assert().code(0);
    }
    // This has the index flushed, and then what sled moves when it is closed, so that it takes as much of the disk
    // whoever counts it.
    for _ in 0..3 {
        sandbox.sha_api(["stats"]).assert().code(0);
    }
    sandbox
}

#[test]
fn what_is_read_is_the_same_from_every_side() {
    let digests: String = stored().iter().map(|message| digest(message) + "\n").collect();
    let (absent, large, binary) = (digest(b"absent"), digest(&noise(2 << 20, 1)), digest(b"\xff\0\x1b"));
    let mixed = format!("{digests}{absent}\n{digests}");
    says_the_same(
        &full(),
        &[
            (&["get", FOO], b""),
            (&["get", &FOO.to_uppercase()], b""),
            (&["get", &FOO[..8]], b""),
            (&["get", "00000000"], b""),
            (&["get", "00"], b""),
            (&["get", "nonsense"], b""),
            (&["get", &absent], b""),
            (&["get", &absent, FOO, &absent, &large], b""),
            (&["get", "--json", FOO, &binary, &absent], b""),
            (&["get", "-"], mixed.as_bytes()),
            (&["get", "--lines"], digests.as_bytes()),
            (&["get", "--null"], digests.as_bytes()),
            (&["get", "-"], b"nonsense\n"),
            (&["get", "-"], b""),
            (&["get", &large, "-o", "out"], b""),
            (&["get", &absent, "-o", "not-there"], b""),
            (&["has", FOO, &absent], b""),
            (&["has", FOO], b""),
            (&["has", "--quiet", &absent], b""),
            (&["has", "--json", FOO, &absent], b""),
            (&["has", "-"], mixed.as_bytes()),
            (&["has", "nonsense"], b""),
            (&["list"], b""),
            (&["list", "--long"], b""),
            (&["list", "--long", "--json"], b""),
            (&["list", "--limit", "2"], b""),
            (&["list", "--limit", "0"], b""),
            (&["list", "--after", FOO], b""),
            (&["list", "--prefix", "2c", "--json"], b""),
            (&["list", "--prefix", "xyz"], b""),
            (&["stats"], b""),
            (&["stats", "--json"], b""),
            (&["frob"], b""),
        ],
    );
}

#[test]
fn what_is_put_is_the_same_from_every_side() {
    let store = full();
    let numbers: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    let escaped = b"\x01\x02\x03\x04".repeat(100_000);
    let lines = [b"\xff\n\n".as_slice(), &escaped, b"\n", &escaped[1..], b"\nlast"].concat();
    says_the_same(
        &store,
        &[
            (&["put", "foo"], b""),
            (&["put", "new"], b""),
            (&["put", "new"], b""),
            (&["put"], b"\0\xff of stdin\n"),
            (&["put", "-"], b""),
            (&["put"], &noise(3 << 20, 2)),
            (&["put", "--json", "foo"], b""),
            (&["put", "--lines"], numbers.as_bytes()),
            (&["put", "--lines"], &lines),
            (&["put", "--null"], b"a\0b\nc\0\0d"),
            (&["put", "--lines"], b""),
            (&["put", "--file", "tokens-that-are-not-there"], b""),
            (&["put", "--file", "/dev/null", "-"], b"by dash"),
            (&["put", "--max-message", "4B", "12345"], b""),
            (&["put", "--max-message", "4B"], b"12345"),
            (&["put", "--max-message", "4B", "--lines"], b"a\n12345\nb\n"),
            (&["put", "--json", "--max-message", "4B", "12345"], b""),
            (&["list"], b""),
            (&["get", "--lines"], (digest(&escaped) + "\n" + &digest(b"39999")).as_bytes()),
            (&["get", &digest(&noise(3 << 20, 2))], b""),
        ],
    );
}

#[test]
fn what_is_corrupt_is_the_same_from_every_side() {
    let message = digest(DAMAGED.as_bytes());
    compare(
        &damaged,
        &[
            (&["get", &message], b""),
            (&["get", &message, FOO], b""),
            (&["get", "--json", FOO, &message], b""),
            (&["get", &message, "-o", "out"], b""),
            (&["has", &message], b""),
            (&["put", DAMAGED], b""),
            (&["get", &message], b""),
        ],
    );
}

#[test]
fn what_is_removed_verified_and_carried_over_is_the_same_from_every_side() {
    let (absent, large) = (digest(b"absent"), digest(&noise(2 << 20, 1)));
    let lines = format!("{{\"message\":\"imported\"}}\n{{\"digest\":\"{FOO}\",\"message\":\"not foo\"}}\nnonsense\n");
    says_the_same(
        &full(),
        &[
            (&["verify"], b""),
            (&["verify", "--json"], b""),
            (&["verify", "--repair"], b""),
            (&["export"], b""),
            (&["export", "out"], b""),
            (&["export", "out.zst"], b""),
            (&["rm", FOO], b""),
            (&["rm", FOO, &absent, &large], b""),
            (&["rm", "-"], format!("{}\n{FOO}\n", digest(b"line\n")).as_bytes()),
            (&["rm", "nonsense"], b""),
            (&["rm", "--json", &absent], b""),
            (&["list"], b""),
            (&["import", "out.zst"], b""),
            (&["import", "out"], b""),
            (&["import"], lines.as_bytes()),
            (&["import", "--strict"], lines.as_bytes()),
            (&["import", "not-there"], b""),
            (&["list"], b""),
            (&["verify"], b""),
        ],
    );
}

#[test]
fn what_is_repaired_is_the_same_from_every_side() {
    let message = digest(DAMAGED.as_bytes());
    compare(
        &damaged,
        &[
            (&["verify"], b""),
            (&["verify", "--json"], b""),
            (&["export"], b""),
            // Where it was moved to is a note of whoever holds the store.
            (&["verify", "--repair", "--quiet"], b""),
            (&["verify"], b""),
            (&["get", &message], b""),
            (&["list"], b""),
        ],
    );
}

#[test]
fn a_copy_takes_and_gives_from_every_side() {
    let source = full();
    let listed = source.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    let bytes = stored().iter().map(Vec::len).sum::<usize>() - b"foo".len();
    let flags = ["--max-body", "8MiB"];
    let places = places();
    for from in views(&places, |place| place.copy_of(&source), &flags) {
        for to in views(&places, |place| place.with(&[b"foo"]), &flags) {
            let certs = source.file("certs.pem", (from.cert() + &to.cert()).as_bytes());
            let mut copy = source.sha_api(["copy", &from.location(), &to.location()]);
            if from.side().is_far() || to.side().is_far() {
                copy.env("SHA_API_TOKEN", TOKEN).env("SHA_API_CACERT", certs);
            }
            let said = copy.assert().code(0).stderr("");
            let said = said.get_output();
            assert_eq!(String::from_utf8_lossy(&said.stdout), format!("5 copied, {bytes} bytes; 1 were there\n"));
            let list = to.sha_api(["list"]).assert().code(0);
            assert_eq!(list.get_output().stdout, listed, "{} to {}", from.location(), to.location());
        }
    }
}

#[test]
fn a_put_beside_a_server_is_the_servers() {
    let view = View::new(Side::Served, Sandbox::new(), &[]);
    view.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let url = View::new(Side::Directory, Place::directories().copy_of(view.sandbox()), &[]);
    url.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}
