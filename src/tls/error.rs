//! Why credentials cannot be used: the file, what is wrong with it, and the way out.

use super::{certificate_info::Utc, identity::IdentityError, pem_error::PemError};
use crate::name::{PeerName, Role};
use std::{io, path::PathBuf};

/// Why credentials were not loaded, with the file and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file or directory is not there.
    #[error("{path} does not exist; {remedy}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes one.
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
    #[error("cannot read {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is readable and has nothing of the wanted kind in it.
    #[error("{place} holds no {wanted}: {found}")]
    Lacking {
        /// The file.
        place: String,
        /// What was wanted.
        wanted: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A file has the wanted kind of content and it is broken.
    #[error("{place} is damaged: {why}; copy it again, or create a new one")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A file that is whole and not supported: UTF-16, DER, an encrypted key, DSA.
    #[error("{place} cannot be used: {why}")]
    Unusable {
        /// The file.
        place: String,
        /// What it is, and the remedy.
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
    #[error("{place} cannot be used")]
    NoParty {
        /// The file.
        place: String,
        /// Why not.
        source: IdentityError,
    },
    /// The certificate holds later only.
    #[error(
        "{place} is not valid yet: it is valid from {since}, and the local clock says {now}; the clock may be behind, check it"
    )]
    NotValidYet {
        /// The file.
        place: String,
        /// When it begins.
        since: Utc,
        /// The local clock.
        now: Utc,
    },
    /// The certificate holds no longer.
    #[error(
        "{place} has expired: it was valid until {until}, and the local clock says {now}; issue it again with `dialback certs issue {peer}`, or check the clock"
    )]
    Expired {
        /// The file.
        place: String,
        /// When it ended.
        until: Utc,
        /// The local clock.
        now: Utc,
        /// Role and name, as the command wants them.
        peer: String,
    },
    /// An intermediate that vouches for the certificate holds no longer.
    #[error(
        "the intermediate certificate {subject} in {place} has expired: it was valid until {until}, and the local clock says {now}; append the current certificate of that CA to the leaf in the file, or check the clock"
    )]
    IntermediateExpired {
        /// The file.
        place: String,
        /// Whose certificate the intermediate is.
        subject: String,
        /// When it ended.
        until: Utc,
        /// The local clock.
        now: Utc,
    },
    /// A leaf where a CA is wanted.
    #[error(
        "{place} holds {subject:?}, which is not a CA certificate; name the file with the CA's certificate (ca.pem)"
    )]
    NoAuthority {
        /// The file.
        place: String,
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
        /// What the check of the chain says.
        why: String,
    },
    /// Revocation lists, and none of a CA that is known here: every peer would be refused.
    #[error(
        "{place} has no revocation list of a known CA: its lists are of {found}, and the CAs in {bundle} are {known}; copy the crl.pem of that CA (`dialback certs crl`)"
    )]
    ForeignLists {
        /// The lists' file.
        place: String,
        /// Whose lists they are.
        found: String,
        /// The CAs' file.
        bundle: String,
        /// The CAs that are known.
        known: String,
    },
    /// A list that says it is of a known CA, and is not.
    #[error(
        "bad signature: the revocation list of {issuer} in {place} is not signed by the known CA of that name; it was modified, or is of another CA with this name: copy the crl.pem of the CA"
    )]
    ForgedList {
        /// The lists' file.
        place: String,
        /// Whose list it says it is.
        issuer: String,
    },
    /// A list that is older than the one that is in force, for a peer that runs.
    #[error(
        "the revocation list of {issuer} in {place} ({found}) is older than the one in use ({in_use}), so certificates revoked in between would be accepted; copy the newer list, or restart to go back"
    )]
    OlderList {
        /// The lists' file.
        place: String,
        /// Whose list it is.
        issuer: String,
        /// Which one it is.
        found: String,
        /// The list in use.
        in_use: String,
    },
    /// Two CAs that cannot be told apart by name.
    #[error(
        "{place} holds two CAs with the same name, {subject:?}, and revocation lists are found by name; remove one, or create a CA with another name"
    )]
    TwoAuthorities {
        /// The file.
        place: String,
        /// The name.
        subject: String,
    },
    /// Credentials of another role than the one this side needs.
    #[error(
        "wrong role: {place} is the certificate of {found}, and role {wanted} is required here; name a certificate of role {wanted} with --cert and --key, or issue one with `dialback certs issue {wanted} NAME`"
    )]
    WrongRole {
        /// The file.
        place: String,
        /// Whose it is.
        found: PeerName,
        /// What is wanted.
        wanted: Role,
    },
    /// Somebody else's, for a peer that runs.
    #[error(
        "{place} is the certificate of {found}, and {wanted} runs here; run another peer in a process of its own"
    )]
    OtherParty {
        /// The file.
        place: String,
        /// Whose it is.
        found: String,
        /// Who runs.
        wanted: String,
    },
    /// A directory without a leaf of the role.
    #[error("{dir} holds no certificate of role {role}; {remedy}", dir = dir.display())]
    NoneInDir {
        /// The directory.
        dir: PathBuf,
        /// The role.
        role: Role,
        /// What makes one.
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
        /// What rustls says.
        source: rustls::Error,
    },
}

impl From<rustls::Error> for CredentialsError {
    fn from(source: rustls::Error) -> Self {
        Self::Tls { source }
    }
}

impl From<PemError> for IdentityError {
    fn from(error: PemError) -> Self {
        Self::Unreadable { why: error.to_string() }
    }
}
