//! A CA that lives as long as the run, and the certificate of `localhost` that it signs, both ECDSA on P-256.

use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tempfile::NamedTempFile;
use tokio_rustls::TlsAcceptor;

/// About as many as Amazon Linux 2023 trusts: to read them is a good part of a start.
const ROOTS: usize = 140;

pub(crate) struct Certificate {
    /// The certificates that a function trusts: that of the CA, and as many others as a system has.
    pub(crate) roots: NamedTempFile,
    pub(crate) acceptor: TlsAcceptor,
}

impl Certificate {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?;
        let mut other = params.clone();
        let mut roots = NamedTempFile::new()?;
        roots.write_all(authority.pem().as_bytes())?;
        for number in 1..ROOTS {
            other.distinguished_name.push(DnType::CommonName, format!("Certification authority {number:03}"));
            roots.write_all(other.self_signed(&key)?.pem().as_bytes())?;
        }
        let issuer = Issuer::new(params, key);

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".into()])?;
        // Of the name of who signed it, it would be one that signed itself to OpenSSL.
        params.distinguished_name.push(DnType::CommonName, "localhost");
        let certificate = params.signed_by(&key, &issuer)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())?;
        Ok(Self { roots, acceptor: Arc::new(config).into() })
    }
}
