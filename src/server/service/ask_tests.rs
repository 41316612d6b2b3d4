//! That who goes together with others cannot tell.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::server::api::Method;
use crate::server::budget::Budget;
use crate::server::rights::{Rights, Scopes};
use crate::server::together;
use crate::testing::Memory;

fn service(memory: &Arc<Memory>) -> Service {
    let mut service = Service::new(0, Budget::new(1 << 20), Rights::new(Scopes::ALL, None), None, false);
    service.together = together::tests::patient();
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
    let Part::First(on_its_way) = service.together.join(b"") else { panic!("nothing is on its way yet") };
    thread::scope(|scope| {
        let ask = |message| scope.spawn(move || service.answer(put(message)).reply);
        let asked: Vec<_> = messages.iter().map(|message| ask(*message)).collect();
        together::tests::until(&service.together, messages.len());
        drop(on_its_way);
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
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
