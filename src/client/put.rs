//! Puts over a connection: small messages in batches, a few under way at a time, large ones alone and as they are.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use super::request::ApiRequest;
use super::transport::Failover;
use crate::digest::Digest;
use crate::json_message::JsonMessage;
use crate::message_store::{Error, Receipt};

/// Bytes of a batch at the most, about as they are sent; a server takes twice that unless told otherwise.
const MAX_REQUEST_BYTES: usize = 512 << 10;
/// What is sent beside the bytes of a message.
const MESSAGE_OVERHEAD: usize = 16;
/// Batches that are under way at a time: while one is committed the next is read.
const MAX_IN_FLIGHT: usize = 2;

/// Puts `batch`; on an error nothing is acknowledged.
pub(super) fn put(servers: &Failover, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    let parts = split_batch(batch);
    if parts.len() < 2 {
        return put_request(servers, batch);
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(parts.len()));
    let work = || {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let receipts = put_request(servers, &batch[part.clone()]);
            if receipts.is_err() {
                next.store(parts.len(), Ordering::Relaxed);
            }
            done.lock().expect("nobody panics while holding this").push((part.start, receipts));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..MAX_IN_FLIGHT.min(parts.len()) {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().expect("nobody panicked while holding this");
    done.sort_by_key(|(start, _)| *start);
    let mut receipts = Vec::with_capacity(batch.len());
    for (_, part) in done {
        receipts.extend(part?);
    }
    Ok(receipts)
}

/// Runs of messages that go into one request each.
fn split_batch(batch: &[Vec<u8>]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, message) in batch.iter().enumerate() {
        let weight = message.len() + message.len() / 3 + MESSAGE_OVERHEAD;
        if index > start && size + weight > MAX_REQUEST_BYTES {
            parts.push(start..index);
            (start, size) = (index, 0);
        }
        size += weight;
    }
    if start < batch.len() {
        parts.push(start..batch.len());
    }
    parts
}

fn put_request(servers: &Failover, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    match batch {
        [] => Ok(Vec::new()),
        [message] => Ok(vec![put_single(servers, message)?]),
        batch => put_lines(servers, batch),
    }
}

fn put_single(servers: &Failover, message: &[u8]) -> Result<Receipt, Error> {
    #[derive(Deserialize)]
    struct PutResponse {
        digest: Digest,
    }
    let digest = Digest::compute(message);
    let reply = servers.send(&ApiRequest::put_message(digest, message))?;
    if reply.status == 413 {
        let length = message.len();
        let why =
            format!("a message of {length} bytes is more than it takes; its --max-message and --max-body raise that");
        return Err(reply.server_error(why));
    }
    let reply = reply.error_for_status()?;
    match serde_json::from_slice::<PutResponse>(&reply.body) {
        Ok(put) if put.digest == digest => Ok(Receipt { digest, new: reply.status == 201 }),
        Ok(put) => Err(reply.invalid_response(&format!("it calls {digest} {}", put.digest))),
        Err(why) => Err(reply.invalid_response(&why)),
    }
}

fn put_lines(servers: &Failover, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    let mut body = Vec::with_capacity(MAX_REQUEST_BYTES);
    for message in batch {
        serde_json::to_writer(&mut body, &JsonMessage::new(None, message)).expect("a message can be JSON");
        body.push(b'\n');
    }
    let reply = servers.send(&ApiRequest::post_lines("/messages", body))?;
    if reply.status == 413 {
        // Escaped, they are longer than was thought, or this server takes less than others.
        let (one, other) = batch.split_at(batch.len() / 2);
        return Ok([put_request(servers, one)?, put_request(servers, other)?].concat());
    }
    let reply = reply.error_for_status()?;
    let lines = serde_json::Deserializer::from_slice(&reply.body).into_iter::<PutResultLine>();
    let mut receipts = Vec::with_capacity(batch.len());
    for (line, message) in lines.zip(batch) {
        match line.map_err(|why| reply.invalid_response(&why))? {
            PutResultLine { digest: Some(said), new, .. } if said == Digest::compute(message) => {
                receipts.push(Receipt { digest: said, new });
            }
            PutResultLine { err_msg: Some(why), .. } => return Err(reply.server_error(why)),
            _ => return Err(reply.invalid_response(&"it calls a message by a digest that is another's")),
        }
    }
    match receipts.len() == batch.len() {
        true => Ok(receipts),
        false => Err(reply.invalid_response(&"it is silent about some of the messages")),
    }
}

/// What became of a message.
#[derive(Deserialize)]
struct PutResultLine {
    digest: Option<Digest>,
    #[serde(default)]
    new: bool,
    err_msg: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_are_sent_alone_and_small_ones_batched_in_order() {
        let sizes = [1, 2, MAX_REQUEST_BYTES, 3, MAX_REQUEST_BYTES / 2, 4];
        let batch: Vec<_> = sizes.map(|size| vec![0; size]).into();
        assert_eq!(split_batch(&batch), [0..2, 2..3, 3..6]);
        assert_eq!(split_batch(&[]), []);
        let many = vec![vec![]; 3 * MAX_REQUEST_BYTES / MESSAGE_OVERHEAD];
        assert_eq!(split_batch(&many).len(), 3);
    }
}
