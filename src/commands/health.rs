//! `health`: asks a server whether it is ready. A certificate is not looked at only where the way to it cannot lead
//! out of this machine.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

use super::{Context, Outcome, Usage};
use crate::cli;

/// For each step of the exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// More of a reply than that is not looked at.
const LONGEST: u64 = 64 << 10;

/// Where the server is.
struct Place {
    https: bool,
    host: String,
    port: u16,
}

/// Asks `/readyz`. An error if the server is not ready, or not there.
pub fn run(context: &mut Context, health: &cli::Health) -> anyhow::Result<Outcome> {
    let place = match &health.url {
        Some(url) => parse(url)?,
        None => listened_on(&health.listen, !health.http)?,
    };
    let reply = ask(&place, context.global.cacert.as_deref()).map_err(|error| match error.is::<Usage>() {
        true => error,
        // As text: a connection that broke is not the closed pipe that ends a command quietly.
        false => anyhow!("{}:{}: {error:#}", place.host, place.port),
    })?;
    let status = reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("no HTTP");
    if status != "200" {
        bail!("{}:{} is not ready: {status}", place.host, place.port);
    }
    context.output.line(b"ready", &serde_json::json!({ "status": "ready" }))?;
    Ok(Outcome::Done)
}

fn parse(url: &str) -> anyhow::Result<Place> {
    let wrong = || Usage(format!("`{url}` is no URL of a server; one is https://HOST:PORT or http://HOST:PORT"));
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let https = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(wrong().into()),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err(wrong().into());
    }
    let usual = if https { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (authority, usual),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong().into());
    }
    Ok(Place { https, host: host.to_owned(), port })
}

/// The first address that `serve` listens on, seen from this machine.
fn listened_on(listen: &[String], https: bool) -> anyhow::Result<Place> {
    let first = listen.first().map_or("", String::as_str);
    let mut place = parse(&format!("{}://{first}", if https { "https" } else { "http" }))?;
    match place.host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".clone_into(&mut place.host),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".clone_into(&mut place.host),
        _ => {}
    }
    Ok(place)
}

fn ask(place: &Place, cacert: Option<&Path>) -> anyhow::Result<String> {
    let addresses: Vec<SocketAddr> = (place.host.as_str(), place.port).to_socket_addrs()?.collect();
    let mut last = anyhow!("no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return ask_at(stream, address, place, cacert),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn ask_at(stream: TcpStream, address: SocketAddr, place: &Place, cacert: Option<&Path>) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if !place.https {
        return exchange(stream, &place.host);
    }
    let config = match cacert {
        Some(file) => trusting(file)?,
        None if address.ip().to_canonical().is_loopback() => trusting_anyone()?,
        None => return Err(Usage("--cacert FILE is needed for a server on another machine".to_owned()).into()),
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(place.host.clone())?)?;
    exchange(StreamOwned::new(connection, stream), &place.host)
}

fn exchange(mut stream: impl Read + Write, host: &str) -> anyhow::Result<String> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut reply = Vec::new();
    stream.take(LONGEST).read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn trusting(file: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(file).with_context(|| file.display().to_string())? {
        roots.add(root.with_context(|| file.display().to_string())?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

fn trusting_anyone() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth())
}

/// Takes every certificate, but only from who has its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_and_a_listener_lead_to_a_place() {
        let place = |place: Place| (place.https, place.host, place.port);
        assert_eq!(place(parse("https://a").unwrap()), (true, "a".to_owned(), 443));
        assert_eq!(place(parse("http://[::1]:8080/").unwrap()), (false, "::1".to_owned(), 8080));
        assert_eq!(place(parse("http://[::1]").unwrap()), (false, "::1".to_owned(), 80));
        for bad in ["a:1", "ftp://a", "https://", "https://a/b", "https://u@a", "https://a:b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let first = listened_on(&["0.0.0.0:8443".to_owned()], true).unwrap();
        assert_eq!(place(first), (true, "127.0.0.1".to_owned(), 8443));
    }
}
