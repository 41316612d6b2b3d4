//! Results on stdout and errors on stderr: as text, or with `--json` as one object per line.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

/// Buffered writer for results.
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
    /// Takes over stdout. Results are buffered: call [`Output::flush`] before an operation that may block for long.
    ///
    /// Later writes to stdout by libraries go to stderr: sled prints there if its files are damaged.
    pub fn new(json: bool) -> io::Result<Self> {
        let is_terminal = io::stdout().is_terminal();
        let out = File::from(rustix::io::dup(io::stdout())?);
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, out), json, is_terminal })
    }

    /// Returns whether results are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns whether stdout is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Prints a result: `text` and a newline, or `object` as JSON.
    pub fn print_line(&mut self, text: &[u8], object: &impl Serialize) -> io::Result<()> {
        if self.json {
            return self.print_json(object);
        }
        self.out.write_all(text)?;
        self.out.write_all(b"\n")
    }

    /// Prints an object on one line.
    pub fn print_json(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }

    /// Returns the writer for raw bytes.
    pub fn raw(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Writes the buffer to stdout.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Prints an error and its causes as one line on stderr.
pub fn print_error(error: &anyhow::Error, json: bool) {
    print_notice(&format!("{error:#}"), json);
}

/// Prints one line on stderr.
pub fn print_notice(text: &str, json: bool) {
    let line = match json {
        true => serde_json::to_string(&JsonError { err_msg: text }).expect("a string is valid JSON"),
        false => format!("sha-api: {text}"),
    };
    // An error on stderr cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{line}");
}
