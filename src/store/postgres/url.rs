//! Parser of database URLs, with the meaning that libpq gives them. A key that has another meaning here, or none, is
//! refused by its name. Errors do not contain the password.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::tls::{CertificateCheck, SslOptions};
use crate::message_store::Error;
use crate::postgres_url;

/// A parsed database URL.
pub(super) struct Target {
    pub config: Config,
    pub tls: SslOptions,
    /// The URL without password and parameters, for messages.
    pub name: String,
}

/// Keys of libpq that `tokio_postgres` does not support, or that an option replaces, with the remedy.
const REFUSED_KEYS: [(&str, &str); 6] = [
    ("connect_timeout", "use --db-connect-timeout"),
    ("passfile", "set PGPASSWORD, or write the password into the URL"),
    ("replication", "remove it"),
    ("require_auth", "remove it, or set channel_binding=require"),
    ("service", "write the host and the database into the URL"),
    ("sslcrl", "remove it"),
];

/// Parses `url`. Reads the variable `PGPASSWORD` if the URL has no password.
pub(super) fn parse(url: &str) -> Result<Target, Error> {
    let name = postgres_url::redacted(url);
    parse_named(url, &name).map_err(|cause| Error::Unusable(format!("cannot use {name}: {cause}")))
}

fn parse_named(url: &str, name: &str) -> Result<Target, String> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut tls, mut others) = (SslMode::Prefer, SslOptions::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|_| format!("the value of {key} is not percent-encoded UTF-8"))?;
        match key {
            "sslmode" => (mode, tls.verify) = parse_sslmode(&value)?,
            "sslrootcert" => tls.roots = Some(PathBuf::from(&*value)),
            "sslcert" => tls.cert = Some(PathBuf::from(&*value)),
            "sslkey" => tls.key = Some(PathBuf::from(&*value)),
            // GSSAPI encryption is never used, and text is always UTF-8.
            "gssencmode" if ["disable", "prefer"].contains(&&*value) => {}
            "client_encoding" if ["UTF8", "UTF-8", "AUTO"].contains(&value.to_uppercase().as_str()) => {}
            "gssencmode" => return Err("gssencmode is not supported; remove it, or set gssencmode=disable".to_owned()),
            "client_encoding" => return Err("client_encoding is not supported; remove it, or set UTF8".to_owned()),
            key => match REFUSED_KEYS.iter().find(|(refused, _)| *refused == key) {
                Some((_, remedy)) => return Err(format!("{key} is not supported in the URL; {remedy}")),
                None => others.push(pair),
            },
        }
    }
    // With a CA file, libpq treats `require` like `verify-ca`.
    if mode == SslMode::Require && tls.verify == CertificateCheck::None && tls.roots.is_some() {
        tls.verify = CertificateCheck::Ca;
    }
    let url = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    let mut config: Config = url.parse().map_err(|error| describe_parse_error(&error))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("the URL has no host; for a Unix socket, add ?host=/run/postgresql".to_owned());
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
    Ok(Target { config, tls, name: name.to_owned() })
}

fn parse_sslmode(value: &str) -> Result<(SslMode, CertificateCheck), String> {
    match value {
        "disable" => Ok((SslMode::Disable, CertificateCheck::None)),
        "prefer" => Ok((SslMode::Prefer, CertificateCheck::None)),
        "require" => Ok((SslMode::Require, CertificateCheck::None)),
        "verify-ca" => Ok((SslMode::Require, CertificateCheck::Ca)),
        "verify-full" => Ok((SslMode::Require, CertificateCheck::Full)),
        "allow" => Err("sslmode=allow is not supported; use sslmode=prefer or sslmode=disable".to_owned()),
        _ => Err("invalid sslmode: expected disable, prefer, require, verify-ca or verify-full".to_owned()),
    }
}

/// Describes an error of the parser. It names a key, but not a value, which may be the password.
fn describe_parse_error(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let key = cause.split('`').nth(1).filter(|_| cause.contains(" option `"));
    match key {
        Some(key) => format!("unknown key, or invalid value: {key}"),
        None => "invalid URL: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE?KEY=VALUE".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_query(query: &str) -> Result<Target, Error> {
        parse(&format!("postgres://me:secret@host/db?{query}"))
    }

    fn refusal(query: &str) -> String {
        let Err(error) = parse_query(query) else { panic!("{query} is accepted") };
        error.to_string()
    }

    #[test]
    fn sslmode_selects_the_verification_of_libpq() {
        let verify = |query: &str| parse_query(query).map(|target| target.tls.verify).unwrap();
        assert_eq!(verify("sslmode=require"), CertificateCheck::None);
        assert_eq!(verify("sslmode=require&sslrootcert=%2fca.pem"), CertificateCheck::Ca);
        assert_eq!(verify("sslmode=verify-full"), CertificateCheck::Full);
    }

    #[test]
    fn an_unsupported_key_or_value_is_refused_by_name_without_the_password() {
        for (query, cause) in [
            ("sslmode=maybe", "invalid sslmode"),
            ("sslmode=allow", "sslmode=allow is not supported; use sslmode=prefer"),
            ("gssencmode=require", "gssencmode is not supported"),
            ("client_encoding=LATIN1", "client_encoding is not supported"),
            ("passfile=/p", "passfile is not supported in the URL; set PGPASSWORD"),
            ("service=a", "service is not supported in the URL"),
            ("connect_timeout=3", "use --db-connect-timeout"),
            ("frob=1", "unknown key, or invalid value: frob"),
            ("keepalives=secret", "unknown key, or invalid value: keepalives"),
            ("sslrootcert=%ff", "the value of sslrootcert is not percent-encoded UTF-8"),
        ] {
            let error = refusal(query);
            assert!(error.starts_with("cannot use postgres://me@host/db: "), "{error}");
            assert!(error.contains(cause) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn keys_of_libpq_that_ask_for_the_default_are_accepted() {
        for query in ["gssencmode=disable", "gssencmode=prefer", "client_encoding=utf8", "client_encoding=auto"] {
            assert!(parse_query(query).is_ok(), "{query}");
        }
    }
}
