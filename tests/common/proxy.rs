//! nginx and `HAProxy` as people put them in front: with the files of `deploy/`, in which only places are changed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustls::StreamOwned;
use tempfile::TempDir;

use super::find_tool;
use super::server::{Client, Server, client_config_trusting, client_connection, wait_until};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    Nginx,
    Haproxy,
}

pub const PROXY_KINDS: [ProxyKind; 2] = [ProxyKind::Nginx, ProxyKind::Haproxy];

/// A proxy that does TLS, with a certificate of its own. It ends with the test.
pub struct Proxy {
    pub address: SocketAddr,
    child: Child,
    dir: TempDir,
}

impl ProxyKind {
    /// The file in `deploy/`.
    pub fn config_path(self) -> PathBuf {
        let name = if self == Self::Nginx { "nginx.conf" } else { "haproxy.cfg" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
    }

    /// In front of these servers, all of one kind; `None`: it is not here.
    pub fn start_for(self, servers: &[&Server]) -> Option<Proxy> {
        self.start_with_config(servers, &|_| ())
    }

    /// The same with more changed in its file than places; `{dir}` is a directory of its own.
    pub fn start_with_config(self, servers: &[&Server], change: &dyn Fn(&mut String)) -> Option<Proxy> {
        let program = find_tool(if self == Self::Nginx { "nginx" } else { "haproxy" })?;
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            write_certificates(dir.path());
            let address = free_address();
            let mut file = fs::read_to_string(self.config_path()).unwrap();
            change(&mut file);
            file = file.replace("{dir}", dir.path().to_str().unwrap());
            match self {
                Self::Nginx => configure_nginx(&mut file, dir.path(), address, servers),
                Self::Haproxy => configure_haproxy(&mut file, dir.path(), address, servers),
            }
            fs::write(dir.path().join("conf"), file).unwrap();
            let child = self.spawn(&program, dir.path());
            let mut proxy = Proxy { address, child, dir };
            if proxy.wait_until_up() {
                return Some(proxy);
            }
            // Somebody else has taken the port since it was found to be free.
            assert!(proxy.output().contains("Address already in use"), "{self:?}: {}", proxy.output());
        }
        panic!("no port stays free");
    }

    /// In one process, so that its end is the end of all of it.
    fn spawn(self, program: &Path, dir: &Path) -> Child {
        let mut command = Command::new(program);
        let said = fs::File::create(dir.join("output")).unwrap();
        match self {
            Self::Nginx => command.args(["-g", "daemon off; master_process off;", "-e", "stderr", "-p"]).arg(dir),
            Self::Haproxy => command.arg("-db"),
        };
        command.arg(if self == Self::Nginx { "-c" } else { "-f" }).arg(dir.join("conf"));
        command.env_clear().stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap()
    }
}

impl Proxy {
    /// Whether it answers; else it has ended.
    fn wait_until_up(&mut self) -> bool {
        let mut ended = false;
        wait_until("the proxy is up", || {
            ended = self.child.try_wait().unwrap().is_some();
            ended || self.try_probe().is_ok_and(|is_ours| is_ours)
        });
        !ended
    }

    /// Whether it speaks TLS with its certificate, which nobody else has who may listen there.
    fn try_probe(&self) -> std::io::Result<bool> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let mut stream =
            StreamOwned::new(client_connection(client_config_trusting(&self.cert()).with_no_client_auth()), stream);
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    }

    /// A connection with TLS that trusts the proxy's certificate only.
    pub fn client(&self) -> Client {
        Client::connect(self.address, Some(&self.cert()))
    }

    /// The certificate that it shows.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// What it has written on stdout and stderr.
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    /// A line for each request that nginx passed on: the servers that it tried, and what each of them said.
    pub fn upstream_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("upstream.log")).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody has at this moment.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// `cert.pem`, `key.pem`, and `pair.pem` with both.
fn write_certificates(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(dir.join("cert.pem"), &cert).unwrap();
    fs::write(dir.join("key.pem"), &key).unwrap();
    fs::write(dir.join("pair.pem"), cert + &key).unwrap();
}

/// Replaces what must stand in the file once.
pub fn replace_once(file: &mut String, from: &str, to: &str) {
    assert_eq!(file.matches(from).count(), 1, "{from}\n{file}");
    *file = file.replace(from, to);
}

fn configure_nginx(file: &mut String, dir: &Path, address: SocketAddr, servers: &[&Server]) {
    let dir = dir.display();
    let lines: String = servers.iter().map(|server| format!("server {} max_fails=0;\n", server.address)).collect();
    replace_once(file, "server 127.0.0.1:8443 max_fails=0;\n", &lines);
    replace_once(file, "listen 443 ssl;", &format!("listen {address} ssl;"));
    replace_once(file, "/etc/ssl/certs/sha-api.pem", &format!("{dir}/cert.pem"));
    replace_once(file, "/etc/ssl/private/sha-api.pem", &format!("{dir}/key.pem"));
    if let Some(cert) = servers[0].cert_path() {
        replace_once(file, "proxy_pass http:", "proxy_pass https:");
        replace_once(file, "/var/lib/sha-api/tls/cert.pem", cert.to_str().unwrap());
        *file = file.replace("#proxy_ssl", "proxy_ssl");
    }
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String = temporary.iter().map(|name| format!("{name}_temp_path {dir}/{name};\n")).collect();
    let log =
        format!("log_format upstream '$upstream_addr|$upstream_status';\naccess_log {dir}/upstream.log upstream;\n");
    replace_once(file, "\nhttp {\n", &format!("\npid {dir}/pid;\nhttp {{\n{log}{paths}"));
}

fn configure_haproxy(file: &mut String, dir: &Path, address: SocketAddr, servers: &[&Server]) {
    replace_once(file, "bind :443 ssl", &format!("bind {address} ssl"));
    replace_once(file, "/etc/haproxy/sha-api.pem", &format!("{}/pair.pem", dir.display()));
    let named = servers.iter().enumerate();
    let lines: String = named.map(|(at, server)| format!("    server s{at} {}\n", server.address)).collect();
    replace_once(file, "    server one 127.0.0.1:8443\n", &lines);
    if let Some(cert) = servers[0].cert_path() {
        replace_once(file, "#default-server ssl", "default-server ssl");
        replace_once(file, "/var/lib/sha-api/tls/cert.pem", cert.to_str().unwrap());
    }
}
