//! TLS of SIP (RFC 3261 section 26.3): who we are, and whom we believe.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::SipTls;

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whom the system believes.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Both ends of TLS.
#[derive(Clone)]
pub struct Tls {
    acceptor: Option<TlsAcceptor>,
    connector: TlsConnector,
}

impl Tls {
    /// Reads the files that `[sip.tls]` names.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn load(config: &SipTls) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let identity = identity(config)?;
        let roots = Arc::new(roots(config)?);
        let acceptor = match identity.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key())) {
            Some(identity) => Some(acceptor(config, provider.clone(), roots.clone(), identity)?),
            None => None,
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let client = match identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).context("[sip.tls] certificate")?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { acceptor, connector: TlsConnector::from(Arc::new(client)) })
    }

    /// Shakes hands with who connected; `None` for one that does not, takes too long, or whose certificate is not good.
    pub async fn accept(&self, stream: TcpStream) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
        let acceptor = self.acceptor.as_ref()?;
        tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await.ok()?.ok()
    }

    /// Shakes hands with whom we connected to, who must prove to be `name`: a host or an address.
    ///
    /// # Errors
    /// Why not.
    pub async fn connect(
        &self,
        stream: TcpStream,
        name: &str,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
        match tokio::time::timeout(PATIENCE, self.connector.connect(name, stream)).await {
            Ok(outcome) => outcome.map_err(|error| error.to_string()),
            Err(_) => Err("the TLS handshake took too long".to_owned()),
        }
    }
}

fn acceptor(
    config: &SipTls,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    (chain, key): Identity,
) -> anyhow::Result<TlsAcceptor> {
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let builder = if config.verify_clients {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        builder.with_client_cert_verifier(verifier.context("[sip.tls] verify_clients needs ca")?)
    } else {
        builder.with_no_client_auth()
    };
    let server = builder.with_single_cert(chain, key).context("[sip.tls] certificate and key do not fit")?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| path.to_owned())
}

fn identity(config: &SipTls) -> anyhow::Result<Option<Identity>> {
    if config.certificate.is_empty() {
        return Ok(None);
    }
    let (certificate, key) = (&config.certificate, &config.key);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.with_context(|| format!("{certificate} is no PEM certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).with_context(|| format!("{key} is no PEM key"))?;
    Ok(Some((chain, key)))
}

/// The configured authorities, else the system's; without either nobody is believed.
fn roots(config: &SipTls) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let path = if config.ca.is_empty() { SYSTEM_ROOTS } else { config.ca.as_str() };
    if config.ca.is_empty() && !Path::new(path).exists() {
        return Ok(roots);
    }
    let read = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&read).filter_map(Result::ok).collect();
    let (good, _) = roots.add_parsable_certificates(found);
    anyhow::ensure!(good > 0, "{path} holds no certificate of an authority");
    Ok(roots)
}
