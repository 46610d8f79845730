//! Revocation lists of known CAs: the newest of each issuer, never older than the lists in use.

use super::{
    authorities::Authorities,
    certificate_info::{self, CertificateInfo, CrlInfo},
    error::CredentialsError,
    files::{CredentialPem, CrlScope, SourceNames},
    pem,
    revalidation::Revoked,
    sections::{damaged, wanted_sections},
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::{cmp::Reverse, time::SystemTime};

/// The lists, newest first: webpki takes the first one of an issuer and looks at no other.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) all: Vec<CertificateRevocationListDer<'static>>,
    /// Time until which all of them are valid.
    pub(super) next_update: Option<SystemTime>,
    pub(super) revoked: Revoked,
    pub(super) marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    issuer: String,
    number: Option<u64>,
    this_update: SystemTime,
}

impl Mark {
    fn of(info: &CrlInfo) -> Self {
        let CrlInfo { issuer, number, this_update, .. } = info;
        Self { issuer: issuer.clone(), number: *number, this_update: *this_update }
    }

    /// By their numbers, which count up (RFC 5280 section 5.2.3); by dates where one has none.
    fn is_older_than(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(number), Some(others)) => number < others,
            _ => self.this_update < other.this_update,
        }
    }

    fn description(&self) -> String {
        let of = certificate_info::Utc(self.this_update);
        self.number.map_or_else(|| format!("of {of}"), |number| format!("number {number} of {of}"))
    }
}

impl Lists {
    /// The lists of some credentials, if they have any; `chain` is their own.
    pub(super) fn read(
        pem: &CredentialPem<'_>,
        sources: &SourceNames,
        authorities: &Authorities,
        chain: &[CertificateDer<'_>],
    ) -> Result<Self, CredentialsError> {
        let Some(text) = pem.crl else { return Ok(Self::default()) };
        let mut found = vec![];
        for list in wanted_sections(text, pem::PemKind::Crl, "revocation list", &sources.crl)? {
            let info = CrlInfo::from_der(&list)
                .map_err(|error| damaged(&sources.crl, error.to_string()))?;
            found.push((info, CertificateRevocationListDer::from(list)));
        }
        expect_known(&found, authorities, chain, sources)?;
        found.sort_by_key(|(info, _)| Reverse((info.number, info.this_update)));
        let newest: Vec<&CrlInfo> = newest_of_each(&found).collect();
        let entries = newest.iter().flat_map(|info| {
            info.revoked.iter().map(|entry| (info.issuer.clone(), entry.serial.clone()))
        });
        let revoked = Revoked::new(entries, pem.crl_scope == CrlScope::Chain);
        let next_update = newest.iter().filter_map(|info| info.next_update).min();
        let marks = newest.iter().map(|info| Mark::of(info)).collect();
        let all = found.into_iter().map(|(_, list)| list).collect();
        Ok(Self { all, next_update, revoked, marks })
    }
}

/// Rejects lists older than those in use: certificates revoked in between would be accepted.
pub(super) fn expect_successors(
    before: &[Mark],
    next: &[Mark],
    location: &str,
) -> Result<(), CredentialsError> {
    let older = next.iter().find_map(|mark| {
        let other = before.iter().find(|other| other.issuer == mark.issuer)?;
        mark.is_older_than(other).then_some((mark, other))
    });
    match older {
        None => Ok(()),
        Some((mark, other)) => Err(CredentialsError::OlderList {
            location: location.into(),
            issuer: mark.issuer.clone(),
            found: mark.description(),
            in_use: other.description(),
        }),
    }
}

/// At least one list must be of a known CA, and a list that names a known CA must be signed by it.
/// The list of an intermediate that only peers show cannot be checked before they do.
fn expect_known(
    found: &[(CrlInfo, CertificateRevocationListDer<'_>)],
    authorities: &Authorities,
    chain: &[CertificateDer<'_>],
    sources: &SourceNames,
) -> Result<(), CredentialsError> {
    let intermediates = chain.iter().skip(1).filter_map(|one| CertificateInfo::from_der(one).ok());
    let intermediates: Vec<CertificateInfo> = intermediates.collect();
    let known = || authorities.known.iter().chain(&intermediates);
    let mut is_any_known = false;
    for (list, der) in found {
        let mut issuers = known().filter(|ca| ca.subject == list.issuer).peekable();
        if issuers.peek().is_none() {
            continue;
        }
        is_any_known = true;
        if !issuers.any(|ca| certificate_info::is_list_signed_by(der, &ca.public_key_der)) {
            let issuer = list.issuer.clone();
            return Err(CredentialsError::ForgedList { location: sources.crl.clone(), issuer });
        }
    }
    if is_any_known {
        return Ok(());
    }
    let names = |names: Vec<&str>| names.join(", ");
    Err(CredentialsError::ForeignLists {
        location: sources.crl.clone(),
        found: names(found.iter().map(|(list, _)| list.issuer.as_str()).collect()),
        bundle: sources.ca.clone(),
        known: names(known().map(|ca| ca.subject.as_str()).collect()),
    })
}

fn newest_of_each<T>(sorted: &[(CrlInfo, T)]) -> impl Iterator<Item = &CrlInfo> {
    sorted.iter().enumerate().filter_map(|(i, (info, _))| {
        let is_first = !sorted[..i].iter().any(|(newer, _)| newer.issuer == info.issuer);
        is_first.then_some(info)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lists_are_compared_by_number_or_else_by_date() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 3600);
        let mark = |number, days| Mark { issuer: "a".into(), number, this_update: at(days) };
        let is_refused =
            |before: Mark, next: Mark| expect_successors(&[before], &[next], "crl.pem").is_err();
        assert!(is_refused(mark(Some(3), 9), mark(Some(2), 10)));
        assert!(!is_refused(mark(Some(3), 9), mark(Some(3), 9)));
        assert!(!is_refused(mark(Some(3), 9), mark(Some(4), 8)));
        assert!(is_refused(mark(None, 9), mark(Some(4), 8)));
        assert!(!is_refused(mark(Some(4), 9), mark(None, 9)));
        let other = Mark { issuer: "b".into(), ..mark(Some(1), 1) };
        assert!(!is_refused(mark(Some(3), 9), other), "a list of another CA");
    }
}
