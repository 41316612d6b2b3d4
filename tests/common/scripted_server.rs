//! An HTTP server whose responses are scripted by the test and may be false.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Starts a server on a free loopback port and returns its address. For each connection the server reads one request
/// and sends the response that `respond` returns for the request line and the body.
pub fn spawn_scripted_server(mut respond: impl FnMut(&str, &[u8]) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // A client may disconnect at any time.
            let _ = serve_one(&stream.unwrap(), &mut respond);
        }
    });
    address
}

fn serve_one(mut stream: &TcpStream, respond: &mut impl FnMut(&str, &[u8]) -> String) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request_line, mut length) = (String::new(), 0);
    reader.read_line(&mut request_line)?;
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
    stream.write_all(respond(request_line.trim_end(), &body).as_bytes())
}

/// Returns a response with Content-Length that closes the connection. Each line of `fields` ends with CRLF.
pub fn http_response(status: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Returns a loopback address on which no process listens.
pub fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
