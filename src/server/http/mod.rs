//! The HTTP/1.1 front end. It owns all sockets that clients reach, and rejects malformed requests.
//!
//! Each file imports only files that are named before it:
//! - bytes: `socket`, `listener`, `tls`, `timed_socket`, `stream`
//! - codec: `byte_class`, `request_error`, `fields`, `head`, `body`, `response`, `deadline`
//! - connection: `registry`, `connection_io`, `request_reader`, `request_loop`, `connection`
//! - scheduler: `thread_pool`, `idle`, `scheduler`
//! - `endpoint`

mod body;
mod byte_class;
mod connection;
mod connection_io;
mod deadline;
mod endpoint;
mod fields;
#[cfg(any(test, fuzzing))]
mod fuzz;
mod head;
mod idle;
mod listener;
mod registry;
mod request_error;
mod request_loop;
mod request_reader;
mod response;
mod scheduler;
mod socket;
mod stream;
mod thread_pool;
mod timed_socket;
pub(super) mod tls;

pub(super) use endpoint::Endpoint;
#[cfg(fuzzing)]
pub use fuzz::check_parser;
pub(super) use listener::Listener;
