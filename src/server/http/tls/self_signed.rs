//! Self-signed certificate and key, generated at the first start. The pair appears atomically, and only its owner can
//! read the key.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};

use crate::fs;
use crate::server::error::Error;

/// Returns the paths of the certificate and the key in `dir`. Generates both if neither exists.
pub(super) fn ensure_pair(dir: &Path) -> Result<(PathBuf, PathBuf), Error> {
    let pair = (dir.join("cert.pem"), dir.join("key.pem"));
    if !pair.0.exists() && !pair.1.exists() {
        create_pair(dir).map_err(|error| {
            Error::Io(format!("cannot create a self-signed certificate in {}", dir.display()), error)
        })?;
    }
    Ok(pair)
}

fn create_pair(dir: &Path) -> io::Result<()> {
    let parent = fs::parent_dir(dir);
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let temp_dir =
        tempfile::Builder::new().prefix(".tls-").permissions(PermissionsExt::from_mode(0o700)).tempdir_in(parent)?;
    let (cert, key) = generate().map_err(io::Error::other)?;
    write_file(&temp_dir.path().join("cert.pem"), 0o644, &cert)?;
    write_file(&temp_dir.path().join("key.pem"), 0o600, &key)?;
    fs::sync_dir(temp_dir.path())?;
    match std::fs::rename(temp_dir.path(), dir) {
        Ok(()) => {
            // The directory was renamed, so there is nothing to remove.
            let _ = temp_dir.keep();
            fs::sync_dir(parent)
        }
        // Another server of the same store has created the pair meanwhile.
        Err(_) if dir.join("cert.pem").exists() => Ok(()),
        Err(error) => Err(error),
    }
}

fn generate() -> Result<(String, String), rcgen::Error> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if !names.contains(&host) && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)) {
        names.push(host);
    }
    names.retain(|name| !name.is_empty());
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "sha-api");
    // With an explicit `CA:FALSE`, clients accept the certificate as its own trust anchor (`curl --cacert cert.pem`).
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn write_file(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have removed bits of `mode`.
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
