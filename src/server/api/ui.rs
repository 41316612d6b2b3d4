//! The web page at `/`, for clients that prefer HTML. The page contains no messages and may contact only its own
//! server. Its content security policy permits only the script and the style of the page, by their digests.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::representation;
use super::{Method, Request, Response, Route};
use crate::digest::Digest;

const PAGE_HTML: &str = include_str!("ui/page.html");

/// Header values that are computed from the page once.
struct PageMeta {
    security_policy: String,
    etag: String,
}

static PAGE_META: LazyLock<PageMeta> = LazyLock::new(|| {
    let mut policy = "default-src 'none'".to_owned();
    for (directive, element) in [("script-src", "script"), ("style-src", "style")] {
        let digest = BASE64_STANDARD.encode(Digest::compute(element_content(element).as_bytes()).as_bytes());
        let _ = write!(policy, "; {directive} 'sha256-{digest}'");
    }
    // The page has an empty `data:` icon, so that browsers do not request /favicon.ico.
    policy.push_str("; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    policy.push_str("; require-trusted-types-for 'script'; trusted-types 'none'");
    PageMeta { security_policy: policy, etag: format!("\"{}\"", Digest::compute(PAGE_HTML.as_bytes())) }
});

/// Returns the response to a request for the page, or `None` for any other route.
pub(in crate::server) fn ui_response(request: &Request) -> Option<Response> {
    if request.route != Route::Page {
        return None;
    }
    let response = match (prefers_html(request.accept.as_deref()), request.method) {
        (false, _) => Response::error(404, "Not found"),
        (true, Method::Get | Method::Head) => page_response(request.if_none_match.as_deref()),
        (true, _) => Response::error(405, "Method not allowed").with_header("Allow", "GET, HEAD"),
    };
    Some(response.with_header("Vary", "Accept"))
}

fn page_response(if_none_match: Option<&str>) -> Response {
    let response = match if_none_match.is_some_and(|tags| representation::etag_matches(tags, &PAGE_META.etag)) {
        true => Response::empty(304),
        false => Response::new(200, "text/html; charset=utf-8", PAGE_HTML.as_bytes().to_vec())
            .with_header("Content-Security-Policy", &PAGE_META.security_policy)
            .with_header("X-Content-Type-Options", "nosniff")
            .with_header("Referrer-Policy", "no-referrer"),
    };
    response.with_header("ETag", &PAGE_META.etag).with_header("Cache-Control", "no-cache")
}

/// Returns whether HTML is preferred to JSON. Browsers list `text/html`; programs usually send `*/*` or nothing.
fn prefers_html(accept: Option<&str>) -> bool {
    accept.is_some_and(|accept| {
        representation::quality(accept, "text", "html") > representation::quality(accept, "application", "json")
    })
}

/// Returns the content of the page's only element with this name.
fn element_content(element: &str) -> &'static str {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let split = PAGE_HTML.split_once(&start).and_then(|(_, after)| after.split_once(&end));
    split.map_or("", |(content, _)| content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_prefer_html_and_programs_do_not() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, expected) in [
            (firefox, true),
            ("text/html", true),
            ("TEXT/*", true),
            ("*/*", false),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(prefers_html(Some(accept)), expected, "{accept}");
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
