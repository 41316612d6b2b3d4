//! Binds what the server listens on, and says where that is. Nothing is said before all of it is bound.

use std::io::Write;
use std::path::Path;

use super::http::Listener;
use super::{Error, Options, Scopes, Tls, systemd, warn};

/// Binds all, then says so.
pub(super) fn bind_all(options: &Options, out: &mut dyn Write) -> Result<Vec<Listener>, Error> {
    let failed = |address: &str| {
        let what = format!("listening on {address}");
        move |error| Error::Io(what, error)
    };
    let mut listeners = Vec::new();
    let mut lines = String::new();
    let inherited = systemd::listen_fds().map_err(failed("the sockets of systemd"))?;
    let bind = |address: &String| Listener::bind(address).map_err(failed(address));
    let bound: Vec<_> = match inherited.is_empty() {
        true => options.listen.iter().map(bind).collect::<Result<_, _>>()?,
        false => inherited
            .into_iter()
            .map(Listener::from_tcp)
            .collect::<Result<_, _>>()
            .map_err(failed("a socket of systemd"))?,
    };
    for listener in bound {
        let bound = listener.address().map_err(failed("a socket"))?;
        let scheme = if matches!(options.tls, Tls::Off) { "http" } else { "https" };
        lines.extend(["listening on ", scheme, "://", &bound.to_string(), "\n"]);
        if !bound.ip().to_canonical().is_loopback() && options.token_file.is_none() && options.client_ca.is_none() {
            let scopes = options.enabled_scopes.intersection(Scopes::ANONYMOUS).to_string().replace(',', " and ");
            warn(format_args!("anyone who can connect to {bound} may {scopes}: there are no tokens"));
        }
        listeners.push(listener);
    }
    // Nobody may be reading; that is no reason not to serve.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
    Ok(listeners)
}

/// Makes the socket of the local door. Without it the server serves all the same, which is noted.
pub(super) fn bind_local_socket(path: &Path) -> Option<Listener> {
    let failed = |error| warn(format_args!("no commands beside this server: {}: {error}", path.display()));
    Listener::bind_unix(path).map_err(failed).ok()
}

/// Binds where the metrics are shown, and says so.
pub(super) fn bind_metrics(options: &Options) -> Result<Option<Listener>, Error> {
    let Some(address) = &options.metrics_listen else { return Ok(None) };
    let failed = |error| Error::Io(format!("listening on {address}"), error);
    let listener = Listener::bind(address).map_err(failed)?;
    warn(format_args!("metrics on http://{}/metrics", listener.address().map_err(failed)?));
    Ok(Some(listener))
}
