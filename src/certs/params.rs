//! Keys, names and dates as certificates and requests have them.

use super::CertsError;
use crate::tls::{self, PemError};
use rcgen::{
    CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
    string::Ia5String,
};
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;

/// Certificates hold from an hour ago, so that a peer whose clock is behind takes them at once.
pub(super) const BACKDATED: Duration = Duration::from_secs(3600);

/// The longest common name that X.520 allows.
const COMMON_NAME_CHARS_MAX: usize = 64;

/// A certificate or request with this common name, cut to the longest that is allowed.
pub(super) fn named(common_name: &str) -> CertificateParams {
    let common_name: String = common_name.chars().take(COMMON_NAME_CHARS_MAX).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

pub(super) fn new_key() -> Result<KeyPair, CertsError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

/// The private key of a PEM text, if there is one. Fails if it is encrypted, damaged, or of a kind
/// that cannot be used here.
pub(super) fn key_pair(text: &[u8]) -> Result<Option<KeyPair>, PemError> {
    let Some(key) = tls::private_key(text)? else { return Ok(None) };
    KeyPair::try_from(&key).map(Some).map_err(|_| tls::key_fault(key.secret_der()))
}

/// Sixteen bytes at random, positive, and of one length so that they compare as texts.
pub(super) fn new_serial() -> SerialNumber {
    let mut bytes = tls::random_bytes::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// A time to the second, the resolution of certificates.
pub(super) fn moment(time: SystemTime) -> Result<OffsetDateTime, CertsError> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| CertsError::BadDate)?;
    let secs = i64::try_from(since.as_secs()).map_err(|_| CertsError::BadDate)?;
    OffsetDateTime::from_unix_timestamp(secs).map_err(|_| CertsError::BadDate)
}

pub(super) fn uri(text: &str) -> Result<SanType, CertsError> {
    Ok(SanType::URI(Ia5String::try_from(text)?))
}
