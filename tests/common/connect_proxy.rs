//! A proxy that makes tunnels: all of them to one server, whatever host it is asked for. It remembers what it was asked.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// It ends with the tests.
pub struct ConnectProxy {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// All that comes goes to `server`.
    pub fn forwarding_to(server: SocketAddr) -> Self {
        Self::spawn(move |client| forward(client, server))
    }

    /// It refuses everybody; `status`: with a reason.
    pub fn rejecting(status: &'static str) -> Self {
        let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        Self::spawn(move |mut client| client.write_all(reply.as_bytes()))
    }

    fn spawn(act: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let all = Arc::clone(&heads);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (act, all) = (act.clone(), Arc::clone(&all));
                std::thread::spawn(move || {
                    let head = read_head(&client)?;
                    all.lock().unwrap().push(head);
                    act(client)
                });
            }
        });
        Self { address, heads }
    }

    /// The heads of all requests until now; they are forgotten.
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
    let mut there = TcpStream::connect(server)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut back, mut to_client) = (there.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let copied = io::copy(&mut back, &mut to_client);
        to_client.shutdown(Shutdown::Write).and(copied)
    });
    io::copy(&mut client, &mut there)?;
    there.shutdown(Shutdown::Write)
}
