//! What TLS is spoken, and with which certificate. A certificate can change while the door is open; a bad one never
//! takes the place of a good one.

mod self_signed;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

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
use crate::server::{Error, Tls, warn};

/// Later than any certificate says: the year 9999 is the last that it can name.
const MAX_NOT_AFTER: u64 = 1 << 40;
const SECONDS_PER_DAY: u64 = 24 * 3600;
/// How long before its end a certificate is warned of.
const EXPIRY_WARNING: u64 = 14 * SECONDS_PER_DAY;

/// The certificate in use, and the files that it came from.
#[derive(Debug)]
pub(in crate::server) struct ReloadableCertificate {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    change_detector: ChangeDetector<2>,
}

impl ReloadableCertificate {
    /// The certificate that `tls` speaks of; one is made if it is to be self-signed and is not there yet.
    ///
    /// `None`: no TLS is spoken.
    pub(in crate::server) fn load(tls: &Tls) -> Result<Option<Arc<Self>>, Error> {
        let (cert, key) = match tls {
            Tls::Off => return Ok(None),
            Tls::Files { cert, key } => (cert.clone(), key.clone().unwrap_or_else(|| cert.clone())),
            Tls::SelfSigned(dir) => self_signed::ensure_pair(dir)?,
        };
        let provider = Arc::new(ring::default_provider());
        let watch = ChangeDetector::new([&cert, &key]);
        let current = load_pair(&cert, &key, &provider)?;
        if matches!(tls, Tls::SelfSigned(_)) {
            warn(format_args!("certificate fingerprint SHA-256 {}", certificate_fingerprint(&current)));
        }
        let current = RwLock::new(Arc::new(current));
        Ok(Some(Arc::new(Self { cert, key, provider, current, change_detector: watch })))
    }

    /// What connections speak with this certificate: TLS 1.2 and 1.3, HTTP/1.1, sessions resumed by ticket.
    ///
    /// With `client_ca`, only holders of a certificate from an authority in that file get through the handshake. It is
    /// read once: a session may be resumed later on the word of the authority that it began with.
    pub(in crate::server) fn config(self: &Arc<Self>, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, Error> {
        let bad = |error: rustls::Error| Error::Certificate { file: self.cert.clone(), why: error.to_string() };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_client_cert_verifier(self.client_verifier(client_ca)?)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // All that is spoken is strong; the strongest of what both know is used.
        config.ignore_client_order = true;
        config.ticketer = ring::Ticketer::new().map_err(bad)?;
        // One is enough: a client that opens many connections at once may use it more than once.
        config.send_tls13_tickets = 1;
        Ok(Arc::new(config))
    }

    fn client_verifier(&self, authorities: Option<&Path>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let Some(file) = authorities else { return Ok(WebPkiClientVerifier::no_client_auth()) };
        let bad = |why: String| Error::Certificate { file: file.to_owned(), why };
        let mut roots = RootCertStore::empty();
        for root in load_chain(file)? {
            roots.add(root).map_err(|error| bad(error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
        verifier.build().map_err(|error| bad(error.to_string()))
    }

    /// When the certificate expires, in seconds since 1970; `None` if that cannot be told.
    ///
    /// Whether it holds at the end of time is asked of the code that checks certificates, which then says until when.
    pub(in crate::server) fn not_after(&self) -> Option<u64> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let cert = ParsedCertificate::try_from(current.end_entity_cert().ok()?).ok()?;
        let end = UnixTime::since_unix_epoch(Duration::from_secs(MAX_NOT_AFTER));
        let algorithms = self.provider.signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&cert, &RootCertStore::empty(), &[], end, algorithms) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Some(not_after.as_secs())
            }
            _ => None,
        }
    }

    /// Says so if the certificate expires soon.
    pub(in crate::server) fn warn_if_expiring(&self) {
        let now = UnixTime::now().as_secs();
        if let Some(not_after) = self.not_after().filter(|not_after| *not_after < now + EXPIRY_WARNING) {
            let words = match not_after.checked_sub(now) {
                Some(left) => format!("expires in {} days", left / SECONDS_PER_DAY),
                None => "has expired".to_owned(),
            };
            warn(format_args!("the certificate {words}: {}", self.cert.display()));
        }
    }

    /// Reads the files again, if they have changed or `always`. On an error, which is noted, nothing changes.
    pub(in crate::server) fn reload(&self, always: bool) {
        if !self.change_detector.has_changed([&self.cert, &self.key]) && !always {
            return;
        }
        match load_pair(&self.cert, &self.key, &self.provider) {
            Ok(new) => {
                warn(format_args!(
                    "the certificate is read anew, fingerprint SHA-256 {}",
                    certificate_fingerprint(&new)
                ));
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            }
            Err(error) => warn(format_args!("the certificate stays as it was: {error}")),
        }
    }
}

impl ResolvesServerCert for ReloadableCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load_pair(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let bad = |why: String| Error::Certificate { file: key.to_owned(), why };
    let chain = load_chain(cert)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| bad(error.to_string()))?;
    CertifiedKey::from_der(chain, key_der, provider).map_err(|error| bad(error.to_string()))
}

/// The certificates in a file, at least one.
fn load_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |why: String| Error::Certificate { file: file.to_owned(), why };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(|error| bad(error.to_string()))?;
    if chain.is_empty() { Err(bad("there is no certificate in it".into())) } else { Ok(chain) }
}

/// As browsers and `openssl x509 -fingerprint -sha256` show it.
fn certificate_fingerprint(key: &CertifiedKey) -> String {
    let mut text = String::new();
    for (at, byte) in Digest::compute(&key.cert[0]).as_bytes().iter().enumerate() {
        let colon = if at == 0 { "" } else { ":" };
        write!(text, "{colon}{byte:02X}").expect("a string takes all that is written");
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
        certificate_fingerprint(&certificate.current.read().unwrap())
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
        let (ours, other) = (dir.path().join("ours"), dir.path().join("other"));
        let (used, new) = (self_signed_certificate(&ours), self_signed_certificate(&other));
        let before = current_fingerprint(&used);
        fs::copy(other.join("cert.pem"), ours.join("cert.pem")).unwrap();
        used.reload(true);
        assert_eq!(current_fingerprint(&used), before, "the key does not fit");
        fs::copy(other.join("key.pem"), ours.join("key.pem")).unwrap();
        used.reload(true);
        assert_eq!(current_fingerprint(&used), current_fingerprint(&new));
        fs::remove_file(ours.join("cert.pem")).unwrap();
        used.reload(false);
        assert_eq!(current_fingerprint(&used), current_fingerprint(&new));
    }

    #[test]
    fn the_key_may_be_in_the_certificate_file() {
        let dir = tempfile::tempdir().unwrap();
        let made = self_signed_certificate(&dir.path().join("tls"));
        let both = dir.path().join("both.pem");
        fs::write(&both, [fs::read(&made.key).unwrap(), fs::read(&made.cert).unwrap()].concat()).unwrap();
        let loaded = ReloadableCertificate::load(&Tls::Files { cert: both, key: None }).unwrap().unwrap();
        assert_eq!(current_fingerprint(&loaded), current_fingerprint(&made));
    }
}
