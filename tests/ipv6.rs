//! A server listens on an IPv6 address, and commands use it by its URL.

use std::net::{Ipv6Addr, TcpListener};

use crate::common::server::Server;
use crate::common::store_access::{client_command, https_url};
use crate::common::{FOO, Sandbox, report_skip};

#[test]
fn commands_work_on_a_server_that_listens_on_ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return report_skip("there is no IPv6 loopback address");
    }
    for flags in [&[][..], &["--http"]] {
        let server = Server::spawn_on(Sandbox::new(), "[::1]:0", flags);
        server.wait_ready();
        assert!(server.address.is_ipv6());
        let url = if flags.is_empty() { https_url(&server) } else { format!("http://{}", server.address) };
        let certificate = server.self_signed_cert_path();
        let run = |args: &[&str]| {
            let mut command = client_command(std::slice::from_ref(&url), args);
            if flags.is_empty() {
                command.arg("--cacert").arg(&certificate);
            }
            command.assert().code(0).stderr("")
        };
        run(&["put", "foo"]).stdout(format!("{FOO}\n"));
        run(&["get", FOO]).stdout("foo");
        run(&["has", FOO]).stdout("");
    }
}
