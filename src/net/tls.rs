//! TLS on both sides: what belay shows to clients, and how far it believes the nodes.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::auth::caching_sha2::{PasswordKey, RsaError};
use crate::config::{ListenTlsConfig, ListenTlsMode, NodeTlsConfig, NodeTlsMode};
use crate::protocol::mysql::login::TlsWish;
use crate::topology::address::NodeAddress;

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: no usable {what}: {why}")]
    Content {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// Why it is not usable.
        why: String,
    },
    /// One of two keys that need each other is missing.
    #[error("{present} is set and {missing} is not: they are needed together")]
    Half {
        /// The key that is set.
        present: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// verify-ca and verify-full need authorities.
    #[error("node_tls.mode verifies certificates: node_tls.ca_file must name the authorities")]
    NoAuthorities,
    /// A certificate, or its key, is not usable.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The RSA key could not be made or read.
    #[error("RSA key for passwords: {0}")]
    Rsa(#[from] RsaError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn content(path: &Path, what: &'static str, why: impl std::fmt::Display) -> TlsSetupError {
    TlsSetupError::Content { path: path.to_owned(), what, why: why.to_string() }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsSetupError> {
    fs::read(path).map(Zeroizing::new).map_err(|source| TlsSetupError::File { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(content(path, "certificate", "the file holds none")),
        Ok(found) => Ok(found),
        Err(e) => Err(content(path, "certificate", e)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|e| content(path, "private key", e))
}

/// TLS towards the nodes. Cheap to clone.
#[derive(Clone)]
pub struct NodeTls {
    mode: NodeTlsMode,
    config: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeTls").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl NodeTls {
    /// Reads the files that the configuration names.
    pub fn new(config: &NodeTlsConfig) -> Result<NodeTls, TlsSetupError> {
        let mode = config.mode;
        if mode == NodeTlsMode::Off {
            return Ok(NodeTls { mode, config: None });
        }
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier(config)?);
        let client = match (&config.certificate_file, &config.key_file) {
            (Some(chain), Some(key)) => builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => {
                return Err(TlsSetupError::Half { present: "node_tls.certificate_file", missing: "node_tls.key_file" });
            }
            (None, Some(_)) => {
                return Err(TlsSetupError::Half { present: "node_tls.key_file", missing: "node_tls.certificate_file" });
            }
        };
        Ok(NodeTls { mode, config: Some(Arc::new(client)) })
    }

    /// Whether a login asks for TLS. As with MySQL's own clients, `preferred` means none on a unix socket (`local`).
    pub fn wish(&self, local: bool) -> TlsWish {
        match self.mode {
            NodeTlsMode::Off => TlsWish::Never,
            NodeTlsMode::Preferred if local => TlsWish::Never,
            NodeTlsMode::Preferred => TlsWish::IfOffered,
            NodeTlsMode::Required | NodeTlsMode::VerifyCa | NodeTlsMode::VerifyFull => TlsWish::Always,
        }
    }

    /// The settings of the handshake; `None` when TLS is off.
    pub fn config(&self) -> Option<Arc<ClientConfig>> {
        self.config.clone()
    }

    /// The name a node's certificate must carry under verify-full; `localhost` on a unix socket.
    pub fn server_name(&self, address: &NodeAddress) -> io::Result<ServerName<'static>> {
        let host = match address {
            NodeAddress::Tcp { host, .. } => host.clone(),
            NodeAddress::Unix(_) => "localhost".to_owned(),
        };
        let name = ServerName::try_from(host);
        match (name, self.mode) {
            (Ok(name), _) => Ok(name),
            (Err(e), NodeTlsMode::VerifyFull) => Err(io::Error::new(io::ErrorKind::InvalidData, e)),
            // Names with underscores are no DNS names to rustls; where the name is not checked that must not matter.
            (Err(_), _) => Ok(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())),
        }
    }
}

fn verifier(config: &NodeTlsConfig) -> Result<Arc<dyn ServerCertVerifier>, TlsSetupError> {
    let check_name = match config.mode {
        NodeTlsMode::VerifyCa => false,
        NodeTlsMode::VerifyFull => true,
        NodeTlsMode::Off | NodeTlsMode::Preferred | NodeTlsMode::Required => {
            return Ok(Arc::new(Unverified(provider())));
        }
    };
    let path = config.ca_file.as_deref().ok_or(TlsSetupError::NoAuthorities)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| content(path, "authority", e))?;
    Ok(if check_name { chain } else { Arc::new(ChainOnly(chain)) })
}

