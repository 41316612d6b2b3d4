//! Tests that concurrent requests are neither lost nor block each other, and that failures stay local.

use std::sync::Barrier;

use super::*;
use crate::digest::Digest;
use crate::message_store::{self, Cursor, Damage, Entry, ListQuery, Receipt, Stats, VerifyStep};
use crate::testing::MemoryStore;

fn put_request(message: &str) -> Authorized {
    Authorized::for_test(Request {
        content_type: Some("application/json".to_owned()),
        body: format!("{{\"message\": \"{message}\"}}").into_bytes(),
        ..Request::new(Method::Post, "/messages")
    })
}

fn get_request(path: &str) -> Authorized {
    Authorized::for_test(Request::new(Method::Get, path))
}

fn engine() -> Engine {
    Engine::start(&(Arc::new(MemoryStore::default()) as Arc<dyn MessageStore>)).unwrap()
}

/// Returns an engine without working connections.
pub(in crate::server) fn dead_engine() -> Engine {
    let engine = engine();
    for _ in 0..POOL_SIZE {
        engine.pool.discard(engine.pool.take().unwrap());
    }
    engine
}

fn location(response: &Response) -> String {
    response.headers().find(|field| field.0 == "Location").unwrap().1.to_owned()
}

#[test]
fn more_callers_than_connections_with_large_bodies_all_get_responses() {
    let engine = engine();
    let budget = Budget::new(u64::MAX);
    let callers = POOL_SIZE + 16;
    let barrier = Barrier::new(callers);
    thread::scope(|scope| {
        for caller in 0..callers {
            let (engine, budget, barrier) = (&engine, &budget, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for round in 0..5 {
                    let message = format!("{caller}-{round}-{}", "x".repeat((caller % 3) * 300_000));
                    let (put, _reservation) = engine.call(put_request(&message), budget).unwrap();
                    assert_eq!(put.status, 200);
                    let get = get_request(&location(&put));
                    let (got, _reservation) = engine.call(get, budget).unwrap();
                    assert_eq!(got.body, format!("{{\"message\": \"{message}\"}}").into_bytes());
                }
            });
        }
    });
}

#[test]
fn broken_connections_are_discarded_until_the_engine_is_dead() {
    let engine = engine();
    for working in (0..POOL_SIZE).rev() {
        let connection = engine.pool.take().unwrap();
        connection.shutdown(std::net::Shutdown::Both).unwrap();
        engine.pool.put_back(connection);
        assert!(matches!(engine.call(put_request("foo"), &Budget::new(1 << 20)), Err(Error::Io(_))));
        assert_eq!((engine.pool.connections(), engine.is_alive()), (working, working > POOL_SIZE / 2));
    }
    assert!(matches!(engine.call(put_request("foo"), &Budget::new(1 << 20)), Err(Error::Busy)));
}

#[test]
fn a_dropped_engine_does_not_hold_the_store() {
    let store: Arc<dyn MessageStore> = Arc::new(MemoryStore::default());
    drop(Engine::start(&store).unwrap());
    assert_eq!(Arc::strong_count(&store), 1);
}

#[test]
fn a_response_over_budget_does_not_break_the_connection() {
    let engine = engine();
    let (response, _reservation) = engine.call(put_request(&"x".repeat(100_000)), &Budget::new(1 << 20)).unwrap();
    let small_budget = Budget::new(50_000);
    let mut other_reservation = small_budget.reserve();
    assert!(other_reservation.try_grow(1));
    let get = || get_request(&location(&response));
    assert!(matches!(engine.call(get(), &small_budget), Err(Error::OverBudget)));
    assert_eq!(engine.pool.connections(), POOL_SIZE);
    drop(other_reservation);
    assert_eq!(engine.call(get(), &small_budget).unwrap().0.status, 200);
}

#[test]
fn a_head_response_has_the_content_length_and_no_body() {
    let engine = engine();
    let budget = Budget::new(1 << 20);
    let (response, _reservation) = engine.call(put_request("foo"), &budget).unwrap();
    let head = Authorized::for_test(Request::new(Method::Head, &location(&response)));
    let (response, _reservation) = engine.call(head, &budget).unwrap();
    assert_eq!((response.status, response.content_length, response.body.len()), (200, 18, 0));
}

#[test]
fn the_method_and_query_reach_the_api_unchanged() {
    let store = Arc::new(MemoryStore::default());
    let request = Request { query: Some("a=b".to_owned()), ..Request::new(Method::Other, "/messages") };
    let request = Authorized::for_test(request);
    let (response, _reservation) =
        Engine::start(&(store as Arc<dyn MessageStore>)).unwrap().call(request, &Budget::new(1 << 20)).unwrap();
    assert_eq!(response, Response::error(405, "Method not allowed").with_header("Allow", "GET, HEAD, POST"));
}

/// A store that panics in every method.
struct PanickingStore;

impl MessageStore for PanickingStore {
    fn put(&self, _: Vec<Vec<u8>>) -> Result<Vec<Receipt>, message_store::Error> {
        panic!("injected by the test")
    }

    fn get<'a>(
        &'a self,
        _: &'a [Digest],
    ) -> Box<dyn Iterator<Item = Result<Option<Vec<u8>>, message_store::Error>> + 'a> {
        panic!("injected by the test")
    }

    fn has(&self, _: &[Digest]) -> Result<Vec<bool>, message_store::Error> {
        panic!("injected by the test")
    }

    fn size(&self, _: Digest) -> Result<Option<u64>, message_store::Error> {
        panic!("injected by the test")
    }

    fn list(&self, _: &ListQuery) -> Result<Vec<Entry>, message_store::Error> {
        panic!("injected by the test")
    }

    fn remove(&self, _: &[Digest]) -> Result<Vec<bool>, message_store::Error> {
        panic!("injected by the test")
    }

    fn verify(&self, _: Option<&Cursor>) -> Result<VerifyStep, message_store::Error> {
        panic!("injected by the test")
    }

    fn repair(&self, _: &[Damage]) -> Result<(), message_store::Error> {
        panic!("injected by the test")
    }

    fn stats(&self) -> Result<Stats, message_store::Error> {
        panic!("injected by the test")
    }

    fn health(&self) -> Result<(), message_store::Error> {
        panic!("injected by the test")
    }
}

#[test]
fn a_panic_in_a_handler_is_a_500_and_breaks_no_connection() {
    let engine = Engine::start(&(Arc::new(PanickingStore) as Arc<dyn MessageStore>)).unwrap();
    for _ in 0..=POOL_SIZE {
        let (response, _reservation) = engine.call(put_request("foo"), &Budget::new(1 << 20)).unwrap();
        assert_eq!(response, Response::error(500, "Internal server error"));
    }
    assert_eq!(engine.pool.connections(), POOL_SIZE);
}
