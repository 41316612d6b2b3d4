//! The page at `/`: who gets it, and what it does in a browser for those who use it. It shows no byte that it did not
//! hash itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::common::browser::Browser;
use crate::common::server::{Server, post_request, wait_until};
use crate::common::{FOO, Sandbox, digest, pseudorandom_bytes};

/// `Accept` field of browsers.
const ACCEPT_HTML: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

fn root_request(method: &str, fields: &str) -> String {
    format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn only_clients_that_prefer_html_get_the_page() {
    for flags in [&["--http"][..], &["--http", "--read-only"], &[]] {
        let server = Server::start(Sandbox::new(), flags);
        let mut client = server.client();
        for fields in ["", "Accept: */*\r\n", "Accept: application/json\r\n", "Accept: text/html;q=0\r\n"] {
            for method in ["GET", "POST", "OPTIONS"] {
                let reply = client.call(&root_request(method, fields));
                assert_eq!((reply.status, reply.text()), (404, r#"{"err_msg": "Not found"}"#), "{method} {fields}");
                assert_eq!(reply.header("Vary"), Some("Accept"));
            }
        }
        let reply = client.call(&root_request("GET", ACCEPT_HTML));
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
        assert!(reply.text().starts_with("<!doctype html>\n"));
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let reply = client.call(&root_request(method, ACCEPT_HTML));
            assert_eq!((reply.status, reply.header("Allow")), (405, Some("GET, HEAD")), "{method}");
            assert_eq!(reply.text(), r#"{"err_msg": "Method not allowed"}"#);
        }
        // HEAD is as GET, without the body: what follows it is the next reply.
        client.send(root_request("HEAD", ACCEPT_HTML));
        let head = client.read_head();
        for field in reply.head.lines().filter(|line| !line.starts_with("Date: ") && !line.starts_with("X-Request-Id"))
        {
            assert!(head.contains(field), "{field}");
        }
        assert_eq!(client.call(&root_request("GET", "")).status, 404);
    }
}

#[test]
fn the_page_may_contact_only_its_own_server_and_is_revalidated() {
    let server = Server::http(&[]);
    let mut client = server.client();
    let reply = client.call(&root_request("GET", ACCEPT_HTML));
    let policy = reply.header("Content-Security-Policy").unwrap().split("; ");
    let is_own = |directive: &&str| directive.starts_with("script-src ") || directive.starts_with("style-src ");
    let (own, rest): (Vec<_>, Vec<_>) = policy.partition(is_own);
    // Whatever is not here, or is here and more, is a way out.
    let tight = [
        "default-src 'none'",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ];
    assert_eq!(rest, tight);
    assert_eq!(own.len(), 2);
    assert!(own.iter().all(|own| own.split(' ').count() == 2 && own.contains(" 'sha256-")), "{own:?}");
    let fields = [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), ("Vary", "Accept")];
    for (name, value) in fields.into_iter().chain([("Cache-Control", "no-cache")]) {
        assert_eq!(reply.header(name), Some(value));
    }
    assert_eq!(reply.header("Set-Cookie"), None);
    let tag = reply.header("ETag").unwrap();
    let known = client.call(&root_request("GET", &format!("{ACCEPT_HTML}If-None-Match: {tag}\r\n")));
    assert_eq!((known.status, known.header("ETag"), known.text()), (304, Some(tag), ""));
    assert_eq!(client.call(&root_request("GET", &format!("{ACCEPT_HTML}If-None-Match: \"x\"\r\n"))).status, 200);
}

#[test]
fn the_page_needs_no_store_and_no_token_and_no_ui_disables_it() {
    let holder = Server::http(&[]);
    let waiting = Sandbox::new();
    std::os::unix::fs::symlink(holder.sandbox.store(), waiting.store()).unwrap();
    let tokens = waiting.write_file("tokens", b"").to_str().unwrap().to_owned();
    let waiting = Server::spawn(waiting, &["--http", "--token-file", &tokens]);
    assert_eq!(waiting.get("/readyz").status, 503);
    assert_eq!(waiting.client().call(&root_request("GET", ACCEPT_HTML)).status, 200);
    let without = Server::http(&["--no-ui"]);
    for method in ["GET", "POST"] {
        let reply = without.client().call(&root_request(method, ACCEPT_HTML));
        assert_eq!((reply.status, reply.text()), (404, r#"{"err_msg": "Not found"}"#));
    }
}

fn page_url(server: &Server, scheme: &str) -> String {
    format!("{scheme}://{}/", server.address)
}

/// Asserts that the page had no errors and sent requests only to its own server.
fn assert_no_page_errors(mut browser: Browser, origin: &str) {
    assert_eq!(browser.page_errors(), Vec::<&serde_json::Value>::new());
    for asked in browser.requested_urls() {
        let path = asked.strip_prefix(origin);
        let is_known = path.is_some_and(|path| path.is_empty() || path.starts_with(['#', 'm']));
        assert!(is_known || asked == "about:blank" || asked.starts_with("data:,"), "{asked}");
    }
}

/// Function that returns the contrast of a colour to the background of an element (WCAG 2); 1 for a transparent colour.
const CONTRAST_JS: &str = "
    const parts = color => color.match(/[\\d.]+/g).map(Number);
    const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const light = color => {
        const [r, g, b] = parts(color).map(c => linear(c / 255));
        return .2126 * r + .7152 * g + .0722 * b;
    };
    const ground = one => {
        const color = getComputedStyle(one).backgroundColor;
        return parts(color)[3] === 0 ? ground(one.parentElement) : color;
    };
    const contrast = (color, one) => {
        const [a, b] = [light(color), light(ground(one))];
        return (parts(color)[3] ?? 1) < 1 ? 1 : (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    };
";

/// The texts that are too faint (1.4.3).
const FAINT_TEXT_JS: &str = "
    const isText = node => node.nodeType === 3 && node.data.trim();
    const has = one => one.matches('input, textarea') || [...one.childNodes].some(isText);
    const faint = [];
    for (const one of document.body.querySelectorAll('*')) {
        if (!one.checkVisibility() || !has(one)) continue;
        for (const part of [null, '::placeholder']) {
            const found = contrast(getComputedStyle(one, part).color, one);
            if (found < 4.5) faint.push(`${one.outerHTML} ${part} ${found}`);
        }
    }
    return faint;
";

/// Script that returns whether the focus is visible (2.4.13): the outline contrasts with the background of the parent.
const FOCUS_VISIBLE_JS: &str = "
    const one = document.activeElement, { outlineWidth, outlineStyle, outlineColor } = getComputedStyle(one);
    return parseFloat(outlineWidth) >= 2 && outlineStyle !== 'none' && contrast(outlineColor, one.parentElement) >= 3;
";

/// Returns the result of a script that may call `contrast`.
fn run_contrast_script(browser: &mut Browser, script: &str) -> serde_json::Value {
    browser.evaluate(&format!("(() => {{ {CONTRAST_JS} {script} }})()"))
}

/// Shows the page so wide, in pixels; what is narrow is a phone.
fn set_screen_width(browser: &mut Browser, width: u64) {
    let screen = json!({"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": width < 500});
    browser.call("Emulation.setDeviceMetricsOverride", &screen);
}

/// Nothing of it stands out to the side.
fn assert_no_horizontal_overflow(browser: &mut Browser, width: u64) {
    let wide = browser.evaluate("document.scrollingElement.scrollWidth");
    assert!(wide.as_u64().unwrap() <= width, "{wide} at {width}");
}

#[test]
fn a_message_is_stored_and_fetched_with_the_keyboard_alone() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::https(&[]);
    let origin = page_url(&server, "https");
    browser.navigate(&origin);
    let mut visited = Vec::new();
    let focus = "document.activeElement.id || document.activeElement.textContent";
    let mut tab = |browser: &mut Browser| {
        browser.press_key("Tab");
        assert_eq!(run_contrast_script(browser, FOCUS_VISIBLE_JS), true, "the focus is not seen");
        visited.push(browser.evaluate(focus).as_str().unwrap().to_owned());
    };
    tab(&mut browser);
    browser.type_text("tea & <b>cake</b>");
    tab(&mut browser);
    tab(&mut browser);
    browser.press_key("Enter");
    let expected = digest(b"tea & <b>cake</b>");
    assert_eq!(browser.wait_for_text("stored", "Stored"), "Stored, 17 bytes. Digest:");
    assert_eq!(browser.text("stored-digest"), expected);
    assert_eq!(server.get(&format!("/messages/{expected}")).text(), r#"{"message": "tea & <b>cake</b>"}"#);
    browser.press_key("Enter");
    browser.wait_for_text("stored", "Already stored");
    for _ in 0..3 {
        tab(&mut browser);
    }
    browser.type_text(&expected.to_uppercase());
    browser.press_key("Enter");
    assert_eq!(browser.wait_for_text("fetched", "bytes"), "✓ SHA-256 verified. 17 bytes.");
    assert_eq!(browser.text("shown"), "tea & <b>cake</b>");
    for _ in 0..4 {
        tab(&mut browser);
    }
    assert_eq!(visited, ["text", "file", "Store", "link", "copy", "digest", "Fetch", "shown", "download", "token"]);
    assert_no_page_errors(browser, &origin);
}

#[test]
fn a_link_shows_its_message_and_the_digest_can_be_copied() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::http(&[]);
    let origin = page_url(&server, "http");
    server.put("foo");
    browser.navigate(&format!("{origin}#{FOO}"));
    browser.wait_for_text("shown", "foo");
    let grant = json!({"origin": origin, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.call("Browser.grantPermissions", &grant);
    browser.evaluate("document.getElementById('text').value = 'bar'");
    browser.click("#store button");
    browser.wait_for_text("stored", "Stored");
    browser.click("#copy");
    browser.wait_for_text("stored", "Copied");
    assert_eq!(browser.evaluate("navigator.clipboard.readText()"), digest(b"bar"));
    browser.click("#link");
    browser.wait_for_text("shown", "bar");
    assert_eq!(browser.evaluate("location.hash"), format!("#{}", digest(b"bar")));
    assert_no_page_errors(browser, &origin);
}

#[test]
fn markup_in_a_message_is_shown_as_text_and_not_executed() {
    let Some(mut browser) = Browser::start() else { return };
    let message = b"<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><h1>h</h1>\n\xef\xbb\xbf</pre>";
    let (control, long) = (b"\x1b]0;title\x07", "x".repeat((1 << 20) + 1));
    let server = Server::start(Sandbox::with_messages(&[message, control, long.as_bytes()]), &["--http"]);
    let origin = page_url(&server, "http");
    browser.navigate(&format!("{origin}#{}", digest(message)));
    browser.wait_for_text("fetched", "SHA-256 verified");
    assert_eq!(browser.evaluate("document.getElementById('shown').textContent"), std::str::from_utf8(message).unwrap());
    assert_eq!(browser.evaluate("window.ran === undefined"), true);
    assert_eq!(browser.evaluate("document.getElementById('shown').children.length"), 0);
    for (other, why) in [(control.as_slice(), "not text"), (long.as_bytes(), "too long to show")] {
        browser.evaluate(&format!("location.hash = '{}'", digest(other)));
        browser.wait_for_text("fetched", why);
        assert_eq!(browser.evaluate("document.getElementById('shown').checkVisibility()"), false);
        assert_eq!(browser.evaluate("document.getElementById('shown').textContent"), "");
    }
    assert_no_page_errors(browser, &origin);
}

/// Drags a file over the page and drops it there.
fn drop_file(browser: &mut Browser, message: &[u8]) {
    let file = browser.dir.path().join("dropped");
    fs::write(&file, message).unwrap();
    for kind in ["dragEnter", "dragOver", "drop"] {
        let data = json!({"items": [], "files": [file], "dragOperationsMask": 1});
        browser.call("Input.dispatchDragEvent", &json!({"type": kind, "x": 20, "y": 20, "data": data}));
    }
}

#[test]
fn a_file_is_stored_and_downloaded_unchanged() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::http(&[]);
    let origin = page_url(&server, "http");
    browser.navigate(&origin);
    let choose = |browser: &mut Browser, message: &[u8]| {
        let file = browser.dir.path().join("file");
        fs::write(&file, message).unwrap();
        let page = browser.call("DOM.getDocument", &json!({}));
        let input = browser.call("DOM.querySelector", &json!({"nodeId": page["root"]["nodeId"], "selector": "#file"}));
        browser.call("DOM.setFileInputFiles", &json!({"files": [file], "nodeId": input["nodeId"]}));
        assert_eq!(browser.evaluate("document.getElementById('text').disabled"), true);
        browser.click("#store button");
    };
    let message = pseudorandom_bytes(300_000, 7);
    choose(&mut browser, &message);
    assert_eq!(browser.wait_for_text("stored", "Stored"), "Stored, 300,000 bytes. Digest:");
    browser.click("#link");
    assert_eq!(browser.wait_for_text("fetched", "bytes"), "✓ SHA-256 verified. 300,000 bytes, not text.");
    assert_eq!(browser.evaluate("document.getElementById('shown').hidden"), true);
    let downloads = browser.dir.path().join("downloads");
    browser.call("Browser.setDownloadBehavior", &json!({"behavior": "allow", "downloadPath": downloads}));
    browser.click("#download");
    let download = downloads.join(format!("{}.bin", &digest(&message)[..16]));
    wait_until("the download is whole", || fs::read(&download).is_ok_and(|bytes| bytes == message));
    choose(&mut browser, &pseudorandom_bytes(1_500_000, 8));
    browser.wait_for_text("stored", "too large");
    browser.click("#clear");
    assert_eq!(browser.evaluate("document.activeElement.id"), "text");
    browser.click("#store button");
    browser.wait_for_text("stored", "Type a message or choose a file first");
    drop_file(&mut browser, b"foo");
    browser.click("#store button");
    browser.wait_for_text("stored-digest", FOO);
    assert_no_page_errors(browser, &origin);
}

const ORIGINAL_TEXT: &str = "this is the truth";
const ALTERED_TEXT: &str = "this is not truth";

/// Passes on what comes to a server, and what goes back but for the truth and its digest.
fn spawn_altering_proxy(server: &Server) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, server) = (listener.local_addr().unwrap(), server.address);
    let pass_on = move |mut client: TcpStream| -> std::io::Result<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).replace("Connection: keep-alive", "Connection: close");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let (mut body, mut reply) = (vec![0; length.unwrap_or(0)], Vec::new());
        client.read_exact(&mut body)?;
        let mut there = TcpStream::connect(server)?;
        there.write_all(&[head.as_bytes(), &body].concat())?;
        there.read_to_end(&mut reply)?;
        for (truth, lie) in [
            (ORIGINAL_TEXT.to_owned(), ALTERED_TEXT.to_owned()),
            (digest(ORIGINAL_TEXT.as_bytes()), digest(ALTERED_TEXT.as_bytes())),
        ] {
            if let Some(at) = reply.windows(truth.len()).rposition(|words| words == truth.as_bytes()) {
                reply[at..at + truth.len()].copy_from_slice(lie.as_bytes());
            }
        }
        client.write_all(&reply)
    };
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || pass_on(client));
        }
    });
    address
}

