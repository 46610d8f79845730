//! Reads the PEM texts of credentials.

use super::{crypto, error::CredentialsError, key_kind, pem, pem_error::PemError};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(super) fn certificates(
    text: &[u8],
    place: &str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = wanted_sections(text, pem::PemKind::Certificate, "certificate", place)?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

pub(super) fn wanted_sections(
    text: &[u8],
    kind: pem::PemKind,
    wanted: &'static str,
    place: &str,
) -> Result<Vec<Vec<u8>>, CredentialsError> {
    let found = pem::bodies(text, kind).map_err(|error| unfit(place, error))?;
    if found.is_empty() {
        return Err(lacking(text, wanted, place));
    }
    Ok(found)
}

fn lacking(text: &[u8], wanted: &'static str, place: &str) -> CredentialsError {
    let found = pem::what_is_there(text);
    CredentialsError::Lacking { place: place.into(), wanted, found }
}

/// A chain with its key, which must be a pair.
pub(super) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    cert_place: &str,
    key_place: &str,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let key = private_key(key_pem, key_place)?;
    let der = Zeroizing::new(key.secret_der().to_vec());
    match CertifiedKey::from_der(chain, key, &crypto::provider()) {
        Ok(own) => Ok(Arc::new(own)),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(CredentialsError::KeyMismatch { key: key_place.into(), cert: cert_place.into() })
        }
        Err(_) => Err(unfit(key_place, key_kind::fault_of(&der))),
    }
}

/// The one private key of a text.
fn private_key(text: &[u8], place: &str) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let key = pem::private_key(text).map_err(|error| unfit(place, error))?;
    key.ok_or_else(|| lacking(text, "private key", place))
}

/// Tells what is not supported from what is damaged.
pub(super) fn unfit(place: &str, error: PemError) -> CredentialsError {
    match error {
        PemError::Unusable { why } => CredentialsError::Unusable { place: place.into(), why },
        error => damaged(place, error.to_string()),
    }
}

pub(super) fn damaged(place: &str, why: impl Into<String>) -> CredentialsError {
    CredentialsError::Damaged { place: place.into(), why: why.into() }
}
