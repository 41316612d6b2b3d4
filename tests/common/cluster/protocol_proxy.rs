//! A TCP proxy in front of a cluster that knows the messages of the PostgreSQL protocol: it injects a fault after a number
//! of messages from the database, and records the messages of the clients.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::Cluster;

/// Fault that a [`ProtocolProxy`] injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No message is delivered any more, on any connection. Connections stay open and are accepted.
    Silence,
    /// The connection is closed. Other connections work.
    Cut,
}

/// A proxy on a free loopback port, for connections without TLS.
pub struct ProtocolProxy {
    port: u16,
    state: Arc<State>,
}

struct State {
    fault: Fault,
    after: usize,
    /// Number of messages from the database, over all connections.
    received: AtomicUsize,
    /// Type and content of the messages from the clients after the login, over all connections.
    sent: Mutex<Vec<(u8, Vec<u8>)>>,
}

impl ProtocolProxy {
    /// Starts a proxy that injects `fault` after `after` messages from the database.
    pub fn start(cluster: &Cluster, fault: Fault, after: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = cluster.dir.path().join(format!(".s.PGSQL.{}", cluster.port));
        let state = Arc::new(State { fault, after, received: AtomicUsize::new(0), sent: Mutex::new(Vec::new()) });
        thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for client in listener.incoming() {
                    let (state, database) = (Arc::clone(&state), database.clone());
                    // A connection ends with an error when one side closes it.
                    thread::spawn(move || relay(&client.unwrap(), &database, &state));
                }
            }
        });
        Self { port, state }
    }

    /// Returns the URL of a database through the proxy.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{name}?sslmode=disable", self.port)
    }

    /// Returns whether the fault was injected.
    pub fn is_fault_injected(&self) -> bool {
        self.state.received.load(Ordering::SeqCst) > self.state.after
    }

    /// Returns the type and the content of the messages that clients have sent after the login.
    pub fn sent_messages(&self) -> Vec<(u8, Vec<u8>)> {
        self.state.sent.lock().unwrap().clone()
    }
}

/// Relays one connection until it ends.
fn relay(client: &TcpStream, database: &PathBuf, state: &Arc<State>) -> io::Result<()> {
    let server = UnixStream::connect(database)?;
    let (requests, to_server) = (client.try_clone()?, server.try_clone()?);
    let upload = thread::spawn({
        let state = Arc::clone(state);
        move || {
            let outcome = relay_requests(&requests, &to_server, &state);
            let _ = to_server.shutdown(Shutdown::Both);
            outcome
        }
    });
    let outcome = relay_responses(&server, client, state);
    if state.fault == Fault::Cut || outcome.is_err() {
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
    let _ = upload.join();
    outcome
}

fn relay_requests(mut client: &TcpStream, mut server: &UnixStream, state: &State) -> io::Result<()> {
    // The first message has no type. A cancel request is forwarded and ends the connection.
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut startup)?;
    server.write_all(&[&length[..], &startup].concat())?;
    loop {
        let (kind, content) = read_message(client)?;
        server.write_all(&frame(kind, &content))?;
        state.sent.lock().unwrap().push((kind, content));
    }
}

fn relay_responses(server: &UnixStream, mut client: &TcpStream, state: &State) -> io::Result<()> {
    loop {
        let (kind, content) = read_message(server)?;
        let received = state.received.fetch_add(1, Ordering::SeqCst) + 1;
        match state.fault {
            Fault::Silence if received > state.after => {}
            Fault::Cut if received == state.after + 1 => return Ok(()),
            _ => client.write_all(&frame(kind, &content))?,
        }
    }
}

fn read_message(mut stream: impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
    let mut content = vec![0; length - 4];
    stream.read_exact(&mut content)?;
    Ok((head[0], content))
}

fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), content].concat()
}
