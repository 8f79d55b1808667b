//! HTTPS by rustls.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Our certificate and key.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Reads PEM files; `None` where both names are empty.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn load(certificate: &str, key: &str) -> anyhow::Result<Option<Self>> {
        if certificate.is_empty() {
            return Ok(None);
        }
        let read = |path: &str| fs::read(path).with_context(|| path.to_owned());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
        let chain = chain.with_context(|| format!("{certificate} is no PEM certificate"))?;
        let key =
            PrivateKeyDer::from_pem_slice(&read(key)?).with_context(|| format!("{key} is no PEM key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("certificate and key do not fit")?;
        Ok(Some(Self(TlsAcceptor::from(Arc::new(config)))))
    }

    /// Shakes hands; `None` for a peer that does not, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        tokio::time::timeout(PATIENCE, self.0.accept(stream)).await.ok()?.ok()
    }
}
