//! The same messages from every side: in a directory, in one that a server holds, and behind a URL; in a database, and
//! behind the URL of a server that has them there.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use sha_api::postgres_url::redacted;

use super::server::Server;
use super::{Sandbox, digest};

/// How commands get at a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    Directory,
    Served,
    Url,
    Database,
    DatabaseUrl,
}

/// Of a store in a directory.
pub const DIRECTORY_MODES: [AccessMode; 3] = [AccessMode::Directory, AccessMode::Served, AccessMode::Url];
/// Of a store in a database.
pub const DATABASE_MODES: [AccessMode; 2] = [AccessMode::Database, AccessMode::DatabaseUrl];

impl AccessMode {
    /// Whether commands are told a URL of a server.
    pub fn is_remote(self) -> bool {
        [Self::Url, Self::DatabaseUrl].contains(&self)
    }

    /// Whether the messages are in a database.
    pub fn is_database(self) -> bool {
        DATABASE_MODES.contains(&self)
    }
}

/// A store, and commands on it from one side.
pub struct StoreAccess {
    mode: AccessMode,
    sandbox: Option<Sandbox>,
    server: Option<Server>,
}

/// Permits everything on every server that is started here.
pub const FULL_ACCESS_TOKEN: &str = "a-token-for-everything";

impl StoreAccess {
    /// `flags` are those of the server, if there is one.
    pub fn new(side: AccessMode, sandbox: Sandbox, flags: &[&str]) -> Self {
        if [AccessMode::Directory, AccessMode::Database].contains(&side) {
            return Self { mode: side, sandbox: Some(sandbox), server: None };
        }
        let tokens = token_file(&sandbox);
        let line = format!("all read,write,list,rm {}\n", digest(FULL_ACCESS_TOKEN.as_bytes()));
        std::fs::write(&tokens, line).unwrap();
        let server = Server::start(sandbox, &[&["--token-file", &tokens], flags].concat());
        Self { mode: side, sandbox: None, server: Some(server) }
    }

    pub const fn mode(&self) -> AccessMode {
        self.mode
    }

    /// Its server; a directory has none.
    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn sandbox(&self) -> &Sandbox {
        self.server.as_ref().map_or_else(|| self.sandbox.as_ref().unwrap(), |server| &server.sandbox)
    }

    /// The binary, told by variables where the messages are.
    pub fn sha_api<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.sandbox().sha_api(args);
        command.current_dir(self.sandbox().dir());
        if let (true, Some(server)) = (self.mode.is_remote(), &self.server) {
            command.env_remove("SHA_API_STORE").env("SHA_API_SERVER", https_url(server));
            command.env("SHA_API_CACERT", certificate_path(self.sandbox())).env("SHA_API_TOKEN", FULL_ACCESS_TOKEN);
        }
        command
    }

    /// What `copy` calls it.
    pub fn location(&self) -> String {
        match (self.mode.is_remote(), &self.server) {
            (true, Some(server)) => https_url(server),
            _ => self.sandbox().location().into_string().unwrap(),
        }
    }

    /// The certificate of its server, if it has one.
    pub fn certificate(&self) -> String {
        std::fs::read_to_string(certificate_path(self.sandbox())).unwrap_or_default()
    }

    /// What a command said and how it ended, with the names of places taken out.
    pub fn run_normalized(&self, args: &[&str], stdin: &[u8]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.sha_api(args).write_stdin(stdin).output().unwrap();
        let plain = |bytes: &[u8]| {
            let text = bytes.iter().map(|byte| byte.escape_ascii().to_string()).collect::<String>();
            let text = text.replace(&self.sandbox().store().display().to_string(), "STORE");
            let text = text.replace(&redacted(self.sandbox().location().to_str().unwrap()), "STORE");
            match &self.server {
                Some(server) => text.replace(&https_url(server), "STORE"),
                None => text,
            }
        };
        (status.code(), plain(&stdout), plain(&stderr))
    }
}

/// A command that knows nothing but the URLs.
pub fn client_command(urls: &[String], args: &[&str]) -> Command {
    let urls = urls.iter().flat_map(|url| ["--server", url]);
    let mut command = Sandbox::new().sha_api(urls.chain(args.iter().copied()));
    command.env_remove("SHA_API_STORE");
    command
}

/// Makes a token, and the file if it is not there.
pub fn create_token(sandbox: &Sandbox, scopes: &str) -> String {
    let name = scopes.replace(',', "-");
    let made =
        sandbox.sha_api(["token", &name, "--scope", scopes, "--token-file", &token_file(sandbox)]).assert().code(0);
    String::from_utf8(made.get_output().stdout.clone()).unwrap().trim().to_owned()
}

/// The file of tokens.
pub fn token_file(sandbox: &Sandbox) -> String {
    sandbox.dir().join("tokens").display().to_string()
}

/// Where a server is that speaks TLS.
pub fn https_url(server: &Server) -> String {
    format!("https://{}", server.address)
}

/// Its own certificate.
pub fn certificate_path(sandbox: &Sandbox) -> PathBuf {
    sandbox.store().join("tls/cert.pem")
}
