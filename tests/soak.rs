//! A long test under mixed load, with clients that reset connections, send slowly or send invalid requests. It runs
//! with `make soak` only.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use crate::common::server::{Server, post_request, wait_until};
use crate::common::{Random, digest};

const CLIENTS: u64 = 64;

/// Memory in KiB, threads and open files.
type ResourceUsage = (u64, usize, usize);

fn resource_usage(server: &Server) -> ResourceUsage {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let (threads, files) = server.resource_usage();
    (memory.trim().trim_end_matches(" kB").parse().unwrap(), threads, files)
}

fn message(number: u64) -> String {
    format!("{number} {}", "x".repeat(usize::try_from(number % 10 * 1000).unwrap()))
}

/// Opens one connection with a random behaviour: valid requests, a reset, slow sending or an invalid request.
fn run_one_connection(server: &Server, random: &mut Random) {
    let message = message(random.below(1000));
    let get = format!("GET /messages/{} HTTP/1.1\r\nHost: a\r\n\r\n", digest(message.as_bytes()));
    let put = post_request(&message, "");
    let stream = server.tcp_stream();
    let cut = usize::try_from(random.below(put.len() as u64)).unwrap();
    match random.below(8) {
        0..=2 => {
            let mut client = server.client_over(stream);
            for _ in 0..random.below(50) {
                assert_eq!(client.call(&put).status, 200);
                assert_eq!(client.call(&get).status, 200);
            }
        }
        3 => {
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            server.client_over(stream).try_send(&put[..cut]);
        }
        4 => {
            set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            server.client_over(stream).try_send(get.repeat(20));
        }
        5 => {
            let mut client = server.client_over(stream);
            for byte in put.as_bytes().iter().take(30) {
                client.try_send([*byte]);
                thread::sleep(Duration::from_millis(10));
            }
        }
        6 => {
            let mut client = server.client_over(stream);
            client.try_send("POST /messages HTTP/1.1\r\nContent-Length: +5\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.read_until_close();
        }
        _ => {
            let mut stream = stream;
            let _ = stream.write_all(&put.as_bytes()[..cut]);
            let _ = stream.read(&mut [0; 99]);
        }
    }
}

#[test]
#[ignore = "runs for SOAK_SECONDS, 600 by default: `make soak`"]
fn nothing_grows_under_mixed_load() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |seconds| seconds.parse().unwrap());
    let (duration, warm_up) = (Duration::from_secs(seconds), Duration::from_secs(60.min(seconds / 3)));
    let flags = ["--max-connections-per-address", "512", "--head-timeout", "2s", "--idle-timeout", "2s"];
    let server = Server::https(&[&flags[..], &["--body-timeout", "2s", "--cache-size", "4MiB"]].concat());
    for number in 0..1000 {
        server.put(&message(number));
    }
    let before = server.resource_usage();
    let middle = warm_up + duration.saturating_sub(warm_up) / 2;
    let (start, connections) = (Instant::now(), AtomicU64::new(0));
    let (mut early, mut late): (Vec<ResourceUsage>, Vec<ResourceUsage>) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, connections) = (&server, &connections);
            scope.spawn(move || {
                let mut random = Random(client + 1);
                while start.elapsed() < duration {
                    run_one_connection(server, &mut random);
                    connections.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while start.elapsed() < duration {
            thread::sleep(Duration::from_secs(1));
            let usage = resource_usage(&server);
            match start.elapsed() {
                elapsed if elapsed < warm_up => {}
                elapsed if elapsed < middle => early.push(usage),
                _ => late.push(usage),
            }
        }
    });
    let peak = |usages: &[ResourceUsage]| {
        let max = |a: ResourceUsage, b: &ResourceUsage| (a.0.max(b.0), a.1.max(b.1), a.2.max(b.2));
        usages.iter().fold((0, 0, 0), max)
    };
    let (early, late) = (peak(&early), peak(&late));
    let connections = connections.into_inner();
    println!("{connections} connections; memory in KiB, threads, files: {early:?}, then {late:?}");
    assert!(late.0 <= early.0 + early.0 / 10 + 8192, "memory grew");
    // The numbers of threads and files vary with the number of concurrent clients. A larger increase is a leak.
    let clients = usize::try_from(CLIENTS).unwrap();
    assert!(late.1 <= early.1.max(before.0 + 3 * clients) && late.2 <= early.2.max(before.1 + 2 * clients), "growth");
    server.wait_resources_released(before);
    wait_until("the server is ready", || server.get("/readyz").status == 200);
    server.assert_healthy();
}
