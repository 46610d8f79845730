//! Errors of credentials, with the file and the remedy.

use super::{certificate_info::Utc, identity::IdentityError, pem_error::PemError};
use crate::{
    name::{PeerName, Role},
    system::reader_remedy,
};
use std::{io, path::PathBuf};

/// Error of loading credentials, with the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file or directory does not exist.
    #[error("{path} does not exist; {remedy}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The remedy.
        remedy: &'static str,
    },
    /// A revocation list is not there although it is named, or although the CA was made with one.
    #[error(
        "{path} does not exist: without its revocation list, revoked certificates of the CA would be accepted; copy the list from the CA (`dialback certs crl` creates it there), or run without one: --crl none, or crl = \"none\" under [tls]",
        path = path.display()
    )]
    MissingList {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}{}", reader_remedy(source), path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file contains nothing of the required kind.
    #[error("{location} holds no {wanted}: {found}")]
    Lacking {
        /// The file.
        location: String,
        /// The kind that is required.
        wanted: &'static str,
        /// The kind that was found.
        found: &'static str,
    },
    /// A file has the wanted kind of content and it is broken.
    #[error("{location} is damaged: {why}; copy it again, or create a new one")]
    Damaged {
        /// The file.
        location: String,
        /// The fault.
        why: String,
    },
    /// A file that is whole and not supported: UTF-16, DER, an encrypted key, DSA.
    #[error("{location} cannot be used: {why}")]
    Unusable {
        /// The file.
        location: String,
        /// The fault and the remedy.
        why: String,
    },
    /// A key that others can read.
    #[error(
        "{path} has mode {mode:04o}, so other users can access the private key; fix it with `chmod 600 {path}`",
        path = path.display()
    )]
    ExposedKey {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the private key in {key} is not the key of the certificate in {cert}; use a pair that was created together"
    )]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        cert: String,
    },
    /// The certificate names no peer.
    #[error("{location} cannot be used")]
    NoIdentity {
        /// The file.
        location: String,
        /// The reason.
        source: IdentityError,
    },
    /// The certificate is not valid yet.
    #[error(
        "{location} is not valid yet: it is valid from {since}, and the local clock says {now}; the clock may be behind, check it"
    )]
    NotValidYet {
        /// The file.
        location: String,
        /// Start of its validity.
        since: Utc,
        /// The local clock.
        now: Utc,
    },
    /// The certificate has expired.
    #[error(
        "{location} has expired: it was valid until {until}, and the local clock says {now}; issue it again with `dialback certs issue {peer}`, or check the clock"
    )]
    Expired {
        /// The file.
        location: String,
        /// End of its validity.
        until: Utc,
        /// The local clock.
        now: Utc,
        /// Role and name, as the command wants them.
        peer: String,
    },
    /// An intermediate in the chain of the certificate has expired.
    #[error(
        "the intermediate certificate {subject} in {location} has expired: it was valid until {until}, and the local clock says {now}; append the current certificate of that CA to the leaf in the file, or check the clock"
    )]
    IntermediateExpired {
        /// The file.
        location: String,
        /// Subject of the intermediate.
        subject: String,
        /// End of its validity.
        until: Utc,
        /// The local clock.
        now: Utc,
    },
    /// A leaf in place of a CA.
    #[error(
        "{location} holds {subject:?}, which is not a CA certificate; name the file with the CA's certificate (ca.pem)"
    )]
    NoAuthority {
        /// The file.
        location: String,
        /// The certificate's subject.
        subject: String,
    },
    /// A leaf that the CAs of its role did not sign, where nodes have CAs of their own.
    #[error(
        "{cert} is not signed by a CA in {bundle} ({why}); with node_ca set, nodes are signed by a CA in node_ca, agents and callers by a CA in ca: check that the two files are not swapped, and that the right CA signed this certificate of role {role}"
    )]
    ForeignLeaf {
        /// The certificate's file.
        cert: String,
        /// Its role.
        role: Role,
        /// The CAs that should have signed it.
        bundle: String,
        /// The error of the verification.
        why: String,
    },
    /// Revocation lists, and none of a CA that is known here: every peer would be refused.
    #[error(
        "{location} has no revocation list of a known CA: its lists are of {found}, and the CAs in {bundle} are {known}; copy the crl.pem of that CA (`dialback certs crl`)"
    )]
    ForeignLists {
        /// The lists' file.
        location: String,
        /// Issuers of the lists.
        found: String,
        /// The CAs' file.
        bundle: String,
        /// The CAs that are known.
        known: String,
    },
    /// A list that names a known CA as its issuer, and is not signed by it.
    #[error(
        "bad signature: the revocation list of {issuer} in {location} is not signed by the known CA of that name; it was modified, or is of another CA with this name: copy the crl.pem of the CA"
    )]
    ForgedList {
        /// The lists' file.
        location: String,
        /// Issuer of the list.
        issuer: String,
    },
    /// A list that is older than the one that is in use, for a peer that runs.
    #[error(
        "the revocation list of {issuer} in {location} ({found}) is older than the one in use ({in_use}), so certificates revoked in between would be accepted; copy the newer list, or restart to go back"
    )]
    OlderList {
        /// The lists' file.
        location: String,
        /// Issuer of the list.
        issuer: String,
        /// Number and date of the list.
        found: String,
        /// The list in use.
        in_use: String,
    },
    /// Two CAs with the same name.
    #[error(
        "{location} holds two CAs with the same name, {subject:?}, and revocation lists are found by name; remove one, or create a CA with another name"
    )]
    TwoAuthorities {
        /// The file.
        location: String,
        /// The name.
        subject: String,
    },
    /// Credentials of another role than the one this side needs.
    #[error(
        "wrong role: {location} is the certificate of {found}, and role {wanted} is required here; name a certificate of role {wanted} with --cert and --key, or issue one with `dialback certs issue {wanted} NAME`"
    )]
    WrongRole {
        /// The file.
        location: String,
        /// The peer that it names.
        found: PeerName,
        /// The role that is required.
        wanted: Role,
    },
    /// Credentials of another peer than the running one.
    #[error(
        "{location} is the certificate of {found}, and {wanted} runs here; run another peer in a process of its own"
    )]
    OtherPeer {
        /// The file.
        location: String,
        /// The peer that it names.
        found: String,
        /// The running peer.
        wanted: String,
    },
    /// A directory without a leaf of the role.
    #[error("{dir} holds no certificate of role {role}; {remedy}", dir = dir.display())]
    NoneInDir {
        /// The directory.
        dir: PathBuf,
        /// The role.
        role: Role,
        /// The remedy.
        remedy: &'static str,
    },
    /// A directory with several leafs of the role.
    #[error("{dir} holds several certificates of role {role} ({found}); name one with --cert and --key", dir = dir.display())]
    SeveralInDir {
        /// The directory.
        dir: PathBuf,
        /// The role.
        role: Role,
        /// Their names.
        found: String,
    },
    /// TLS did not take the settings.
    #[error("TLS cannot be set up with these credentials")]
    Tls {
        /// The error of rustls.
        #[from]
        source: rustls::Error,
    },
}

impl From<PemError> for IdentityError {
    fn from(error: PemError) -> Self {
        Self::Unreadable { why: error.to_string() }
    }
}