#[test]
fn the_page_rejects_bytes_that_do_not_hash_to_their_digest() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::http(&[]);
    let other = "this is as it was";
    server.put(ORIGINAL_TEXT);
    server.put(other);
    let origin = format!("http://{}/", spawn_altering_proxy(&server));
    set_screen_width(&mut browser, 320);
    browser.navigate(&format!("{origin}#{}", digest(other.as_bytes())));
    browser.wait_for_text("shown", other);
    browser.evaluate(&format!("location.hash = '{}'", digest(ORIGINAL_TEXT.as_bytes())));
    let said = browser.wait_for_text("fetched", "Rejected");
    assert_no_horizontal_overflow(&mut browser, 320);
    let lie = digest(ALTERED_TEXT.as_bytes());
    assert_eq!(said, format!("Rejected: the received bytes do not hash to the digest, but to {lie}."));
    assert_eq!(browser.evaluate("document.getElementById('message').hidden"), true);
    assert_eq!(browser.evaluate("document.getElementById('shown').textContent"), "");
    assert_eq!(browser.evaluate("document.getElementById('download').href"), "");
    assert_no_page_errors(browser, &origin);
}

#[test]
fn the_page_does_not_report_an_unconfirmed_message_as_stored() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::http(&[]);
    let origin = format!("http://{}/", spawn_altering_proxy(&server));
    browser.navigate(&origin);
    for (message, says) in [
        (ALTERED_TEXT, "Stored, "),
        (ORIGINAL_TEXT, "The server did not confirm the digest: the message may not be stored."),
    ] {
        browser.evaluate(&format!("document.getElementById('text').value = '{message}'"));
        browser.click("#store button");
        browser.wait_for_text("stored", says);
        let is_shown = browser.evaluate("document.getElementById('stored-result').checkVisibility()");
        assert_eq!(is_shown, message == ALTERED_TEXT);
    }
    assert_no_page_errors(browser, &origin);
}

