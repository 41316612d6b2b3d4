//! TLS to a database: what `sslmode` promises, it keeps; who is refused is told why, at once.

use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::contains;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::Server;
use crate::common::{FOO, Sandbox};

/// Over TCP nobody is let in without TLS; some need a certificate, some a password.
const PG_HBA_CONF: &str = "\
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
fn certificate_and_key(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// A database that shows a certificate for `localhost`, and the files of its clients.
struct TlsDatabase {
    cluster: Cluster,
    files: Sandbox,
    trusted_ca: Authority,
    other_ca: Authority,
}

impl TlsDatabase {
    fn new() -> Option<Self> {
        let [ours, other] = ["ours", "other"].map(authority);
        let lay = |data: &Path| {
            let (cert, key) = certificate_and_key(&ours, "localhost");
            for (name, text) in [("server.crt", &cert), ("server.key", &key), ("ours.crt", &ours.pem())] {
                std::fs::write(data.join(name), text).unwrap();
            }
            std::fs::write(data.join("pg_hba.conf"), PG_HBA_CONF).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(data.join("server.key"), private).unwrap();
        };
        let cluster = Cluster::new_on_tcp(&["ssl=on", "ssl_ca_file=ours.crt"], lay)?;
        cluster.database("one");
        let files = Sandbox::new();
        files.write_file("ours.pem", ours.pem().as_bytes());
        files.write_file("other.pem", other.pem().as_bytes());
        Some(Self { cluster, files, trusted_ca: ours, other_ca: other })
    }

    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        let dir = self.files.dir().display().to_string();
        format!("postgres://{user}@{host}:{}/one?{}", self.cluster.port(), parameters.replace("{dir}", &dir))
    }

    /// A put by somebody, by a name of the host, with parameters in which `{dir}` has the files.
    fn put(&self, user: &str, host: &str, parameters: &str) -> Assert {
        database_sandbox(&self.url(user, host, parameters))
            .sha_api(["put", "foo"])
            .timeout(super::COMMAND_TIMEOUT)
            .assert()
    }

    fn assert_accepted(&self, user: &str, host: &str, parameters: &str) {
        self.put(user, host, parameters).code(0).stdout(format!("{FOO}\n")).stderr("");
    }

    fn assert_refused(&self, user: &str, host: &str, parameters: &str, why: &str) {
        let name = format!("postgres://{user}@{host}:{}/one", self.cluster.port());
        self.put(user, host, parameters).code(3).stdout("").stderr(contains(name).and(contains(why)));
    }

    /// The files of a client's certificate, as parameters.
    fn client_certificate_parameters(&self, authority: &Authority, name: &str) -> String {
        let (cert, key) = certificate_and_key(authority, name);
        let [cert, key]: [PathBuf; 2] = [("client.pem", cert), ("client.key", key)]
            .map(|(file, text)| self.files.write_file(file, text.as_bytes()));
        format!("sslcert={}&sslkey={}", cert.display(), key.display())
    }
}

#[test]
fn each_sslmode_checks_the_server_like_libpq() {
    let Some(secure) = TlsDatabase::new() else { return };
    let (right, wrong) = ("localhost", "127.0.0.1");
    for (host, parameters) in [
        (wrong, ""),
        (wrong, "sslmode=prefer"),
        (wrong, "sslmode=require"),
        (wrong, "sslmode=verify-ca&sslrootcert={dir}/ours.pem"),
        (wrong, "sslmode=require&sslrootcert={dir}/ours.pem"),
        (right, "sslmode=verify-full&sslrootcert={dir}/ours.pem"),
    ] {
        secure.assert_accepted("postgres", host, parameters);
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
        secure.assert_refused("postgres", host, parameters, why);
    }
    let missing = secure.put("postgres", right, "sslmode=verify-full&sslrootcert={dir}/none.pem");
    missing.code(3).stdout("").stderr(contains("none.pem"));
}

