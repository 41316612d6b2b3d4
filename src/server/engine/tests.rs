//! That no request is lost and none waits for another, whatever is asked at the same time.

use std::sync::Barrier;

use crate::testing::MemoryStore;

use super::*;

fn put_request(message: &str) -> Request {
    Request {
        content_type: Some("application/json".to_owned()),
        body: format!("{{\"message\": \"{message}\"}}").into_bytes(),
        ..Request::new(Method::Post, "/messages")
    }
}

fn engine() -> Engine {
    Engine::start(Arc::new(MemoryStore::default())).unwrap()
}

/// An engine whose connections have all broken and whose tiny_http accepts no more.
pub(in crate::server) fn dead_engine() -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let bind = |name: &str| UnixListener::bind(dir.path().join(name)).unwrap();
    drop(bind("ended"));
    let pool = Pool::new(SocketHandle::open(&dir.path().join("ended")).unwrap());
    pool.add(|_| Ok(Arc::new(UnixStream::pair()?.0))).unwrap();
    drop(pool.checkout(|_| unreachable!()));
    let server = Server::from_listener(bind("alive"), None).unwrap();
    drop(UnixStream::connect(dir.path().join("alive")));
    Engine { server, pool, messages: Arc::new(MemoryStore::default()) }
}

fn location(reply: &Response) -> String {
    reply.headers().find(|field| field.0 == "Location").unwrap().1.to_owned()
}

#[test]
fn more_callers_than_connections_with_large_bodies_all_get_responses() {
    let engine = engine();
    let budget = Budget::new(u64::MAX);
    let askers = POOL_SIZE + 16;
    let together = Barrier::new(askers);
    thread::scope(|scope| {
        for asker in 0..askers {
            let (engine, budget, together) = (&engine, &budget, &together);
            scope.spawn(move || {
                together.wait();
                for turn in 0..5 {
                    let message = format!("{asker}-{turn}-{}", "x".repeat((asker % 3) * 300_000));
                    let (reply, _held) = engine.call(put_request(&message), budget).unwrap();
                    assert_eq!(reply.status, 200);
                    let (reply, _held) = engine.call(Request::new(Method::Get, &location(&reply)), budget).unwrap();
                    assert_eq!(reply.body, format!("{{\"message\": \"{message}\"}}").into_bytes());
                }
            });
        }
    });
}

#[test]
fn a_broken_connection_is_replaced() {
    let engine = engine();
    for _ in 0..POOL_SIZE * 2 {
        let lease = engine.checkout().unwrap();
        lease.stream().shutdown(std::net::Shutdown::Both).unwrap();
        drop(lease);
    }
    let leases: Vec<_> = (0..POOL_SIZE).map(|_| engine.checkout().unwrap()).collect();
    assert_eq!(engine.pool.connections(), POOL_SIZE);
    drop(leases);
    assert_eq!(engine.call(put_request("foo"), &Budget::new(1 << 20)).unwrap().0.status, 200);
}

#[test]
fn a_response_over_budget_does_not_break_the_connection() {
    let engine = engine();
    let (reply, _held) = engine.call(put_request(&"x".repeat(100_000)), &Budget::new(1 << 20)).unwrap();
    let tight = Budget::new(50_000);
    let mut other = tight.reserve();
    assert!(other.try_grow(1));
    let get = Request::new(Method::Get, &location(&reply));
    assert!(matches!(engine.call(get.clone(), &tight), Err(Error::OverBudget)));
    assert_eq!(engine.pool.connections(), POOL_SIZE);
    drop(other);
    assert_eq!(engine.call(get, &tight).unwrap().0.status, 200);
}

#[test]
fn a_head_response_has_the_content_length_and_no_body() {
    let engine = engine();
    let budget = Budget::new(1 << 20);
    let (reply, _held) = engine.call(put_request("foo"), &budget).unwrap();
    let (reply, _held) = engine.call(Request::new(Method::Head, &location(&reply)), &budget).unwrap();
    assert_eq!((reply.status, reply.content_length, reply.body.len()), (200, 18, 0));
}

#[test]
fn the_method_and_query_reach_the_api_unchanged() {
    let memory = Arc::new(MemoryStore::default());
    let request = Request { query: Some("a=b".to_owned()), ..Request::new(Method::Other, "/messages") };
    let (reply, _held) = Engine::start(memory).unwrap().call(request, &Budget::new(1 << 20)).unwrap();
    assert_eq!(reply, Response::error(405, "Method not allowed").with_header("Allow", "GET, HEAD, POST"));
}

/// Panics when it is asked.
struct PanickingMessages;

impl MessageStore for PanickingMessages {
    fn put(&self, _: Vec<Vec<u8>>) -> Result<Vec<crate::message_store::Receipt>, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn get<'a>(
        &'a self,
        _: &'a [crate::digest::Digest],
    ) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, crate::message_store::Error>> + 'a> {
        panic!("as the test wants")
    }

    fn has(&self, _: &[crate::digest::Digest]) -> Result<Vec<bool>, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn size(&self, _: crate::digest::Digest) -> Result<Option<u64>, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn list(
        &self,
        _: &crate::message_store::ListQuery,
    ) -> Result<Vec<crate::message_store::Entry>, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn remove(&self, _: &[crate::digest::Digest]) -> Result<Vec<bool>, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn verify(
        &self,
        _: Option<&crate::message_store::Cursor>,
    ) -> Result<crate::message_store::VerifyStep, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn repair(&self, _: &[crate::message_store::Damage]) -> Result<(), crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn stats(&self) -> Result<crate::message_store::Stats, crate::message_store::Error> {
        panic!("as the test wants")
    }

    fn health(&self) -> Result<(), crate::message_store::Error> {
        panic!("as the test wants")
    }
}

#[test]
fn a_panic_in_a_handler_is_a_500_and_breaks_no_connection() {
    let engine = Engine::start(Arc::new(PanickingMessages)).unwrap();
    for _ in 0..=POOL_SIZE {
        let (reply, _held) = engine.call(put_request("foo"), &Budget::new(1 << 20)).unwrap();
        assert_eq!(reply, Response::error(500, "Internal server error"));
    }
    assert_eq!(engine.pool.connections(), POOL_SIZE);
}
