//! Claims of rejected certificates. TLS reports the reason and not the name.

use super::{certificate_info::CertificateInfo, identity::Identity};
use crate::limits::CLAIM_CHARS_MAX;
use rustls_pki_types::CertificateDer;
use std::sync::{Arc, OnceLock};

/// Name and serial number in a rejected certificate: unverified text of an unauthenticated client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// As `agent/warehouse` if it is a name of our trust domain, else the first URI as it is, or
    /// the subject where there is none. At most [`CLAIM_CHARS_MAX`] characters, of any kind.
    pub(crate) name: String,
    /// In lower-case hexadecimal.
    pub(crate) serial: String,
}

impl Claim {
    fn of(leaf: &CertificateDer<'_>, trust_domain: &str) -> Option<Self> {
        let info = CertificateInfo::from_der(leaf).ok()?;
        let name = match Identity::of_leaf(leaf) {
            Ok(identity) if identity.trust_domain() == trust_domain => {
                identity.peer_name().to_string()
            }
            _ => info.uri_sans.into_iter().next().unwrap_or(info.subject),
        };
        let truncated = |text: String| text.chars().take(CLAIM_CHARS_MAX).collect();
        Some(Self { name: truncated(name), serial: truncated(info.serial) })
    }
}

/// A certificate that was accepted before and is refused now.
#[cfg(feature = "gateway")]
impl From<&Identity> for Claim {
    fn from(identity: &Identity) -> Self {
        Self { name: identity.peer_name().to_string(), serial: identity.serial().into() }
    }
}

/// Slot for the claim of one handshake. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClaimSlot(Arc<OnceLock<Claim>>);

impl ClaimSlot {
    pub(crate) fn get(&self) -> Option<&Claim> {
        self.0.get()
    }

    /// Keeps the claim of a rejected leaf, unless there is one.
    pub(super) fn keep(&self, leaf: &CertificateDer<'_>, trust_domain: &str) {
        if let Some(claim) = Claim::of(leaf, trust_domain) {
            drop(self.0.set(claim));
        }
    }
}
