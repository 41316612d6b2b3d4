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

use super::{Context, ExitStatus, UsageError};
use crate::cli;
use crate::client::Url;
use crate::pem::{certificates, unusable};

/// For each step of the exchange.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// More of a reply than that is not looked at.
const MAX_READYZ_RESPONSE: u64 = 64 << 10;

/// Asks `/readyz`. An error if the server is not ready, or not there.
pub fn run(context: &mut Context, health: &cli::Health) -> anyhow::Result<ExitStatus> {
    let url = match &health.url {
        Some(url) => parse_url(url)?,
        None => probe_url(&health.listen, !health.http)?,
    };
    let reply =
        request_readyz(&url, context.global.connection.cacert.as_deref()).map_err(|error| match error.is::<UsageError>() {
            true => error,
            // As text: a connection that broke is not the closed pipe that ends a command quietly.
            false => anyhow!("{}:{}: {error:#}", url.bracketed_host(), url.port),
        })?;
    let status = reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("no HTTP");
    if status != "200" {
        bail!("{}:{} is not ready: {status}", url.bracketed_host(), url.port);
    }
    context.output.print_line(b"ready", &serde_json::json!({ "status": "ready" }))?;
    Ok(ExitStatus::Success)
}

fn parse_url(url: &str) -> Result<Url, UsageError> {
    let wrong = |_| UsageError(format!("`{url}` is no URL of a server; one is https://HOST:PORT or http://HOST:PORT"));
    url.parse().map_err(wrong)
}

/// The first address that `serve` listens on, seen from this machine.
fn probe_url(listen: &[String], https: bool) -> Result<Url, UsageError> {
    let first = listen.first().map_or("", String::as_str);
    let mut place = parse_url(&format!("{}://{first}", if https { "https" } else { "http" }))?;
    match place.host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".clone_into(&mut place.host),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".clone_into(&mut place.host),
        _ => {}
    }
    Ok(place)
}

fn request_readyz(url: &Url, cacert: Option<&Path>) -> anyhow::Result<String> {
    let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port).to_socket_addrs()?.collect();
    let mut last = anyhow!("no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, IO_TIMEOUT) {
            Ok(stream) => return request_over_stream(stream, address, url, cacert),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn request_over_stream(
    stream: TcpStream,
    address: SocketAddr,
    url: &Url,
    cacert: Option<&Path>,
) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(IO_TIMEOUT))?;
    stream.set_write_timeout(Some(IO_TIMEOUT))?;
    if !url.https {
        return send_request(stream, url);
    }
    let config = match cacert {
        Some(file) => config_with_ca(file)?,
        None if address.ip().to_canonical().is_loopback() => insecure_config()?,
        None => return Err(UsageError("--cacert FILE is needed for a server on another machine".to_owned()).into()),
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(url.host.clone())?)?;
    send_request(StreamOwned::new(connection, stream), url)
}

fn send_request(mut stream: impl Read + Write, url: &Url) -> anyhow::Result<String> {
    let host = url.bracketed_host();
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut reply = Vec::new();
    stream.take(MAX_READYZ_RESPONSE).read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

fn config_with_ca(file: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in certificates(file)? {
        roots.add(root).map_err(|why| unusable(file, &why))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

fn insecure_config() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(InsecureVerifier(provider))).with_no_client_auth())
}

/// Takes every certificate, but only from who has its key.
#[derive(Debug)]
struct InsecureVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for InsecureVerifier {
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
    fn unspecified_listen_addresses_are_probed_on_loopback() {
        for (listen, https, here) in [
            ("0.0.0.0:8443", true, "https://127.0.0.1:8443"),
            ("[::]:80", false, "http://[::1]"),
            ("a.example:8080", false, "http://a.example:8080"),
        ] {
            assert_eq!(probe_url(&[listen.to_owned()], https).unwrap().to_string(), here);
        }
        assert!(probe_url(&[], true).is_err());
    }
}
