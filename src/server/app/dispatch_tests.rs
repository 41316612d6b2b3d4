//! That who goes together with others cannot tell.

use std::sync::{Arc, mpsc};

use super::super::put_response as stored_reply;
use super::*;
use crate::server::api::Method;
use crate::server::auth::{Authorizer, Scopes};
use crate::server::budget::Budget;
use crate::server::coalescer;
use crate::testing::MemoryStore;

fn app(memory: &Arc<MemoryStore>) -> App {
    let mut service = App::new(0, Budget::new(1 << 20), Authorizer::new(Scopes::ALL, None), None, false);
    service.put_coalescer = coalescer::tests::coalescer_with_long_wait();
    service.attach_store(Arc::clone(memory) as _).unwrap();
    service
}

fn put_request(message: &str) -> Request {
    Request {
        content_type: Some("application/json".to_owned()),
        body: format!("{{\"more\": [1],\n \"message\": \"{message}\"}}").into_bytes(),
        ..Request::new(Method::Post, "/messages")
    }
}

/// The replies to puts of `messages` that go together, in one group.
fn coalesced_responses(service: &App, messages: &[&str]) -> Vec<Arc<Response>> {
    let (told, stored) = mpsc::channel();
    let mut lead = None;
    for (number, message) in messages.iter().enumerate() {
        let (told, line) = (told.clone(), service.batch_line(&put_request(message)).unwrap());
        match service.enqueue_put(&line, Box::new(move |stored| told.send((number, stored)).unwrap())) {
            Enqueued::Leader(first) => assert!(lead.replace(first).is_none()),
            Enqueued::Follower => {}
            Enqueued::Rejected(_) => panic!("no room"),
        }
    }
    service.run_batch(lead.unwrap());
    drop(told);
    let mut all: Vec<_> = stored.iter().collect();
    all.sort_unstable();
    let alone = |number: usize| service.handle(put_request(messages[number]));
    all.into_iter().map(|(number, known)| known.map_or_else(|| alone(number), stored_reply).response).collect()
}

/// The replies to the same, one after the other, in a store of their own.
fn individual_responses(memory: MemoryStore, messages: &[&str]) -> Vec<Arc<Response>> {
    let service = app(&Arc::new(memory));
    messages.iter().map(|message| service.handle(put_request(message)).response).collect()
}

#[test]
fn coalesced_puts_are_one_batch_and_get_the_responses_of_individual_puts() {
    let memory = Arc::new(MemoryStore::default());
    let messages = ["foo", "bar", "foo", "", "\\n\\u00e4\\\"", "{\\\"message\\\": 1}", "a b", "\u{1f600}"];
    let replies = coalesced_responses(&app(&memory), &messages);
    assert_eq!(replies, individual_responses(MemoryStore::default(), &messages));
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(memory.puts(), 1);
}

#[test]
fn a_rejected_message_does_not_affect_other_puts_of_its_batch() {
    let messages = ["foo", "bad!", "bar"];
    let cases: [(fn() -> MemoryStore, u16); 2] =
        [(|| MemoryStore::with_limit(3), 413), (|| MemoryStore::rejecting(b"bad!"), 507)];
    for (memory, status) in cases {
        let replies = coalesced_responses(&app(&Arc::new(memory())), &messages);
        assert_eq!(replies, individual_responses(memory(), &messages));
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, status, 200]);
    }
}
