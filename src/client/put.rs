//! Puts. Small messages are sent in batches, and several batches may be in flight. A large message is sent alone, as raw
//! bytes.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Deserialize;

use super::request::ApiRequest;
use super::transport::Failover;
use crate::digest::Digest;
use crate::json_message::JsonMessage;
use crate::message_store::{Error, Receipt};

/// Maximum estimated size of a batch in bytes. The default of `--max-body` is twice as high.
const MAX_REQUEST_BYTES: usize = 512 << 10;
/// Bytes of a JSON line in addition to the message.
const MESSAGE_OVERHEAD: usize = 16;
/// Maximum number of concurrent requests: the server reads one while it commits the other.
const MAX_IN_FLIGHT: usize = 2;

/// Stores `batch` and returns the receipts in order. On an error, no message is acknowledged.
pub(super) fn put(failover: &Failover, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    let parts = split_batch(batch);
    if parts.len() < 2 {
        return put_request(failover, batch);
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(parts.len()));
    let send_parts = || {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let receipts = put_request(failover, &batch[part.clone()]);
            if receipts.is_err() {
                next.store(parts.len(), Ordering::Relaxed);
            }
            results.lock().push((part.start, receipts));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..MAX_IN_FLIGHT.min(parts.len()) {
            scope.spawn(send_parts);
        }
        send_parts();
    });
    let mut results = results.into_inner();
    results.sort_by_key(|(start, _)| *start);
    let mut receipts = Vec::with_capacity(batch.len());
    for (_, part_receipts) in results {
        receipts.extend(part_receipts?);
    }
    Ok(receipts)
}

/// Splits a batch into ranges that are sent in one request each.
fn split_batch(batch: &[Vec<u8>]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, message) in batch.iter().enumerate() {
        // Base64 makes a message a third longer.
        let encoded_size = message.len() + message.len() / 3 + MESSAGE_OVERHEAD;
        if index > start && size + encoded_size > MAX_REQUEST_BYTES {
            parts.push(start..index);
            (start, size) = (index, 0);
        }
        size += encoded_size;
    }
    if start < batch.len() {
        parts.push(start..batch.len());
    }
    parts
}

fn put_request(failover: &Failover, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    match batch {
        [] => Ok(Vec::new()),
        [message] => Ok(vec![put_single(failover, message)?]),
        batch => put_lines(failover, batch),
    }
}

fn put_single(failover: &Failover, message: &[u8]) -> Result<Receipt, Error> {
    #[derive(Deserialize)]
    struct PutResponse {
        digest: Digest,
    }
    let digest = Digest::compute(message);
    let response = failover.send(&ApiRequest::put_message(digest, message))?;
    if response.status == 413 {
        let cause = "over the limit of the server; raise its --max-message and --max-body";
        return Err(response.server_error(format!("cannot store a message of {} bytes: {cause}", message.len())));
    }
    let response = response.error_for_status()?;
    match serde_json::from_slice::<PutResponse>(&response.body) {
        Ok(put) if put.digest == digest => Ok(Receipt { digest, new: response.status == 201 }),
        Ok(put) => Err(response.invalid_response(&format!("expected digest {digest}, got {}", put.digest))),
        Err(error) => Err(response.invalid_response(&error)),
    }
}

fn put_lines(failover: &Failover, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    let mut body = Vec::with_capacity(MAX_REQUEST_BYTES);
    for message in batch {
        serde_json::to_writer(&mut body, &JsonMessage::new(None, message)).expect("a message can be serialized");
        body.push(b'\n');
    }
    let response = failover.send(&ApiRequest::post_lines("/messages", body))?;
    if response.status == 413 {
        // Escaping may have made the batch longer than estimated, or the server has a lower limit.
        let (first, second) = batch.split_at(batch.len() / 2);
        return Ok([put_request(failover, first)?, put_request(failover, second)?].concat());
    }
    let response = response.error_for_status()?;
    let lines = serde_json::Deserializer::from_slice(&response.body).into_iter::<PutResultLine>();
    let mut receipts = Vec::with_capacity(batch.len());
    for (line, message) in lines.zip(batch) {
        match line.map_err(|error| response.invalid_response(&error))? {
            PutResultLine { digest: Some(digest), new, .. } if digest == Digest::compute(message) => {
                receipts.push(Receipt { digest, new });
            }
            PutResultLine { err_msg: Some(err_msg), .. } => return Err(response.server_error(err_msg)),
            _ => return Err(response.invalid_response(&"a line does not have the digest of its message")),
        }
    }
    match receipts.len() == batch.len() {
        true => Ok(receipts),
        false => Err(response.invalid_response(&"it has fewer lines than the request")),
    }
}

/// Result of one message in a batch.
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
        assert_eq!(split_batch(&[]), Vec::<std::ops::Range<usize>>::new());
        let many = vec![vec![]; 3 * MAX_REQUEST_BYTES / MESSAGE_OVERHEAD];
        assert_eq!(split_batch(&many).len(), 3);
    }
}
