//! TLS to a database: what `sslmode` promises, it keeps; who is refused is told why, at once.

use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::contains;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::common::cluster::{Cluster, on};
use crate::common::server::Server;
use crate::common::{FOO, Sandbox};

/// Over TCP nobody is let in without TLS; some need a certificate, some a password.
const WHO: &str = "\
local   all all                   trust
hostssl all postgres 127.0.0.1/32 trust
hostssl all client   127.0.0.1/32 cert
hostssl all keeper   127.0.0.1/32 scram-sha-256
";

/// Who vouches for others, by a certificate and a key in memory.
type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `name`, and its key.
fn pair(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A database that shows a certificate for `localhost`, and the files of its clients.
struct Secure {
    cluster: Cluster,
    files: Sandbox,
    ours: Authority,
    other: Authority,
}

impl Secure {
    fn new() -> Option<Self> {
        let [ours, other] = ["ours", "other"].map(authority);
        let lay = |data: &Path| {
            let (cert, key) = pair(&ours, "localhost");
            for (name, text) in [("server.crt", &cert), ("server.key", &key), ("ours.crt", &ours.pem())] {
                std::fs::write(data.join(name), text).unwrap();
            }
            std::fs::write(data.join("pg_hba.conf"), WHO).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(data.join("server.key"), private).unwrap();
        };
        let cluster = Cluster::on_a_port(&["ssl=on", "ssl_ca_file=ours.crt"], lay)?;
        cluster.database("one");
        let files = Sandbox::new();
        files.file("ours.pem", ours.pem().as_bytes());
        files.file("other.pem", other.pem().as_bytes());
        Some(Self { cluster, files, ours, other })
    }

    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        let dir = self.files.dir().display().to_string();
        format!("postgres://{user}@{host}:{}/one?{}", self.cluster.port(), parameters.replace("{dir}", &dir))
    }

    /// A put by somebody, by a name of the host, with parameters in which `{dir}` has the files.
    fn put(&self, user: &str, host: &str, parameters: &str) -> Assert {
        on(&self.url(user, host, parameters)).sha_api(["put", "foo"]).timeout(super::AT_ONCE).assert()
    }

    fn takes(&self, user: &str, host: &str, parameters: &str) {
        self.put(user, host, parameters).code(0).stdout(format!("{FOO}\n")).stderr("");
    }

    fn refuses(&self, user: &str, host: &str, parameters: &str, why: &str) {
        let name = format!("postgres://{user}@{host}:{}/one", self.cluster.port());
        self.put(user, host, parameters).code(3).stdout("").stderr(contains(name).and(contains(why)));
    }

    /// The files of a client's certificate, as parameters.
    fn client(&self, authority: &Authority, name: &str) -> String {
        let (cert, key) = pair(authority, name);
        let [cert, key]: [PathBuf; 2] =
            [("client.pem", cert), ("client.key", key)].map(|(file, text)| self.files.file(file, text.as_bytes()));
        format!("sslcert={}&sslkey={}", cert.display(), key.display())
    }
}

#[test]
fn each_sslmode_asks_of_the_server_what_libpq_asks() {
    let Some(secure) = Secure::new() else { return };
    let (right, wrong) = ("localhost", "127.0.0.1");
    for (host, parameters) in [
        (wrong, ""),
        (wrong, "sslmode=prefer"),
        (wrong, "sslmode=require"),
        (wrong, "sslmode=verify-ca&sslrootcert={dir}/ours.pem"),
        (wrong, "sslmode=require&sslrootcert={dir}/ours.pem"),
        (right, "sslmode=verify-full&sslrootcert={dir}/ours.pem"),
    ] {
        secure.takes("postgres", host, parameters);
    }
    let not_ours = "invalid peer certificate: UnknownIssuer";
    for (host, parameters, why) in [
        (wrong, "sslmode=verify-full&sslrootcert={dir}/ours.pem", "certificate not valid for name \"127.0.0.1\""),
        (right, "sslmode=verify-full&sslrootcert={dir}/other.pem", not_ours),
        (right, "sslmode=verify-ca&sslrootcert={dir}/other.pem", not_ours),
        (right, "sslmode=require&sslrootcert={dir}/other.pem", not_ours),
        // The authorities of the system.
        (right, "sslmode=verify-full", not_ours),
        (right, "sslmode=verify-ca&sslrootcert=system", not_ours),
    ] {
        secure.refuses("postgres", host, parameters, why);
    }
    let missing = secure.put("postgres", right, "sslmode=verify-full&sslrootcert={dir}/none.pem");
    missing.code(3).stdout("").stderr(contains("none.pem"));
}

