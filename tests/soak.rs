//! Mixed load for a long time, with clients that reset, dawdle and talk nonsense: `make soak`.

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

/// One connection, well-behaved or not.
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
#[ignore = "takes SOAK_SECONDS, ten minutes unless it is set: `make soak`"]
fn nothing_grows_under_mixed_load() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |seconds| seconds.parse().unwrap());
    let (time, warm) = (Duration::from_secs(seconds), Duration::from_secs(60.min(seconds / 3)));
    let flags = ["--max-connections-per-address", "512", "--head-timeout", "2s", "--idle-timeout", "2s"];
    let server = Server::https(&[&flags[..], &["--body-timeout", "2s", "--cache-size", "4MiB"]].concat());
    for number in 0..1000 {
        server.put(&message(number));
    }
    let before = server.resource_usage();
    let half = warm + time.saturating_sub(warm) / 2;
    let (start, visits) = (Instant::now(), AtomicU64::new(0));
    let (mut early, mut late): (Vec<ResourceUsage>, Vec<ResourceUsage>) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, visits) = (&server, &visits);
            scope.spawn(move || {
                let mut random = Random(client + 1);
                while start.elapsed() < time {
                    run_one_connection(server, &mut random);
                    visits.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while start.elapsed() < time {
            thread::sleep(Duration::from_secs(1));
            let now = resource_usage(&server);
            match start.elapsed() {
                elapsed if elapsed < warm => {}
                elapsed if elapsed < half => early.push(now),
                _ => late.push(now),
            }
        }
    });
    let most = |weights: &[ResourceUsage]| {
        let fold = |most: ResourceUsage, one: &ResourceUsage| (most.0.max(one.0), most.1.max(one.1), most.2.max(one.2));
        weights.iter().fold((0, 0, 0), fold)
    };
    let (early, late) = (most(&early), most(&late));
    println!("{} visits; memory in KiB, threads, files: {early:?}, then {late:?}", visits.into_inner());
    assert!(late.0 <= early.0 + early.0 / 10 + 8192, "memory grew");
    // As many as there are clients come and go; more than that would be growth.
    let clients = usize::try_from(CLIENTS).unwrap();
    assert!(late.1 <= early.1.max(before.0 + 3 * clients) && late.2 <= early.2.max(before.1 + 2 * clients), "growth");
    server.wait_resources_released(before);
    wait_until("it is well", || server.get("/readyz").status == 200);
    server.assert_healthy();
}
