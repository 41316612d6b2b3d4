//! TLS configuration of the server. The certificate can be reloaded while the server runs. An invalid certificate never
//! replaces a valid one.

mod self_signed;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore, ServerConfig};

use crate::digest::Digest;
use crate::server::change_detector::ChangeDetector;
use crate::server::error::Error;
use crate::server::options::Tls;
use crate::server::{info, warn};

/// Time after the end of every certificate, in seconds since 1970. The last year that a certificate can name is 9999.
const MAX_NOT_AFTER: u64 = 1 << 40;
const SECONDS_PER_DAY: u64 = 24 * 3600;
/// Time before the expiry from which on a warning is logged, in seconds.
const EXPIRY_WARNING: u64 = 14 * SECONDS_PER_DAY;

/// The certificate in use and the files that it was loaded from.
#[derive(Debug)]
pub(in crate::server) struct ReloadableCertificate {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    change_detector: ChangeDetector<2>,
}

impl ReloadableCertificate {
    /// Loads the certificate that `tls` names. A self-signed certificate is created if there is none.
    ///
    /// `None`: the server has no TLS.
    pub(in crate::server) fn load(tls: &Tls) -> Result<Option<Arc<Self>>, Error> {
        let (cert, key) = match tls {
            Tls::Off => return Ok(None),
            Tls::Files { cert, key } => (cert.clone(), key.clone().unwrap_or_else(|| cert.clone())),
            Tls::SelfSigned(dir) => self_signed::ensure_pair(dir)?,
        };
        let provider = Arc::new(ring::default_provider());
        let change_detector = ChangeDetector::new([&cert, &key]);
        let current = load_pair(&cert, &key, &provider)?;
        if matches!(tls, Tls::SelfSigned(_)) {
            info(format_args!("certificate fingerprint SHA-256 {}", certificate_fingerprint(&current)));
        }
        let current = ArcSwap::from_pointee(current);
        Ok(Some(Arc::new(Self { cert, key, provider, current, change_detector })))
    }

    /// Returns the configuration: TLS 1.2 and 1.3, HTTP/1.1, session tickets.
    ///
    /// With `client_ca`, clients need a certificate of an authority in that file. The file is read only once, because
    /// resumed sessions are not verified again, so a change would not affect them.
    pub(in crate::server) fn config(self: &Arc<Self>, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
        let to_error = |error: rustls::Error| Error::Certificate { file: self.cert.clone(), cause: error.to_string() };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(to_error)?
            .with_client_cert_verifier(self.client_verifier(client_ca)?)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // All cipher suites are strong. The server's order prefers the strongest.
        config.ignore_client_order = true;
        config.ticketer = ring::Ticketer::new().map_err(to_error)?;
        // One ticket is enough, because a client may use it for several connections.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    fn client_verifier(&self, authorities: Option<&Path>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let Some(file) = authorities else { return Ok(WebPkiClientVerifier::no_client_auth()) };
        let to_error = |cause: String| Error::Certificate { file: file.to_owned(), cause };
        let mut roots = RootCertStore::empty();
        for root in load_chain(file)? {
            roots.add(root).map_err(|error| to_error(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        verifier.build().map_err(|error| to_error(error.to_string()))
    }

    /// Returns the expiry time of the certificate in seconds since 1970, or `None` if it cannot be determined.
    ///
    /// rustls has no accessor for it. The error of a verification at [`MAX_NOT_AFTER`] contains it.
    pub(in crate::server) fn not_after(&self) -> Option<u64> {
        let current = self.current.load();
        let cert = ParsedCertificate::try_from(current.end_entity_cert().ok()?).ok()?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(MAX_NOT_AFTER));
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&cert, &RootCertStore::empty(), &[], time, algorithms) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Some(not_after.as_secs())
            }
            _ => None,
        }
    }

    /// Logs a warning if the certificate expires soon or has expired.
    pub(in crate::server) fn warn_if_expiring(&self) {
        let now = UnixTime::now().as_secs();
        if let Some(not_after) = self.not_after().filter(|not_after| *not_after < now + EXPIRY_WARNING) {
            let event = match not_after.checked_sub(now) {
                Some(remaining) => format!("expires in {} days", remaining / SECONDS_PER_DAY),
                None => "has expired".to_owned(),
            };
            warn(format_args!("certificate {event}: {}; renew it", self.cert.display()));
        }
    }

    /// Reloads the certificate and the key. On error, logs the cause and keeps the current pair.
    pub(in crate::server) fn reload(&self) {
        // Records the state of the files, so that `reload_if_changed` does not load them a second time.
        self.change_detector.has_changed([&self.cert, &self.key]);
        self.replace_current();
    }

    /// Reloads the certificate and the key if one of the files changed since the last check.
    pub(in crate::server) fn reload_if_changed(&self) {
        if self.change_detector.has_changed([&self.cert, &self.key]) {
            self.replace_current();
        }
    }

    fn replace_current(&self) {
        match load_pair(&self.cert, &self.key, &self.provider) {
            Ok(new) => {
                info(format_args!("certificate reloaded: fingerprint SHA-256 {}", certificate_fingerprint(&new)));
                self.current.store(Arc::new(new));
            }
            Err(error) => {
                warn(format_args!("cannot reload the certificate: {error}; the previous certificate stays in use"));
            }
        }
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn load_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let to_error = |cause: String| Error::Certificate { file: key.to_owned(), cause };
    let chain = load_chain(cert)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| to_error(error.to_string()))?;
    CertifiedKey::from_der(chain, key_der, provider).map_err(|error| to_error(error.to_string()))
}

