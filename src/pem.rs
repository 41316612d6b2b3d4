//! Certificates and private keys in PEM files, for TLS clients. Every error names the file.

use std::fmt::Display;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::message_store::Error;

/// Reads the certificates in a file. A file without a certificate is an error.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    match CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(chain) if chain.is_empty() => Err(unusable(file, &"no certificate found")),
        outcome => outcome.map_err(|error| unusable(file, &error)),
    }
}

/// Reads the first private key in a file.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| unusable(file, &error))
}

/// Creates the error for a file that cannot be used.
pub fn unusable(file: &Path, cause: &dyn Display) -> Error {
    Error::Unusable(format!("cannot use {}: {cause}", file.display()))
}
