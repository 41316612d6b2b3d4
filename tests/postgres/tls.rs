//! TLS connections to a database: each `sslmode` has the same meaning as in libpq, and a refused connection fails at once
//! with the reason.

use std::path::{Path, PathBuf};

use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::contains;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::common::cluster::{Cluster, database_sandbox};
use crate::common::server::Server;
use crate::common::{FOO, Sandbox};

/// Requires TLS for all users over TCP, a client certificate for `client` and a password for `keeper`.
const PG_HBA_CONF: &str = "\
local   all all                   trust
hostssl all postgres 127.0.0.1/32 trust
hostssl all client   127.0.0.1/32 cert
hostssl all keeper   127.0.0.1/32 scram-sha-256
";

type CertificateAuthority = CertifiedIssuer<'static, KeyPair>;

fn create_ca(name: &str) -> CertificateAuthority {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a certificate for `name` and its key in PEM.
fn certificate_and_key(ca: &CertificateAuthority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

/// A database with a certificate for `localhost`, and the files of its clients.
struct TlsDatabase {
    cluster: Cluster,
    files: Sandbox,
    trusted_ca: CertificateAuthority,
    other_ca: CertificateAuthority,
}

impl TlsDatabase {
    fn new() -> Option<Self> {
        let [trusted_ca, other_ca] = ["trusted", "other"].map(create_ca);
        let write_files = |data_dir: &Path| {
            let (cert, key) = certificate_and_key(&trusted_ca, "localhost");
            for (name, text) in [("server.crt", &cert), ("server.key", &key), ("trusted.crt", &trusted_ca.pem())] {
                std::fs::write(data_dir.join(name), text).unwrap();
            }
            std::fs::write(data_dir.join("pg_hba.conf"), PG_HBA_CONF).unwrap();
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(data_dir.join("server.key"), private).unwrap();
        };
        let cluster = Cluster::new_on_tcp(&["ssl=on", "ssl_ca_file=trusted.crt"], write_files)?;
        cluster.database("one");
        let files = Sandbox::new();
        files.write_file("trusted.pem", trusted_ca.pem().as_bytes());
        files.write_file("other.pem", other_ca.pem().as_bytes());
        Some(Self { cluster, files, trusted_ca, other_ca })
    }

    fn url(&self, user: &str, host: &str, parameters: &str) -> String {
        let dir = self.files.dir().display().to_string();
        format!("postgres://{user}@{host}:{}/one?{}", self.cluster.port(), parameters.replace("{dir}", &dir))
    }

    /// Puts `foo` as `user`. In `parameters`, `{dir}` is replaced by the directory of the client files.
    fn put(&self, user: &str, host: &str, parameters: &str) -> Assert {
        database_sandbox(&self.url(user, host, parameters))
            .sha_api(["put", "foo"])
            .timeout(super::COMMAND_TIMEOUT)
            .assert()
    }

    fn assert_accepted(&self, user: &str, host: &str, parameters: &str) {
        self.put(user, host, parameters).code(0).stdout(format!("{FOO}\n")).stderr("");
    }

    fn assert_refused(&self, user: &str, host: &str, parameters: &str, cause: &str) {
        let name = format!("postgres://{user}@{host}:{}/one", self.cluster.port());
        self.put(user, host, parameters).code(3).stdout("").stderr(contains(name).and(contains(cause)));
    }

    /// Writes a client certificate and its key to files and returns the URL parameters that name them.
    fn client_certificate_parameters(&self, ca: &CertificateAuthority, name: &str) -> String {
        let (cert, key) = certificate_and_key(ca, name);
        let [cert, key]: [PathBuf; 2] = [("client.pem", cert), ("client.key", key)]
            .map(|(file, text)| self.files.write_file(file, text.as_bytes()));
        format!("sslcert={}&sslkey={}", cert.display(), key.display())
    }
}

#[test]
fn each_sslmode_checks_the_server_like_libpq() {
    let Some(database) = TlsDatabase::new() else { return };
    let (certified, uncertified) = ("localhost", "127.0.0.1");
    for (host, parameters) in [
        (uncertified, ""),
        (uncertified, "sslmode=prefer"),
        (uncertified, "sslmode=require"),
        (uncertified, "sslmode=verify-ca&sslrootcert={dir}/trusted.pem"),
        (uncertified, "sslmode=require&sslrootcert={dir}/trusted.pem"),
        (certified, "sslmode=verify-full&sslrootcert={dir}/trusted.pem"),
    ] {
        database.assert_accepted("postgres", host, parameters);
    }
    let unknown_issuer = "invalid peer certificate: UnknownIssuer";
    for (host, parameters, cause) in [
        (
            uncertified,
            "sslmode=verify-full&sslrootcert={dir}/trusted.pem",
            "certificate not valid for name \"127.0.0.1\"",
        ),
        (certified, "sslmode=verify-full&sslrootcert={dir}/other.pem", unknown_issuer),
        (certified, "sslmode=verify-ca&sslrootcert={dir}/other.pem", unknown_issuer),
        (certified, "sslmode=require&sslrootcert={dir}/other.pem", unknown_issuer),
        // The CA certificates of the system.
        (certified, "sslmode=verify-full", unknown_issuer),
        (certified, "sslmode=verify-ca&sslrootcert=system", unknown_issuer),
    ] {
        database.assert_refused("postgres", host, parameters, cause);
    }
    let missing = database.put("postgres", certified, "sslmode=verify-full&sslrootcert={dir}/none.pem");
    missing.code(3).stdout("").stderr(contains("none.pem"));
}

#[test]
fn a_connection_without_required_tls_fails_with_the_reason() {
    let Some(database) = TlsDatabase::new() else { return };
    database.assert_refused("postgres", "localhost", "sslmode=disable", "no pg_hba.conf entry");
    let put = database.put("postgres", "localhost", "sslmode=disable");
    put.code(3).stderr(contains("no encryption").and(contains("sslmode")));
    // The client requires TLS, and the server does not support it.
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
    let Some(database) = TlsDatabase::new() else { return };
    database.cluster.sql("one", "CREATE ROLE client LOGIN; GRANT ALL ON SCHEMA public TO client");
    let client = database.client_certificate_parameters(&database.trusted_ca, "client");
    database.assert_accepted(
        "client",
        "localhost",
        &format!("sslmode=verify-full&sslrootcert={{dir}}/trusted.pem&{client}"),
    );
    database.assert_accepted("client", "127.0.0.1", &format!("sslmode=require&{client}"));
    database.assert_refused("client", "localhost", "sslmode=require", "valid client certificate");
    let stranger = database.client_certificate_parameters(&database.trusted_ca, "stranger");
    database.assert_refused("client", "localhost", &format!("sslmode=require&{stranger}"), "authentication failed");
    let other = database.client_certificate_parameters(&database.other_ca, "client");
    database.assert_refused("client", "localhost", &format!("sslmode=require&{other}"), "UnknownCA");
    let missing = database.put("client", "localhost", "sslmode=require&sslcert={dir}/none.pem");
    missing.code(3).stdout("").stderr(contains("none.pem"));
}

#[test]
fn a_password_is_sent_over_tls_and_never_shown_in_errors() {
    let Some(database) = TlsDatabase::new() else { return };
    let role = "CREATE ROLE keeper LOGIN PASSWORD 'not-to-be-seen'; GRANT ALL ON SCHEMA public TO keeper";
    database.cluster.sql("one", role);
    let sandbox =
        database_sandbox(&database.url("keeper", "localhost", "sslmode=verify-full&sslrootcert={dir}/trusted.pem"));
    let put = |password: &str| {
        sandbox.sha_api(["put", "foo"]).env("PGPASSWORD", password).timeout(super::COMMAND_TIMEOUT).assert()
    };
    put("not-to-be-seen").code(0).stdout(format!("{FOO}\n")).stderr("");
    let cause = contains("password authentication failed").and(contains("to-be-guessed").not());
    put("to-be-guessed").code(3).stdout("").stderr(cause);
    let without_password = sandbox.sha_api(["put", "foo"]).timeout(super::COMMAND_TIMEOUT).assert();
    without_password.code(3).stdout("").stderr(contains("password missing"));
}

#[test]
fn a_server_stores_its_messages_in_a_database_over_tls() {
    let Some(mut database) = TlsDatabase::new() else { return };
    let url = database.url("postgres", "localhost", "sslmode=verify-full&sslrootcert={dir}/trusted.pem");
    let server = Server::start(database_sandbox(&url), &["--http"]);
    server.assert_healthy();
    assert_eq!(database.cluster.sql("one", "SELECT count(*) FROM messages").trim(), "1");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE application_name = 'sha-api'";
    assert_eq!(database.cluster.sql("one", encrypted).trim(), "t");
    database.cluster.kill();
    crate::common::server::wait_until("the server is not ready", || server.get("/readyz").status == 503);
    database.cluster.start();
    server.wait_ready();
    server.assert_healthy();
}
