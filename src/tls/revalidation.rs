//! Revalidation of the peers of live links: after a change of trust, and at expiry.

use super::{certificate_info::CertificateInfo, chain::ChainBound, crypto, trust::CaTrust};
use rustls::{CertificateError as Fault, Error};
use rustls_pki_types::{CertificateDer, ServerName};
use std::{collections::HashSet, time::SystemTime};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RevalidationError {
    /// A revocation list names its certificate.
    #[error("certificate revoked")]
    Revoked,
    /// Its certificate has expired, or an intermediate with this subject in its chain.
    #[error("{}", expired(.0.as_deref()))]
    Expired(Option<String>),
    /// A handshake would refuse it now for another reason.
    #[error("certificate no longer trusted: {0}")]
    Untrusted(String),
}

fn expired(intermediate: Option<&str>) -> String {
    match intermediate {
        None => "certificate expired".into(),
        Some(name) => format!("intermediate certificate {name} expired"),
    }
}

/// Entries of revocation lists, for lists that have expired: webpki then reports nothing else.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    entries: HashSet<(String, String)>,
    /// Intermediates are looked up too, not the leaf alone.
    is_of_chain: bool,
}

impl Revoked {
    pub(super) fn new(entries: impl Iterator<Item = (String, String)>, is_of_chain: bool) -> Self {
        Self { entries: entries.collect(), is_of_chain }
    }

    pub(super) fn names(&self, chain: &[CertificateDer<'_>]) -> bool {
        let is_named = |one: &CertificateDer<'_>| {
            CertificateInfo::from_der(one)
                .is_ok_and(|info| self.entries.contains(&(info.issuer, info.serial)))
        };
        chain.iter().take(if self.is_of_chain { chain.len() } else { 1 }).any(is_named)
    }
}

/// Verifies a chain as a handshake would now. `host` is the name by which the peer was dialled. A
/// revocation list that has expired rejects new links but closes none: it revokes no linked peer.
pub(super) fn revalidate(
    trust: &CaTrust,
    revoked: &Revoked,
    chain: &[CertificateDer<'_>],
    host: Option<&str>,
    now: SystemTime,
) -> Result<(), RevalidationError> {
    let distrusted = |text: String| RevalidationError::Untrusted(text);
    let (leaf, intermediates) =
        chain.split_first().ok_or_else(|| distrusted("there is none".into()))?;
    let now = crypto::unix_time(now);
    let host = host.map(ServerName::try_from).transpose();
    let host = host.map_err(|_| distrusted("the dialled name is not a host name".into()))?;
    let Err(error) = trust.verify(leaf, intermediates, host.as_ref(), now) else { return Ok(()) };
    let Error::InvalidCertificate(fault) = &error else {
        return Err(distrusted(error.to_string()));
    };
    Err(match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => {
            RevalidationError::Expired(trust.end_of(chain).and_then(ChainBound::into_intermediate))
        }
        Fault::Revoked => RevalidationError::Revoked,
        Fault::ExpiredRevocationList | Fault::ExpiredRevocationListContext { .. } => {
            if !revoked.names(chain) {
                return Ok(());
            }
            RevalidationError::Revoked
        }
        Fault::UnknownIssuer => distrusted("unknown CA".into()),
        Fault::UnknownRevocationStatus => distrusted("no revocation list covers its CA".into()),
        _ => distrusted(error.to_string()),
    })
}
