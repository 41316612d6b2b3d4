//! `health`: checks whether a server is ready. Without `--cacert`, the certificate is not verified, and only loopback
//! addresses are accepted over HTTPS.

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

use super::context::Context;
use super::exit_status::{ExitStatus, UsageError};
use crate::cli;
use crate::client::Url;
use crate::pem::{certificates, unusable};

/// Timeout for connecting, and for each read and write.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of the response that are read.
const MAX_READYZ_RESPONSE: u64 = 64 << 10;

/// Requests `/readyz`. Returns an error if the server is not ready or cannot be reached.
pub fn run(context: &mut Context, health: &cli::Health) -> anyhow::Result<ExitStatus> {
    let url = match &health.url {
        Some(url) => parse_url(url)?,
        None => probe_url(&health.listen, !health.http)?,
    };
    let response = request_readyz(&url, context.global.connection.cacert.as_deref()).map_err(|error| match error
        .is::<UsageError>(
    ) {
        true => error,
        // Converted to text, because an I/O error of kind `BrokenPipe` would count as a closed stdout.
        false => anyhow!("{}:{}: {error:#}", url.bracketed_host(), url.port),
    })?;
    let status =
        response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("response is not HTTP/1.1");
    if status != "200" {
        bail!("{}:{} is not ready: {status}", url.bracketed_host(), url.port);
    }
    context.output.print_line(b"ready", &serde_json::json!({ "status": "ready" }))?;
    Ok(ExitStatus::Success)
}

fn parse_url(url: &str) -> Result<Url, UsageError> {
    url.parse()
        .map_err(|_| UsageError(format!("invalid server URL `{url}`; use https://HOST:PORT or http://HOST:PORT")))
}

/// Returns the URL of the first listen address. An unspecified address is replaced by loopback.
fn probe_url(listen: &[String], https: bool) -> Result<Url, UsageError> {
    let first = listen.first().map_or("", String::as_str);
    let mut url = parse_url(&format!("{}://{first}", if https { "https" } else { "http" }))?;
    match url.host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => "127.0.0.1".clone_into(&mut url.host),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => "::1".clone_into(&mut url.host),
        _ => {}
    }
    Ok(url)
}

fn request_readyz(url: &Url, cacert: Option<&Path>) -> anyhow::Result<String> {
    let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port).to_socket_addrs()?.collect();
    let mut last_error = anyhow!("the host name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, IO_TIMEOUT) {
            Ok(stream) => return request_over_stream(stream, address, url, cacert),
            Err(error) => last_error = error.into(),
        }
    }
    Err(last_error)
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
        None => {
            let reason = "cannot verify the certificate of a server on another machine; use --cacert FILE";
            return Err(UsageError(reason.to_owned()).into());
        }
    };
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(url.host.clone())?)?;
    send_request(StreamOwned::new(connection, stream), url)
}

fn send_request(mut stream: impl Read + Write, url: &Url) -> anyhow::Result<String> {
    let host = url.bracketed_host();
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut response = Vec::new();
    stream.take(MAX_READYZ_RESPONSE).read_to_end(&mut response)?;
    Ok(String::from_utf8_lossy(&response).into_owned())
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

/// Verifier that accepts every certificate. It still verifies that the server has the private key.
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
        for (listen, https, url) in [
            ("0.0.0.0:8443", true, "https://127.0.0.1:8443"),
            ("[::]:80", false, "http://[::1]"),
            ("a.example:8080", false, "http://a.example:8080"),
        ] {
            assert_eq!(probe_url(&[listen.to_owned()], https).unwrap().to_string(), url);
        }
        assert!(probe_url(&[], true).is_err());
    }
}
