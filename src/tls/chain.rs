//! Validity of certificate chains: a leaf is valid for no longer than the intermediates above it.

use super::{
    certificate_info::{self, CertificateInfo, Utc},
    crypto,
};
use rustls::{CertificateError as Fault, Error};
use rustls_pki_types::CertificateDer;
use std::{cmp::Reverse, fmt, iter, time::SystemTime};

/// Bounds the cost of a long chain: the rest is ignored. webpki follows six intermediates.
const CERTIFICATES_MAX: usize = 8;

/// Names are truncated to this length: they are for people, and a peer may have chosen them.
const SUBJECT_CHARS_MAX: usize = 100;

/// Start or end of a chain's validity, and the certificate that decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainBound {
    at: SystemTime,
    intermediate: Option<String>,
}

impl ChainBound {
    /// The time.
    pub fn at(&self) -> SystemTime {
        self.at
    }

    /// The subject of the intermediate that decides it. `None`: the leaf itself.
    pub fn intermediate(&self) -> Option<&str> {
        self.intermediate.as_deref()
    }

    /// The leaf decides it.
    #[cfg(any(feature = "gateway", feature = "tunnel"))]
    pub(super) const fn of_leaf(at: SystemTime) -> Self {
        Self { at, intermediate: None }
    }

    pub(super) fn into_intermediate(self) -> Option<String> {
        self.intermediate
    }

    /// Names the certificate that decides it: `the certificate of agent/a`, or an intermediate.
    pub(super) fn subject(&self, certificate: &str) -> String {
        match &self.intermediate {
            None => certificate.to_owned(),
            Some(name) => format!("the intermediate {name} in the chain of {certificate}"),
        }
    }
}

impl fmt::Display for ChainBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Utc(self.at).fmt(f)?;
        match &self.intermediate {
            None => Ok(()),
            Some(name) => write!(f, " with its intermediate {name}"),
        }
    }
}

/// Validity of a peer's own chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// Start of the validity.
    pub starts: ChainBound,
    /// End of the validity.
    pub ends: ChainBound,
    /// True if it leads to a CA known here; otherwise only its signatures select intermediates.
    pub(super) is_known: bool,
}

impl Validity {
    /// Validity of a chain that `holds_at` verifies for a time.
    pub(super) fn of(
        chain: &[CertificateDer<'_>],
        holds_at: impl Fn(SystemTime) -> bool,
    ) -> Option<Self> {
        let chain = Chain::read(chain)?;
        let (starts, ends) = (chain.start(&holds_at), chain.end(&holds_at));
        let is_known = starts.is_some() && ends.is_some();
        Some(Self {
            starts: starts.unwrap_or_else(|| chain.start_by_signatures()),
            ends: ends.unwrap_or_else(|| chain.end_by_signatures()),
            is_known,
        })
    }

    /// The moment of its life nearest to `now`: the check of its CAs must not depend on the clock.
    pub(super) fn nearest(&self, now: SystemTime) -> SystemTime {
        now.max(self.starts.at).min(self.ends.at)
    }
}

/// End of a peer's chain, which `holds_at` verifies for a moment.
pub(super) fn end_of(
    chain: &[CertificateDer<'_>],
    holds_at: impl Fn(SystemTime) -> bool,
) -> Option<ChainBound> {
    let chain = Chain::read(chain)?;
    Some(chain.end(&holds_at).unwrap_or_else(|| chain.end_by_signatures()))
}

/// Text about the expired intermediate, if an error is about one: TLS does not report which.
pub(super) fn blamed(error: &Error, chain: &[CertificateDer<'_>]) -> Option<String> {
    let (leaf, others) = chain.split_first()?;
    let Error::InvalidCertificate(fault) = error else { return None };
    let (limit, limit_of, what): (_, fn(&CertificateInfo) -> SystemTime, _) = match fault {
        Fault::ExpiredContext { not_after, .. } => (*not_after, |one| one.not_after, "has expired"),
        Fault::NotValidYetContext { not_before, .. } => {
            (*not_before, |one| one.not_before, "is not valid yet")
        }
        _ => return None,
    };
    let of = |der: &CertificateDer<'_>| CertificateInfo::from_der(der).ok();
    let is_blamed = |one: &CertificateInfo| crypto::unix_time(limit_of(one)) == limit;
    if is_blamed(&of(leaf)?) {
        return None;
    }
    let one = others.iter().take(CERTIFICATES_MAX).filter_map(of).find(is_blamed)?;
    Some(format!("intermediate certificate {} in its chain {what}", name_of(&one)))
}

/// Subject of a certificate, for people. Its issuer chose the text.
fn name_of(info: &CertificateInfo) -> String {
    let shown = |c: char| if c.is_control() { '?' } else { c };
    info.subject.chars().take(SUBJECT_CHARS_MAX).map(shown).collect()
}

struct Certificate<'a> {
    der: &'a [u8],
    info: CertificateInfo,
    is_leaf: bool,
}

impl Certificate<'_> {
    fn bound(&self, at: SystemTime) -> ChainBound {
        ChainBound { at, intermediate: (!self.is_leaf).then(|| name_of(&self.info)) }
    }

    fn start(&self) -> ChainBound {
        self.bound(self.info.not_before)
    }

    fn end(&self) -> ChainBound {
        self.bound(self.info.not_after)
    }

    fn is_signed_by(&self, other: &Self) -> bool {
        self.info.issuer == other.info.subject
            && certificate_info::is_signed_by(self.der, &other.info.public_key_der)
    }
}

struct Chain<'a> {
    leaf: Certificate<'a>,
    others: Vec<Certificate<'a>>,
}

