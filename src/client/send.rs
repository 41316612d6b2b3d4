//! Puts over a connection: small messages in batches, a few under way at a time, large ones alone and as they are.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use super::ask::Ask;
use super::exchange::Servers;
use crate::digest::Digest;
use crate::messages::{Error, Receipt};
use crate::wire::Outgoing;

/// Bytes of a batch at the most, about as they are sent; a server takes twice that unless told otherwise.
const BATCH: usize = 512 << 10;
/// What is sent beside the bytes of a message.
const FRAME: usize = 16;
/// Batches that are under way at a time: while one is committed the next is read.
const UNDER_WAY: usize = 2;

/// Puts `batch`; on an error nothing is acknowledged.
pub(super) fn put(servers: &Servers, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    let parts = parts(batch);
    if parts.len() < 2 {
        return put_part(servers, batch);
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(parts.len()));
    let work = || {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            let receipts = put_part(servers, &batch[part.clone()]);
            if receipts.is_err() {
                next.store(parts.len(), Ordering::Relaxed);
            }
            done.lock().expect("nobody panics while holding this").push((part.start, receipts));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..UNDER_WAY.min(parts.len()) {
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
fn parts(batch: &[Vec<u8>]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, message) in batch.iter().enumerate() {
        let weight = message.len() + message.len() / 3 + FRAME;
        if index > start && size + weight > BATCH {
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

fn put_part(servers: &Servers, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    match batch {
        [] => Ok(Vec::new()),
        [message] => Ok(vec![put_alone(servers, message)?]),
        batch => put_lines(servers, batch),
    }
}

fn put_alone(servers: &Servers, message: &[u8]) -> Result<Receipt, Error> {
    #[derive(Deserialize)]
    struct Put {
        digest: Digest,
    }
    let digest = Digest::of(message);
    let reply = servers.ask(&Ask::put(digest, message))?;
    if reply.status == 413 {
        let length = message.len();
        let why =
            format!("a message of {length} bytes is more than it takes; its --max-message and --max-body raise that");
        return Err(reply.error(why));
    }
    let reply = reply.or_fail()?;
    match serde_json::from_slice::<Put>(&reply.body) {
        Ok(put) if put.digest == digest => Ok(Receipt { digest, new: reply.status == 201 }),
        Ok(put) => Err(reply.makes_no_sense(&format!("it calls {digest} {}", put.digest))),
        Err(why) => Err(reply.makes_no_sense(&why)),
    }
}

fn put_lines(servers: &Servers, batch: &[Vec<u8>]) -> Result<Vec<Receipt>, Error> {
    let mut body = Vec::with_capacity(BATCH);
    for message in batch {
        serde_json::to_writer(&mut body, &Outgoing::new(None, message)).expect("a message can be JSON");
        body.push(b'\n');
    }
    let reply = servers.ask(&Ask::lines("/messages", body))?;
    if reply.status == 413 {
        // Escaped, they are longer than was thought, or this server takes less than others.
        let (one, other) = batch.split_at(batch.len() / 2);
        return Ok([put_part(servers, one)?, put_part(servers, other)?].concat());
    }
    let reply = reply.or_fail()?;
    let lines = serde_json::Deserializer::from_slice(&reply.body).into_iter::<Line>();
    let mut receipts = Vec::with_capacity(batch.len());
    for (line, message) in lines.zip(batch) {
        match line.map_err(|why| reply.makes_no_sense(&why))? {
            Line { digest: Some(said), new, .. } if said == Digest::of(message) => {
                receipts.push(Receipt { digest: said, new });
            }
            Line { err_msg: Some(why), .. } => return Err(reply.error(why)),
            _ => return Err(reply.makes_no_sense(&"it calls a message by a digest that is another's")),
        }
    }
    match receipts.len() == batch.len() {
        true => Ok(receipts),
        false => Err(reply.makes_no_sense(&"it is silent about some of the messages")),
    }
}

/// What became of a message.
#[derive(Deserialize)]
struct Line {
    digest: Option<Digest>,
    #[serde(default)]
    new: bool,
    err_msg: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_goes_alone_and_the_rest_together_in_order() {
        let sizes = [1, 2, BATCH, 3, BATCH / 2, 4];
        let batch: Vec<_> = sizes.map(|size| vec![0; size]).into();
        assert_eq!(parts(&batch), [0..2, 2..3, 3..4, 4..6].map(|part| part));
        assert_eq!(parts(&[]), []);
        let many = vec![vec![]; 3 * BATCH / FRAME];
        assert_eq!(parts(&many).len(), 3);
    }
}
