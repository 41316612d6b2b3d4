//! Parser of database URLs, with the semantics of libpq. Errors do not contain the password.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::{self, CertificateCheck};
use crate::message_store::Error;
use crate::postgres_url;

/// A parsed database URL.
pub(super) struct Target {
    pub config: Config,
    pub tls: tls::SslOptions,
    /// The URL without password and parameters, for messages.
    pub name: String,
}

/// Parses `url`. Reads the variable `PGPASSWORD` if the URL has no password.
pub(super) fn parse(url: &str) -> Result<Target, Error> {
    let name = postgres_url::redacted(url);
    let unusable = |cause: &str| Error::Unusable(format!("cannot use {name}: {cause}"));
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut options, mut others) = (SslMode::Prefer, tls::SslOptions::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || percent_decode(value).ok_or_else(|| unusable(&format!("invalid percent-encoding in {key}")));
        match key {
            "sslmode" => {
                (mode, options.verify) = match value()?.as_str() {
                    "disable" => (SslMode::Disable, CertificateCheck::None),
                    "prefer" => (SslMode::Prefer, CertificateCheck::None),
                    "require" => (SslMode::Require, CertificateCheck::None),
                    "verify-ca" => (SslMode::Require, CertificateCheck::Ca),
                    "verify-full" => (SslMode::Require, CertificateCheck::Full),
                    _ => {
                        return Err(unusable(
                            "invalid sslmode: expected disable, prefer, require, verify-ca or verify-full",
                        ));
                    }
                }
            }
            "sslrootcert" => options.roots = Some(PathBuf::from(value()?)),
            "sslcert" => options.cert = Some(PathBuf::from(value()?)),
            "sslkey" => options.key = Some(PathBuf::from(value()?)),
            _ => others.push(pair),
        }
    }
    // With a CA file, libpq treats `require` like `verify-ca`.
    if mode == SslMode::Require && options.verify == CertificateCheck::None && options.roots.is_some() {
        options.verify = CertificateCheck::Ca;
    }
    let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    let mut config: Config = url.parse().map_err(|_| {
        unusable("invalid URL or unknown key: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE")
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(unusable("the URL has no host; for a Unix socket, add ?host=/run/postgresql"));
    }
    // A connection over a Unix socket does not leave the machine.
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
    let (mut bytes, mut remaining) = (Vec::new(), text.bytes());
    while let Some(byte) = remaining.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(remaining.next()?).to_digit(16)?;
                let low = char::from(remaining.next()?).to_digit(16)?;
                u8::try_from((high << 4) | low).ok()?
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
    fn sslmode_selects_the_verification_of_libpq() {
        let verify =
            |query: &str| parse(&format!("postgres://me:secret@host/db?{query}")).map(|target| target.tls.verify);
        assert_eq!(verify("sslmode=require").unwrap(), CertificateCheck::None);
        assert_eq!(verify("sslmode=require&sslrootcert=%2fca.pem").unwrap(), CertificateCheck::Ca);
        assert_eq!(verify("sslmode=verify-full").unwrap(), CertificateCheck::Full);
        for invalid in ["sslmode=maybe", "frob=1", "sslrootcert=%zz"] {
            let error = verify(invalid).unwrap_err().to_string();
            assert!(!error.contains("secret") && error.contains("postgres://me@host/db"), "{error}");
        }
    }
}
