//! A server that says what a test tells it to, true or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Answers each request, a connection each, with what `act` makes of its first line and its body.
pub fn spawn_scripted_server(mut act: impl FnMut(&str, &[u8]) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may go whenever it likes.
            let _ = serve_one(&stream.unwrap(), &mut act);
        }
    });
    address
}

fn serve_one(mut stream: &TcpStream, act: &mut impl FnMut(&str, &[u8]) -> String) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    stream.write_all(act(first.trim_end(), &body).as_bytes())
}

/// A reply; `fields` are whole lines.
pub fn http_response(status: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Where nobody listens.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
