//! That who goes together with others cannot tell.

use std::sync::{Arc, mpsc};

use super::super::stored as stored_reply;
use super::*;
use crate::server::api::Method;
use crate::server::budget::Budget;
use crate::server::coalescer;
use crate::server::rights::{Rights, Scopes};
use crate::testing::Memory;

fn service(memory: &Arc<Memory>) -> Service {
    let mut service = Service::new(0, Budget::new(1 << 20), Rights::new(Scopes::ALL, None), None, false);
    service.together = coalescer::tests::coalescer_with_long_wait();
    service.open(Arc::clone(memory) as _).unwrap();
    service
}

fn put(message: &str) -> Request {
    Request {
        content_type: Some("application/json".to_owned()),
        body: format!("{{\"more\": [1],\n \"message\": \"{message}\"}}").into_bytes(),
        ..Request::new(Method::Post, "/messages")
    }
}

/// The replies to puts of `messages` that go together, in one group.
fn together(service: &Service, messages: &[&str]) -> Vec<Arc<Reply>> {
    let (told, stored) = mpsc::channel();
    let mut lead = None;
    for (number, message) in messages.iter().enumerate() {
        let (told, line) = (told.clone(), service.line(&put(message)).unwrap());
        match service.join(&line, Box::new(move |stored| told.send((number, stored)).unwrap())) {
            Enqueued::Leader(first) => assert!(lead.replace(first).is_none()),
            Enqueued::Follower => {}
            Enqueued::Rejected(_) => panic!("no room"),
        }
    }
    service.lead(lead.unwrap());
    drop(told);
    let mut all: Vec<_> = stored.iter().collect();
    all.sort_unstable();
    let alone = |number: usize| service.answer(put(messages[number]));
    all.into_iter().map(|(number, known)| known.map_or_else(|| alone(number), stored_reply).reply).collect()
}

/// The replies to the same, one after the other, in a store of their own.
fn alone(memory: Memory, messages: &[&str]) -> Vec<Arc<Reply>> {
    let service = service(&Arc::new(memory));
    messages.iter().map(|message| service.answer(put(message)).reply).collect()
}

#[test]
fn puts_that_go_together_are_one_and_each_is_answered_as_it_is_alone() {
    let memory = Arc::new(Memory::default());
    let messages = ["foo", "bar", "foo", "", "\\n\\u00e4\\\"", "{\\\"message\\\": 1}", "a b", "\u{1f600}"];
    let replies = together(&service(&memory), &messages);
    assert_eq!(replies, alone(Memory::default(), &messages));
    assert!(replies.iter().all(|reply| reply.status == 200));
    assert_eq!(memory.puts(), 1);
}

#[test]
fn what_cannot_be_stored_is_no_harm_to_what_goes_with_it() {
    let messages = ["foo", "bad!", "bar"];
    let cases: [(fn() -> Memory, u16); 2] = [(|| Memory::taking(3), 413), (|| Memory::refusing(b"bad!"), 507)];
    for (memory, status) in cases {
        let replies = together(&service(&Arc::new(memory())), &messages);
        assert_eq!(replies, alone(memory(), &messages));
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, status, 200]);
    }
}
