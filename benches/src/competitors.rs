//! Embedded stores to compare with. Both find a message by its SHA-256, as sha-api does, and hash it on put; neither
//! hashes it again on get.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use redb::{ReadableDatabase, TableDefinition};
use sha_api::digest::Digest;

/// Minimum message length in bytes for key-value separation in fjall, as its documentation advises.
const KV_SEPARATION_MIN: usize = 4096;
/// Number of lines that [`fjall_lines`] commits together.
const LINES_PER_COMMIT: usize = 1000;

type Put = (Digest, Vec<u8>, SyncSender<()>);

/// fjall with a thread that commits all waiting puts together.
pub struct Fjall {
    puts: Option<SyncSender<Put>>,
    commits: Option<JoinHandle<()>>,
}

impl Fjall {
    pub fn open(dir: &Path, length: usize) -> Self {
        let (database, messages) = fjall(dir, length);
        let (puts, waiting) = sync_channel(1024);
        let commits = std::thread::spawn(move || commit(&database, &messages, &waiting));
        Self { puts: Some(puts), commits: Some(commits) }
    }

    /// Stores a message. Blocks until it is durable.
    pub fn put(&self, message: Vec<u8>) {
        let (done, wait) = sync_channel(1);
        self.puts.as_ref().unwrap().send((Digest::compute(&message), message, done)).unwrap();
        wait.recv().unwrap();
    }
}

impl Drop for Fjall {
    fn drop(&mut self) {
        drop(self.puts.take());
        self.commits.take().unwrap().join().unwrap();
    }
}

fn commit(database: &Database, messages: &Keyspace, waiting: &Receiver<Put>) {
    while let Ok(first) = waiting.recv() {
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        let mut all = Vec::new();
        for (digest, message, done) in std::iter::once(first).chain(waiting.try_iter()) {
            batch.insert(messages, digest.as_bytes().as_slice(), message);
            all.push(done);
        }
        batch.commit().unwrap();
        all.into_iter().for_each(|done| done.send(()).unwrap());
    }
}

fn fjall(dir: &Path, length: usize) -> (Database, Keyspace) {
    let database = Database::builder(dir).open().unwrap();
    let kv_separation = (length >= KV_SEPARATION_MIN).then(KvSeparationOptions::default);
    let options = || KeyspaceCreateOptions::default().with_kv_separation(kv_separation);
    let messages = database.keyspace("messages", options).unwrap();
    (database, messages)
}

/// Stores each line of stdin in fjall and prints its digest once it is durable, as `put --lines` does.
pub fn fjall_lines(dir: &Path) {
    let (database, messages) = fjall(dir, 0);
    let mut lines = std::io::stdin().lock().split(b'\n').map(Result::unwrap);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    loop {
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        let mut digests = Vec::new();
        for line in lines.by_ref().take(LINES_PER_COMMIT) {
            let digest = Digest::compute(&line);
            batch.insert(&messages, digest.as_bytes().as_slice(), line);
            digests.push(digest);
        }
        if digests.is_empty() {
            return out.flush().unwrap();
        }
        batch.commit().unwrap();
        for digest in digests {
            writeln!(out, "{digest}").unwrap();
        }
    }
}

const MESSAGES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("messages");

/// A redb database with messages.
pub struct Redb(redb::Database);

impl Redb {
    pub fn with(file: &Path, messages: impl Iterator<Item = Vec<u8>>) -> Self {
        let database = redb::Database::create(file).unwrap();
        let write = database.begin_write().unwrap();
        let mut table = write.open_table(MESSAGES).unwrap();
        for message in messages {
            table.insert(Digest::compute(&message).as_bytes(), message.as_slice()).unwrap();
        }
        drop(table);
        write.commit().unwrap();
        Self(database)
    }

    /// Opens a read transaction.
    pub fn reader(&self) -> Reader {
        Reader(self.0.begin_read().unwrap().open_table(MESSAGES).unwrap())
    }
}

pub struct Reader(redb::ReadOnlyTable<&'static [u8; 32], &'static [u8]>);

impl Reader {
    pub fn get(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.0.get(digest.as_bytes()).unwrap().map(|message| message.value().to_vec())
    }
}
