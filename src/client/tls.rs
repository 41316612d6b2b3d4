//! Whom a client trusts, and as whom it shows itself. What cannot be used is said before any connection is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::message_store::Error;
use crate::pem::{certificates, private_key, unusable};

/// The files that say so, all PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// The authorities that vouch for servers; `None`: those of the system.
    pub cacert: Option<PathBuf>,
    /// Our certificate chain.
    pub cert: Option<PathBuf>,
    /// Its key; `None`: it stands in the same file.
    pub key: Option<PathBuf>,
}

/// TLS as `trust` says.
pub(super) fn config(trust: &TlsOptions) -> Result<TlsConfig, Error> {
    let roots = match &trust.cacert {
        Some(file) => load_ca_certificates(file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let ours = trust
        .cert
        .as_deref()
        .map(|cert| load_client_certificate(cert, trust.key.as_deref().unwrap_or(cert)))
        .transpose()?;
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(ours)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}

/// No TLS.
pub(super) fn disabled() -> TlsConfig {
    TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[])).build()
}

/// The certificates of a file, at least one, all of a form that can vouch for others.
fn load_ca_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let roots = certificates(file)?;
    let mut store = RootCertStore::empty();
    for root in &roots {
        store.add(root.clone()).map_err(|why| unusable(file, &why))?;
    }
    Ok(roots)
}

/// A certificate and its key, proved to belong together: ureq panics if they do not.
fn load_client_certificate(cert: &Path, key: &Path) -> Result<ClientCert, Error> {
    let chain = certificates(cert)?;
    let private = private_key(key)?;
    CertifiedKey::from_der(chain.clone(), private, &ring::default_provider()).map_err(|why| unusable(cert, &why))?;
    let chain: Vec<_> = chain.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
    let pem = std::fs::read(key).map_err(|why| unusable(key, &why))?;
    let private = PrivateKey::from_pem(&pem).map_err(|why| unusable(key, &why))?;
    Ok(ClientCert::new_with_certs(&chain, private))
}
