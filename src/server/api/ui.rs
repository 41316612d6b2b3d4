//! The page for people, at `/`: only for who prefers HTML. It holds nothing and may reach nothing but this server.
//! No script runs in it but its own, which its policy names by digest.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::form;
use super::{Method, Reply, Request};
use crate::digest::Digest;

/// Where it is.
pub(super) const PATH: &str = "/";

const PAGE: &str = include_str!("ui/page.html");

/// What of the page's head is computed from the page, once.
struct About {
    policy: String,
    tag: String,
}

static ABOUT: LazyLock<About> = LazyLock::new(|| {
    let mut policy = "default-src 'none'".to_owned();
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let digest = BASE64_STANDARD.encode(Digest::of(inside(element).as_bytes()).as_bytes());
        let _ = write!(policy, "; {directive} 'sha256-{digest}'");
    }
    // The icon is an empty one, so that no browser asks for another.
    policy.push_str("; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    policy.push_str("; require-trusted-types-for 'script'; trusted-types 'none'");
    About { policy, tag: format!("\"{}\"", Digest::of(PAGE.as_bytes())) }
});

/// The reply to a request for `/`; `None`: it is for another path.
pub(in crate::server) fn page(request: &Request) -> Option<Reply> {
    if request.path != PATH {
        return None;
    }
    let reply = match (prefers_html(request.accept.as_deref()), request.method) {
        (false, _) => Reply::error(404, "Not found"),
        (true, Method::Get | Method::Head) => found(request.if_none_match.as_deref()),
        (true, _) => Reply::error(405, "Method not allowed").with("Allow", "GET, HEAD"),
    };
    Some(reply.with("Vary", "Accept"))
}

fn found(known: Option<&str>) -> Reply {
    let reply = match known.is_some_and(|list| form::names(list, &ABOUT.tag)) {
        true => Reply::empty(304),
        false => Reply::new(200, "text/html; charset=utf-8", PAGE.as_bytes().to_vec())
            .with("Content-Security-Policy", &ABOUT.policy)
            .with("X-Content-Type-Options", "nosniff")
            .with("Referrer-Policy", "no-referrer"),
    };
    reply.with("ETag", &ABOUT.tag).with("Cache-Control", "no-cache")
}

/// Browsers name it; programs that take anything do not.
fn prefers_html(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| form::weight(accept, "text", "html") > form::weight(accept, "application", "json"))
}

/// What stands in the page's only element of this name.
fn inside(element: &str) -> &'static str {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let inside = PAGE.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    inside.map_or("", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_prefer_html_and_programs_do_not() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, prefers) in [
            (firefox, true),
            ("text/html", true),
            ("TEXT/*", true),
            ("*/*", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(prefers_html(Some(accept)), prefers, "{accept}");
        }
        assert!(!prefers_html(None));
    }

    #[test]
    fn the_page_has_one_script_and_one_style_and_names_nothing_elsewhere() {
        for element in ["script", "style"] {
            assert!(inside(element).len() > 100);
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1);
        }
        for forbidden in
            ["://", "innerHTML", "localStorage", "sessionStorage", "cookie", "style=", " onclick", "@import"]
        {
            assert!(!PAGE.contains(forbidden), "{forbidden}");
        }
        assert!(PAGE.len() < 13_000, "{}", PAGE.len());
    }
}
