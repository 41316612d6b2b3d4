//! Commands give identical output and exit status in every access mode: on a directory, through a running server, on a
//! database, and through a URL.

use crate::common::store_access::{AccessMode, DATABASE_MODES, DIRECTORY_MODES, FULL_ACCESS_TOKEN, StoreAccess};
use crate::common::store_factory::StoreFactory;
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

/// Messages in [`sample_store`].
fn sample_messages() -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = vec![b"".to_vec(), b"foo".to_vec(), b"line\n".to_vec(), b"\xff\0\x1b".to_vec()];
    messages.extend([pseudorandom_bytes(2 << 20, 1), "Grüße \u{1}\"\\\u{2028}".into()]);
    messages
}

/// Returns a factory of directories, and a factory of databases if PostgreSQL is installed.
fn store_factories() -> Vec<StoreFactory> {
    [Some(StoreFactory::directories()), StoreFactory::databases()].into_iter().flatten().collect()
}

/// Creates a store for each access mode with `create_store`. `flags` are the flags of the servers.
fn store_accesses(
    factories: &[StoreFactory],
    create_store: impl Fn(&StoreFactory) -> Sandbox,
    flags: &[&str],
) -> Vec<StoreAccess> {
    let mut accesses = Vec::new();
    for (factory, modes) in factories.iter().zip([DIRECTORY_MODES.as_slice(), &DATABASE_MODES]) {
        accesses.extend(modes.iter().map(|mode| StoreAccess::new(*mode, create_store(factory), flags)));
    }
    accesses
}

/// Runs the commands on a copy of `store` in each access mode. Asserts that exit status, stdout and stderr are equal.
fn assert_same_output(store: &Sandbox, commands: &[(&[&str], &[u8])]) {
    assert_same_output_in_every_mode(&|factory| factory.copy_store(store), commands);
}

fn assert_same_output_in_every_mode(create_store: &dyn Fn(&StoreFactory) -> Sandbox, commands: &[(&[&str], &[u8])]) {
    let factories = store_factories();
    let accesses = store_accesses(&factories, create_store, &["--max-body", "8MiB"]);
    for (args, stdin) in commands {
        let (code, stdout, stderr) = accesses[0].run_normalized(args, stdin);
        for access in &accesses[1..] {
            let mut actual = access.run_normalized(args, stdin);
            let mut expected = (code, stdout.clone(), stderr.clone());
            if args[0] == "stats" && DATABASE_MODES.contains(&access.mode()) {
                (actual.1, expected.1) = (strip_sizes(&actual.1), strip_sizes(&expected.1));
            }
            assert_eq!(expected, actual, "{args:?} in the mode {:?}", access.mode());
        }
    }
}

/// Removes the disk usage from the output of `stats`, because a database uses a different amount of space.
fn strip_sizes(text: &str) -> String {
    let is_size = |field: &&str| ["disk", "ratio", "dead"].iter().any(|name| field.contains(name));
    text.split("\\n").flat_map(|line| line.split(',')).filter(|field| !is_size(field)).collect::<Vec<_>>().join(",")
}

const DAMAGED_MESSAGE: &str = "a message that will be damaged";

/// Creates a store in which [`DAMAGED_MESSAGE`] is corrupt.
fn damaged_store(factory: &StoreFactory) -> Sandbox {
    let sandbox = factory.copy_store(&Sandbox::with_messages(&[b"foo", DAMAGED_MESSAGE.as_bytes(), b"bar"]));
    factory.flip_message_bit(&sandbox, DAMAGED_MESSAGE.as_bytes());
    sandbox
}

fn sample_store() -> Sandbox {
    let sandbox = Sandbox::new();
    for message in sample_messages() {
        sandbox.sha_api(["put"]).write_stdin(message).assert().code(0);
    }
    // Opening and closing the store flushes the index and lets sled move pages. After three rounds, the disk usage is
    // stable and equal in all modes.
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
            (&["put", "--file", "no-such-file"], b""),
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
            // Quiet, because only the process that has the store open reports the quarantine path on stderr.
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
    let expected = source.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    let bytes = sample_messages().iter().map(Vec::len).sum::<usize>() - b"foo".len();
    let flags = ["--max-body", "8MiB"];
    let factories = store_factories();
    for from in store_accesses(&factories, |factory| factory.copy_store(&source), &flags) {
        for to in store_accesses(&factories, |factory| factory.with_messages(&[b"foo"]), &flags) {
            let certs = source.write_file("certs.pem", (from.certificate() + &to.certificate()).as_bytes());
            let mut copy = source.sha_api(["copy", &from.location(), &to.location()]);
            if from.mode().is_remote() || to.mode().is_remote() {
                copy.env("SHA_API_TOKEN", FULL_ACCESS_TOKEN).env("SHA_API_CACERT", certs);
            }
            copy.assert().code(0).stdout(format!("5 copied, {bytes} bytes; 1 already stored\n")).stderr("");
            let list = to.sha_api(["list"]).assert().code(0);
            assert_eq!(list.get_output().stdout, expected, "{} to {}", from.location(), to.location());
        }
    }
}

#[test]
fn a_put_to_a_served_store_goes_through_the_server() {
    let served = StoreAccess::new(AccessMode::Served, Sandbox::new(), &[]);
    served.sha_api(["put", "foo"]).assert().code(0).stdout(format!("{FOO}\n")).stderr("");
    let copy = StoreAccess::new(AccessMode::Directory, StoreFactory::directories().copy_store(served.sandbox()), &[]);
    copy.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}
