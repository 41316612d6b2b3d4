//! A database's URL, taken apart: what libpq means by it. Its password goes nowhere but to the database.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::{self, CertificateCheck};
use crate::message_store::Error;
use crate::postgres_url;

/// What a URL says.
pub(super) struct Target {
    pub config: Config,
    pub tls: tls::SslOptions,
    /// For errors: without password and parameters.
    pub name: String,
}

/// Takes `url` apart.
pub(super) fn parse(url: &str) -> Result<Target, Error> {
    let name = postgres_url::redacted(url);
    let unusable = |why: &str| Error::Unusable(format!("cannot use {name}: {why}"));
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut options, mut rest) = (SslMode::Prefer, tls::SslOptions::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || percent_decode(value).ok_or_else(|| unusable(&format!("{key} is not in the form of URLs")));
        match key {
            "sslmode" => {
                (mode, options.verify) = match value()?.as_str() {
                    "disable" => (SslMode::Disable, CertificateCheck::None),
                    "prefer" => (SslMode::Prefer, CertificateCheck::None),
                    "require" => (SslMode::Require, CertificateCheck::None),
                    "verify-ca" => (SslMode::Require, CertificateCheck::Ca),
                    "verify-full" => (SslMode::Require, CertificateCheck::Full),
                    _ => return Err(unusable("sslmode is disable, prefer, require, verify-ca or verify-full")),
                }
            }
            "sslrootcert" => options.roots = Some(PathBuf::from(value()?)),
            "sslcert" => options.cert = Some(PathBuf::from(value()?)),
            "sslkey" => options.key = Some(PathBuf::from(value()?)),
            _ => rest.push(pair),
        }
    }
    // As libpq does it: who names an authority wants it to be asked.
    if mode == SslMode::Require && options.verify == CertificateCheck::None && options.roots.is_some() {
        options.verify = CertificateCheck::Ca;
    }
    let plain = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
    let mut config: Config = plain.parse().map_err(|_| {
        unusable("it is not in the form postgres://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE, or has an unknown key")
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(unusable("it names no host; for a socket, add ?host=/run/postgresql"));
    }
    // Nobody listens in on a socket of this machine.
    let is_local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    config.ssl_mode(if is_local { SslMode::Disable } else { mode });
    if let (None, Some(password)) = (config.get_password(), std::env::var_os("PGPASSWORD")) {
        config.password(password.into_encoded_bytes());
    }
    if config.get_application_name().is_none() {
        config.application_name("sha-api");
    }
    Ok(Target { config, tls: options, name })
}

fn percent_decode(text: &str) -> Option<String> {
    let (mut bytes, mut left) = (Vec::new(), text.bytes());
    while let Some(byte) = left.next() {
        bytes.push(match byte {
            b'%' => {
                u8::try_from((char::from(left.next()?).to_digit(16)? << 4) | char::from(left.next()?).to_digit(16)?)
                    .ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_has_the_meaning_of_libpq() {
        let verify =
            |query: &str| parse(&format!("postgres://me:secret@host/db?{query}")).map(|target| target.tls.verify);
        assert_eq!(verify("sslmode=require").unwrap(), CertificateCheck::None);
        assert_eq!(verify("sslmode=require&sslrootcert=%2fca.pem").unwrap(), CertificateCheck::Ca);
        assert_eq!(verify("sslmode=verify-full").unwrap(), CertificateCheck::Full);
        for bad in ["sslmode=maybe", "frob=1", "sslrootcert=%zz"] {
            let why = verify(bad).unwrap_err().to_string();
            assert!(!why.contains("secret") && why.contains("postgres://me@host/db"), "{why}");
        }
    }
}
