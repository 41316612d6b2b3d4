//! Where a test keeps its messages: in directories of its own, or in databases of a PostgreSQL of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::cluster::Cluster;
use super::server::Server;
use super::{Sandbox, digest};

/// Makes stores of one kind.
pub struct StoreFactory {
    cluster: Option<Cluster>,
    created: AtomicUsize,
}

/// Makes tests of functions that take a place: each on directories, and one of all of them on databases.
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
            let Some(place) = crate::common::store_factory::StoreFactory::databases() else { return };
            $(
                println!("{}", stringify!($name));
                $name(&place);
            )*
        }
    };
}
pub(crate) use for_each_store_kind;

impl StoreFactory {
    pub fn directories() -> Self {
        Self { cluster: None, created: AtomicUsize::new(0) }
    }

    /// `None`: there is no PostgreSQL here, and the test is skipped.
    pub fn databases() -> Option<Self> {
        Some(Self { cluster: Some(Cluster::new(&[])?), created: AtomicUsize::new(0) })
    }

    /// An empty store.
    pub fn empty_store(&self) -> Sandbox {
        match &self.cluster {
            Some(cluster) => {
                let number = self.created.fetch_add(1, Ordering::Relaxed);
                Sandbox::new().on_database(&cluster.database(&format!("made{number}")))
            }
            None => Sandbox::new(),
        }
    }

    /// One that holds these messages.
    pub fn with_messages(&self, messages: &[&[u8]]) -> Sandbox {
        let sandbox = self.empty_store();
        sandbox.put_all(messages);
        sandbox
    }

    /// What a directory holds, with the times, in one that is here.
    pub fn copy_store(&self, store: &Sandbox) -> Sandbox {
        let copy = self.empty_store();
        let Some(cluster) = &self.cluster else {
            let done = std::process::Command::new("cp").arg("-a").arg(store.store()).arg(copy.store()).status();
            assert!(done.unwrap().success());
            return copy;
        };
        store.sha_api(["copy".into(), store.location(), copy.location()]).assert().code(0);
        let listed = store.sha_api(["list", "--long", "--json"]).output().unwrap().stdout;
        let set = |entry: Value| {
            let [time, digest] = ["stored_at", "digest"].map(|key| entry[key].as_str().unwrap().to_owned());
            format!("UPDATE messages SET stored_at = '{time}' WHERE digest = '\\x{digest}';")
        };
        let sql = serde_json::Deserializer::from_slice(&listed).into_iter().map(|entry| set(entry.unwrap()));
        cluster.sql(database_name(&copy), &sql.collect::<String>());
        copy
    }

    /// A store that cannot be opened while another, which is held, is as it is.
    pub fn unopenable_store(&self, held: &Sandbox) -> Sandbox {
        if self.cluster.is_some() {
            return Sandbox::new().on_database("postgres://postgres@/nowhere?host=/nowhere");
        }
        let sandbox = Sandbox::new();
        std::os::unix::fs::symlink(held.store(), sandbox.store()).unwrap();
        sandbox
    }

    /// Flips a bit of a message where it is kept. A server may have the store.
    pub fn flip_message_bit(&self, sandbox: &Sandbox, message: &[u8]) {
        let Some(cluster) = &self.cluster else { return sandbox.flip_message_bit(message) };
        let digest = digest(message);
        let turned = "set_byte(message, 0, get_byte(message, 0) # 1)";
        let sql = format!("UPDATE messages SET message = {turned} WHERE digest = '\\x{digest}'");
        cluster.sql(database_name(sandbox), &sql);
    }

    /// A server on an empty store: plain HTTP, and ready.
    pub fn http(&self, flags: &[&str]) -> Server {
        Server::start(self.empty_store(), &[&["--http"], flags].concat())
    }

    /// The same with HTTPS.
    pub fn https(&self, flags: &[&str]) -> Server {
        Server::start(self.empty_store(), flags)
    }
}

/// The name of the database that a sandbox works on.
fn database_name(sandbox: &Sandbox) -> &str {
    sandbox.url.as_deref().and_then(|url| url.split_once("@/")?.1.split_once('?')).unwrap().0
}
