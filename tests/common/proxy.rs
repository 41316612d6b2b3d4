//! nginx and `HAProxy` as reverse proxies in front of servers. The configuration is the one in `deploy/`, with
//! addresses and paths replaced.

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

/// Reverse proxy software.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyKind {
    Nginx,
    Haproxy,
}

/// All reverse proxies that are tested.
pub const PROXY_KINDS: [ProxyKind; 2] = [ProxyKind::Nginx, ProxyKind::Haproxy];

/// A running proxy that terminates TLS with a self-signed certificate. The process is killed on drop.
pub struct Proxy {
    pub address: SocketAddr,
    child: Child,
    dir: TempDir,
}

impl ProxyKind {
    /// Returns the path of the configuration in `deploy/`.
    pub fn config_path(self) -> PathBuf {
        let name = if self == Self::Nginx { "nginx.conf" } else { "haproxy.cfg" };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)
    }

    /// Starts the proxy in front of `servers`, which are all HTTP or all HTTPS. Returns `None` if the proxy is not
    /// installed.
    pub fn start_for(self, servers: &[&Server]) -> Option<Proxy> {
        self.start_with_config(servers, &|_| ())
    }

    /// Starts the proxy as [`ProxyKind::start_for`] does, after `change` has edited the configuration. `{dir}` in the
    /// edited text is replaced by the temporary directory of the proxy.
    pub fn start_with_config(self, servers: &[&Server], change: &dyn Fn(&mut String)) -> Option<Proxy> {
        let program = find_tool(if self == Self::Nginx { "nginx" } else { "haproxy" })?;
        for _ in 0..10 {
            let dir = tempfile::tempdir().unwrap();
            write_certificates(dir.path());
            let address = free_address();
            let mut config = fs::read_to_string(self.config_path()).unwrap();
            change(&mut config);
            config = config.replace("{dir}", dir.path().to_str().unwrap());
            match self {
                Self::Nginx => configure_nginx(&mut config, dir.path(), address, servers),
                Self::Haproxy => configure_haproxy(&mut config, dir.path(), address, servers),
            }
            fs::write(dir.path().join("conf"), config).unwrap();
            let child = self.spawn(&program, dir.path());
            let mut proxy = Proxy { address, child, dir };
            if proxy.wait_until_up() {
                return Some(proxy);
            }
            // Another process has bound the port since `free_address` returned it.
            assert!(proxy.output().contains("Address already in use"), "{self:?}: {}", proxy.output());
        }
        panic!("no free port was found");
    }

    /// Starts the proxy as a single foreground process, so that killing the child stops the whole proxy.
    fn spawn(self, program: &Path, dir: &Path) -> Child {
        let mut command = Command::new(program);
        let output = fs::File::create(dir.join("output")).unwrap();
        match self {
            Self::Nginx => command.args(["-g", "daemon off; master_process off;", "-e", "stderr", "-p"]).arg(dir),
            Self::Haproxy => command.arg("-db"),
        };
        command.arg(if self == Self::Nginx { "-c" } else { "-f" }).arg(dir.join("conf"));
        command.env_clear().stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap()
    }
}

impl Proxy {
    /// Waits until the proxy answers or has exited. Returns whether the proxy answers.
    fn wait_until_up(&mut self) -> bool {
        let mut has_exited = false;
        wait_until("the proxy is up", || {
            has_exited = self.child.try_wait().unwrap().is_some();
            has_exited || self.try_probe().is_ok_and(|is_alive| is_alive)
        });
        !has_exited
    }

    /// Returns whether `/livez` answers over TLS. Trusting only the certificate of this proxy excludes another process
    /// that listens on the same port.
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

    /// Opens a TLS connection that trusts only the certificate of this proxy.
    pub fn client(&self) -> Client {
        Client::connect(self.address, Some(&self.cert()))
    }

    /// Returns the path of the certificate that the proxy presents.
    pub fn cert(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// Returns the HTTPS URL of the proxy.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the stdout and stderr of the proxy.
    pub fn output(&self) -> String {
        fs::read_to_string(self.dir.path().join("output")).unwrap()
    }

    /// Returns the upstream log of nginx: per forwarded request one line with the servers tried and their statuses.
    pub fn upstream_log(&self) -> String {
        fs::read_to_string(self.dir.path().join("upstream.log")).unwrap()
    }

    /// Sends `signal` to the process.
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

/// Returns a loopback address whose port is free at the moment.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Writes `cert.pem`, `key.pem`, and `pair.pem` with both.
fn write_certificates(dir: &Path) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    fs::write(dir.join("cert.pem"), &cert).unwrap();
    fs::write(dir.join("key.pem"), &key).unwrap();
    fs::write(dir.join("pair.pem"), cert + &key).unwrap();
}

/// Replaces `from` by `to`. Panics unless `config` contains `from` exactly once.
pub fn replace_once(config: &mut String, from: &str, to: &str) {
    assert_eq!(config.matches(from).count(), 1, "{from}\n{config}");
    *config = config.replace(from, to);
}

fn configure_nginx(config: &mut String, dir: &Path, address: SocketAddr, servers: &[&Server]) {
    let dir = dir.display();
    let lines: String = servers.iter().map(|server| format!("server {} max_fails=0;\n", server.address)).collect();
    replace_once(config, "server 127.0.0.1:8443 max_fails=0;\n", &lines);
    replace_once(config, "listen 443 ssl;", &format!("listen {address} ssl;"));
    replace_once(config, "/etc/ssl/certs/sha-api.pem", &format!("{dir}/cert.pem"));
    replace_once(config, "/etc/ssl/private/sha-api.pem", &format!("{dir}/key.pem"));
    if let Some(cert) = servers[0].cert_path() {
        replace_once(config, "proxy_pass http:", "proxy_pass https:");
        replace_once(config, "/var/lib/sha-api/tls/cert.pem", cert.to_str().unwrap());
        *config = config.replace("#proxy_ssl", "proxy_ssl");
    }
    let temp_dirs = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String = temp_dirs.iter().map(|name| format!("{name}_temp_path {dir}/{name};\n")).collect();
    let log =
        format!("log_format upstream '$upstream_addr|$upstream_status';\naccess_log {dir}/upstream.log upstream;\n");
    replace_once(config, "\nhttp {\n", &format!("\npid {dir}/pid;\nhttp {{\n{log}{paths}"));
}

fn configure_haproxy(config: &mut String, dir: &Path, address: SocketAddr, servers: &[&Server]) {
    replace_once(config, "bind :443 ssl", &format!("bind {address} ssl"));
    replace_once(config, "/etc/haproxy/sha-api.pem", &format!("{}/pair.pem", dir.display()));
    let numbered = servers.iter().enumerate();
    let lines: String = numbered.map(|(index, server)| format!("    server s{index} {}\n", server.address)).collect();
    replace_once(config, "    server one 127.0.0.1:8443\n", &lines);
    if let Some(cert) = servers[0].cert_path() {
        replace_once(config, "#default-server ssl", "default-server ssl");
        replace_once(config, "/var/lib/sha-api/tls/cert.pem", cert.to_str().unwrap());
    }
}
