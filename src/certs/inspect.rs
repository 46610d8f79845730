//! Shows the contents of a PEM file: certificates, lists, requests, and the kind of keys.

use super::{CertsError, files};
use crate::tls::{CertificateInfo, CrlInfo, CsrInfo, PemError, PemKind, pem_blocks};
use std::{fmt, path::Path};

/// Something that `certs inspect` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspected {
    /// A certificate.
    Certificate(Box<CertificateInfo>),
    /// A revocation list.
    Crl(CrlInfo),
    /// A certificate request.
    Csr(CsrInfo),
    /// A private key in this form. Its content is not shown.
    Key(&'static str),
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(info) => info.fmt(f),
            Self::Crl(info) => info.fmt(f),
            Self::Csr(info) => info.fmt(f),
            Self::Key(form) => writeln!(f, "private key ({form}), which is not shown"),
        }
    }
}

/// Reads a PEM file: certificates, revocation lists, requests, then keys, each in order.
pub fn inspect(path: impl AsRef<Path>) -> Result<Vec<Inspected>, CertsError> {
    let path = path.as_ref();
    let bytes = &zeroize::Zeroizing::new(files::read_bytes(path)?);
    let at = |source| CertsError::of_file(path, source);
    let certificates = CertificateInfo::all_from_pem(bytes).map_err(at)?.into_iter();
    let lists = CrlInfo::all_from_pem(bytes).map_err(at)?.into_iter();
    let requests = CsrInfo::all_from_pem(bytes).map_err(at)?.into_iter();
    let found: Vec<_> = certificates
        .map(|info| Inspected::Certificate(info.into()))
        .chain(lists.map(Inspected::Crl))
        .chain(requests.map(Inspected::Csr))
        .chain(key_forms(bytes).map_err(at)?.into_iter().map(Inspected::Key))
        .collect();
    if found.is_empty() {
        return Err(CertsError::NothingToInspect { path: path.into() });
    }
    Ok(found)
}

/// Nothing of a key is decoded for it.
fn key_forms(text: &[u8]) -> Result<Vec<&'static str>, PemError> {
    let forms = pem_blocks(text)?.into_iter().filter_map(|block| match block.kind {
        PemKind::Key(form) => Some(form),
        PemKind::EncryptedKey => Some("encrypted"),
        PemKind::ForeignKey => Some("of a kind that is not supported"),
        _ => None,
    });
    Ok(forms.collect())
}