impl<'a> Chain<'a> {
    fn read(chain: &'a [CertificateDer<'_>]) -> Option<Self> {
        let mut certificates = chain.iter().take(CERTIFICATES_MAX).enumerate().map(|(at, der)| {
            let info = CertificateInfo::from_der(der).ok()?;
            Some(Certificate { der, info, is_leaf: at == 0 })
        });
        let leaf = certificates.next()??;
        // Unparsable certificates verify nothing.
        Some(Self { leaf, others: certificates.flatten().collect() })
    }

    /// The end of the chain's validity. A certificate counts only if it ends before the leaf and no
    /// other path lasts longer. Verifies nothing where all outlast the leaf.
    fn end(&self, holds_at: impl Fn(SystemTime) -> bool) -> Option<ChainBound> {
        let leaf = self.leaf.end();
        let mut ends: Vec<_> = self.others.iter().map(Certificate::end).collect();
        ends.retain(|end| end.at < leaf.at);
        if ends.is_empty() {
            return Some(leaf);
        }
        ends.sort_by_key(|end| Reverse(end.at));
        iter::once(leaf).chain(ends).find(|end| holds_at(end.at))
    }

    /// The first moment, in the same way.
    fn start(&self, holds_at: impl Fn(SystemTime) -> bool) -> Option<ChainBound> {
        let leaf = self.leaf.start();
        let mut starts: Vec<_> = self.others.iter().map(Certificate::start).collect();
        starts.retain(|start| start.at > leaf.at);
        if starts.is_empty() {
            return Some(leaf);
        }
        starts.sort_by_key(|start| start.at);
        iter::once(leaf).chain(starts).find(|start| holds_at(start.at))
    }

    /// The path upwards by names and signatures, for a chain without a CA known here. Excludes a
    /// CA's own certificate: those who trust a CA ignore its dates.
    fn by_signatures(&self) -> Vec<&Certificate<'a>> {
        let mut path = vec![&self.leaf];
        while let Some(last) = path.last() {
            let is_on_path = |one: &Certificate<'a>| path.iter().any(|on| on.der == one.der);
            let mut above: Vec<_> = self.others.iter().collect();
            above.retain(|one| one.info.subject != one.info.issuer && !is_on_path(one));
            above.retain(|one| last.is_signed_by(one));
            match above.into_iter().max_by_key(|one| one.info.not_after) {
                Some(next) => path.push(next),
                None => break,
            }
        }
        path
    }

    fn end_by_signatures(&self) -> ChainBound {
        let ends = self.by_signatures().into_iter().map(Certificate::end);
        ends.min_by_key(|end| end.at).unwrap_or_else(|| self.leaf.end())
    }

    fn start_by_signatures(&self) -> ChainBound {
        let starts = self.by_signatures().into_iter().map(Certificate::start);
        starts.max_by_key(|start| start.at).unwrap_or_else(|| self.leaf.start())
    }
}
