//! Addresses of servers: `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`. A URL with a path is rejected.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A server on a network.
    Url(Url),
    /// A Unix socket on this machine.
    Socket(PathBuf),
}

/// Scheme, host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `true` for `https`, `false` for `http`.
    pub https: bool,
    /// Host name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// Port; by default that of the scheme.
    pub port: u16,
}

/// Error of parsing an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid server URL `{0}`: expected https://HOST:PORT, http://HOST:PORT or unix:PATH")]
pub struct ParseAddressError(String);

impl Address {
    /// Returns whether `text` looks like an address rather than a path. It may still be invalid.
    pub fn looks_like_url(text: &str) -> bool {
        text.contains("://") || text.starts_with("unix:")
    }
}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ParseAddressError(text.to_owned())),
            Some(path) => Ok(Self::Socket(path.into())),
            None => text.parse().map(Self::Url),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Url {
    /// Returns the host as it is written in a URL: an IPv6 address in brackets.
    pub fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    /// Returns whether the host is the loopback interface, which is never contacted through a proxy.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl FromStr for Url {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let invalid = || ParseAddressError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(invalid)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(invalid()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| invalid())?)
            }
            _ => (authority, if https { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)) {
            return Err(invalid());
        }
        Ok(Self { https, host: host.to_owned(), port })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default_port) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.bracketed_host())?;
        if self.port == default_port { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_parsed_and_printed_in_canonical_form() {
        for (text, canonical) in [
            ("https://a", "https://a"),
            ("https://a:443/", "https://a"),
            ("HTTP://a.example:8080", "http://a.example:8080"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
            ("unix:/run/a b.sock", "unix:/run/a b.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for text in ["a:1", "ftp://a", "https://", "https://a/b", "https://u@a", "https://a:b", "https://a b", "unix:"]
        {
            assert_eq!(text.parse::<Address>(), Err(ParseAddressError(text.to_owned())));
        }
    }
}
