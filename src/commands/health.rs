//! `health`: asks a server whether it is ready. A certificate is not looked at only where the way to it cannot lead
//! out of this machine.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned};

use super::{Context, Outcome, Usage};
use crate::cli;
use crate::client::Url;
use crate::pem::{certificates, unusable};

/// For each step of the exchange.
const PATIENCE: Duration = Duration::from_secs(5);
/// More of a reply than that is not looked at.
const LONGEST: u64 = 64 << 10;

/// Asks `/readyz`. An error if the server is not ready, or not there.
pub fn run(context: &mut Context, health: &cli::Health) -> anyhow::Result<Outcome> {
    let url = match &health.url {
        Some(url) => parse(url)?,
        None => listened_on(&health.listen, !health.http)?,
    };
    let reply = ask(&url, context.global.cacert.as_deref()).map_err(|error| match error.is::<Usage>() {
        true => error,
        // As text: a connection that broke is not the closed pipe that ends a command quietly.
        false => anyhow!("{}:{}: {error:#}", url.bracketed_host(), url.port),
    })?;
    let status = reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("no HTTP");
    if status != "200" {
        bail!("{}:{} is not ready: {status}", url.bracketed_host(), url.port);
    }
    context.output.line(b"ready", &serde_json::json!({ "status": "ready" }))?;
    Ok(Outcome::Done)
}

fn parse(url: &str) -> Result<Url, Usage> {
    let wrong = |_| Usage(format!("`{url}` is no URL of a server; one is https://HOST:PORT or http://HOST:PORT"));
    url.parse().map_err(wrong)
}

/// The first address that `serve` listens on, seen from this machine.
fn listened_on(listen: &[String], https: bool) -> Result<Url, Usage> {
    let first = listen.first().map_or("", String::as_str);
    let mut place = parse(&format!("{}://{first}", if https { "https" } else { "http" }))?;
    match place.host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".clone_into(&mut place.host),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".clone_into(&mut place.host),
        _ => {}
    }
    Ok(place)
}

fn ask(url: &Url, cacert: Option<&Path>) -> anyhow::Result<String> {
    let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port).to_socket_addrs()?.collect();
    let mut last = anyhow!("no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return ask_at(stream, address, url, cacert),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn ask_at(stream: TcpStream, address: SocketAddr, url: &Url, cacert: Option<&Path>) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    if !url.https {
        return exchange(stream, url);
    }
    let config = match cacert {
        Some(file) => trusting(file)?,
        None if address.ip().to_canonical().is_loopback() => trusting_anyone()?,
        None => return Err(Usage("--cacert FILE is needed for a server on another machine".to_owned()).into()),
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(url.host.clone())?)?;
    exchange(StreamOwned::new(connection, stream), url)
}

fn exchange(mut stream: impl Read + Write, url: &Url) -> anyhow::Result<String> {
    let host = url.bracketed_host();
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut reply = Vec::new();
    stream.take(LONGEST).read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn trusting(file: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in certificates(file)? {
        roots.add(root).map_err(|why| unusable(file, &why))?;
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
    fn a_listener_leads_to_this_machine() {
        for (listen, https, here) in [
            ("0.0.0.0:8443", true, "https://127.0.0.1:8443"),
            ("[::]:80", false, "http://[::1]"),
            ("a.example:8080", false, "http://a.example:8080"),
        ] {
            assert_eq!(listened_on(&[listen.to_owned()], https).unwrap().to_string(), here);
        }
        assert!(listened_on(&[], true).is_err());
    }
}