/// preferred and required: whoever answers is believed, as with MySQL's own clients. It keeps out those who only listen.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Signatures by a key that nobody vouches for prove nothing, and old self-made certificates would fail the parser.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// verify-ca: the chain must lead to an authority, the name does not matter.
#[derive(Debug)]
struct ChainOnly(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: this error says that the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What belay shows to clients.
#[derive(Clone)]
pub struct ClientTls {
    /// Upgrades a client's connection; `None` when TLS is off.
    pub acceptor: Option<TlsAcceptor>,
    /// Whether a login without TLS (other than over a unix socket) is refused.
    pub required: bool,
    /// The key for passwords sent without TLS.
    pub password_key: Arc<PasswordKey>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls")
            .field("offered", &self.acceptor.is_some())
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads the files that the configuration names, or makes what is missing. Slow (an RSA key may be made): for the start only.
    pub fn new(config: &ListenTlsConfig) -> Result<ClientTls, TlsSetupError> {
        let acceptor = match config.mode {
            ListenTlsMode::Off => None,
            ListenTlsMode::Preferred | ListenTlsMode::Required => {
                let (chain, key) = certificate(config)?;
                let server = ServerConfig::builder_with_provider(provider())
                    .with_safe_default_protocol_versions()?
                    .with_no_client_auth()
                    .with_single_cert(chain, key)?;
                Some(TlsAcceptor::from(Arc::new(server)))
            }
        };
        let required = config.mode == ListenTlsMode::Required;
        Ok(ClientTls { acceptor, required, password_key: Arc::new(password_key(config)?) })
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificate(config: &ListenTlsConfig) -> Result<Identity, TlsSetupError> {
    match (&config.certificate_file, &config.key_file) {
        (Some(chain), Some(key)) => return Ok((certificates(chain)?, private_key(key)?)),
        (Some(_), None) => {
            return Err(TlsSetupError::Half { present: "listen.tls.certificate_file", missing: "listen.tls.key_file" });
        }
        (None, Some(_)) => {
            return Err(TlsSetupError::Half { present: "listen.tls.key_file", missing: "listen.tls.certificate_file" });
        }
        (None, None) => {}
    }
    let kept = config.state_dir.as_ref().map(|dir| (dir.join("belay-certificate.pem"), dir.join("belay-key.pem")));
    if let Some((chain, key)) = &kept
        && chain.exists()
        && key.exists()
    {
        return Ok((certificates(chain)?, private_key(key)?));
    }
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "belay".to_owned()])?;
    let key_pem = Zeroizing::new(made.signing_key.serialize_pem());
    if let Some((chain, key)) = &kept {
        keep(key, key_pem.as_bytes())?;
        keep(chain, made.cert.pem().as_bytes())?;
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|e| rustls::Error::General(format!("the made key cannot be read: {e}")))?;
    Ok((vec![made.cert.der().clone()], key))
}

fn password_key(config: &ListenTlsConfig) -> Result<PasswordKey, TlsSetupError> {
    if let Some(path) = &config.rsa_key_file {
        return PasswordKey::from_pem(&read(path)?).map_err(|e| content(path, "RSA private key", e));
    }
    let kept = config.state_dir.as_ref().map(|dir| dir.join("belay-rsa-key.pem"));
    if let Some(path) = &kept
        && path.exists()
    {
        return PasswordKey::from_pem(&read(path)?).map_err(|e| content(path, "RSA private key", e));
    }
    let (key, pem) = PasswordKey::generate()?;
    if let Some(path) = &kept {
        keep(path, pem.as_bytes())?;
    }
    Ok(key)
}

/// Writes a file that only its owner can read, whole or not at all.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), TlsSetupError> {
    let failed = |source| TlsSetupError::File { path: path.to_owned(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed)?;
    }
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&unfinished);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&unfinished, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn made_keys_are_kept_private_and_found_again() {
        let dir = std::env::temp_dir().join(format!("belay-tls-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let config = ListenTlsConfig { state_dir: Some(dir.clone()), ..ListenTlsConfig::default() };
        let first = ClientTls::new(&config).unwrap();
        assert!(first.acceptor.is_some() && !first.required);
        for entry in fs::read_dir(&dir).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let before = fs::read(dir.join("belay-certificate.pem")).unwrap();
        let second = ClientTls::new(&config).unwrap();
        assert_eq!(fs::read(dir.join("belay-certificate.pem")).unwrap(), before);
        assert_eq!(first.password_key.public_pem(), second.password_key.public_pem());

        let mut node = NodeTlsConfig { mode: NodeTlsMode::VerifyCa, ..NodeTlsConfig::default() };
        assert!(matches!(NodeTls::new(&node), Err(TlsSetupError::NoAuthorities)));
        node.ca_file = Some(dir.join("belay-certificate.pem"));
        assert_eq!(NodeTls::new(&node).unwrap().wish(true), TlsWish::Always);
        node.ca_file = Some(dir.join("belay-rsa-key.pem"));
        assert!(matches!(NodeTls::new(&node), Err(TlsSetupError::Content { .. })));
        node.ca_file = None;
        node.mode = NodeTlsMode::Required;
        node.certificate_file = Some(dir.join("belay-certificate.pem"));
        assert!(matches!(NodeTls::new(&node), Err(TlsSetupError::Half { missing: "node_tls.key_file", .. })));
        node.key_file = Some(dir.join("belay-key.pem"));
        assert!(NodeTls::new(&node).is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn preferred_means_no_tls_on_a_unix_socket() {
        let tls = NodeTls::new(&NodeTlsConfig::default()).unwrap();
        assert_eq!((tls.wish(true), tls.wish(false)), (TlsWish::Never, TlsWish::IfOffered));
        let odd = NodeAddress::Tcp { host: "db_1".into(), port: 3306 };
        assert!(tls.server_name(&odd).is_ok());
    }
}
