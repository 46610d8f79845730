//! Errors of certificate commands, with the remedy.

use crate::{
    name::{PeerName, Role},
    tls::{IdentityError, PemError, Utc},
};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Error of `dialback certs`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// The directory has no CA.
    #[error("{dir} holds no CA; run `dialback certs init --dir {dir}` first", dir = dir.display())]
    NoCa {
        /// The directory.
        dir: PathBuf,
    },
    /// One half of the CA is gone.
    #[error("{gone} is missing beside {there}; restore it, or create a new CA with --force", there = there.display(), gone = gone.display())]
    HalfCa {
        /// The file that is there.
        there: PathBuf,
        /// The file that is not.
        gone: PathBuf,
    },
    /// CA certificate and CA key are not a pair, or not a CA.
    #[error("{path} cannot sign: {why}; restore the right file, or create a new CA with --force", path = path.display())]
    UnfitCa {
        /// The file.
        path: PathBuf,
        /// The fault.
        why: String,
    },
    /// The CA has expired.
    #[error(
        "the CA has expired: it was valid until {until}, and the local clock says {now}; create a new CA with --force, or check the clock"
    )]
    CaExpired {
        /// End of its validity.
        until: Utc,
        /// The local clock.
        now: Utc,
    },
    /// The CA's certificate is not valid yet.
    #[error(
        "the CA is not valid yet: it is valid from {since}, and the local clock says {now}; the clock may be behind, check it"
    )]
    CaNotValidYet {
        /// Start of its validity.
        since: Utc,
        /// The local clock.
        now: Utc,
    },
    /// By the local clock, a certificate that would be replaced has not begun.
    #[error(
        "the certificate of {peer} is not valid yet: it is valid from {since}, and the local clock says {now}; the clock may be behind, check it (--force renews it anyway)"
    )]
    ClockBehind {
        /// The peer that it names.
        peer: PeerName,
        /// Start of its validity.
        since: Utc,
        /// The local clock.
        now: Utc,
    },
    /// A CA of another trust domain is there.
    #[error("the CA in {dir} is of trust domain {found:?}, not {wanted:?}; use another --dir, or replace the CA with --force", dir = dir.display())]
    OtherTrustDomain {
        /// The directory.
        dir: PathBuf,
        /// The CA's.
        found: String,
        /// The requested value.
        wanted: String,
    },
    /// The given text is not a trust domain.
    #[error(transparent)]
    TrustDomain(#[from] IdentityError),
    /// The file of revocation lists has lists of other CAs, which cannot be signed here.
    #[error("{path} also holds revocation lists of other CAs, which would be lost; keep the list of this CA in its own file", path = path.display())]
    ForeignLists {
        /// The file.
        path: PathBuf,
    },
    /// A node's leaf without a name to dial.
    #[error(
        "a node's certificate needs the host names or addresses that are dialled; give each with --san HOST_OR_IP"
    )]
    NodeWithoutSan,
    /// A host name on a leaf that must not pass for a node.
    #[error("a certificate of role {role} has no host names; leave --san out, or issue role node")]
    SanNotForRole {
        /// The role.
        role: Role,
    },
    /// A text that is neither host name nor address.
    #[error(
        "--san {text:?} is neither a host name nor an IP address; write it without port, brackets and wildcards"
    )]
    BadSan {
        /// The text.
        text: String,
    },
    /// Zero days, or more than the CA itself holds.
    #[error(
        "--days {days} is out of range: at least 1, and at most {max}, because the CA is valid until {until}"
    )]
    BadDays {
        /// The requested value.
        days: u32,
        /// The maximum by the CA.
        max: u64,
        /// The CA's end.
        until: Utc,
    },
    /// A moment beyond the calendar of certificates.
    #[error("a date is out of the range of certificates")]
    BadDate,
    /// A file or directory cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {path}; check that the directory exists and is yours", path = path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is broken.
    #[error("{path} is damaged", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: PemError,
    },
    /// A file that is whole and not supported: UTF-16, DER, an encrypted key, DSA.
    #[error("{path} cannot be used: {why}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The fault and the remedy.
        why: String,
    },
    /// A record that is not text.
    #[error("{path} is not UTF-8 text; restore the right file", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// The revocation list is broken.
    #[error("{path} is damaged; remove it and run `dialback certs crl`: what was revoked here is known from revoked.jsonl", path = path.display())]
    DamagedList {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: PemError,
    },
    /// The CA was made with a revocation list, and it is gone.
    #[error("{path} does not exist, and this CA has a revocation list; create it again with `dialback certs crl --dir {dir}`: revoked.jsonl has what was revoked", path = path.display(), dir = path.parent().unwrap_or(path).display())]
    ListGone {
        /// The file.
        path: PathBuf,
    },
    /// The number of the last list is not a number, or is the largest.
    #[error("{path} holds no valid number of a revocation list; write the number of the last list into it (see `dialback certs inspect`)", path = path.display())]
    BadNumber {
        /// The file.
        path: PathBuf,
    },
    /// Nothing to revoke or to renew.
    #[error("nothing was issued to {peer} in {dir}; `dialback certs list` shows what was", dir = dir.display())]
    NeverIssued {
        /// The directory.
        dir: PathBuf,
        /// The peer.
        peer: PeerName,
    },
    /// A file that is signed must hold one certificate request.
    #[error("{path} holds {count} certificate requests, and exactly one is required; create it with `dialback certs request ROLE NAME` where the key stays", path = path.display())]
    NotOneRequest {
        /// The file.
        path: PathBuf,
        /// Their number.
        count: usize,
    },
    /// The existing key does not belong to the certificate.
    #[error("{key} is not the key of the request; remove it if {peer} no longer uses it, and sign again", key = key.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The peer that it names.
        peer: PeerName,
    },
    /// A request for a key whose certificate was revoked.
    #[error("the key of the request is that of the revoked certificate {serial}; create a new key with `dialback certs request {role} {name} --force`", role = peer.role, name = peer.name)]
    RevokedKey {
        /// The peer of the request.
        peer: PeerName,
        /// The serial number of the certificate.
        serial: String,
    },
    /// A new key would make the requested certificate useless.
    #[error("{csr} requests a certificate for the key beside it, and a new key would make it useless; sign it with `dialback certs sign {csr} {role} {name}`, or create a new key with --force", csr = csr.display(), role = peer.role, name = peer.name)]
    RequestUnderWay {
        /// The request.
        csr: PathBuf,
        /// The peer that it names.
        peer: PeerName,
    },
    /// A key that is there cannot be used.
    #[error("{path} holds no readable private key; restore the right file, or create a new key with --force", path = path.display())]
    UnfitKey {
        /// The file.
        path: PathBuf,
    },
    /// A line of a record is broken.
    #[error("{path}:{line}: {why}; fix or remove the line", path = path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The fault.
        why: String,
    },
    /// A file without anything that can be shown.
    #[error("{path} holds neither a certificate nor a revocation list, request or key in PEM", path = path.display())]
    NothingToInspect {
        /// The file.
        path: PathBuf,
    },
    /// The signing itself failed.
    #[error("the certificate or revocation list could not be signed: {why}")]
    Signing {
        /// The error of rcgen.
        why: String,
    },
}

impl CertsError {
    /// Distinguishes an unsupported file from a damaged one.
    pub(crate) fn of_file(path: &Path, source: PemError) -> Self {
        match source {
            PemError::Unusable { why } => Self::Unusable { path: path.into(), why },
            source => Self::Damaged { path: path.into(), source },
        }
    }

    /// A fault of a file of which only the name is known, once its directory is.
    pub(super) fn in_dir(self, dir: &Path) -> Self {
        match self {
            Self::UnfitCa { path, why } => Self::UnfitCa { path: dir.join(path), why },
            Self::Unusable { path, why } => Self::Unusable { path: dir.join(path), why },
            other => other,
        }
    }
}

impl From<rcgen::Error> for CertsError {
    fn from(error: rcgen::Error) -> Self {
        Self::Signing { why: error.to_string() }
    }
}
