//! The proxy on the way to a server, by the variables that other programs go by too. Between us and this machine there
//! is none. What names no proxy is an error, so that nothing goes out past the one that was meant.

use ureq::{Proxy, ProxyProtocol};

use super::Url;
use crate::message_store::Error;

/// The proxy on the way to `url`, if there is one.
pub(super) fn proxy_for(url: &Url) -> Result<Option<Proxy>, Error> {
    from_env(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()), url)
}

/// A proxy's URL without what says who we are.
pub(super) fn redacted(proxy: &Proxy) -> String {
    let scheme = if proxy.protocol() == ProxyProtocol::Https { "https" } else { "http" };
    format!("{scheme}://{}:{}", proxy.host(), proxy.port())
}

fn from_env(variable: impl Fn(&str) -> Option<String>, url: &Url) -> Result<Option<Proxy>, Error> {
    let read = |name: &'static str| {
        let value = variable(name).or_else(|| variable(&name.to_ascii_lowercase()))?;
        (!value.is_empty()).then_some((name, value))
    };
    if url.is_loopback() || read("NO_PROXY").is_some_and(|(_, list)| no_proxy_matches(&list, &url.host)) {
        return Ok(None);
    }
    let of_scheme = if url.https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let Some((name, value)) = read(of_scheme).or_else(|| read("ALL_PROXY")) else { return Ok(None) };
    match Proxy::new(&value) {
        Ok(proxy) if matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) => Ok(Some(proxy)),
        // The value is not shown, since there may be a password in it.
        _ => Err(Error::Unusable(format!("{name} is no URL of a proxy; one is http://HOST:PORT or https://HOST:PORT"))),
    }
}

/// Whether a list names `host`, a domain that it is in, or all.
fn no_proxy_matches(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.to_ascii_lowercase().split([',', ' ']).any(|entry| {
        let domain = entry.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
        let is_in = |rest: &str| rest.is_empty() || rest.ends_with('.');
        domain == "*" || (!domain.is_empty() && host.strip_suffix(domain).is_some_and(is_in))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, String> {
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        let proxy = from_env(variable, &url.parse().unwrap()).map_err(|why| why.to_string())?;
        Ok(proxy.as_ref().map(redacted))
    }

    #[test]
    fn the_scheme_variable_precedes_all_proxy_in_either_case() {
        let all = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p"), ("ALL_PROXY", "https://u:secret@a")];
        for (variables, url, proxy) in [
            (&all[..], "https://far", Some("http://s:1")),
            (&all, "http://far", Some("http://p:80")),
            (&all[1..], "https://far", Some("https://a:443")),
            (&all[..2], "https://far", Some("http://s:1")),
            (&all[..1], "http://far", None),
            (&[("https_proxy", ""), ("all_proxy", "[::1]:2")], "https://far", Some("http://[::1]:2")),
            (&[], "https://far", None),
        ] {
            assert_eq!(resolve(variables, url), Ok(proxy.map(str::to_owned)), "{variables:?} {url}");
        }
    }

    #[test]
    fn an_unsupported_proxy_is_an_error_without_its_password() {
        for wrong in ["socks5://u:secret@a:1", "ftp://a", "http://", "http://u:secret@a b"] {
            let why = resolve(&[("all_proxy", wrong)], "https://far").unwrap_err();
            assert!(why.starts_with("ALL_PROXY is no URL of a proxy; "), "{why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn no_proxy_matches_only_listed_hosts_domains_and_the_wildcard() {
        for (list, host, is_spared) in [
            ("a.example", "a.example", true),
            ("A.Example", "a.eXample", true),
            ("example", "a.example", true),
            (".example", "a.example", true),
            ("*.example", "a.example", true),
            ("b.example, a.example", "a.example", true),
            ("*", "a.example", true),
            ("10.0.0.1,[fd00::1]", "fd00::1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("a.example", "example", false),
            ("a.example", "ba.example", false),
            ("a.example", "a.example.org", false),
            (" ,,.", "a.example", false),
            ("", "a.example", false),
        ] {
            assert_eq!(no_proxy_matches(list, host), is_spared, "{list} {host}");
        }
    }

    #[test]
    fn loopback_is_never_proxied() {
        for here in ["http://localhost", "https://LocalHost:1", "http://127.9.9.9", "https://[::1]:8443"] {
            assert_eq!(resolve(&[("ALL_PROXY", "a"), ("HTTPS_PROXY", "nonsense nonsense")], here), Ok(None), "{here}");
        }
    }
}
