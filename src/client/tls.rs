//! TLS configuration of the client: trusted CAs and client certificate. Unusable files are reported before the client
//! connects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::message_store::Error;
use crate::pem::{certificates, private_key, unusable};

/// Certificate and key files, all in PEM format.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// CA certificates for servers; `None` for those of the system.
    pub cacert: Option<PathBuf>,
    /// Certificate chain of the client.
    pub cert: Option<PathBuf>,
    /// Private key of the client; `None` if `cert` contains it.
    pub key: Option<PathBuf>,
}

/// Creates the TLS configuration. Reads the files.
pub(super) fn config(options: &TlsOptions) -> Result<TlsConfig, Error> {
    let roots = match &options.cacert {
        Some(file) => load_ca_certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let client_cert = options
        .cert
        .as_deref()
        .map(|cert| load_client_certificate(cert, options.key.as_deref().unwrap_or(cert)))
        .transpose()?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client_cert)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}

/// Creates a configuration without CAs, for servers that are contacted without TLS.
pub(super) fn disabled() -> TlsConfig {
    TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[])).build()
}

/// Reads the certificates in a file. Fails if one of them cannot be a CA certificate.
fn load_ca_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let roots = certificates(file)?;
    let mut validated = RootCertStore::empty();
    for root in &roots {
        validated.add(root.clone()).map_err(|error| unusable(file, &error))?;
    }
    Ok(roots)
}

/// Reads a certificate chain and its private key. Checks that they match, because ureq panics if they do not.
fn load_client_certificate(cert: &Path, key: &Path) -> Result<ClientCert, Error> {
    let chain = certificates(cert)?;
    let key_der = private_key(key)?;
    CertifiedKey::from_der(chain.clone(), key_der, &ring::default_provider())
        .map_err(|error| unusable(cert, &error))?;
    let chain: Vec<_> = chain.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
    let pem = std::fs::read(key).map_err(|error| unusable(key, &error))?;
    let private_key = PrivateKey::from_pem(&pem).map_err(|error| unusable(key, &error))?;
    Ok(ClientCert::new_with_certs(&chain, private_key))
}
