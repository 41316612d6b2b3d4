//! Where a server is: `https://HOST:PORT`, `http://HOST:PORT` or `unix:PATH`. A path behind the port is none of ours.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// At the other end of a network.
    Url(Url),
    /// At the other end of a socket on this machine.
    Socket(PathBuf),
}

/// A scheme, a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Whether TLS is spoken.
    pub https: bool,
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    /// The usual one of the scheme, if none was named.
    pub port: u16,
}

/// A text that is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no URL of a server; one is https://HOST:PORT, http://HOST:PORT or unix:PATH")]
pub struct ParseAddressError(String);

impl Address {
    /// Whether `text` is meant to be an address, however wrong it may be.
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
    /// The host as it stands in a URL.
    pub fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl Url {
    /// Whether it names this machine, so that no proxy is between.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl FromStr for Url {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(wrong()),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (authority, if https { 443 } else { 80 }),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte)) {
            return Err(wrong());
        }
        Ok(Self { https, host: host.to_owned(), port })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        write!(f, "{scheme}://{}", self.bracketed_host())?;
        if self.port == usual { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_back() {
        for (text, written) in [
            ("https://a", "https://a"),
            ("https://a:443/", "https://a"),
            ("HTTP://a.example:8080", "http://a.example:8080"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://[::1]", "http://[::1]"),
            ("unix:/run/a b.sock", "unix:/run/a b.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for bad in ["a:1", "ftp://a", "https://", "https://a/b", "https://u@a", "https://a:b", "https://a b", "unix:"] {
            assert_eq!(bad.parse::<Address>(), Err(ParseAddressError(bad.to_owned())));
        }
    }
}
