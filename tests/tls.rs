//! TLS of the server: supported key types and protocol versions, client certificates, and reloading of the certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::common::server::{Client, Server, client_config_trusting, wait_until};
use crate::common::{Sandbox, has_tool};

const LIVEZ_REQUEST: &str = "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";

fn run_openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl").current_dir(dir).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Creates a self-signed certificate and its key, and returns their paths. The openssl commands `key_commands` create
/// `key.pem`.
fn generate_pair(dir: &Path, key_commands: &[&str]) -> (PathBuf, PathBuf) {
    for args in key_commands {
        run_openssl(dir, args);
    }
    fs::write(
        dir.join("cnf"),
        "[req]\ndistinguished_name=dn\nx509_extensions=x\nprompt=no\n[dn]\nCN=t\n[x]\nsubjectAltName=DNS:localhost\n\
         basicConstraints=critical,CA:FALSE\n",
    )
    .unwrap();
    run_openssl(dir, "req -x509 -key key.pem -out cert.pem -days 30 -config cnf");
    (dir.join("cert.pem"), dir.join("key.pem"))
}

fn serve(sandbox: Sandbox, cert: &Path, key: &Path, flags: &[&str]) -> Server {
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    Server::spawn(sandbox, &[&["--tls-cert", cert, "--tls-key", key], flags].concat())
}

/// Returns the status of a request, or `None` if the server closes the connection without a response.
fn status(client: &mut Client) -> Option<u16> {
    if !client.try_send(LIVEZ_REQUEST) {
        return None;
    }
    client.read_until_close().get(9..12)?.parse().ok()
}

#[test]
fn every_supported_key_type_and_encoding_works() {
    if !has_tool("openssl") {
        return;
    }
    let kinds: [(&[&str], &str); 6] = [
        (&["genpkey -algorithm ed25519 -out key.pem"], "PRIVATE KEY"),
        (&["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem"], "PRIVATE KEY"),
        (
            &["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out k", "rsa -traditional -in k -out key.pem"],
            "RSA PRIVATE KEY",
        ),
        (&["ecparam -name prime256v1 -genkey -noout -out key.pem"], "EC PRIVATE KEY"),
        (&["ecparam -name prime256v1 -genkey -out key.pem"], "EC PARAMETERS"),
        (&["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"], "PRIVATE KEY"),
    ];
    for (key_commands, label) in kinds {
        let sandbox = Sandbox::new();
        let (cert, key) = generate_pair(sandbox.dir(), key_commands);
        assert!(fs::read_to_string(&key).unwrap().starts_with(&format!("-----BEGIN {label}-----")), "{key_commands:?}");
        let server = serve(sandbox, &cert, &key, &[]);
        let mut client = server.tls_client_with(client_config_trusting(&cert).with_no_client_auth());
        assert_eq!(client.call(LIVEZ_REQUEST).status, 200, "{key_commands:?}");
    }
}

#[test]
fn only_tls_1_2_and_1_3_are_accepted() {
    if !has_tool("openssl") {
        return;
    }
    let server = Server::https(&[]);
    let connect = |version: &str| {
        let address = server.address.to_string();
        let args = ["s_client", "-connect", &address, version, "-cipher", "DEFAULT@SECLEVEL=0"];
        Command::new("openssl").args(args).stdin(std::process::Stdio::null()).output().unwrap().status.success()
    };
    assert_eq!(["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"].map(connect), [false, false, true, true]);
}

#[test]
fn a_client_without_a_certificate_from_the_client_ca_is_rejected() {
    if !has_tool("openssl") {
        return;
    }
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.dir().join(name);
    for ca in ["ca", "other"] {
        run_openssl(
            sandbox.dir(),
            &format!("req -x509 -newkey ed25519 -nodes -keyout {ca}.key -out {ca}.pem -days 9 -subj /CN={ca}"),
        );
        run_openssl(
            sandbox.dir(),
            &format!("req -newkey ed25519 -nodes -keyout {ca}-client.key -out csr -subj /CN=client"),
        );
        fs::write(path("ext"), "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\n").unwrap();
        run_openssl(
            sandbox.dir(),
            &format!(
                "x509 -req -in csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -out {ca}-client.pem -days 9 -extfile ext"
            ),
        );
    }
    let client_pair = |ca: &str| (path(&format!("{ca}-client.pem")), path(&format!("{ca}-client.key")));
    let (trusted, untrusted) = (client_pair("ca"), client_pair("other"));
    let client_ca = path("ca.pem");
    let server = Server::spawn(sandbox, &["--tls-client-ca", client_ca.to_str().unwrap()]);
    let root = server.self_signed_cert_path();
    let config_with = |(cert, key): &(PathBuf, PathBuf)| -> ClientConfig {
        let cert = CertificateDer::from_pem_file(cert).unwrap();
        client_config_trusting(&root)
            .with_client_auth_cert(vec![cert], PrivateKeyDer::from_pem_file(key).unwrap())
            .unwrap()
    };
    assert_eq!(status(&mut server.tls_client_with(client_config_trusting(&root).with_no_client_auth())), None);
    assert_eq!(status(&mut server.tls_client_with(config_with(&untrusted))), None);
    assert_eq!(server.tls_client_with(config_with(&trusted)).call(LIVEZ_REQUEST).status, 200);
}

#[test]
fn a_renewed_certificate_is_reloaded_automatically() {
    let (other, server) = (Server::https(&[]), Server::https(&[]));
    let (tls_dir, other_tls_dir) = (server.sandbox.store().join("tls"), other.sandbox.store().join("tls"));
    fs::copy(other_tls_dir.join("key.pem"), tls_dir.join("key.pem")).unwrap();
    fs::copy(other_tls_dir.join("cert.pem"), tls_dir.join("cert.pem")).unwrap();
    wait_until("the certificate is reloaded", || server.read_stderr().contains("certificate reloaded: "));
    server.assert_healthy();
}

#[test]
fn an_invalid_client_ca_file_is_reported_with_its_name() {
    let sandbox = Sandbox::new();
    let file = sandbox.write_file("ca.pem", b"nonsense");
    let output = sandbox.sha_api(["serve", "--listen", "127.0.0.1:0", "--tls-client-ca"]).arg(file).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"".as_slice()));
    assert!(String::from_utf8(output.stderr).unwrap().contains("ca.pem: no certificate found"));
}