#[test]
fn the_page_shows_server_errors_and_keeps_a_token_until_closed() {
    let Some(mut browser) = Browser::start() else { return };
    let sandbox = Sandbox::new();
    let tokens = sandbox.write_file("tokens", format!("me read,write {}\n", digest(b"secret")).as_bytes());
    let server = Server::start(sandbox, &["--http", "--token-file", tokens.to_str().unwrap()]);
    let put = server.client().call(&post_request("foo", "Authorization: Bearer secret\r\nConnection: close\r\n"));
    assert_eq!(put.status, 200);
    let origin = page_url(&server, "http");
    browser.navigate(&format!("{origin}#{FOO}"));
    browser.wait_for_text("fetched", "A valid token is needed");
    browser.evaluate("document.getElementById('token').focus()");
    browser.type_text("secret");
    assert_eq!(browser.evaluate("document.getElementById('token').type"), "password");
    browser.click("#fetch button");
    browser.wait_for_text("shown", "foo");
    browser.evaluate(&format!("location.hash = '{}'", "a".repeat(64)));
    browser.wait_for_text("fetched", "Message not found");
    browser.evaluate("location.hash = 'abc'");
    browser.wait_for_text("fetched", "expected 64 hex digits");
    browser.navigate(&format!("{origin}#{FOO}"));
    browser.wait_for_text("fetched", "A valid token is needed");
    assert_eq!(browser.evaluate("document.cookie + localStorage.length + sessionStorage.length"), "00");
    drop(server);
    browser.click("#fetch button");
    browser.wait_for_text("fetched", "The server cannot be reached");
    assert_no_page_errors(browser, &origin);
}

