//! The page for people, at `/`: only for who prefers HTML. It holds nothing and may reach nothing but this server.
//! No script runs in it but its own, which its policy names by digest.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::representation;
use super::{Method, Request, Response};
use crate::digest::Digest;

/// Where it is.
pub(super) const ROOT: &str = "/";

const PAGE_HTML: &str = include_str!("ui/page.html");

/// What of the page's head is computed from the page, once.
struct PageMeta {
    policy: String,
    etag: String,
}

static PAGE_META: LazyLock<PageMeta> = LazyLock::new(|| {
    let mut policy = "default-src 'none'".to_owned();
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let digest = BASE64_STANDARD.encode(Digest::compute(element_content(element).as_bytes()).as_bytes());
        let _ = write!(policy, "; {directive} 'sha256-{digest}'");
    }
    // The icon is an empty one, so that no browser asks for another.
    policy.push_str("; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    policy.push_str("; require-trusted-types-for 'script'; trusted-types 'none'");
    PageMeta { policy, etag: format!("\"{}\"", Digest::compute(PAGE_HTML.as_bytes())) }
});

/// The reply to a request for `/`; `None`: it is for another path.
pub(in crate::server) fn ui_response(request: &Request) -> Option<Response> {
    if request.path != ROOT {
        return None;
    }
    let reply = match (prefers_html(request.accept.as_deref()), request.method) {
        (false, _) => Response::error(404, "Not found"),
        (true, Method::Get | Method::Head) => page_response(request.if_none_match.as_deref()),
        (true, _) => Response::error(405, "Method not allowed").with_header("Allow", "GET, HEAD"),
    };
    Some(reply.with_header("Vary", "Accept"))
}

fn page_response(known: Option<&str>) -> Response {
    let reply = match known.is_some_and(|list| representation::etag_matches(list, &PAGE_META.etag)) {
        true => Response::empty(304),
        false => Response::new(200, "text/html; charset=utf-8", PAGE_HTML.as_bytes().to_vec())
            .with_header("Content-Security-Policy", &PAGE_META.policy)
            .with_header("X-Content-Type-Options", "nosniff")
            .with_header("Referrer-Policy", "no-referrer"),
    };
    reply.with_header("ETag", &PAGE_META.etag).with_header("Cache-Control", "no-cache")
}

/// Browsers name it; programs that take anything do not.
fn prefers_html(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        representation::quality(accept, "text", "html") > representation::quality(accept, "application", "json")
    })
}

/// What stands in the page's only element of this name.
fn element_content(element: &str) -> &'static str {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let inside = PAGE_HTML.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
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
    fn the_page_has_one_script_and_one_style_and_no_external_reference() {
        for element in ["script", "style"] {
            assert!(element_content(element).len() > 100);
            assert_eq!(PAGE_HTML.matches(&format!("<{element}")).count(), 1);
        }
        for forbidden in
            ["://", "innerHTML", "localStorage", "sessionStorage", "cookie", "style=", " onclick", "@import"]
        {
            assert!(!PAGE_HTML.contains(forbidden), "{forbidden}");
        }
        assert!(PAGE_HTML.len() < 13_000, "{}", PAGE_HTML.len());
    }
}
