//! Access to one store in every mode: a directory, a directory that a server has locked, a server URL, a database, and
//! the URL of a server on a database. Tests compare the output of commands between the modes.

use std::ffi::OsStr;
use std::process::Output;

use assert_cmd::Command;
use sha_api::postgres_url::redacted;

use super::server::Server;
use super::{Sandbox, digest};

/// Mode in which commands access a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessMode {
    Directory,
    Served,
    Url,
    Database,
    DatabaseUrl,
}

/// Access modes of a store in a directory.
pub const DIRECTORY_MODES: [AccessMode; 3] = [AccessMode::Directory, AccessMode::Served, AccessMode::Url];
/// Access modes of a store in a database.
pub const DATABASE_MODES: [AccessMode; 2] = [AccessMode::Database, AccessMode::DatabaseUrl];

impl AccessMode {
    /// Returns whether commands use the URL of a server.
    pub fn is_remote(self) -> bool {
        [Self::Url, Self::DatabaseUrl].contains(&self)
    }
}

/// A store that commands access in one mode.
pub struct StoreAccess {
    mode: AccessMode,
    sandbox: Option<Sandbox>,
    server: Option<Server>,
}

/// Token with all scopes on every server that [`StoreAccess`] starts.
pub const FULL_ACCESS_TOKEN: &str = "a-token-for-everything";

impl StoreAccess {
    /// Prepares access to the store of `sandbox`. If the mode needs a server, starts it with `flags`.
    pub fn new(mode: AccessMode, sandbox: Sandbox, flags: &[&str]) -> Self {
        if [AccessMode::Directory, AccessMode::Database].contains(&mode) {
            return Self { mode, sandbox: Some(sandbox), server: None };
        }
        let tokens = token_file(&sandbox);
        let line = format!("all read,write,list,rm {}\n", digest(FULL_ACCESS_TOKEN.as_bytes()));
        std::fs::write(&tokens, line).unwrap();
        let server = Server::start(sandbox, &[&["--token-file", &tokens], flags].concat());
        Self { mode, sandbox: None, server: Some(server) }
    }

    /// Returns the access mode.
    pub const fn mode(&self) -> AccessMode {
        self.mode
    }

    /// Returns the server. Panics if the mode needs none.
    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Returns the sandbox with the store.
    pub fn sandbox(&self) -> &Sandbox {
        self.server.as_ref().map_or_else(|| self.sandbox.as_ref().unwrap(), |server| &server.sandbox)
    }

    /// Returns a command that runs the binary. Environment variables select the store or the server.
    pub fn sha_api<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.sandbox().sha_api(args);
        command.current_dir(self.sandbox().dir());
        if let (true, Some(server)) = (self.mode.is_remote(), &self.server) {
            command.env_remove("SHA_API_STORE").env("SHA_API_SERVER", https_url(server));
            command.env("SHA_API_CACERT", server.self_signed_cert_path()).env("SHA_API_TOKEN", FULL_ACCESS_TOKEN);
        }
        command
    }

    /// Returns the store as an argument of `copy`: a path, a database URL or a server URL.
    pub fn location(&self) -> String {
        match (self.mode.is_remote(), &self.server) {
            (true, Some(server)) => https_url(server),
            _ => self.sandbox().location().into_string().unwrap(),
        }
    }

    /// Returns the certificate of the server as PEM. Empty if there is none.
    pub fn certificate(&self) -> String {
        let path = self.server.as_ref().map(Server::self_signed_cert_path);
        path.map_or_else(String::new, |path| std::fs::read_to_string(path).unwrap())
    }

    /// Runs a command and returns its exit code, stdout and stderr. Bytes are escaped, and the location of the store is
    /// replaced by `STORE`, so that the results of different modes are comparable.
    pub fn run_normalized(&self, args: &[&str], stdin: &[u8]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.sha_api(args).write_stdin(stdin).output().unwrap();
        let normalize = |bytes: &[u8]| {
            let text = bytes.iter().map(|byte| byte.escape_ascii().to_string()).collect::<String>();
            let text = text.replace(&self.sandbox().store().display().to_string(), "STORE");
            let text = text.replace(&redacted(self.sandbox().location().to_str().unwrap()), "STORE");
            match &self.server {
                Some(server) => text.replace(&https_url(server), "STORE"),
                None => text,
            }
        };
        (status.code(), normalize(&stdout), normalize(&stderr))
    }
}

/// Returns a command that uses the servers at `urls` and has no store.
pub fn client_command(urls: &[String], args: &[&str]) -> Command {
    let urls = urls.iter().flat_map(|url| ["--server", url]);
    let mut command = Sandbox::new().sha_api(urls.chain(args.iter().copied()));
    command.env_remove("SHA_API_STORE");
    command
}

/// Creates a token with `scopes` in the token file of `sandbox`, which is created if missing, and returns the token.
pub fn create_token(sandbox: &Sandbox, scopes: &str) -> String {
    let name = scopes.replace(',', "-");
    let created =
        sandbox.sha_api(["token", &name, "--scope", scopes, "--token-file", &token_file(sandbox)]).assert().code(0);
    String::from_utf8(created.get_output().stdout.clone()).unwrap().trim().to_owned()
}

/// Returns the path of the token file of `sandbox`.
pub fn token_file(sandbox: &Sandbox) -> String {
    sandbox.dir().join("tokens").display().to_string()
}

/// Returns the HTTPS URL of `server`.
pub fn https_url(server: &Server) -> String {
    format!("https://{}", server.address)
}