#[test]
fn over_remote_plain_http_the_page_warns_that_it_cannot_verify() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::http(&[]);
    let origin = format!("http://elsewhere.test:{}/", server.address.port());
    browser.navigate(&format!("{origin}#{FOO}"));
    assert!(browser.text("insecure").contains("open the page over HTTPS"));
    assert_eq!(browser.evaluate("document.getElementById('insecure').checkVisibility()"), true);
    let usable = "[...document.querySelectorAll(':is(button, input, textarea):enabled')]
        .filter(one => one.checkVisibility()).map(one => one.outerHTML)";
    assert_eq!(browser.evaluate(usable), json!([]));
    assert_no_page_errors(browser, &origin);
}

#[test]
fn the_page_has_enough_contrast_in_both_themes_and_fits_a_narrow_screen() {
    let Some(mut browser) = Browser::start() else { return };
    let server = Server::http(&[]);
    let origin = page_url(&server, "http");
    let message = "w".repeat(500);
    server.put(&message);
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", &features);
        for width in [320, 1280] {
            set_screen_width(&mut browser, width);
            browser.navigate(&format!("{origin}#{}", digest(message.as_bytes())));
            browser.wait_for_text("shown", &message);
            browser.evaluate("document.getElementById('text').value = 'foo'");
            browser.click("#store button");
            browser.wait_for_text("stored", "tored");
            assert_eq!(run_contrast_script(&mut browser, FAINT_TEXT_JS), json!([]), "{scheme}");
            assert_no_horizontal_overflow(&mut browser, width);
            browser.evaluate("location.hash = 'no-digest'");
            browser.wait_for_text("fetched", "Not a digest");
            assert_eq!(run_contrast_script(&mut browser, FAINT_TEXT_JS), json!([]), "{scheme}");
            assert_no_horizontal_overflow(&mut browser, width);
        }
        // That of the page, and that of what the browser draws itself, such as scroll bars.
        let ground = "document.body.style.color = 'Canvas', ['backgroundColor', 'color']
            .map(name => getComputedStyle(document.body)[name])";
        grounds.push(browser.evaluate(ground));
    }
    assert!((0..2).all(|of| grounds[0][of] != grounds[1][of]), "{grounds:?}");
    let nameless = "[...document.querySelectorAll('input, textarea')].filter(one => !one.labels.length).length";
    assert_eq!(browser.evaluate(nameless), 0);
    // Screen readers announce changes of these elements.
    let roles = "['insecure', 'stored', 'fetched'].map(id => document.getElementById(id).role)";
    assert_eq!(browser.evaluate(roles), json!(["alert", "status", "status"]));
    assert_no_page_errors(browser, &origin);
}
