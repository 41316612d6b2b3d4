//! An HTTP proxy that supports CONNECT only. All tunnels lead to one server, whatever host a client requests. The proxy
//! records the heads of the requests.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running proxy. Its threads end with the test process.
pub struct ConnectProxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts a proxy that connects every tunnel to `server`.
    pub fn forwarding_to(server: SocketAddr) -> Self {
        Self::spawn(move |client| forward(client, server))
    }

    /// Starts a proxy that answers every request with `status`, for example `403 Forbidden`.
    pub fn rejecting(status: &'static str) -> Self {
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        Self::spawn(move |mut client| client.write_all(response.as_bytes()))
    }

    fn spawn(handle: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let recorded = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (handle, recorded) = (handle.clone(), Arc::clone(&recorded));
                std::thread::spawn(move || {
                    let head = read_head(&client)?;
                    recorded.lock().unwrap().push(head);
                    handle(client)
                });
            }
        });
        Self { address, heads }
    }

    /// Returns the heads of the requests since the previous call.
    pub fn take_request_heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

fn read_head(mut client: &TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn forward(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut upstream = TcpStream::connect(server)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_upstream, mut to_client) = (upstream.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let copied = io::copy(&mut from_upstream, &mut to_client);
        to_client.shutdown(Shutdown::Write).and(copied)
    });
    io::copy(&mut client, &mut upstream)?;
    upstream.shutdown(Shutdown::Write)
}
