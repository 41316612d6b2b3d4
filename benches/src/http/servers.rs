//! The servers under test, each on its own loopback port and with its own directory for files. All TLS servers use
//! the self-signed P-256 certificate of sha-api.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::client::Client;
use crate::Environment;
use crate::process::{Process, free_port};
use crate::tools;

/// A running server.
pub struct Server {
    pub port: u16,
    pub process: Process,
}

impl Server {
    fn start(command: &Command, port: u16) -> Self {
        Self { port, process: Process::server(command, port) }
    }
}

/// The flag for the connection limit per address; all load comes from one address.
pub const PER_ADDRESS: &str = "--max-connections-per-address";

/// A certificate and its private key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Starts sha-api on `store` with additional flags. Blocks until the store is open.
pub fn sha_api(env: &Environment, store: &Path, flags: &[&str]) -> (Server, Pair) {
    let port = free_port();
    let mut command = env.command(store);
    command.args(["--quiet", "serve", "--listen", &format!("127.0.0.1:{port}")]);
    if !flags.contains(&PER_ADDRESS) {
        // wrk opens a new connection before sha-api has seen the end of the old one.
        command.args([PER_ADDRESS, "512"]);
    }
    command.args(flags);
    let server = Server::start(&command, port);
    let tls = store.join("tls");
    let pair = Pair { certificate: tls.join("cert.pem"), key: tls.join("key.pem") };
    let (client, started) = (Client::new(&pair.certificate, port), Instant::now());
    while client.connect().get("/readyz").0 != 200 {
        assert!(started.elapsed() < Duration::from_secs(60), "the store was not opened within 60 seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
    (server, pair)
}

/// Starts nginx with TLS and with `lines` in its server block.
pub fn nginx(dir: &Path, pair: &Pair, lines: &str) -> Server {
    let port = free_port();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    let conf = format!(
        "{user} daemon off; worker_processes auto; pid pid; error_log error.log; events {{ worker_connections 4096; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; default_type application/json;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
            scgi_temp_path scgi;
            server {{
                listen 127.0.0.1:{port} ssl backlog=1024; ssl_certificate {certificate}; ssl_certificate_key {key};
                {lines}
            }}
        }}"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, conf).unwrap();
    let mut command = tools::command("nginx");
    command.arg("-p").arg(dir).arg("-e").arg("error.log").arg("-c").arg(file);
    Server::start(&command, port)
}

/// Starts Redis with `appendfsync always`: it syncs before it answers.
pub fn redis(dir: &Path) -> Server {
    let port = free_port();
    let mut command = tools::command("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--loglevel", "warning"]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(dir);
    Server::start(&command, port)
}

/// Starts docker-registry with one blob. Returns the server and the path of the blob.
pub fn registry(dir: &Path, pair: &Pair, bytes: &str, digest: &str) -> (Server, String) {
    let port = free_port();
    let root = dir.join("docker/registry/v2");
    let blob = root.join("blobs/sha256").join(&digest[..2]).join(digest);
    let link = root.join("repositories/messages/_layers/sha256").join(digest);
    for (dir, file, text) in [(blob, "data", bytes), (link, "link", &format!("sha256:{digest}"))] {
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), text).unwrap();
    }
    let file = dir.join("registry.yml");
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    let conf = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
         storage: {{filesystem: {{rootdirectory: '{}'}}, cache: {{blobdescriptor: inmemory}}}}\n\
         http: {{addr: '127.0.0.1:{port}', tls: {{certificate: '{certificate}', key: '{key}'}}}}\n",
        dir.display()
    );
    fs::write(&file, conf).unwrap();
    let mut command = tools::command("docker-registry");
    command.arg("serve").arg(file).env("OTEL_TRACES_EXPORTER", "none");
    (Server::start(&command, port), format!("/v2/messages/blobs/sha256:{digest}"))
}

/// Starts the Python ancestor with one message. Returns nginx, which does TLS for it, and the ancestor.
pub fn ancestor(env: &Environment, dir: &Path, pair: &Pair, message: &str) -> (Server, Server) {
    let script = dir.join("ancestor.py");
    fs::write(&script, include_str!("ancestor.py")).unwrap();
    let port = free_port();
    let mut command = Command::new(tools::python_with(&env.dir, "bottle==0.13.4"));
    command.arg(script).arg(port.to_string()).arg(dir.join("ancestor.db")).arg(message);
    let behind = Server::start(&command, port);
    (nginx(dir, pair, &format!("location / {{ proxy_pass http://127.0.0.1:{port}; }}")), behind)
}
