//! Joins a machine: makes its key, recognises the enroller by the token, and writes its files.

use super::{error::EnrollError, lists};
#[cfg(feature = "tunnel")]
use crate::path::PathSettings;
use crate::{
    certs::{
        CertsError, JoinToken, KeyRequest, PendingKey, expect_writable, read_pem, replace_pair,
        replace_public,
    },
    link::{self, EnrollerAddress},
    name::{NodeAddress, PeerName},
    printable::printable,
    tls::{
        CredentialFiles, CredentialPem, Credentials, CredentialsError, CrlScope, ToEnroller, Utc,
        fingerprints,
    },
    wire::{JOIN_ALPN, JoinRefusal, JoinReply, JoinRequest},
};
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The remedy if an answer may have been lost.
const AGAIN: &str =
    "run the same command again, the token stays good for this machine until its time";

/// Configures the joining of one machine as one peer.
#[must_use = "nothing is asked before `run`"]
#[derive(Debug)]
pub struct Join {
    enroller: EnrollerAddress,
    token: JoinToken,
    dir: PathBuf,
    is_forced: bool,
}

/// A machine that has joined.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JoinedPeer {
    /// Its name.
    pub peer: PeerName,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// End of validity of the certificate, its intermediates included.
    pub not_after: SystemTime,
    /// The files: certificate, key, `ca.pem` and `crl.pem`.
    pub files: CredentialFiles,
}

impl Join {
    /// Configures joining by this token, at this enroller, with files in this directory.
    pub fn new(enroller: NodeAddress, token: JoinToken, dir: impl Into<PathBuf>) -> Self {
        Self { enroller: EnrollerAddress::udp(enroller), token, dir: dir.into(), is_forced: false }
    }

    /// Replaces a certificate that is still valid, which is otherwise refused before a request.
    pub fn force(mut self, is_forced: bool) -> Self {
        self.is_forced = is_forced;
        self
    }

    /// Sets the paths to the enroller, as [`PathSettings::of_enroller`] makes them. Default: UDP.
    #[cfg(feature = "tunnel")]
    pub fn paths(mut self, paths: PathSettings) -> Self {
        self.enroller.paths = paths;
        self
    }

    /// Makes a key, sends one request, and writes `ROLE-NAME.pem`, `ROLE-NAME.key` (0600), `ca.pem`
    /// and, if the enroller has one, `crl.pem`.
    ///
    /// The key never leaves this machine. Faults that can be detected locally are refused before
    /// the token is used: a good certificate that is there, a `ca.pem` of another CA, a directory
    /// that cannot be written. Takes 15 s at most. Dropping it cancels it.
    ///
    /// The key is kept as `.ROLE-NAME.key.pending` (0600) until its certificate is there or is
    /// refused. When an answer was lost, another run with the same token uses the same key, and
    /// gets the certificate that was signed for it.
    ///
    /// # Errors
    /// See [`EnrollError`].
    pub async fn run(self) -> Result<JoinedPeer, EnrollError> {
        let files = self.check_here(SystemTime::now())?;
        let pending = PendingKey::for_key(&files.key);
        let kept = pending.load()?;
        let was_kept = kept.is_some();
        let key = kept.map_or_else(|| pending.make(), Ok)?;
        let reply = match self.ask(&key).await {
            Err(error) if is_useless_after(&error, was_kept) => {
                pending.remove()?;
                return Err(error);
            }
            result => result?,
        };
        let joined = self.check(&key, &reply)?;
        let CredentialFiles { cert, key: key_path, ca, .. } = &files;
        if !ca.exists() {
            replace_public(ca, &reply.ca)?;
        }
        lists::take(&self.dir.join("crl.pem"), &reply.crl)?;
        replace_pair(cert, &reply.leaf, key_path, &key.key_pem)?;
        pending.remove()?;
        Ok(JoinedPeer {
            peer: joined.peer_name().clone(),
            serial: joined.identity().serial().into(),
            not_after: joined.validity().ends.at(),
            // Again, because there may be a list by now.
            files: CredentialFiles::in_dir(&self.dir, &self.stem()),
        })
    }

    fn stem(&self) -> String {
        let peer = self.token.peer();
        format!("{}-{}", peer.role, peer.name)
    }

    /// All checks that need no enroller.
    fn check_here(&self, now: SystemTime) -> Result<CredentialFiles, EnrollError> {
        let files = CredentialFiles::in_dir(&self.dir, &self.stem());
        if !self.is_forced {
            expect_replaceable(&files)?;
        }
        let until = self.token.not_after();
        if now > until {
            return Err(EnrollError::TokenOver { until: Utc(until), now: Utc(now) });
        }
        self.check_ca(&files.ca)?;
        expect_writable(&files.cert)?;
        Ok(files)
    }