#[test]
fn who_must_speak_tls_and_does_not_is_refused_and_told_why() {
    let Some(secure) = Secure::new() else { return };
    secure.refuses("postgres", "localhost", "sslmode=disable", "no pg_hba.conf entry");
    let said = secure.put("postgres", "localhost", "sslmode=disable");
    said.code(3).stderr(contains("no encryption").and(contains("sslmode")));
    // The other way around: the client insists, and the server does not speak it.
    let Some(plain) = Cluster::on_a_port(&[], |_| ()) else { return };
    plain.database("one");
    let url = |mode: &str| format!("postgres://postgres@127.0.0.1:{}/one?sslmode={mode}", plain.port());
    let put = |mode: &str| on(&url(mode)).sha_api(["put", "foo"]).timeout(super::AT_ONCE).assert();
    put("prefer").code(0).stdout(format!("{FOO}\n")).stderr("");
    for mode in ["require", "verify-ca", "verify-full"] {
        put(mode).code(3).stdout("").stderr(contains("server does not support TLS"));
    }
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let Some(secure) = Secure::new() else { return };
    secure.cluster.sql("one", "CREATE ROLE client LOGIN; GRANT ALL ON SCHEMA public TO client");
    let client = secure.client(&secure.ours, "client");
    secure.takes("client", "localhost", &format!("sslmode=verify-full&sslrootcert={{dir}}/ours.pem&{client}"));
    secure.takes("client", "127.0.0.1", &format!("sslmode=require&{client}"));
    secure.refuses("client", "localhost", "sslmode=require", "valid client certificate");
    let stranger = secure.client(&secure.ours, "stranger");
    secure.refuses("client", "localhost", &format!("sslmode=require&{stranger}"), "authentication failed");
    let other = secure.client(&secure.other, "client");
    secure.refuses("client", "localhost", &format!("sslmode=require&{other}"), "UnknownCA");
    let missing = secure.put("client", "localhost", "sslmode=require&sslcert={dir}/none.pem");
    missing.code(3).stdout("").stderr(contains("none.pem"));
}

#[test]
fn a_password_goes_over_tls_and_is_in_no_error() {
    let Some(secure) = Secure::new() else { return };
    let role = "CREATE ROLE keeper LOGIN PASSWORD 'not-to-be-seen'; GRANT ALL ON SCHEMA public TO keeper";
    secure.cluster.sql("one", role);
    let sandbox = on(&secure.url("keeper", "localhost", "sslmode=verify-full&sslrootcert={dir}/ours.pem"));
    let put =
        |password: &str| sandbox.sha_api(["put", "foo"]).env("PGPASSWORD", password).timeout(super::AT_ONCE).assert();
    put("not-to-be-seen").code(0).stdout(format!("{FOO}\n")).stderr("");
    let why = contains("password authentication failed").and(contains("to-be-guessed").not());
    put("to-be-guessed").code(3).stdout("").stderr(why);
    let none = sandbox.sha_api(["put", "foo"]).timeout(super::AT_ONCE).assert();
    none.code(3).stdout("").stderr(contains("password missing"));
}

#[test]
fn a_server_keeps_its_messages_in_a_database_over_tls() {
    let Some(mut secure) = Secure::new() else { return };
    let url = secure.url("postgres", "localhost", "sslmode=verify-full&sslrootcert={dir}/ours.pem");
    let server = Server::start(on(&url), &["--http"]);
    server.is_well();
    assert_eq!(secure.cluster.sql("one", "SELECT count(*) FROM messages").trim(), "1");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'sha-api'";
    assert_eq!(secure.cluster.sql("one", encrypted).trim(), "t");
    secure.cluster.kill();
    crate::common::server::until("it is not ready", || server.get("/readyz").status == 503);
    secure.cluster.start();
    server.is_ready();
    server.is_well();
}
