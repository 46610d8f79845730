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
        "{path} does not exist, and without its revocation list no certificate of the CA is taken for revoked; bring the list from where the CA is (`dialback certs crl` makes it there), or go without one by --crl none, or crl = \"none\" under [tls]",
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
    #[error("{place} is damaged: {why}; copy or make it again")]
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
        "{path} has mode {mode:04o}, so that others can get at the key; mend it with `chmod 600 {path}`",
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
        "the key in {key} is not the key of the certificate in {cert}; take the two that were made together"
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
        "{place} is not valid yet: it holds from {since}, and the clock here says {now}; the clock may be behind, check it"
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
        "{place} has expired: it held until {until}, and the clock here says {now}; issue it again with `dialback certs issue {peer}`, or check the clock"
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
        "the intermediate certificate {subject} in {place} has expired: it held until {until}, and the clock here says {now}; put the current one of that CA behind the leaf in the file, or check the clock"
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
        "{place} holds {subject:?}, which is no CA; name the file with the CA's certificate (ca.pem)"
    )]
    NoAuthority {
        /// The file.
        place: String,
        /// The certificate's subject.
        subject: String,
    },
    /// A leaf that the CAs of its role did not sign, where nodes have CAs of their own.
    #[error(
        "{cert} is not signed by a CA of {bundle} ({why}); where node_ca is set, nodes are signed by a CA of node_ca, and agents and callers by one of ca: check that the two are not in each other's place, and that this certificate of role {role} is of the right CA"
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
        "{place} has no list of a CA that is known here: it has lists of {found}, and the CAs of {bundle} are {known}; take the crl.pem that was made beside that CA (`dialback certs crl`)"
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
        "the list of {issuer} in {place} is not signed by the CA of that name that is known here; it was changed, or is of another CA with this name: take the crl.pem that was made beside the CA"
    )]
    ForgedList {
        /// The lists' file.
        place: String,
        /// Whose list it says it is.
        issuer: String,
    },
    /// A list that is older than the one that is in force, for a peer that runs.
    #[error(
        "the list of {issuer} in {place} is an older one ({found}) than the one that is in force ({in_force}), and whoever was revoked in between would be let in; bring the newer one, or restart to go back"
    )]
    OlderList {
        /// The lists' file.
        place: String,
        /// Whose list it is.
        issuer: String,
        /// Which one it is.
        found: String,
        /// Which one is in force.
        in_force: String,
    },
    /// Two CAs that cannot be told apart by name.
    #[error(
        "{place} holds two CAs with one name, {subject:?}, and revocation lists are found by that name; remove one, or make a CA with a name of its own"
    )]
    TwoAuthorities {
        /// The file.
        place: String,
        /// The name.
        subject: String,
    },
    /// Credentials of another role than the one this side needs.
    #[error(
        "{place} is the certificate of {found}, and the role wanted here is {wanted}; name a certificate of role {wanted} with --cert and --key, or make one with `dialback certs issue {wanted} NAME`"
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
        "{place} is the certificate of {found}, and {wanted} runs here; another party needs a process of its own"
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
