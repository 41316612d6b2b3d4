//! A full disk. No acknowledged message is lost, reads continue, and writes work again when space is available.

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::disk::{LoopDisk, can_mount};
use super::faulted_store::{FaultedStore, message};
use super::{Tally, try_post};
use crate::common::server::{Server, wait_until};
use crate::common::{Sandbox, digest};

const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];
/// Free space in bytes that the filler file leaves for the store.
const FREE_BYTES: u64 = 24 << 20;

/// Creates a disk with [`FREE_BYTES`] of free space. Returns the disk and the path of the filler file.
fn nearly_full_disk(kind: &str) -> (LoopDisk, PathBuf) {
    let disk = LoopDisk::new(kind, 320 << 20);
    let filler = disk.mount_point().join("filler");
    File::create(&filler).unwrap();
    fill_disk(&disk, &filler);
    (disk, filler)
}

/// Returns groups of messages of up to `size` bytes that exceed the free space.
fn oversized_groups(seed: u64, size: u64) -> Vec<Vec<Vec<u8>>> {
    let group = |group: u64| (0..=400_000 / size).map(|n| message(seed, group << 20 | n, size)).collect();
    (0..90_000_000 / size.max(400_000)).map(group).collect()
}

fn fill_disk(disk: &LoopDisk, filler: &Path) {
    let free = statvfs(disk.mount_point()).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
    let file = File::options().write(true).open(filler).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, free - FREE_BYTES).unwrap();
}

/// Frees the space of the filler file.
fn release_space(filler: &Path) {
    File::options().write(true).open(filler).unwrap().set_len(0).unwrap();
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn a_full_disk_loses_nothing_of_a_command() {
    if !can_mount(&FILE_SYSTEMS) {
        return;
    }
    for kind in FILE_SYSTEMS {
        let mut sum = Tally::default();
        for size in [200, 20_000, 2_000_000] {
            let (disk, filler) = nearly_full_disk(kind);
            let mut store = FaultedStore::in_dir(Sandbox::new(), disk.mount_point().join("store"));
            for round in 0..3 {
                store.add_context(&format!("{kind}, up to {size} bytes, round {round}: "));
                let groups = oversized_groups(40 + round, size);
                let result = store.put_with(store.command(&["put", "--lines"]), &groups);
                assert_eq!(result.code, Some(3), "{result:?}");
                assert!(result.stderr.contains("no space left"), "{result:?}");
                // The disk is still full, but reads work.
                assert!(store.all_readable());
                release_space(&filler);
                sum += store.finish_run();
                fill_disk(&disk, &filler);
            }
        }
        sum.assert_nothing_lost(&format!("a full disk ({kind}), commands"));
    }
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn a_full_disk_loses_nothing_and_the_server_continues() {
    if !can_mount(&FILE_SYSTEMS) {
        return;
    }
    for kind in FILE_SYSTEMS {
        let (disk, filler) = nearly_full_disk(kind);
        let mut store = FaultedStore::in_dir(Sandbox::new(), disk.mount_point().join("store"));
        let mut server = Server::start(
            Sandbox::new(),
            &["--http", "--max-requests", "1000000", "--store", store.path().to_str().unwrap()],
        );
        let address = server.address;
        let put = |number: u64| {
            let message =
                format!("{number} {}", "m".repeat(usize::try_from(number % 5 * 100_000).unwrap())).into_bytes();
            (try_post(TcpStream::connect(address).unwrap(), &message), message)
        };
        let mut numbers = 0_u64..;
        store.tally = Tally::default();
        for _ in 0..3 {
            store.tally.runs += 1;
            let error_status = numbers.by_ref().find_map(|number| {
                let (status, message) = put(number);
                if status == Some(200) {
                    store.acknowledged.insert(digest(&message), message);
                    return None;
                }
                Some(status)
            });
            assert_eq!(error_status, Some(Some(507)), "{}", server.read_stderr());
            for digest in store.acknowledged.keys() {
                assert_eq!(server.get(&format!("/messages/{digest}")).status, 200);
            }
            release_space(&filler);
            wait_until("writing works again", || put(numbers.next().unwrap()).0 == Some(200));
            store.tally.recovered += 1;
            fill_disk(&disk, &filler);
        }
        assert_eq!(server.get("/readyz").status, 200);
        assert!(!server.read_stderr().contains("panicked"), "{}", server.read_stderr());
        server.signal(rustix::process::Signal::TERM);
        assert!(server.wait_exit().success());
        release_space(&filler);
        store.find_missing();
        store.tally.assert_nothing_lost(&format!("a full disk ({kind}), a running server"));
    }
}

#[test]
#[ignore = "needs root and loop mounts: make test-faults"]
fn a_message_rejected_by_a_full_disk_is_detected_as_a_loss() {
    if !can_mount(&["ext4"]) {
        return;
    }
    let (disk, _) = nearly_full_disk("ext4");
    let mut store = FaultedStore::in_dir(Sandbox::new(), disk.mount_point().join("store"));
    let small = vec![b"this fits".to_vec()];
    let large = [b"this does not ".as_slice(), &vec![b'x'; usize::try_from(FREE_BYTES + (1 << 20)).unwrap()]].concat();
    let result = store.put_with(store.command(&["put", "--lines"]), &[small, vec![large.clone()]]);
    assert_eq!(result.code, Some(3), "{result:?}");
    store.acknowledged.insert(digest(&large), large);
    store.find_missing();
    store.tally.assert_loss_detected("a message rejected by a full disk");
}
