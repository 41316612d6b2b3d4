//! A full disk: nothing that was acknowledged is lost, reads go on, and once there is room writing works again.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::disk::{Disk, can_be_made};
use super::victim::{Victim, message};
use super::{Tally, post};
use crate::common::server::{Server, until};
use crate::common::{Sandbox, digest};

const KINDS: [&str; 2] = ["ext4", "xfs"];
/// What is left for the store when the filler is there.
const ROOM: u64 = 24 << 20;

/// A disk with little room, and the file that takes up the rest.
fn small_disk(kind: &str) -> (Disk, PathBuf) {
    let disk = Disk::new(kind, 320 << 20);
    let filler = disk.point().join("filler");
    File::create(&filler).unwrap();
    fill(&disk, &filler);
    (disk, filler)
}

/// Groups of messages of up to `size` bytes, in all more than there is room for.
fn many(seed: u64, size: u64) -> Vec<Vec<Vec<u8>>> {
    let group = |group: u64| (0..=400_000 / size).map(|n| message(seed, group << 20 | n, size)).collect();
    (0..90_000_000 / size.max(400_000)).map(group).collect()
}

fn fill(disk: &Disk, filler: &Path) {
    let free = statvfs(disk.point()).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    let file = File::options().write(true).open(filler).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, free - ROOM).unwrap();
}

/// Gives back what the filler took up.
fn free(filler: &Path) {
    File::options().write(true).open(filler).unwrap().set_len(0).unwrap();
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn a_full_disk_costs_a_command_nothing() {
    if !can_be_made(&KINDS) {
        return;
    }
    for kind in KINDS {
        let mut sum = Tally::default();
        for size in [200, 20_000, 2_000_000] {
            let (disk, filler) = small_disk(kind);
            let mut victim = Victim::at(Sandbox::new(), disk.point().join("store"));
            for round in 0..3 {
                victim.tell(&format!("{kind}, up to {size} bytes, round {round}: "));
                let groups = many(40 + round, size);
                // More than there is room for.
                let ran = victim.put_by(victim.command(&["put", "--lines"]), &groups);
                assert_eq!(ran.code, Some(3), "{ran:?}");
                assert!(ran.stderr.contains("no space left"), "{ran:?}");
                // Full still: what is there can be got.
                assert!(victim.gets_all());
                free(&filler);
                sum += victim.end_run();
                fill(&disk, &filler);
            }
        }
        sum.row(&format!("a full disk ({kind}), commands"), false);
    }
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn a_full_disk_costs_a_server_nothing_and_it_goes_on() {
    if !can_be_made(&KINDS) {
        return;
    }
    for kind in KINDS {
        let (disk, filler) = small_disk(kind);
        let mut victim = Victim::at(Sandbox::new(), disk.point().join("store"));
        let mut server = Server::start(
            Sandbox::new(),
            &["--http", "--max-requests", "1000000", "--store", victim.store().to_str().unwrap()],
        );
        let address = server.address;
        let put = |number: u64| {
            let message =
                format!("{number} {}", "m".repeat(usize::try_from(number % 5 * 100_000).unwrap())).into_bytes();
            (post(TcpStream::connect(address).unwrap(), &message), message)
        };
        let mut numbers = 0_u64..;
        victim.tally = Tally::default();
        for _ in 0..3 {
            victim.tally.runs += 1;
            let refused = numbers.by_ref().find_map(|number| {
                let (status, message) = put(number);
                if status == Some(200) {
                    victim.known.insert(digest(&message), message);
                    return None;
                }
                Some(status)
            });
            assert_eq!(refused, Some(Some(507)), "{}", server.stderr());
            for digest in victim.known.keys() {
                assert_eq!(server.get(&format!("/messages/{digest}")).status, 200);
            }
            free(&filler);
            until("writing works again", || put(numbers.next().unwrap()).0 == Some(200));
            victim.tally.recovered += 1;
            fill(&disk, &filler);
        }
        assert_eq!(server.get("/readyz").status, 200);
        assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
        server.signal(rustix::process::Signal::TERM);
        assert!(server.ended().success());
        free(&filler);
        victim.check();
        victim.tally.row(&format!("a full disk ({kind}), a running server"), false);
    }
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn a_message_that_did_not_fit_is_seen_as_a_loss() {
    if !can_be_made(&["ext4"]) {
        return;
    }
    let (disk, _) = small_disk("ext4");
    let mut victim = Victim::at(Sandbox::new(), disk.point().join("store"));
    let fits = vec![b"this fits".to_vec()];
    let large = [b"this does not ".as_slice(), &vec![b'x'; usize::try_from(ROOM + (1 << 20)).unwrap()]].concat();
    let ran = victim.put_by(victim.command(&["put", "--lines"]), &[fits, vec![large.clone()]]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    victim.known.insert(digest(&large), large);
    victim.check();
    victim.tally.control("a message that did not fit");
}
