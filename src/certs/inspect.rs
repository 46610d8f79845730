//! What is in a PEM file, for people: certificates, lists, requests, and keys, of which only the kind is said.

use super::{CertsError, dir::damaged, files};
use crate::tls::{CertificateFacts, CrlFacts, CsrFacts};
use rustls_pki_types::pem::{PemObject, SectionKind};
use std::{fmt, path::Path};

/// Something that `certs inspect` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspected {
    /// A certificate.
    Certificate(Box<CertificateFacts>),
    /// A revocation list.
    Crl(CrlFacts),
    /// A certificate request.
    Csr(CsrFacts),
    /// A private key in this form. What it is stays where it is.
    Key(&'static str),
}

impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(facts) => facts.fmt(f),
            Self::Crl(facts) => facts.fmt(f),
            Self::Csr(facts) => facts.fmt(f),
            Self::Key(form) => writeln!(f, "private key ({form}), which is not shown"),
        }
    }
}

/// Reads a PEM file: its certificates, then its revocation lists, its certificate requests and its keys, each in their order.
pub fn inspect(path: impl AsRef<Path>) -> Result<Vec<Inspected>, CertsError> {
    let path = path.as_ref();
    let text = zeroize::Zeroizing::new(files::read(path)?);
    let bytes = text.as_bytes();
    let at = |source| damaged(path, source);
    let certificates = CertificateFacts::all_from_pem(bytes).map_err(at)?.into_iter();
    let lists = CrlFacts::all_from_pem(bytes).map_err(at)?.into_iter();
    let requests = CsrFacts::all_from_pem(bytes).map_err(at)?.into_iter();
    let found: Vec<_> = certificates
        .map(|facts| Inspected::Certificate(facts.into()))
        .chain(lists.map(Inspected::Crl))
        .chain(requests.map(Inspected::Csr))
        .chain(key_forms(bytes).map(Inspected::Key))
        .collect();
    if found.is_empty() {
        return Err(CertsError::NothingToInspect { path: path.into() });
    }
    Ok(found)
}

fn key_forms(pem: &[u8]) -> impl Iterator<Item = &'static str> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).filter_map(Result::ok).filter_map(
        |(kind, body)| {
            drop(zeroize::Zeroizing::new(body));
            match kind {
                SectionKind::PrivateKey => Some("PKCS #8"),
                SectionKind::EcPrivateKey => Some("SEC 1, elliptic curve"),
                SectionKind::RsaPrivateKey => Some("PKCS #1, RSA"),
                _ => None,
            }
        },
    )
}
