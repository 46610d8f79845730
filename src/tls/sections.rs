//! Reads the PEM texts of credentials.

use super::{
    crypto,
    error::CredentialsError,
    identity::{Identity, IdentityError},
    key_kind, pem,
    pem_error::PemError,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) fn certificates(
    text: &[u8],
    location: &str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = wanted_sections(text, pem::PemKind::Certificate, "certificate", location)?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

pub(super) fn identity_of(
    chain: &[CertificateDer<'_>],
    location: &str,
) -> Result<Identity, CredentialsError> {
    let leaf = chain.first().ok_or(IdentityError::NoCertificate);
    leaf.and_then(Identity::of_leaf)
        .map_err(|source| CredentialsError::NoIdentity { location: location.into(), source })
}

pub(super) fn wanted_sections(
    text: &[u8],
    kind: pem::PemKind,
    wanted: &'static str,
    location: &str,
) -> Result<Vec<Vec<u8>>, CredentialsError> {
    let found = pem::bodies(text, kind).map_err(|error| unfit(location, error))?;
    if found.is_empty() {
        return Err(lacking(text, wanted, location));
    }
    Ok(found)
}

fn lacking(text: &[u8], wanted: &'static str, location: &str) -> CredentialsError {
    let found = pem::describe_content(text);
    CredentialsError::Lacking { location: location.into(), wanted, found }
}

pub(super) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    cert_location: &str,
    key_location: &str,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let key = private_key(key_pem, key_location)?;
    let der = Zeroizing::new(key.secret_der().to_vec());
    match CertifiedKey::from_der(chain, key, &crypto::provider()) {
        Ok(own) => Ok(Arc::new(own)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CredentialsError::KeyMismatch {
            key: key_location.into(),
            cert: cert_location.into(),
        }),
        Err(_) => Err(unfit(key_location, key_kind::fault_of(&der))),
    }
}

fn private_key(text: &[u8], location: &str) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let key = pem::private_key(text).map_err(|error| unfit(location, error))?;
    key.ok_or_else(|| lacking(text, "private key", location))
}

/// Distinguishes unsupported content from damaged content.
pub(super) fn unfit(location: &str, error: PemError) -> CredentialsError {
    match error {
        PemError::Unusable { why } => CredentialsError::Unusable { location: location.into(), why },
        error => damaged(location, error.to_string()),
    }
}

pub(super) fn damaged(location: &str, why: impl Into<String>) -> CredentialsError {
    CredentialsError::Damaged { location: location.into(), why: why.into() }
}
