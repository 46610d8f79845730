//! Identity in a certificate: strict parsing of its one SPIFFE ID.
//!
//! Source: <https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>.

use super::certificate_info::CertificateInfo;
use crate::name::PeerName;
use rustls_pki_types::CertificateDer;
use std::{sync::Arc, time::SystemTime};

const SCHEME: &str = "spiffe://";
const URI_BYTES_MAX: usize = 2_048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// A peer as its certificate names it. Cloning is cheap. Only a verified leaf identifies a peer:
/// [`Identity::from_verified_chain`] is the one way to get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity(Arc<IdentityParts>);

#[derive(Debug, PartialEq, Eq)]
struct IdentityParts {
    peer_name: PeerName,
    trust_domain: String,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Identity {
    /// Reads the identity from the leaf of a chain **that TLS has verified**, and from nothing else
    /// in it.
    pub fn from_verified_chain(
        chain: &[CertificateDer<'_>],
        trust_domain: &str,
    ) -> Result<Self, IdentityError> {
        let identity = Self::of_leaf(chain.first().ok_or(IdentityError::NoCertificate)?)?;
        if identity.trust_domain() == trust_domain {
            return Ok(identity);
        }
        Err(IdentityError::OtherTrustDomain {
            found: identity.trust_domain().into(),
            wanted: trust_domain.into(),
        })
    }

    /// Reads the identity from a leaf in whatever trust domain it names.
    pub(super) fn of_leaf(leaf: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let info = CertificateInfo::from_der(leaf)?;
        if info.is_ca {
            return Err(IdentityError::Authority);
        }
        let (trust_domain, peer_name) = parse_uri(&only_uri(leaf, &info)?)?;
        Ok(Self(Arc::new(IdentityParts {
            peer_name,
            trust_domain,
            serial: info.serial,
            not_before: info.not_before,
            not_after: info.not_after,
        })))
    }

    /// Role and name.
    pub fn peer_name(&self) -> &PeerName {
        &self.0.peer_name
    }

    /// The domain in which the name holds: `dialback.local`.
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// The certificate's serial number in lower-case hexadecimal.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// Start of its validity.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// End of its validity.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }
}

/// The one URI of a leaf. Two parsers must agree on it: webpki, which verified the chain, passes
/// over names that are not UTF-8, and a name that one of them does not see must not pass unnoticed.
fn only_uri(leaf: &CertificateDer<'_>, info: &CertificateInfo) -> Result<String, IdentityError> {
    let parsed = webpki::EndEntityCert::try_from(leaf)
        .map_err(|error| IdentityError::Unreadable { why: error.to_string() })?;
    let seen: Vec<&str> = parsed.valid_uri_names().collect();
    match (seen.as_slice(), info.uri_sans.as_slice()) {
        ([], []) => Err(IdentityError::NoUri),
        ([one], [same]) if one == same => Ok((*one).to_owned()),
        (seen, listed) => Err(IdentityError::NotOneUri { count: seen.len().max(listed.len()) }),
    }
}

fn parse_uri(uri: &str) -> Result<(String, PeerName), IdentityError> {
    let refused = |why: String| IdentityError::BadUri { uri: uri.chars().take(300).collect(), why };
    if uri.len() > URI_BYTES_MAX {
        return Err(refused("is longer than 2048 bytes".into()));
    }
    let path = uri.strip_prefix(SCHEME).ok_or_else(|| refused("is not a SPIFFE name".into()))?;
    let (trust_domain, peer) = path.split_once('/').ok_or_else(|| refused("has no path".into()))?;
    check_trust_domain(trust_domain)?;
    // The grammar of peers knows neither %, ?, # and upper case, nor empty segments or `..`.
    let peer_name = peer.parse().map_err(|error| refused(format!("names no peer: {error}")))?;
    Ok((trust_domain.to_owned(), peer_name))
}

/// Checks a trust domain: `a-z`, `0-9`, `.`, `-` and `_`, at most 255 bytes.
pub(crate) fn check_trust_domain(text: &str) -> Result<(), IdentityError> {
    let is_wanted = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    let fits = !text.is_empty() && text.len() <= TRUST_DOMAIN_BYTES_MAX;
    let has_labels = !text.split('.').any(str::is_empty);
    if fits && has_labels && text.bytes().all(is_wanted) {
        return Ok(());
    }
    Err(IdentityError::BadTrustDomain { text: text.chars().take(300).collect() })
}

/// The URI name of a peer: `spiffe://dialback.local/agent/warehouse`.
#[cfg(any(feature = "certs", test))]
pub(crate) fn spiffe_uri(trust_domain: &str, peer: &PeerName) -> String {
    format!("{SCHEME}{trust_domain}/{peer}")
}

/// Error of reading an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The chain is empty.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate cannot be parsed.
    #[error("the certificate cannot be read: {why}")]
    Unreadable {
        /// The parser's error.
        why: String,
    },
    /// A CA's own certificate where a leaf is wanted.
    #[error(
        "the certificate is that of a CA; use a leaf certificate, issued with `dialback certs issue ROLE NAME`"
    )]
    Authority,
    /// No URI among the subject alternative names.
    #[error(
        "the certificate has no URI name, and so names no peer; issue one with `dialback certs issue ROLE NAME`"
    )]
    NoUri,
    /// Several URIs, or one that only one of two parsers can read.
    #[error(
        "the certificate has {count} URI names, and exactly one of the form spiffe://TRUST-DOMAIN/ROLE/NAME is required"
    )]
    NotOneUri {
        /// Their number.
        count: usize,
    },
    /// The URI is not of the one form.
    #[error(
        "the certificate's URI name {uri:?} {why}; required is spiffe://TRUST-DOMAIN/ROLE/NAME with role node, agent or caller"
    )]
    BadUri {
        /// The URI.
        uri: String,
        /// The fault.
        why: String,
    },
    /// A text that is not a trust domain.
    #[error(
        "invalid trust domain {text:?}: use a-z, 0-9, - and _ in labels joined by dots, such as dialback.local"
    )]
    BadTrustDomain {
        /// The text.
        text: String,
    },
    /// A peer of another trust domain.
    #[error(
        "wrong trust domain: the certificate is of {found:?}, and ours is {wanted:?}; both sides need certificates of one trust domain"
    )]
    OtherTrustDomain {
        /// The certificate's.
        found: String,
        /// The trust domain of this side.
        wanted: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_form_of_name_is_read_and_every_other_is_refused() {
        let (domain, peer) =
            parse_uri("spiffe://dialback.local/agent/acme.warehouse-1").expect("read");
        assert_eq!(
            (domain.as_str(), peer.to_string().as_str()),
            ("dialback.local", "agent/acme.warehouse-1")
        );
        assert_eq!(spiffe_uri(&domain, &peer), "spiffe://dialback.local/agent/acme.warehouse-1");
        for bad in [
            "",
            "https://d/agent/a",
            "SPIFFE://d/agent/a",
            "spiffe:/d/agent/a",
            "spiffe://d",
            "spiffe://d/",
            "spiffe://d/agent",
            "spiffe://d/agent/",
            "spiffe://d/agent/a/",
            "spiffe://d//a",
            "spiffe://d//agent/a",
            "spiffe:///agent/a",
            "spiffe://D/agent/a",
            "spiffe://d/Agent/a",
            "spiffe://d/agent/A",
            "spiffe://d/agent/%61",
            "spiffe://d/agent/..",
            "spiffe://d/../agent/a",
            "spiffe://d/agent/../a",
            "spiffe://d/agent/a?x",
            "spiffe://d/agent/a#x",
            "spiffe://u@d/agent/a",
            "spiffe://d:1/agent/a",
            "spiffe://d./agent/a",
            "spiffe://d/boss/a",
            "spiffe://d/agent/a/b",
            "spiffe://d/agent/a b",
            "spiffe://d/agent/é",
            " spiffe://d/agent/a",
        ] {
            assert!(parse_uri(bad).is_err(), "{bad:?} was accepted as a peer");
        }
    }

    #[test]
    fn a_trust_domain_of_255_bytes_passes_and_one_of_256_does_not() {
        assert!(check_trust_domain(&"a".repeat(255)).is_ok());
        assert!(check_trust_domain(&"a".repeat(256)).is_err());
    }
}
