//! How results and errors are printed: for people and pipes as text, by `--json` as one object a line.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

/// Results, on stdout.
pub struct Output {
    out: BufWriter<File>,
    json: bool,
    is_terminal: bool,
}

#[derive(Serialize)]
struct JsonError<'a> {
    err_msg: &'a str,
}

impl Output {
    /// Buffered; [`Output::flush`] before anything is waited for.
    ///
    /// From here on stdout is for results alone: what a library prints there (sled does when its files are damaged)
    /// goes to stderr.
    pub fn new(json: bool) -> io::Result<Self> {
        let is_terminal = io::stdout().is_terminal();
        let out = File::from(rustix::io::dup(io::stdout())?);
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, out), json, is_terminal })
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person reads along.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// A result: `text` and a newline, or `object` as JSON.
    pub fn print_line(&mut self, text: &[u8], object: &impl Serialize) -> io::Result<()> {
        if self.json {
            return self.print_json(object);
        }
        self.out.write_all(text)?;
        self.out.write_all(b"\n")
    }

    /// One object a line.
    pub fn print_json(&mut self, object: &impl Serialize) -> io::Result<()> {
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
pub fn print_error(error: &anyhow::Error, json: bool) {
    print_notice(&format!("{error:#}"), json);
}

/// One line on stderr.
pub fn print_notice(text: &str, json: bool) {
    let line = match json {
        true => serde_json::to_string(&JsonError { err_msg: text }).expect("text can be JSON"),
        false => format!("sha-api: {text}"),
    };
    // If nobody listens on stderr, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}