    /// Other peers in this directory trust an existing `ca.pem`, so it is never replaced.
    fn check_ca(&self, path: &Path) -> Result<(), EnrollError> {
        let Some(pem) = read_pem(path)? else { return Ok(()) };
        match fingerprints(&pem) {
            Ok(found) if found.contains(self.token.ca_fingerprint()) => Ok(()),
            Ok(_) => Err(EnrollError::OtherCa { path: path.into() }),
            Err(source) => Err(CertsError::of_file(path, source).into()),
        }
    }

    /// True if the CA that the token names is among these.
    fn names_ca(&self, pem: &[u8]) -> bool {
        fingerprints(pem).is_ok_and(|found| found.contains(self.token.ca_fingerprint()))
    }

    async fn ask(&self, key: &KeyRequest) -> Result<JoinReply, EnrollError> {
        let peer = self.token.peer();
        let request = JoinRequest::join(&key.request, peer.to_string(), self.token.secret());
        let tls = ToEnroller::unauthenticated(*self.token.ca_fingerprint(), JOIN_ALPN)?;
        let remedy = "ask the operator of the enroller for a new token";
        exchange(&self.enroller, peer, &tls, request, remedy).await.map_err(|error| match error {
            EnrollError::Unreachable { address, why, is_refusal } => {
                let why = format!("{why}; {AGAIN}");
                EnrollError::Unreachable { address, why, is_refusal }
            }
            other => other,
        })
    }

    /// Checks everything in the answer.
    fn check(&self, key: &KeyRequest, reply: &JoinReply) -> Result<Credentials, EnrollError> {
        let checked = match self.names_ca(reply.ca.as_bytes()) {
            true => checked(key, reply, reply.ca.as_bytes(), self.token.peer()),
            false => Err("it does not hold the CA that the token names".into()),
        };
        checked
            .map_err(|why| EnrollError::BadAnswer { address: self.enroller.address.clone(), why })
    }
}

/// True if no certificate exists for a key after this error: the enroller has refused it or its
/// token, or no request was sent. Otherwise its answer may have been lost.
fn is_useless_after(error: &EnrollError, was_kept: bool) -> bool {
    use JoinRefusal::{Internal, Malformed, Revoked, TooMany};
    match error {
        // A kept key may have its certificate under another token: only a refusal of the key itself
        // makes it useless.
        EnrollError::Refused { code, .. } if was_kept => matches!(code, Malformed | Revoked),
        EnrollError::Refused { code, .. } => !matches!(code, TooMany | Internal),
        EnrollError::Untrusted { .. } => !was_kept,
        _ => false,
    }
}

/// Refuses to replace a valid certificate, and an undamaged key that cannot be used as it is. A
/// revocation list that is missing makes neither of them worse.
fn expect_replaceable(files: &CredentialFiles) -> Result<(), EnrollError> {
    match Credentials::from_files(&CredentialFiles { crl: None, ..files.clone() }) {
        Ok(there) => Err(EnrollError::AlreadyThere {
            path: files.cert.clone(),
            until: Utc(there.validity().ends.at()),
        }),
        Err(error @ (CredentialsError::Unusable { .. } | CredentialsError::ExposedKey { .. })) => {
            Err(error.into())
        }
        Err(_) => Ok(()),
    }
}

/// Checks that the granted certificate is for our key and name, and loads with these CAs.
pub(super) fn checked(
    key: &KeyRequest,
    reply: &JoinReply,
    ca: &[u8],
    peer: &PeerName,
) -> Result<Credentials, String> {
    let pem = CredentialPem {
        cert: reply.leaf.as_bytes(),
        key: key.key_pem.as_bytes(),
        ca,
        node_ca: None,
        crl: None,
        crl_scope: CrlScope::Leaf,
    };
    let granted = Credentials::from_pem(&pem).map_err(|error| error.to_string())?;
    if granted.peer_name() != peer {
        return Err("the certificate is for another peer".into());
    }
    Ok(granted)
}

/// Sends one request and receives its answer.
pub(super) async fn exchange(
    enroller: &EnrollerAddress,
    peer: &PeerName,
    tls: &ToEnroller,
    mut request: JoinRequest,
    remedy: &'static str,
) -> Result<JoinReply, EnrollError> {
    let address = &enroller.address;
    let bad = |why: String| EnrollError::BadAnswer { address: address.clone(), why };
    let bytes = request.encode().map(zeroize::Zeroizing::new);
    request.wipe();
    let bytes = bytes.map_err(|error| bad(error.to_string()))?;
    let answer = link::request_enrolment(enroller, tls, &bytes).await;
    let answer = answer.map_err(|fault| EnrollError::of_link(address, fault, remedy))?;
    let reply = JoinReply::decode(&answer).map_err(|error| bad(error.to_string()))?;
    match reply.refusal() {
        None => Ok(reply),
        Some(code) => Err(EnrollError::Refused {
            address: address.clone(),
            peer: peer.clone(),
            code,
            text: printable(&reply.text.chars().take(300).collect::<String>()),
        }),
    }
}
