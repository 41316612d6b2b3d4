//! Tests that coalescing does not change the response to a put.

use std::sync::mpsc;

use super::put_response as stored_response;
use super::*;
use crate::server::api::Request;
use crate::server::coalescer;
use crate::testing::MemoryStore;

fn app(store: &Arc<MemoryStore>) -> App {
    let mut app = App::new(0, Budget::new(1 << 20), Auth::for_test(), Observability::new(None));
    app.put_coalescer = coalescer::tests::coalescer_with_long_wait();
    app.attach_store(Arc::clone(store) as _).unwrap();
    app
}

fn put_request(message: &str) -> Authorized {
    Authorized::for_test(Request {
        content_type: Some("application/json".to_owned()),
        body: format!("{{\"more\": [1],\n \"message\": \"{message}\"}}").into_bytes(),
        ..Request::new(Method::Post, "/messages")
    })
}

/// Puts `messages` in one batch and returns their responses.
fn coalesced_responses(app: &App, messages: &[&str]) -> Vec<Arc<Response>> {
    let (completed, completed_rx) = mpsc::channel();
    let mut leader = None;
    for (index, message) in messages.iter().enumerate() {
        let (completed, line) = (completed.clone(), app.batch_line(&put_request(message)).unwrap());
        match app.enqueue_put(&line, Box::new(move |stored| completed.send((index, stored)).unwrap())) {
            Enqueued::Leader(first) => assert!(leader.replace(first).is_none()),
            Enqueued::Follower => {}
            Enqueued::Rejected(_) => panic!("the batch is full"),
        }
    }
    app.run_batch(leader.unwrap());
    drop(completed);
    let mut outcomes: Vec<_> = completed_rx.iter().collect();
    outcomes.sort_unstable();
    let put_individually = |index: usize| app.handle(put_request(messages[index]));
    let response =
        |(index, stored): (usize, Option<_>)| stored.map_or_else(|| put_individually(index), stored_response).response;
    outcomes.into_iter().map(response).collect()
}

/// Puts `messages` one after the other into `store` and returns their responses.
fn individual_responses(store: MemoryStore, messages: &[&str]) -> Vec<Arc<Response>> {
    let app = app(&Arc::new(store));
    messages.iter().map(|message| app.handle(put_request(message)).response).collect()
}

#[test]
fn coalesced_puts_are_one_batch_and_get_the_responses_of_individual_puts() {
    let store = Arc::new(MemoryStore::default());
    let messages = ["foo", "bar", "foo", "", "\\n\\u00e4\\\"", "{\\\"message\\\": 1}", "a b", "\u{1f600}"];
    let responses = coalesced_responses(&app(&store), &messages);
    assert_eq!(responses, individual_responses(MemoryStore::default(), &messages));
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(store.puts(), 1);
}

#[test]
fn a_rejected_message_does_not_affect_other_puts_of_its_batch() {
    let messages = ["foo", "bad!", "bar"];
    let cases: [(fn() -> MemoryStore, u16); 2] =
        [(|| MemoryStore::with_limit(3), 413), (|| MemoryStore::rejecting(b"bad!"), 507)];
    for (store, status) in cases {
        let responses = coalesced_responses(&app(&Arc::new(store())), &messages);
        assert_eq!(responses, individual_responses(store(), &messages));
        assert_eq!(responses.iter().map(|response| response.status).collect::<Vec<_>>(), [200, status, 200]);
    }
}
