//! The same command says the same, whether the messages are in a directory, in one that is served, in a database, or
//! behind a URL.

use crate::common::store_access::{AccessMode, DATABASE_MODES, DIRECTORY_MODES, FULL_ACCESS_TOKEN, StoreAccess};
use crate::common::store_factory::StoreFactory;
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

/// What is stored before anything is asked.
fn sample_messages() -> Vec<Vec<u8>> {
    let mut stored: Vec<Vec<u8>> = vec![b"".to_vec(), b"foo".to_vec(), b"line\n".to_vec(), b"\xff\0\x1b".to_vec()];
    stored.extend([pseudorandom_bytes(2 << 20, 1), "Grüße \u{1}\"\\\u{2028}".into()]);
    stored
}

/// Directories, and databases if there is a PostgreSQL.
fn store_factories() -> Vec<StoreFactory> {
    [Some(StoreFactory::directories()), StoreFactory::databases()].into_iter().flatten().collect()
}

/// A store from every side.
fn store_accesses(
    places: &[StoreFactory],
    fill: impl Fn(&StoreFactory) -> Sandbox,
    flags: &[&str],
) -> Vec<StoreAccess> {
    let sides = places.iter().zip([DIRECTORY_MODES.as_slice(), &DATABASE_MODES]);
    sides.flat_map(|(place, sides)| sides.iter().map(|side| StoreAccess::new(*side, fill(place), flags))).collect()
}

/// Runs the commands from every side of a copy of `store`, and compares all that they say.
fn assert_same_output(store: &Sandbox, commands: &[(&[&str], &[u8])]) {
    assert_same_output_in_every_mode(&|place| place.copy_store(store), commands);
}

fn assert_same_output_in_every_mode(fill: &dyn Fn(&StoreFactory) -> Sandbox, commands: &[(&[&str], &[u8])]) {
    let places = store_factories();
    let views = store_accesses(&places, fill, &["--max-body", "8MiB"]);
    for (args, stdin) in commands {
        let (code, stdout, stderr) = views[0].run_normalized(args, stdin);
        for view in &views[1..] {
            let mut outcome = view.run_normalized(args, stdin);
            let mut expected = (code, stdout.clone(), stderr.clone());
            if args[0] == "stats" && view.mode().is_database() {
                (outcome.1, expected.1) = (strip_sizes(&outcome.1), strip_sizes(&expected.1));
            }
            assert_eq!(expected, outcome, "{args:?} from the side {:?}", view.mode());
        }
    }
}

/// Counts without what they take on disk, which is another thing in a database.
fn strip_sizes(text: &str) -> String {
    let is_size = |figure: &&str| ["disk", "ratio", "dead"].iter().any(|name| figure.contains(name));
    text.split("\\n").flat_map(|line| line.split(',')).filter(|figure| !is_size(figure)).collect::<Vec<_>>().join(",")
}

const DAMAGED_MESSAGE: &str = "a message that will be damaged";

/// A store in which one message is corrupt.
fn damaged_store(place: &StoreFactory) -> Sandbox {
    let sandbox = place.copy_store(&Sandbox::with_messages(&[b"foo", DAMAGED_MESSAGE.as_bytes(), b"bar"]));
    place.flip_message_bit(&sandbox, DAMAGED_MESSAGE.as_bytes());
    sandbox
}

fn sample_store() -> Sandbox {
    let sandbox = Sandbox::new();
    for message in sample_messages() {
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
fn reads_give_the_same_output_in_every_access_mode() {
    let digests: String = sample_messages().iter().map(|message| digest(message) + "\n").collect();
    let (absent, large, binary) = (digest(b"absent"), digest(&pseudorandom_bytes(2 << 20, 1)), digest(b"\xff\0\x1b"));
    let mixed = format!("{digests}{absent}\n{digests}");
    assert_same_output(
        &sample_store(),
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
fn puts_give_the_same_output_in_every_access_mode() {
    let store = sample_store();
    let numbers: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    let escaped = b"\x01\x02\x03\x04".repeat(100_000);
    let lines = [b"\xff\n\n".as_slice(), &escaped, b"\n", &escaped[1..], b"\nlast"].concat();
    assert_same_output(
        &store,
        &[
            (&["put", "foo"], b""),
            (&["put", "new"], b""),
            (&["put", "new"], b""),
            (&["put"], b"\0\xff of stdin\n"),
            (&["put", "-"], b""),
            (&["put"], &pseudorandom_bytes(3 << 20, 2)),
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
            (&["get", &digest(&pseudorandom_bytes(3 << 20, 2))], b""),
        ],
    );
}

#[test]
fn corruption_gives_the_same_output_in_every_access_mode() {
    let message = digest(DAMAGED_MESSAGE.as_bytes());
    assert_same_output_in_every_mode(
        &damaged_store,
        &[
            (&["get", &message], b""),
            (&["get", &message, FOO], b""),
            (&["get", "--json", FOO, &message], b""),
            (&["get", &message, "-o", "out"], b""),
            (&["has", &message], b""),
            (&["put", DAMAGED_MESSAGE], b""),
            (&["get", &message], b""),
        ],
    );
}

#[test]
fn removal_verification_and_copying_give_the_same_output_in_every_access_mode() {
    let (absent, large) = (digest(b"absent"), digest(&pseudorandom_bytes(2 << 20, 1)));
    let lines = format!("{{\"message\":\"imported\"}}\n{{\"digest\":\"{FOO}\",\"message\":\"not foo\"}}\nnonsense\n");
    assert_same_output(
        &sample_store(),
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
fn repair_gives_the_same_output_in_every_access_mode() {
    let message = digest(DAMAGED_MESSAGE.as_bytes());
    assert_same_output_in_every_mode(
        &damaged_store,
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
fn copy_works_between_all_access_modes() {
    let source = sample_store();
    let listed = source.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    let bytes = sample_messages().iter().map(Vec::len).sum::<usize>() - b"foo".len();
    let flags = ["--max-body", "8MiB"];
    let places = store_factories();
    for from in store_accesses(&places, |place| place.copy_store(&source), &flags) {
        for to in store_accesses(&places, |place| place.with_messages(&[b"foo"]), &flags) {
            let certs = source.write_file("certs.pem", (from.certificate() + &to.certificate()).as_bytes());
            let mut copy = source.sha_api(["copy", &from.location(), &to.location()]);
            if from.mode().is_remote() || to.mode().is_remote() {
                copy.env("SHA_API_TOKEN", FULL_ACCESS_TOKEN).env("SHA_API_CACERT", certs);
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
fn a_put_to_a_served_store_goes_through_the_server() {
    let view = StoreAccess::new(AccessMode::Served, Sandbox::new(), &[]);
    view.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let url = StoreAccess::new(AccessMode::Directory, StoreFactory::directories().copy_store(view.sandbox()), &[]);
    url.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}
