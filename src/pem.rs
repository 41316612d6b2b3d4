//! Certificates and keys from PEM files, for whoever connects with TLS; an error names the file.

use std::fmt::Display;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::message_store::Error;

/// The certificates of a file, at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    match CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(none) if none.is_empty() => Err(unusable(file, &"there is no certificate in it")),
        read => read.map_err(|why| unusable(file, &why)),
    }
}

/// The first private key of a file.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(file).map_err(|why| unusable(file, &why))
}

/// That a file is of no use, and why.
pub fn unusable(file: &Path, why: &dyn Display) -> Error {
    Error::Unusable(format!("cannot use {}: {why}", file.display()))
}
