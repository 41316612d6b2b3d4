//! Factories of empty stores, so that one test runs on directories and on PostgreSQL databases.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::cluster::Cluster;
use super::server::Server;
use super::{Sandbox, digest};

/// Creates stores of one kind: directories, or databases of a temporary PostgreSQL cluster.
pub struct StoreFactory {
    cluster: Option<Cluster>,
    created: AtomicUsize,
}

/// Generates tests from functions that take a `&StoreFactory`: per function one test on directories, and a single test
/// that calls all functions on databases.
macro_rules! for_each_store_kind {
    ($($name:ident),* $(,)?) => {
        mod on_directories {
            use crate::common::store_factory::StoreFactory;
            $(
                #[test]
                fn $name() {
                    super::$name(&StoreFactory::directories());
                }
            )*
        }

        #[test]
        fn all_pass_on_databases() {
            let Some(factory) = crate::common::store_factory::StoreFactory::databases() else { return };
            $(
                println!("{}", stringify!($name));
                $name(&factory);
            )*
        }
    };
}
pub(crate) use for_each_store_kind;

impl StoreFactory {
    /// Returns a factory of directories.
    pub fn directories() -> Self {
        Self { cluster: None, created: AtomicUsize::new(0) }
    }

    /// Starts a PostgreSQL cluster and returns a factory of its databases. Returns `None` if PostgreSQL is not
    /// installed.
    pub fn databases() -> Option<Self> {
        Some(Self { cluster: Some(Cluster::new(&[])?), created: AtomicUsize::new(0) })
    }

    /// Creates an empty store.
    pub fn empty_store(&self) -> Sandbox {
        match &self.cluster {
            Some(cluster) => {
                let number = self.created.fetch_add(1, Ordering::Relaxed);
                Sandbox::new().on_database(&cluster.database(&format!("created{number}")))
            }
            None => Sandbox::new(),
        }
    }

    /// Creates a store that holds `messages`, which must not contain NUL.
    pub fn with_messages(&self, messages: &[&[u8]]) -> Sandbox {
        let sandbox = self.empty_store();
        sandbox.put_all(messages);
        sandbox
    }

    /// Copies the messages of `store`, which is a directory, with their times into a new store of this factory.
    pub fn copy_store(&self, store: &Sandbox) -> Sandbox {
        let copy = self.empty_store();
        let Some(cluster) = &self.cluster else {
            let copied = std::process::Command::new("cp").arg("-a").arg(store.store()).arg(copy.store()).status();
            assert!(copied.unwrap().success());
            return copy;
        };
        store.sha_api(["copy".into(), store.location(), copy.location()]).assert().code(0);
        let listed = store.sha_api(["list", "--long", "--json"]).output().unwrap().stdout;
        let update = |entry: Value| {
            let [time, digest] = ["stored_at", "digest"].map(|key| entry[key].as_str().unwrap().to_owned());
            format!("UPDATE messages SET stored_at = '{time}' WHERE digest = '\\x{digest}';")
        };
        let sql = serde_json::Deserializer::from_slice(&listed).into_iter().map(|entry| update(entry.unwrap()));
        cluster.sql(database_name(&copy), &sql.collect::<String>());
        copy
    }

    /// Returns a store that cannot be opened: a link to `locked`, whose lock a server holds, or an unreachable
    /// database.
    pub fn unopenable_store(&self, locked: &Sandbox) -> Sandbox {
        if self.cluster.is_some() {
            return Sandbox::new().on_database("postgres://postgres@/nowhere?host=/nowhere");
        }
        let sandbox = Sandbox::new();
        std::os::unix::fs::symlink(locked.store(), sandbox.store()).unwrap();
        sandbox
    }

    /// Flips a bit of a stored message. A server may have the store open.
    pub fn flip_message_bit(&self, sandbox: &Sandbox, message: &[u8]) {
        let Some(cluster) = &self.cluster else { return sandbox.flip_message_bit(message) };
        let digest = digest(message);
        let flipped = "set_byte(message, 0, get_byte(message, 0) # 1)";
        let sql = format!("UPDATE messages SET message = {flipped} WHERE digest = '\\x{digest}'");
        cluster.sql(database_name(sandbox), &sql);
    }

    /// Starts a server with plain HTTP on an empty store and waits until it is ready.
    pub fn http(&self, flags: &[&str]) -> Server {
        Server::start(self.empty_store(), &[&["--http"], flags].concat())
    }

    /// Starts a server with HTTPS on an empty store and waits until it is ready.
    pub fn https(&self, flags: &[&str]) -> Server {
        Server::start(self.empty_store(), flags)
    }
}

/// Returns the name of the database that `sandbox` uses as its store.
fn database_name(sandbox: &Sandbox) -> &str {
    sandbox.url.as_deref().and_then(|url| url.split_once("@/")?.1.split_once('?')).unwrap().0
}
