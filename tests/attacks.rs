//! Slow, stalled and interrupted clients. Other clients are served meanwhile, no incomplete message is stored, and all
//! resources are released afterwards.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, recv};

use crate::common::server::{Client, Server, client_config_trusting, client_connection, post_request, wait_until};
use crate::common::{Sandbox, digest};

const LIVEZ_REQUEST: &str = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";

fn http_and_https(flags: &[&str]) -> [Server; 2] {
    [Server::http(flags), Server::https(flags)]
}

/// Asserts that the server answers `/readyz`. The client waits less long than the slow clients of these tests.
fn assert_responsive(server: &Server) {
    assert_eq!(server.get("/readyz").status, 200);
}

fn is_stored(server: &Server, message: &str) -> bool {
    server.get(&format!("/messages/{}", digest(message.as_bytes()))).status == 200
}

/// Makes the socket send RST instead of FIN when its last descriptor is closed.
fn reset_on_close(stream: &TcpStream) {
    set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}

/// Starts HTTP and HTTPS servers that give slow clients `timeout` for each step.
fn servers_with_timeout(timeout: &str) -> [Server; 2] {
    let names = ["--head-timeout", "--body-timeout", "--write-timeout", "--handshake-timeout"];
    let timeouts = names.iter().flat_map(|name| [*name, timeout]);
    http_and_https(&["--max-connections-per-address", "300"].into_iter().chain(timeouts).collect::<Vec<_>>())
}

/// Opens connections on which a head or a body is incomplete, or responses for `path` are not read. Calls `check`
/// several times meanwhile.
fn open_slow_clients(server: &Server, path: &str, check: impl Fn()) -> Vec<Client> {
    let mut slow_clients = Vec::new();
    for _ in 0..40 {
        for request in [
            "GET /livez HTTP/1.1\r\nHost".to_owned(),
            "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
                .to_owned(),
            format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(9),
        ] {
            let mut client = server.client();
            client.send(request);
            slow_clients.push(client);
        }
        check();
    }
    slow_clients
}

#[test]
fn slow_clients_do_not_delay_other_clients() {
    // A request that waits for a slow client exceeds TEST_TIMEOUT.
    for server in servers_with_timeout("10min") {
        let path = server.put(&"x".repeat(1_000_000));
        let slow_clients = open_slow_clients(&server, &path, || assert_responsive(&server));
        let silent_clients: Vec<_> = (0..40).map(|_| server.tcp_stream()).collect();
        assert_responsive(&server);
        drop((slow_clients, silent_clients));
        server.assert_healthy();
    }
}

#[test]
fn slow_clients_hold_no_resources_after_their_timeout() {
    for server in servers_with_timeout("500ms") {
        let path = server.put(&"x".repeat(1_000_000));
        let before = server.resource_usage();
        let slow_clients = open_slow_clients(&server, &path, || ());
        let silent_clients: Vec<_> = (0..40).map(|_| server.tcp_stream()).collect();
        server.wait_resources_released(before);
        server.assert_healthy();
        drop((slow_clients, silent_clients));
    }
}

#[test]
fn idle_connections_hold_no_thread() {
    for server in http_and_https(&["--max-connections-per-address", "300"]) {
        let (threads, files) = server.resource_usage();
        let mut clients: Vec<_> = (0..200).map(|_| server.client()).collect();
        for client in &mut clients {
            assert_eq!(client.call(LIVEZ_REQUEST).status, 200);
        }
        server.wait_resources_released((threads, files + clients.len()));
        // All connections become readable at the same time, several times.
        for _ in 0..3 {
            for client in &mut clients {
                client.send(LIVEZ_REQUEST);
            }
            assert!(clients.iter_mut().all(|client| client.read_response().status == 200));
        }
    }
}

/// Shuts down sockets on drop, also when the test panics, because threads block on them.
struct ShutdownOnDrop<'a>(&'a [TcpStream]);