/// Returns the certificates in a file. A file without a certificate is an error.
fn load_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let to_error = |cause: String| Error::Certificate { file: file.to_owned(), cause };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| to_error(error.to_string()))?;
    if chain.is_empty() { Err(to_error("no certificate found".into())) } else { Ok(chain) }
}

/// Returns the SHA-256 fingerprint in the format of browsers and `openssl x509 -fingerprint -sha256`.
fn certificate_fingerprint(key: &CertifiedKey) -> String {
    let mut text = String::new();
    for (index, byte) in Digest::compute(&key.cert[0]).as_bytes().iter().enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        write!(text, "{colon}{byte:02X}").expect("writing to a String does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn self_signed_certificate(dir: &Path) -> Arc<ReloadableCertificate> {
        ReloadableCertificate::load(&Tls::SelfSigned(dir.to_owned())).unwrap().unwrap()
    }

    fn current_fingerprint(certificate: &ReloadableCertificate) -> String {
        certificate_fingerprint(&certificate.current.load())
    }

    #[test]
    fn a_self_signed_certificate_is_generated_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = current_fingerprint(&self_signed_certificate(&dir.path().join("tls")));
        assert_eq!(current_fingerprint(&self_signed_certificate(&dir.path().join("tls"))), first);
    }

    #[test]
    fn a_valid_pair_is_reloaded_and_an_invalid_one_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let (current_dir, new_dir) = (dir.path().join("current"), dir.path().join("new"));
        let (current, new) = (self_signed_certificate(&current_dir), self_signed_certificate(&new_dir));
        let before = current_fingerprint(&current);
        fs::copy(new_dir.join("cert.pem"), current_dir.join("cert.pem")).unwrap();
        current.reload();
        assert_eq!(current_fingerprint(&current), before, "the key does not match the certificate");
        fs::copy(new_dir.join("key.pem"), current_dir.join("key.pem")).unwrap();
        current.reload();
        assert_eq!(current_fingerprint(&current), current_fingerprint(&new));
        fs::remove_file(current_dir.join("cert.pem")).unwrap();
        current.reload_if_changed();
        assert_eq!(current_fingerprint(&current), current_fingerprint(&new));
    }

    #[test]
    fn the_key_may_be_in_the_certificate_file() {
        let dir = tempfile::tempdir().unwrap();
        let generated = self_signed_certificate(&dir.path().join("tls"));
        let combined = dir.path().join("both.pem");
        fs::write(&combined, [fs::read(&generated.key).unwrap(), fs::read(&generated.cert).unwrap()].concat()).unwrap();
        let loaded = ReloadableCertificate::load(&Tls::Files { cert: combined, key: None }).unwrap().unwrap();
        assert_eq!(current_fingerprint(&loaded), current_fingerprint(&generated));
    }
}
