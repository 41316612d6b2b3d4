//! Selection of the HTTP proxy by the usual environment variables. The loopback interface is contacted directly.
//! An invalid proxy URL is an error, so that no request bypasses a configured proxy.

use ureq::{Proxy, ProxyProtocol};

use super::address::Url;
use crate::message_store::Error;

/// Returns the proxy for `url` according to the environment, `None` for a direct connection.
pub(super) fn proxy_for(url: &Url) -> Result<Option<Proxy>, Error> {
    from_env(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()), url)
}

/// Returns the URL of a proxy without user and password.
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
    let scheme_variable = if url.https { "HTTPS_PROXY" } else { "HTTP_PROXY" };
    let Some((name, value)) = read(scheme_variable).or_else(|| read("ALL_PROXY")) else { return Ok(None) };
    match Proxy::new(&value) {
        Ok(proxy) if matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) => Ok(Some(proxy)),
        // The value may contain a password, so it is not shown.
        _ => {
            Err(Error::Unusable(format!("invalid proxy URL in {name}: expected http://HOST:PORT or https://HOST:PORT")))
        }
    }
}

/// Returns whether the list of `NO_PROXY` contains `host`, a parent domain of it, or `*`.
fn no_proxy_matches(list: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.to_ascii_lowercase().split([',', ' ']).any(|entry| {
        let domain = entry.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']);
        let is_subdomain = |prefix: &str| prefix.is_empty() || prefix.ends_with('.');
        domain == "*" || (!domain.is_empty() && host.strip_suffix(domain).is_some_and(is_subdomain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, String> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let proxy = from_env(variable, &url.parse().unwrap()).map_err(|error| error.to_string())?;
        Ok(proxy.as_ref().map(redacted))
    }

    #[test]
    fn the_scheme_variable_precedes_all_proxy_in_either_case() {
        let all = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p"), ("ALL_PROXY", "https://u:secret@a")];
        for (variables, url, proxy) in [
            (&all[..], "https://remote", Some("http://s:1")),
            (&all, "http://remote", Some("http://p:80")),
            (&all[1..], "https://remote", Some("https://a:443")),
            (&all[..2], "https://remote", Some("http://s:1")),
            (&all[..1], "http://remote", None),
            (&[("https_proxy", ""), ("all_proxy", "[::1]:2")], "https://remote", Some("http://[::1]:2")),
            (&[], "https://remote", None),
        ] {
            assert_eq!(resolve(variables, url), Ok(proxy.map(str::to_owned)), "{variables:?} {url}");
        }
    }

    #[test]
    fn an_unsupported_proxy_is_an_error_without_its_password() {
        for invalid in ["socks5://u:secret@a:1", "ftp://a", "http://", "http://u:secret@a b"] {
            let error = resolve(&[("all_proxy", invalid)], "https://remote").unwrap_err();
            assert!(error.starts_with("invalid proxy URL in ALL_PROXY: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn no_proxy_matches_only_listed_hosts_domains_and_the_wildcard() {
        for (list, host, matches) in [
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
            assert_eq!(no_proxy_matches(list, host), matches, "{list} {host}");
        }
    }

    #[test]
    fn loopback_is_never_proxied() {
        for url in ["http://localhost", "https://LocalHost:1", "http://127.9.9.9", "https://[::1]:8443"] {
            assert_eq!(resolve(&[("ALL_PROXY", "a"), ("HTTPS_PROXY", "nonsense nonsense")], url), Ok(None), "{url}");
        }
    }
}
