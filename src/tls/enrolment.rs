//! TLS of enrolment: an enroller accepts peers without a certificate, and peers recognise it by its
//! CA.
//!
//! Its certificate's one URI name, `spiffe://TRUST-DOMAIN/enroller`, cannot be the name of a peer,
//! so that neither is accepted as the other.

#[cfg(feature = "tunnel")]
use super::server_certificate::ServerCertificate;
use super::{
    certificate_info::CertificateInfo,
    config,
    crypto::{algorithms, provider},
    digest::{DIGEST_BYTES, is_same, sha256},
    error::CredentialsError,
    files::{self, CredentialFiles},
    identity::check_trust_domain,
    pem::{self, PemKind},
    pem_error::PemError,
    sections::{certificates, certified_key, damaged},
    verifiers::{ServerChains, ServerVerifier, Unfit},
};
use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    server::{ParsedCertificate, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{path::Path, sync::Arc};

pub(crate) fn enroller_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/enroller")
}

/// The fingerprints (SHA-256 of the DER) of the certificates of a PEM text, in order.
pub(crate) fn fingerprints(text: &[u8]) -> Result<Vec<[u8; DIGEST_BYTES]>, PemError> {
    let found = pem::bodies(text, PemKind::Certificate)?;
    Ok(found.iter().map(|der| sha256(der)).collect())
}

pub(crate) struct EnrollerTls {
    config: Arc<ServerConfig>,
    #[cfg(feature = "tunnel")]
    own: Arc<CertifiedKey>,
}

impl EnrollerTls {
    /// Shows the leaf and its CAs; trusts certificates of these CAs, and accepts peers without one.
    pub(crate) fn new(
        leaf_pem: &str,
        key_pem: &str,
        ca_pem: &str,
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let cas = certificates(ca_pem.as_bytes(), "ca.pem")?;
        let mut chain = certificates(leaf_pem.as_bytes(), "the enroller's certificate")?;
        chain.extend(cas.iter().cloned());
        let own = certified_key(
            chain,
            key_pem.as_bytes(),
            "the enroller's certificate",
            "the enroller's key",
        )?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots(cas)?.into(), provider())
            .allow_unauthenticated()
            .clear_root_hint_subjects()
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self {
            config: Arc::new(config::accepting(own.clone(), clients, true, &[alpn])?),
            #[cfg(feature = "tunnel")]
            own,
        })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The certificate, as one that tunnels show.
    #[cfg(feature = "tunnel")]
    pub(crate) fn server_certificate(&self) -> ServerCertificate {
        ServerCertificate::of(self.own.clone(), "the enroller's certificate".into())
    }
}

pub(crate) struct ToEnroller(Arc<ClientConfig>);

impl ToEnroller {
    /// Shows nothing, and knows the enroller by its CA's fingerprint.
    pub(crate) fn unauthenticated(
        ca_fingerprint: [u8; DIGEST_BYTES],
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        Self::with(EnrollersOnly::OfCa(ca_fingerprint), None, alpn)
    }

    /// Shows the certificate in these files; knows the enroller by their CAs and trust domain.
    pub(crate) fn renewing(
        at: &CredentialFiles,
        trust_domain: &str,
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let name = |path: &Path| path.display().to_string();
        let read = |path: &Path| certificates(&files::read(path)?, &name(path));
        let (cas, chain) = (read(&at.ca)?, read(&at.cert)?);
        let key = files::read_key(&at.key)?;
        let own = certified_key(chain, &key, &name(&at.cert), &name(&at.key))?;
        let enrollers = EnrollersOnly::OfDomain(roots(cas)?, trust_domain.into());
        Self::with(enrollers, Some(own), alpn)
    }

    fn with(
        enrollers: EnrollersOnly,
        own: Option<Arc<CertifiedKey>>,
        alpn: &[u8],
    ) -> Result<Self, CredentialsError> {
        let verifier = Arc::new(ServerVerifier(enrollers));
        Ok(Self(Arc::new(config::dialling(own, verifier, true, alpn)?)))
    }

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

/// Trusts only enrollers of a known CA. The dialled host does not matter: an enroller signs its own
/// certificate without knowing its host names, and its CA signs no other enroller's name.
#[derive(Debug)]
enum EnrollersOnly {
    OfCa([u8; DIGEST_BYTES]),
    OfDomain(RootCertStore, String),
}

impl EnrollersOnly {
    fn roots(&self, shown: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let wanted = match self {
            Self::OfDomain(roots, _) => return Ok(roots.clone()),
            Self::OfCa(wanted) => wanted,
        };
        let ca = shown.iter().find(|ca| is_same(&sha256(ca), wanted));
        let ca = ca.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut store = RootCertStore::empty();
        store.add(ca.clone().into_owned())?;
        Ok(store)
    }

    fn expect_enroller(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let info = CertificateInfo::from_der(leaf).map_err(no_enroller)?;
        let domain = match info.uri_sans.as_slice() {
            [only] => {
                only.strip_prefix("spiffe://").and_then(|rest| rest.strip_suffix("/enroller"))
            }
            _ => None,
        };
        let is_wanted = |domain: &str| match self {
            Self::OfDomain(_, wanted) => domain == wanted,
            Self::OfCa(_) => check_trust_domain(domain).is_ok(),
        };
        if domain.is_some_and(is_wanted) && !info.is_ca {
            return Ok(());
        }
        Err(no_enroller(format!(
            "its URI names are {:?}, which are not those of an enroller",
            info.uri_sans
        )))
    }
}

impl ServerChains for EnrollersOnly {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        behind: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let (roots, parsed) = (self.roots(behind)?, ParsedCertificate::try_from(leaf)?);
        let algorithms = algorithms().all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, behind, now, algorithms)?;
        self.expect_enroller(leaf)
    }
}

/// Rejects a leaf of the right CA whose holder is not an enroller.
fn no_enroller(why: impl ToString) -> Error {
    Unfit::NoEnroller(why.to_string()).into()
}
