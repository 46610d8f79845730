//! TLS of enrolment: an enroller that also hears peers without a certificate, and peers that know
//! an enroller by its CA.
//!
//! An enroller has a certificate of its own kind: its one URI name is
//! `spiffe://TRUST-DOMAIN/enroller`, which is the name of no party, so that it passes for none, and
//! none passes for it.

use super::{
    crypto::provider,
    digest::{DIGEST_BYTES, is_same, sha256},
    error::CredentialsError,
    facts::{CertificateFacts, FactsError},
    files::{self, CredentialFiles},
    identity::check_trust_domain,
    pem::{self, Kind},
    sections::{certificates, damaged, private_key},
    verifiers::UNFIT_MARK,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::{fmt, path::Path, sync::Arc};

/// What an enroller's certificate says in place of a party.
pub(crate) fn enroller_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/enroller")
}

/// The fingerprints (SHA-256 of the DER) of the certificates of a PEM text, in order.
pub(crate) fn fingerprints(text: &[u8]) -> Result<Vec<[u8; DIGEST_BYTES]>, FactsError> {
    let found = pem::bodies(text, Kind::Certificate)?;
    Ok(found.iter().map(|der| sha256(der)).collect())
}

/// What an enroller shows, and whose certificates it takes for a renewal.
pub(crate) struct EnrollerTls(Arc<ServerConfig>);

impl EnrollerTls {
    /// Shows the leaf and the CAs behind it; believes certificates of these CAs, and hears peers
    /// that show none.
    pub(crate) fn new(
        leaf_pem: &str,
        key_pem: &str,
        ca_pem: &str,
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let cas = certificates(ca_pem.as_bytes(), "ca.pem")?;
        let mut chain = certificates(leaf_pem.as_bytes(), "the enroller's certificate")?;
        chain.extend(cas.iter().cloned());
        let key = private_key(key_pem.as_bytes(), "the enroller's key")?;
        let config = enroller_config(chain, key, roots(cas)?, alpn);
        config
            .map(|config| Self(Arc::new(config)))
            .map_err(|source| CredentialsError::Tls { source })
    }

    /// TLS for the side that accepts.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }
}

fn enroller_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
    alpn: &[u8],
) -> Result<ServerConfig, Error> {
    let provider = Arc::new(provider());
    let parties = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .clear_root_hint_subjects()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(parties)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// What the other side shows an enroller, and by what it knows one.
pub(crate) struct ToEnroller(Arc<ClientConfig>);

impl ToEnroller {
    /// Shows nothing, and knows the enroller by its CA's fingerprint.
    pub(crate) fn newcomer(
        ca_fingerprint: [u8; DIGEST_BYTES],
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let known = EnrollersOnly::new(Known::Fingerprint(ca_fingerprint), None);
        Self::with(known, None, alpn)
    }

    /// Shows the certificate in these files, and knows the enroller by the CAs in them and by its
    /// trust domain.
    pub(crate) fn party(
        at: &CredentialFiles,
        trust_domain: &str,
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let name = |path: &Path| path.display().to_string();
        let read = |path: &Path| certificates(&files::read(path)?, &name(path));
        let (cas, chain) = (read(&at.ca)?, read(&at.cert)?);
        let key = private_key(&files::read_key(&at.key)?, &name(&at.key))?;
        let known = EnrollersOnly::new(Known::Roots(roots(cas)?), Some(trust_domain.into()));
        Self::with(known, Some((chain, key)), alpn)
    }

    fn with(
        known: EnrollersOnly,
        own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let config = || -> Result<ClientConfig, Error> {
            let builder = ClientConfig::builder_with_provider(known.provider.clone())
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(known));
            let mut config = match own {
                Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![alpn.to_vec()];
            config.resumption = Resumption::disabled();
            config.enable_early_data = false;
            Ok(config)
        };
        config()
            .map(|config| Self(Arc::new(config)))
            .map_err(|source| CredentialsError::Tls { source })
    }

    /// TLS for the side that dials.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.0.clone()
    }
}

fn roots(cas: Vec<CertificateDer<'static>>) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for ca in cas {
        store.add(ca).map_err(|error| damaged("ca.pem", error.to_string()))?;
    }
    Ok(store)
}

/// By what an enroller is known.
#[derive(Debug)]
enum Known {
    /// Its CA has this fingerprint.
    Fingerprint([u8; DIGEST_BYTES]),
    /// Its CA is one of these.
    Roots(RootCertStore),
}

/// Believes enrollers of a known CA and nobody else. The host that was dialled does not matter: an
/// enroller signs its own certificate and does not know under which names it is reached, and its CA
/// signs one enroller's name only.
#[derive(Debug)]
struct EnrollersOnly {
    known: Known,
    trust_domain: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl EnrollersOnly {
    fn new(known: Known, trust_domain: Option<String>) -> Self {
        Self { known, trust_domain, provider: Arc::new(provider()) }
    }

    fn roots(&self, shown: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let wanted = match &self.known {
            Known::Roots(roots) => return Ok(roots.clone()),
            Known::Fingerprint(wanted) => wanted,
        };
        let ca = shown.iter().find(|ca| is_same(&sha256(ca), wanted));
        let ca = ca.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut store = RootCertStore::empty();
        store.add(ca.clone().into_owned())?;
        Ok(store)
    }

    fn expect_enroller(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let facts = CertificateFacts::from_der(leaf).map_err(no_enroller)?;
        let domain = match facts.uri_sans.as_slice() {
            [only] => {
                only.strip_prefix("spiffe://").and_then(|rest| rest.strip_suffix("/enroller"))
            }
            _ => None,
        };
        let is_wanted = |domain: &str| match &self.trust_domain {
            Some(wanted) => domain == wanted,
            None => check_trust_domain(domain).is_ok(),
        };
        if domain.is_some_and(is_wanted) && !facts.is_ca {
            return Ok(());
        }
        Err(no_enroller(format!("its names are {:?}, and it is no enroller", facts.uri_sans)))
    }
}

impl ServerCertVerifier for EnrollersOnly {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        behind: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.roots(behind)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, behind, now, algorithms)?;
        self.expect_enroller(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A leaf of the right CA whose holder is somebody else.
#[derive(thiserror::Error)]
#[error("{UNFIT_MARK}{0}")]
struct NoEnroller(String);

fn no_enroller(why: impl ToString) -> Error {
    CertificateError::Other(OtherError(Arc::new(NoEnroller(why.to_string())))).into()
}

/// rustls shows a foreign error by its `Debug`, and that text is all that QUIC hands on.
impl fmt::Debug for NoEnroller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
