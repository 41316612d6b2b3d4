//! The servers, ours and theirs, each on a port of its own of the loopback and with what it writes in a directory of
//! its own. All that speak TLS have the certificate that sha-api makes for itself, of P-256.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::client::Client;
use crate::Place;
use crate::process::{Process, free_port};
use crate::tools;

/// Something that listens.
pub struct Server {
    pub port: u16,
    pub process: Process,
}

impl Server {
    fn start(command: &Command, port: u16) -> Self {
        Self { port, process: Process::server(command, port) }
    }
}

/// All load comes from one address.
pub const PER_ADDRESS: &str = "--max-connections-per-address";

/// A certificate and its key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// sha-api on this store, with more flags.
pub fn sha_api(place: &Place, store: &Path, flags: &[&str]) -> (Server, Pair) {
    let port = free_port();
    let mut command = place.command(store);
    command.args(["--quiet", "serve", "--listen", &format!("127.0.0.1:{port}")]);
    if !flags.contains(&PER_ADDRESS) {
        // wrk opens a connection anew before we have seen the end of the old one.
        command.args([PER_ADDRESS, "512"]);
    }
    command.args(flags);
    let server = Server::start(&command, port);
    let tls = store.join("tls");
    let pair = Pair { certificate: tls.join("cert.pem"), key: tls.join("key.pem") };
    let (client, started) = (Client::new(&pair.certificate, port), Instant::now());
    while client.connect().get("/readyz").0 != 200 {
        assert!(started.elapsed() < Duration::from_secs(60), "the store does not open");
        std::thread::sleep(Duration::from_millis(10));
    }
    (server, pair)
}

/// nginx with TLS and these lines for its server.
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

/// Redis that syncs before it answers.
pub fn redis(dir: &Path) -> Server {
    let port = free_port();
    let mut command = tools::command("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--loglevel", "warning"]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(dir);
    Server::start(&command, port)
}

/// The registry of container images, with one blob of these bytes; answers with its path, too.
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

/// The ancestor with one message, behind nginx for TLS, which comes first.
pub fn ancestor(place: &Place, dir: &Path, pair: &Pair, message: &str) -> (Server, Server) {
    let script = dir.join("ancestor.py");
    fs::write(&script, include_str!("ancestor.py")).unwrap();
    let port = free_port();
    let mut command = Command::new(tools::python_with(&place.dir, "bottle==0.13.4"));
    command.arg(script).arg(port.to_string()).arg(dir.join("ancestor.db")).arg(message);
    let behind = Server::start(&command, port);
    (nginx(dir, pair, &format!("location / {{ proxy_pass http://127.0.0.1:{port}; }}")), behind)
}
