//! Creates a certification authority for one run, and its certificate for `localhost`. Both keys
//! are ECDSA on P-256.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

/// The approximate number of roots that Amazon Linux 2023 trusts. Reading them is a large part of a
/// start.
pub const SYSTEM_ROOTS: usize = 140;

/// A certificate for `localhost`, and the roots that a client must trust to accept it.
pub struct Certificate {
    roots: NamedTempFile,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("roots", &self.roots.path()).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Creates a certificate, and a file with `roots` roots. One of them has signed the
    /// certificate.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(roots: usize) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let mut other = params.clone();
        let mut file = NamedTempFile::new()?;
        file.write_all(authority.pem().as_bytes())?;
        for number in 1..roots {
            other.distinguished_name.push(DnType::CommonName, format!("Certification authority {number:03}"));
            file.write_all(other.self_signed(&key)?.pem().as_bytes())?;
        }
        let issuer = Issuer::new(params, key);

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".into()])?;
        // If the certificate had its issuer's name, OpenSSL would take it for a self-signed one.
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let certificate = params.signed_by(&key, &issuer)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
        Ok(Self { roots: file, acceptor: Arc::new(config).into() })
    }

    /// Returns the file of roots, in PEM.
    pub fn roots(&self) -> &Path {
        self.roots.path()
    }

    /// Returns the server's side of TLS.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }
}