impl Drop for ShutdownOnDrop<'_> {
    fn drop(&mut self) {
        for socket in self.0 {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_client_that_pipelines_without_pause_does_not_delay_other_clients() {
    let server = Server::http(&["--max-requests", "1000000000"]);
    let path = server.put("hot");
    let requests = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").repeat(100);
    let received = AtomicUsize::new(0);
    let sockets: Vec<_> = (0..4).map(|_| server.tcp_stream()).collect();
    thread::scope(|scope| {
        let _shutdown = ShutdownOnDrop(&sockets);
        for mut socket in &sockets {
            let (requests, received) = (&requests, &received);
            scope.spawn(move || while socket.write_all(requests.as_bytes()).is_ok() {});
            scope.spawn(move || {
                let mut buf = vec![0; 1 << 16];
                while let Ok(count @ 1..) = socket.read(&mut buf) {
                    received.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
        wait_until("responses are flowing", || received.load(Ordering::Relaxed) > 1 << 20);
        for _ in 0..20 {
            assert_responsive(&server);
        }
    });
    server.assert_healthy();
}

#[test]
fn requests_in_coalesced_tls_records_are_all_answered() {
    let server = Server::https(&[]);
    let mut stream = rustls::StreamOwned::new(
        client_connection(client_config_trusting(&server.self_signed_cert_path()).with_no_client_auth()),
        server.tcp_stream(),
    );
    stream.flush().unwrap();
    for _ in 0..3 {
        // Five TLS records in one write.
        for _ in 0..5 {
            stream.conn.writer().write_all(LIVEZ_REQUEST.as_bytes()).unwrap();
        }
        stream.flush().unwrap();
        let (mut responses, mut buf) = (Vec::new(), [0; 1 << 10]);
        while String::from_utf8_lossy(&responses).matches("HTTP/1.1 200 ").count() < 5 {
            let count = stream.read(&mut buf).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&responses));
            responses.extend_from_slice(&buf[..count]);
        }
    }
}

#[test]
fn pipelined_puts_are_answered_in_order() {
    for server in http_and_https(&[]) {
        thread::scope(|scope| {
            for client_id in 0..8 {
                let server = &server;
                scope.spawn(move || {
                    let messages: Vec<_> = (0..50).map(|number| format!("{client_id} {number}")).collect();
                    let mut client = server.client();
                    client.send(messages.iter().map(|message| post_request(message, "")).collect::<String>());
                    for message in &messages {
                        let response = client.read_response().text().to_owned();
                        assert_eq!(response, format!("{{\"digest\": \"{}\"}}", digest(message.as_bytes())));
                    }
                });
            }
        });
    }
}

#[test]
fn an_unread_log_pipe_delays_no_request_and_loses_no_line() {
    let sandbox = Sandbox::new();
    let fifo = sandbox.dir().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut log = File::from(rustix::fs::open(&fifo, flags, Mode::empty()).unwrap());
    let flags = ["--http", "--max-connections-per-address", "1000", "--access-log", fifo.to_str().unwrap()];
    let server = Server::spawn(sandbox, &flags);
    // Unlike a request for `/readyz`, this wait adds no line to the log.
    server.wait_local_socket();
    let path = server.put("hot");
    // 800 lines of more than 90 bytes exceed the 64 KiB of a pipe buffer. A request that waits for the log would never be
    // answered, because nothing is read before the last response.
    for _ in 0..800 {
        assert_eq!(server.get(&path).status, 200);
    }
    let mut lines = 0;
    wait_until("all lines are written", || {
        let mut text = String::new();
        let _ = log.read_to_string(&mut text);
        lines += text.lines().count();
        lines >= 800
    });
    server.assert_healthy();
}

#[test]
fn a_body_below_the_minimum_rate_is_cut_off() {
    for server in http_and_https(&["--body-timeout", "1s", "--min-rate", "1000B"]) {
        let stream = server.tcp_stream();
        let mut client = server.client_over(stream.try_clone().unwrap());
        // With TLS, this also reads the session tickets, so that the next bytes from the server are a response.
        assert_eq!(client.call(LIVEZ_REQUEST).status, 200);
        client.send(
            "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n",
        );
        // One byte every 2 ms is below the minimum rate. With a timeout that restarts with each byte, the server would
        // read the whole body and answer 400.
        wait_until("the server answers", || {
            client.try_send("x");
            recv(&stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT).is_ok()
        });
        let received = client.read_until_close();
        assert!(received.starts_with("HTTP/1.1 408 "), "{received}");
        server.assert_healthy();
    }
}

#[test]
fn a_reset_at_any_point_stores_no_incomplete_message() {
    // The server may not yet have noticed the end of the earlier connections.
    let flags = ["--max-connections-per-address", "1000"];
    for (server, step) in [(Server::http(&flags), 1), (Server::https(&flags), 9)] {
        server.assert_healthy();
        let before = server.resource_usage();
        let chunked = "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
            Transfer-Encoding: chunked\r\n\r\n18\r\n{\"message\": \"chunked 1\"}\r\n0\r\n\r\n";
        for (message, request) in [("plain 1", post_request("plain 1", "")), ("chunked 1", chunked.to_owned())] {
            for cut in (0..request.len()).step_by(step) {
                let stream = server.tcp_stream();
                reset_on_close(&stream);
                server.client_over(stream).try_send(&request[..cut]);
            }
            assert_responsive(&server);
            server.wait_resources_released(before);
            assert!(!is_stored(&server, message), "{message}");
            assert_eq!(server.client().call(&request).status, 200, "{message}");
            assert!(is_stored(&server, message));
        }
    }
}

#[test]
fn a_half_closed_client_gets_its_response_and_an_incomplete_request_is_ignored() {
    let server = Server::http(&[]);
    server.assert_healthy();
    let before = server.resource_usage();
    let complete = post_request("complete", "");
    for (bytes, status) in
        [(complete.as_str(), "HTTP/1.1 200 "), (&complete[..complete.len() - 1], ""), (&complete[..20], "")]
    {
        let mut stream = server.tcp_stream();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert_eq!(response.get(..status.len()), Some(status));
        assert_eq!(response.is_empty(), status.is_empty(), "{response}");
    }
    server.wait_resources_released(before);
}

#[test]
fn a_missing_last_chunk_stores_nothing() {
    for server in http_and_https(&[]) {
        let mut client = server.client();
        client.send(
            "POST /messages HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             12\r\n{\"message\": \"foo\"}\r\n",
        );
        drop(client);
        assert_responsive(&server);
        assert!(!is_stored(&server, "foo"));
    }
}

#[test]
fn thousands_of_pipelined_requests_are_answered_in_order() {
    for server in http_and_https(&["--max-requests", "5000"]) {
        let before = server.resource_usage();
        let stream = server.tcp_stream();
        let mut client = server.client_over(stream.try_clone().unwrap());
        // Each part fits the socket buffers, so that neither side blocks until the other side reads.
        for _ in 0..100 {
            client.send(LIVEZ_REQUEST.repeat(50));
            for _ in 0..50 {
                assert_eq!(client.read_response().status, 200);
            }
        }
        assert_eq!(client.read_until_close(), "");
        drop((client, stream));
        server.wait_resources_released(before);
    }
}

#[test]
fn a_client_that_pipelines_without_reading_is_disconnected() {
    let server = Server::http(&["--write-timeout", "500ms", "--max-requests", "1000000"]);
    let before = server.resource_usage();
    let mut stream = server.tcp_stream();
    let requests = LIVEZ_REQUEST.repeat(1000);
    wait_until("the client is disconnected", || stream.write_all(requests.as_bytes()).is_err());
    server.wait_resources_released(before);
    assert_responsive(&server);
}

#[test]
fn a_fragmented_client_hello_is_accepted_and_a_truncated_one_is_harmless() {
    let server = Server::https(&["--handshake-timeout", "5s"]);
    let before = server.resource_usage();
    let mut connection =
        client_connection(client_config_trusting(&server.self_signed_cert_path()).with_no_client_auth());
    let mut client_hello = Vec::new();
    connection.write_tls(&mut client_hello).unwrap();
    let mut stream = server.tcp_stream();
    stream.set_nodelay(true).unwrap();
    for byte in &client_hello {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut tls = rustls::StreamOwned::new(connection, stream);
    tls.write_all(LIVEZ_REQUEST.as_bytes()).unwrap();
    let mut status = [0; 12];
    tls.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(tls);
    let close_notify = [0x15, 3, 3, 0, 2, 1, 0];
    for cut in [0, 1, 5, client_hello.len() / 2, client_hello.len()] {
        let mut stream = server.tcp_stream();
        stream.write_all(&[&client_hello[..cut], &close_notify].concat()).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.wait_resources_released(before);
    server.assert_healthy();
}

#[test]
fn concurrent_reads_of_a_large_message_stay_within_the_memory_budget() {
    let server = Server::http(&["--max-body", "40MiB", "--cache-size", "0B"]);
    let path = server.put(&"x".repeat(32 << 20));
    let clients: Vec<_> = (0..48)
        .map(|_| {
            let mut client = server.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
            client
        })
        .collect();
    assert_responsive(&server);
    let read_status = |mut client: Client| thread::spawn(move || client.read_response().status);
    let readers: Vec<_> = clients.into_iter().map(read_status).collect();
    let statuses: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(statuses.contains(&200) && statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 1200 << 10, "{} MiB", peak >> 10);
    server.assert_healthy();
}

#[test]
fn a_failed_disk_makes_readyz_fail_and_reads_continue() {
    let server = Server::http(&[]);
    let path = server.put("before");
    let Some(fault) = SyscallFault::inject(&server, "fdatasync:error=EIO") else { return };
    assert_eq!(server.client().call(&post_request("after", "")).status, 503);
    let ready = server.get("/readyz");
    assert_eq!((ready.status, ready.text()), (503, r#"{"err_msg": "The store has failed"}"#));
    assert_eq!((server.get("/livez").status, server.get(&path).status), (200, 200));
    drop(fault);
    assert_eq!(server.get("/readyz").status, 503);
}

#[test]
fn the_server_recovers_from_thread_exhaustion() {
    let server = Server::https(&["--head-timeout", "1s", "--idle-timeout", "120s", "--handshake-timeout", "120s"]);
    let path = server.put("before");
    let mut clients: Vec<_> = (0..12).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.call(LIVEZ_REQUEST).status, 200);
    }
    let Some(fault) = SyscallFault::inject(&server, "clone3:error=EAGAIN") else { return };
    // Each idle thread accepts a connection and waits for its handshake, until no thread is left.
    let mut silent_clients = Vec::new();
    wait_until("a connection is closed for want of a thread", || {
        let mut stream = server.tcp_stream();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let received = stream.read(&mut [0; 1]);
        silent_clients.push(stream);
        !received.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    for _ in 0..8 {
        // An error response or a closed connection is fine. No thread can be started for a new connection.
        let mut received = Vec::new();
        let _ = server.tcp_stream().read_to_end(&mut received);
        assert!(!received.starts_with(b"HTTP/1.1 2"));
    }
    // Existing connections are served after the slow requests, each of which blocks a thread, have timed out.
    let (slow, others) = clients.split_at_mut(6);
    for client in slow {
        client.send("GET /livez HTTP/1.1\r\nHost");
    }
    for client in &mut *others {
        client.send(post_request("meanwhile", ""));
    }
    assert!(others.iter_mut().all(|client| client.read_response().status == 200));
    drop((fault, silent_clients));
    assert_eq!(server.get(&path).status, 200);
    server.assert_healthy();
}

/// An strace process that makes a system call of a server fail, until it is dropped.
struct SyscallFault(std::process::Child);

impl SyscallFault {
    /// Attaches strace to the server. Returns `None` if tracing is not possible, as in some containers.
    fn inject(server: &Server, fault: &str) -> Option<Self> {
        if !crate::common::has_tool("strace") {
            return None;
        }
        let (pid, fault) = (server.pid().to_string(), format!("inject={fault}"));
        let args = ["-f", "-p", &pid, "-e", &fault, "-o", "/dev/null"];
        let mut command = std::process::Command::new("strace");
        let mut strace = Self(command.args(args).stderr(std::process::Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        let mut stderr = std::io::BufReader::new(strace.0.stderr.take().unwrap());
        std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
        // The pipe stays open, because strace exits when it cannot write to stderr.
        strace.0.stderr = Some(stderr.into_inner());
        if !line.contains("attached") {
            crate::common::report_skip(&line);
            return None;
        }
        Some(strace)
    }
}

impl Drop for SyscallFault {
    /// Detaches strace with SIGINT. SIGKILL would also kill the traced threads.
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::INT);
        let _ = self.0.wait();
    }
}
