//! A headless Chromium, controlled over two pipes with the `DevTools` protocol. The browser resolves no host outside
//! this machine.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::server::{TEST_TIMEOUT, wait_until};
use super::{command_without_proxy, has_tool};

/// A browser with one open page. The process is killed on drop.
pub struct Browser {
    child: Child,
    requests: ChildStdin,
    messages: mpsc::Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    events: Vec<Value>,
    /// Directory of the profile, the temporary files and the downloads.
    pub dir: TempDir,
}

impl Browser {
    /// Starts the browser on an empty page. Returns `None` if Chromium is not installed.
    pub fn start() -> Option<Self> {
        if !has_tool("chromium") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut command = command_without_proxy("sh");
        // Chromium reads requests from descriptor 3 and writes responses to descriptor 4.
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 < /dev/null > /dev/null 2>&1", "sh"]);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--remote-debugging-pipe", "--lang=en"]);
        // No DNS queries are sent. `elsewhere.test` is a second origin on this machine.
        command.arg("--host-resolver-rules=MAP elsewhere.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
        // All files of the browser are in the temporary directory.
        command.env("HOME", dir.path()).env("TMPDIR", dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, messages) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let frames = stdout.split(0).map_while(Result::ok);
            frames.map_while(|bytes| serde_json::from_slice(&bytes).ok()).try_for_each(|message| sender.send(message))
        });
        let requests = child.stdin.take().unwrap();
        let mut browser = Self { child, requests, messages, session: None, last_id: 0, events: Vec::new(), dir };
        browser.open_page();
        Some(browser)
    }

    fn open_page(&mut self) {
        let page = self.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attached = self.call("Target.attachToTarget", &json!({"targetId": page["targetId"], "flatten": true}));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        // Other tests check certificates.
        self.call("Security.setIgnoreCertificateErrors", &json!({"ignore": true}));
    }

    /// Calls a method of the protocol and waits for its result. Events that arrive meanwhile are collected.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.last_id += 1;
        let mut request = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = &self.session {
            request["sessionId"] = json!(session);
        }
        self.requests.write_all(format!("{request}\0").as_bytes()).unwrap();
        let start = Instant::now();
        loop {
            let remaining = TEST_TIMEOUT.saturating_sub(start.elapsed());
            let mut message = self.messages.recv_timeout(remaining).unwrap_or_else(|error| panic!("{method}: {error}"));
            match message["id"].as_u64() {
                Some(id) if id == self.last_id => {
                    assert!(message["error"].is_null(), "{method}: {message}");
                    return message["result"].take();
                }
                Some(_) => {}
                None => self.events.push(message),
            }
        }
    }

    /// Loads `url`, also if it is already open, and waits until the page is complete.
    pub fn navigate(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": "about:blank"}));
        let navigated = self.call("Page.navigate", &json!({"url": url}));
        assert!(navigated["errorText"].is_null(), "{url}: {navigated}");
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// Returns the value of a JavaScript expression in the page. A promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut result = self.call("Runtime.evaluate", &params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Returns the visible text of the element `id`.
    pub fn text(&mut self, id: &str) -> String {
        self.evaluate(&format!("document.getElementById('{id}').innerText")).as_str().unwrap().to_owned()
    }

    /// Waits until a JavaScript expression is true in the page.
    pub fn wait_for(&mut self, expression: &str) {
        wait_until(expression, || self.evaluate(expression) == true);
    }

    /// Waits until the text of the element `id` contains `part`, and returns the text.
    pub fn wait_for_text(&mut self, id: &str, part: &str) -> String {
        let start = Instant::now();
        loop {
            let text = self.text(id);
            if text.contains(part) {
                return text;
            }
            assert!(start.elapsed() < TEST_TIMEOUT, "the text of {id} is {text:?} and does not contain {part:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Clicks the first element that matches `selector`.
    pub fn click(&mut self, selector: &str) {
        self.evaluate(&format!("document.querySelector('{selector}').click()"));
    }

    /// Presses and releases a key, named as in `KeyboardEvent.key`.
    pub fn press_key(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            _ => (0, key),
        };
        let params = json!({"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", &params);
        self.call("Input.dispatchKeyEvent", &json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}));
    }

    /// Types `text`, one key press per character.
    pub fn type_text(&mut self, text: &str) {
        text.chars().for_each(|letter| self.press_key(&letter.to_string()));
    }

    /// Returns exceptions, console output, warnings and violations of the content security policy. HTTP error statuses
    /// are excluded.
    pub fn page_errors(&mut self) -> Vec<&Value> {
        self.evaluate("0");
        let is_error = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Runtime.consoleAPICalled") => true,
            Some("Log.entryAdded") => {
                let entry = &event["params"]["entry"];
                entry["level"] != "verbose" && entry["source"] != "network"
            }
            _ => false,
        };
        self.events.iter().filter(is_error).collect()
    }

    /// Returns the URL of each request that the page has sent.
    pub fn requested_urls(&self) -> Vec<&str> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.map(|event| event["params"]["request"]["url"].as_str().unwrap()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
