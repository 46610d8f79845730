//! What stands in the PEM texts of credentials, or what is there instead.

use super::{config, credentials::Places, error::CredentialsError, facts};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{PemObject, SectionKind},
};
use std::sync::Arc;

pub(super) fn certificates(
    pem: &[u8],
    place: &str,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let found = wanted_sections(pem, SectionKind::Certificate, "certificate", place)?;
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

pub(super) fn wanted_sections(
    pem: &[u8],
    kind: SectionKind,
    wanted: &'static str,
    place: &str,
) -> Result<Vec<Vec<u8>>, CredentialsError> {
    let found = facts::sections(pem, kind).map_err(|error| damaged(place, error.to_string()))?;
    if found.is_empty() {
        return Err(lacking(pem, wanted, place));
    }
    Ok(found)
}

fn lacking(pem: &[u8], wanted: &'static str, place: &str) -> CredentialsError {
    CredentialsError::Lacking { place: place.into(), wanted, found: what_is_there(pem) }
}

fn what_is_there(pem: &[u8]) -> &'static str {
    let first = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).next();
    match first {
        _ if pem.is_empty() => "it is empty",
        None => "it has no PEM section (\"-----BEGIN ...\")",
        Some(Err(_)) => "it is cut off or damaged",
        Some(Ok((SectionKind::Certificate, _))) => "it holds a certificate",
        Some(Ok((SectionKind::Crl, _))) => "it holds a revocation list",
        Some(Ok((SectionKind::Csr, _))) => "it holds a certificate request",
        Some(Ok((SectionKind::PublicKey, _))) => "it holds a public key",
        Some(Ok((
            SectionKind::PrivateKey | SectionKind::EcPrivateKey | SectionKind::RsaPrivateKey,
            _,
        ))) => "it holds a private key",
        Some(Ok(_)) => "it holds something else",
    }
}

/// A chain that no CA of ours has to vouch for, with its key.
#[cfg(feature = "gateway")]
pub(super) fn server_key(
    cert: &[u8],
    key: &[u8],
    cert_place: &str,
    key_place: &str,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let places = Places { cert: cert_place.into(), key: key_place.into(), ..Places::in_memory() };
    certified_key(certificates(cert, cert_place)?, key, &places)
}

pub(super) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    places: &Places,
) -> Result<Arc<CertifiedKey>, CredentialsError> {
    let key = match PrivateKeyDer::from_pem_slice(key_pem) {
        Ok(key) => key,
        Err(rustls_pki_types::pem::Error::NoItemsFound) => {
            return Err(lacking(key_pem, "private key", &places.key));
        }
        // The parser's own words may quote a line of the key.
        Err(_) => return Err(damaged(&places.key, "it is cut off or damaged")),
    };
    match CertifiedKey::from_der(chain, key, &config::provider()) {
        Ok(own) => Ok(Arc::new(own)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CredentialsError::KeyMismatch {
            key: places.key.clone(),
            cert: places.cert.clone(),
        }),
        Err(error) => Err(damaged(&places.key, error.to_string())),
    }
}

pub(super) fn damaged(place: &str, why: impl Into<String>) -> CredentialsError {
    CredentialsError::Damaged { place: place.into(), why: why.into() }
}
