//! HTTPS by rustls.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshaken connections that wait to be served.
const WAITING: usize = 64;

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

    /// Shakes hands with all who connect, each in a task of its own, so that a slow one keeps nobody waiting.
    pub fn listener(self, plain: TcpListener) -> Listener {
        let address = plain.local_addr();
        let (ready, accepted) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = plain.accept().await {
                let (acceptor, ready) = (self.0.clone(), ready.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                        let _ = ready.send((stream, peer)).await;
                    }
                });
            }
        });
        Listener { accepted, address: address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))) }
    }
}

/// Gives connections whose handshake is done.
pub struct Listener {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The accepting task has ended with its socket; nobody will come.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}
