//! TLS for database connections. Each `sslmode` verifies as much of the server's certificate as in libpq; `require`
//! without a CA file encrypts, but verifies nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::message_store;
use crate::pem::{certificates, private_key, unusable};

/// Parameters `sslmode`, `sslrootcert`, `sslcert` and `sslkey` of a database URL.
#[derive(Debug, Default)]
pub(super) struct SslOptions {
    pub verify: CertificateCheck,
    pub roots: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Verification of the server's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum CertificateCheck {
    /// No verification.
    #[default]
    None,
    /// The certificate must be signed by a trusted CA.
    Ca,
    /// The certificate must be signed by a trusted CA and valid for the host name.
    Full,
}

/// Creates the TLS configuration of the client.
pub(super) fn config(options: &SslOptions) -> Result<ClientConfig, message_store::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match options.verify {
        CertificateCheck::None => Arc::new(HostnameAgnosticVerifier { provider: provider.clone(), chain: None }),
        verify => {
            let roots = Arc::new(load_roots(options.roots.as_deref())?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            let verifier = verifier.map_err(|error| {
                message_store::Error::Unusable(format!(
                    "cannot verify certificates of databases: {error}; set sslrootcert to a file of CA certificates"
                ))
            })?;
            match verify {
                CertificateCheck::Full => verifier,
                _ => Arc::new(HostnameAgnosticVerifier { provider: provider.clone(), chain: Some(verifier) }),
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring supports the default versions");
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some(cert) = &options.cert else { return Ok(builder.with_no_client_auth()) };
    let key = options.key.as_ref().unwrap_or(cert);
    builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|error| unusable(cert, &error))
}

fn load_roots(file: Option<&Path>) -> Result<RootCertStore, message_store::Error> {
    let mut roots = RootCertStore::empty();
    match file.filter(|file| *file != Path::new("system")) {
        Some(file) => {
            for root in certificates(file)? {
                roots.add(root).map_err(|error| unusable(file, &error))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(roots)
}

/// Certificate verifier that ignores the host name. Without `chain`, it accepts every certificate.
#[derive(Debug)]
struct HostnameAgnosticVerifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for HostnameAgnosticVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The name is checked last, so everything else is valid.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
