//! Binds the listening sockets and prints their addresses. No address is printed before all of them are bound.

use std::io::Write;
use std::path::Path;

use tracing::{info, warn};

use super::auth::Scopes;
use super::error::Error;
use super::http::Listener;
use super::options::{Options, Tls};
use super::systemd;

/// Binds the public addresses, or takes over the sockets of systemd, and prints one line for each to `out`.
pub(super) fn bind_all(options: &Options, out: &mut dyn Write) -> Result<Vec<Listener>, Error> {
    let io_error = |action: String| move |error| Error::Io(action, error);
    let inherited = systemd::listen_fds();
    let inherited = inherited.map_err(io_error("cannot use inherited sockets (LISTEN_FDS)".to_owned()))?;
    let listeners: Vec<_> = match inherited.is_empty() {
        true => {
            let bind = |address: &String| Listener::bind(address).map_err(io_error(cannot_listen(address)));
            options.listen.iter().map(bind).collect::<Result<_, _>>()?
        }
        false => inherited
            .into_iter()
            .map(Listener::from_tcp)
            .collect::<Result<_, _>>()
            .map_err(io_error("cannot use an inherited socket".to_owned()))?,
    };
    let scheme = if matches!(options.tls, Tls::Off) { "http" } else { "https" };
    let mut lines = String::new();
    for listener in &listeners {
        let address = listener.address();
        let address = address.map_err(io_error("cannot get the address of a listening socket".to_owned()))?;
        lines.extend(["listening on ", scheme, "://", &address.to_string(), "\n"]);
        if !address.ip().to_canonical().is_loopback() && options.token_file.is_none() && options.client_ca.is_none() {
            let scopes = options.enabled_scopes.intersection(Scopes::ANONYMOUS).to_string().replace(',', " and ");
            warn!(
                "anonymous clients of {address} may {scopes}; use --token-file or --tls-client-ca to restrict access"
            );
        }
    }
    // A closed stdout is no reason to stop.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    Ok(listeners)
}

/// Creates the Unix socket in the store directory. On error, logs the cause and returns `None`; the server works
/// without the socket.
pub(super) fn bind_local_socket(path: &Path) -> Option<Listener> {
    let path_name = path.display();
    let failed = |error| {
        warn!("cannot create local socket {path_name}: {error}; commands cannot use the store while the server runs");
    };
    Listener::bind_unix(path).map_err(failed).ok()
}

/// Binds the address of the metrics endpoint, if there is one, and prints it to stderr.
pub(super) fn bind_metrics(options: &Options) -> Result<Option<Listener>, Error> {
    let Some(address) = &options.metrics_listen else { return Ok(None) };
    let failed = |error| Error::Io(cannot_listen(address), error);
    let listener = Listener::bind(address).map_err(failed)?;
    info!("metrics on http://{}/metrics", listener.address().map_err(failed)?);
    Ok(Some(listener))
}

fn cannot_listen(address: &str) -> String {
    format!("cannot listen on {address}")
}