#[test]
fn a_client_without_required_tls_is_refused_with_the_reason() {
    let Some(secure) = TlsDatabase::new() else { return };
    secure.assert_refused("postgres", "localhost", "sslmode=disable", "no pg_hba.conf entry");
    let said = secure.put("postgres", "localhost", "sslmode=disable");
    said.code(3).stderr(contains("no encryption").and(contains("sslmode")));
    // The other way around: the client insists, and the server does not speak it.
    let Some(plain) = Cluster::new_on_tcp(&[], |_| ()) else { return };
    plain.database("one");
    let url = |mode: &str| format!("postgres://postgres@127.0.0.1:{}/one?sslmode={mode}", plain.port());
    let put =
        |mode: &str| database_sandbox(&url(mode)).sha_api(["put", "foo"]).timeout(super::COMMAND_TIMEOUT).assert();
    put("prefer").code(0).stdout(format!("{FOO}\n")).stderr("");
    for mode in ["require", "verify-ca", "verify-full"] {
        put(mode).code(3).stdout("").stderr(contains("server does not support TLS"));
    }
}

#[test]
fn a_client_authenticates_with_its_certificate() {
    let Some(secure) = TlsDatabase::new() else { return };
    secure.cluster.sql("one", "CREATE ROLE client LOGIN; GRANT ALL ON SCHEMA public TO client");
    let client = secure.client_certificate_parameters(&secure.trusted_ca, "client");
    secure.assert_accepted(
        "client",
        "localhost",
        &format!("sslmode=verify-full&sslrootcert={{dir}}/ours.pem&{client}"),
    );
    secure.assert_accepted("client", "127.0.0.1", &format!("sslmode=require&{client}"));
    secure.assert_refused("client", "localhost", "sslmode=require", "valid client certificate");
    let stranger = secure.client_certificate_parameters(&secure.trusted_ca, "stranger");
    secure.assert_refused("client", "localhost", &format!("sslmode=require&{stranger}"), "authentication failed");
    let other = secure.client_certificate_parameters(&secure.other_ca, "client");
    secure.assert_refused("client", "localhost", &format!("sslmode=require&{other}"), "UnknownCA");
    let missing = secure.put("client", "localhost", "sslmode=require&sslcert={dir}/none.pem");
    missing.code(3).stdout("").stderr(contains("none.pem"));
}

#[test]
fn a_password_is_sent_over_tls_and_never_shown_in_errors() {
    let Some(secure) = TlsDatabase::new() else { return };
    let role = "CREATE ROLE keeper LOGIN PASSWORD 'not-to-be-seen'; GRANT ALL ON SCHEMA public TO keeper";
    secure.cluster.sql("one", role);
    let sandbox =
        database_sandbox(&secure.url("keeper", "localhost", "sslmode=verify-full&sslrootcert={dir}/ours.pem"));
    let put = |password: &str| {
        sandbox.sha_api(["put", "foo"]).env("PGPASSWORD", password).timeout(super::COMMAND_TIMEOUT).assert()
    };
    put("not-to-be-seen").code(0).stdout(format!("{FOO}\n")).stderr("");
    let why = contains("password authentication failed").and(contains("to-be-guessed").not());
    put("to-be-guessed").code(3).stdout("").stderr(why);
    let none = sandbox.sha_api(["put", "foo"]).timeout(super::COMMAND_TIMEOUT).assert();
    none.code(3).stdout("").stderr(contains("password missing"));
}

#[test]
fn a_server_stores_its_messages_in_a_database_over_tls() {
    let Some(mut secure) = TlsDatabase::new() else { return };
    let url = secure.url("postgres", "localhost", "sslmode=verify-full&sslrootcert={dir}/ours.pem");
    let server = Server::start(database_sandbox(&url), &["--http"]);
    server.assert_healthy();
    assert_eq!(secure.cluster.sql("one", "SELECT count(*) FROM messages").trim(), "1");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'sha-api'";
    assert_eq!(secure.cluster.sql("one", encrypted).trim(), "t");
    secure.cluster.kill();
    crate::common::server::wait_until("it is not ready", || server.get("/readyz").status == 503);
    secure.cluster.start();
    server.wait_ready();
    server.assert_healthy();
}
