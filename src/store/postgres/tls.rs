//! TLS to a database, as `sslmode` says: what libpq means by it. Who is not verified may still not be overheard.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::message_store;
use crate::pem::{certificates, private_key, unusable};

/// What `sslmode`, `sslrootcert`, `sslcert` and `sslkey` say.
#[derive(Debug, Default)]
pub(super) struct SslOptions {
    pub verify: CertificateCheck,
    pub roots: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// How far the server's certificate is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum CertificateCheck {
    /// Not at all.
    #[default]
    None,
    /// An authority must vouch for it.
    Ca,
    /// And it must be for the host that was asked for.
    Full,
}

/// The client's side of TLS.
pub(super) fn config(options: &SslOptions) -> Result<ClientConfig, message_store::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match options.verify {
        CertificateCheck::None => Arc::new(HostnameAgnosticVerifier { provider: provider.clone(), chain: None }),
        verify => {
            let roots = Arc::new(load_roots(options.roots.as_deref())?);
            let strict = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            let strict =
                strict.map_err(|why| message_store::Error::Unusable(format!("cannot verify databases: {why}")))?;
            match verify {
                CertificateCheck::Full => strict,
                _ => Arc::new(HostnameAgnosticVerifier { provider: provider.clone(), chain: Some(strict) }),
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("ring knows the usual versions");
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some(cert) = &options.cert else { return Ok(builder.with_no_client_auth()) };
    let key = options.key.as_ref().unwrap_or(cert);
    builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(|why| unusable(cert, &why))
}

fn load_roots(file: Option<&Path>) -> Result<RootCertStore, message_store::Error> {
    let mut store = RootCertStore::empty();
    match file.filter(|file| *file != Path::new("system")) {
        Some(file) => {
            for root in certificates(file)? {
                store.add(root).map_err(|why| unusable(file, &why))?;
            }
        }
        None => drop(store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    Ok(store)
}

/// Does not ask for whom a certificate is, and without `chain` not who vouches for it either.
#[derive(Debug)]
struct HostnameAgnosticVerifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for HostnameAgnosticVerifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end, between, name, ocsp, now) {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
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
