//! The same command says the same, whether the messages are in a directory, in one that is served, or behind a URL.

use crate::common::side::{SIDES, Side, TOKEN, View};
use crate::common::{FOO, Sandbox, digest, noise};

/// What is stored before anything is asked.
fn stored() -> Vec<Vec<u8>> {
    let mut stored: Vec<Vec<u8>> = vec![b"".to_vec(), b"foo".to_vec(), b"line\n".to_vec(), b"\xff\0\x1b".to_vec()];
    stored.extend([noise(2 << 20, 1), "Grüße \u{1}\"\\\u{2028}".into()]);
    stored
}

/// A store that is the same to the byte each time, but for where it is.
fn copy_of(store: &Sandbox) -> Sandbox {
    let copy = Sandbox::new();
    let done = std::process::Command::new("cp").arg("-a").arg(store.store()).arg(copy.store()).status();
    assert!(done.unwrap().success());
    copy
}

/// Runs the commands from every side of a copy of `store`, and compares all that they say.
fn says_the_same(store: &Sandbox, commands: &[(&[&str], &[u8])]) {
    let views = SIDES.map(|side| View::new(side, copy_of(store), &["--max-body", "8MiB"]));
    for (args, stdin) in commands {
        let [directory, served, url] = [0, 1, 2].map(|side: usize| views[side].outcome(args, stdin));
        assert_eq!(directory, served, "{args:?} beside a server");
        assert_eq!(directory, url, "{args:?} over a URL");
    }
}

fn full() -> Sandbox {
    let sandbox = Sandbox::new();
    for message in stored() {
        sandbox.sha_api(["put"]).write_stdin(message).assert().code(0);
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
    let store = Sandbox::with(&[b"foo", b"a message that will be damaged", b"bar"]);
    store.damage(b"a message that will be damaged");
    let damaged = digest(b"a message that will be damaged");
    says_the_same(
        &store,
        &[
            (&["get", &damaged], b""),
            (&["get", &damaged, FOO], b""),
            (&["get", "--json", FOO, &damaged], b""),
            (&["get", &damaged, "-o", "out"], b""),
            (&["has", &damaged], b""),
            (&["put", "a message that will be damaged"], b""),
            (&["get", &damaged], b""),
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
    let store = Sandbox::with(&[b"foo", b"a message that will be damaged", b"bar"]);
    store.damage(b"a message that will be damaged");
    let damaged = digest(b"a message that will be damaged");
    says_the_same(
        &store,
        &[
            (&["verify"], b""),
            (&["verify", "--json"], b""),
            (&["export"], b""),
            // Where it was moved to is a note of whoever holds the store.
            (&["verify", "--repair", "--quiet"], b""),
            (&["verify"], b""),
            (&["get", &damaged], b""),
            (&["list"], b""),
        ],
    );
}

#[test]
fn a_copy_takes_and_gives_from_every_side() {
    let source = full();
    let listed = source.sha_api(["list"]).assert().code(0).get_output().stdout.clone();
    let bytes = stored().iter().map(Vec::len).sum::<usize>() - b"foo".len();
    for from in SIDES {
        for to in SIDES {
            let flags = ["--max-body", "8MiB"];
            let (from, to) =
                (View::new(from, copy_of(&source), &flags), View::new(to, Sandbox::with(&[b"foo"]), &flags));
            let certs = source.file("certs.pem", (from.cert() + &to.cert()).as_bytes());
            let mut copy = source.sha_api(["copy", &from.location(), &to.location()]);
            if [from.side(), to.side()].contains(&Side::Url) {
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
    let url = View::new(Side::Directory, copy_of(view.sandbox()), &[]);
    url.sha_api(["get", FOO]).assert().code(0).stdout("foo").stderr("");
}
