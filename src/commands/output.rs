//! How results and errors are printed: for people and pipes as text, by `--json` as one object a line.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use crate::digest::Digest;

/// Results, on stdout.
pub struct Output {
    out: BufWriter<Stdout>,
    json: bool,
}

/// A message as JSON can say it: as text if it is UTF-8, else as base64 (RFC 4648).
#[derive(Serialize)]
pub struct JsonMessage<'a> {
    digest: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl<'a> JsonMessage<'a> {
    /// Chooses the form.
    pub fn new(digest: Digest, message: &'a [u8]) -> Self {
        let text = std::str::from_utf8(message).ok();
        Self { digest, message: text, base64: text.is_none().then(|| BASE64_STANDARD.encode(message)) }
    }
}

#[derive(Serialize)]
struct JsonError<'a> {
    err_msg: &'a str,
}

impl Output {
    /// Buffered; [`Output::flush`] before anything is waited for.
    pub fn new(json: bool) -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, io::stdout()), json }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person reads along.
    pub fn is_terminal() -> bool {
        io::stdout().is_terminal()
    }

    /// A result: `text` and a newline, or `object` as JSON.
    pub fn line(&mut self, text: &[u8], object: &impl Serialize) -> io::Result<()> {
        if self.json {
            return self.object(object);
        }
        self.out.write_all(text)?;
        self.out.write_all(b"\n")
    }

    /// One object a line.
    pub fn object(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    /// Bytes as they are.
    pub fn raw(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Hands on all that was printed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One line on stderr: what failed and why.
pub fn say_error(error: &anyhow::Error, json: bool) {
    say(&format!("{error:#}"), json);
}

/// One line on stderr.
pub fn say(text: &str, json: bool) {
    let line = match json {
        true => serde_json::to_string(&JsonError { err_msg: text }).expect("text can be JSON"),
        false => format!("sha-api: {text}"),
    };
    // If nobody listens on stderr, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}
