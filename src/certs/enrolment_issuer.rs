//! A CA that signs agents and callers, each leaf recorded: it cannot issue nodes, hosts or CAs.

use super::{
    CertsDir, CertsError, LeafProfile, TokenUseError,
    ca::Ca,
    dir::{CRL, ISSUED, JOIN_TOKENS, expect_valid},
    files,
    issue::signed_leaf,
    issued,
    params::BACKDATED,
    tokens::{GoodToken, JoinTokens},
};
use crate::{
    limits::ENROLLER_LEAF_LIFE,
    name::{PeerName, Role},
    tls::{self, CertificateInfo, CrlInfo, CsrInfo, Identity, PemError},
};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

/// The issuing side of an enroller. Reads and writes files; may wait for other commands.
pub(crate) struct EnrolmentIssuer {
    dir: CertsDir,
    ca: Ca,
    leaf_life: Duration,
    /// True if there was ever a revocation list: without it revoked peers would be admitted.
    has_list: AtomicBool,
    /// Holds off other threads where files cannot be locked.
    turn: Mutex<()>,
}

#[derive(Debug, Clone)]
pub(crate) struct GrantedLeaf {
    /// True if it was signed now, and not for the same key before.
    pub(crate) is_new: bool,
    pub(crate) peer: PeerName,
    pub(crate) serial: String,
    pub(crate) not_after: SystemTime,
    pub(crate) leaf_pem: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error(transparent)]
    Token(#[from] TokenUseError),
    #[error("{0} is neither an agent nor a caller, and an enroller signs no other role")]
    Role(PeerName),
    #[error("invalid certificate request: {0}")]
    Request(PemError),
    #[error("certificate {0} is revoked")]
    Revoked(String),
    #[error("the key of the request is that of the revoked certificate {0}; create a new key")]
    RevokedKey(String),
    #[error("the certificate has more than half of its lifetime left")]
    TooEarly,
    #[error("{0}")]
    Broken(#[from] CertsError),
}

/// A peer that an enroller may sign. Holding one is the proof.
struct Enrollable(PeerName);

impl Enrollable {
    fn new(peer: PeerName) -> Result<Self, IssueError> {
        match peer.role {
            Role::Agent | Role::Caller => Ok(Self(peer)),
            Role::Node => Err(IssueError::Role(peer)),
        }
    }
}

impl EnrolmentIssuer {
    /// Takes the CA of a directory. The leafs will hold for `leaf_life`.
    pub(crate) fn open(
        dir: CertsDir,
        leaf_life: Duration,
        now: SystemTime,
    ) -> Result<Self, CertsError> {
        let ca = dir.ca()?;
        expect_valid(&ca, now)?;
        let has_list = AtomicBool::new(ca.info().is_ca_with_list() || dir.has_list_number());
        let issuer = Self { dir, ca, leaf_life, has_list, turn: Mutex::new(()) };
        issuer.crl()?;
        Ok(issuer)
    }

    /// The CA's certificate, and the others in its file.
    pub(crate) fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    pub(crate) fn trust_domain(&self) -> &str {
        self.ca.trust_domain()
    }

    /// A first leaf, by a token, which is used up in one step with the record of its leaf: there is
    /// never a second one. The same key gets it again, because the first answer may have been lost.
    pub(crate) fn join(
        &self,
        secret: &[u8],
        peer: &str,
        request: &[u8],
        now: SystemTime,
    ) -> Result<GrantedLeaf, IssueError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _held = self.dir.hold()?;
        let path = self.dir.at(JOIN_TOKENS);
        let mut tokens = JoinTokens::read(&path)?;
        let good = tokens.check(secret, peer, now)?;
        // Unauthenticated clients do not get as far as this parser.
        let key = CsrInfo::from_der(request).map_err(IssueError::Request);
        match good {
            GoodToken::Granted { peer, leaf_pem } => {
                self.grant_again(peer, leaf_pem, key.ok().as_ref(), now)
            }
            GoodToken::Unused { at, peer } => {
                let (peer, key) = (Enrollable::new(peer)?, key?);
                self.expect_key_not_revoked(&peer.0, &key)?;
                let granted = self.sign(peer, &key, now)?;
                tokens.use_up(at, granted.leaf_pem.clone(), now);
                tokens.write(&path)?;
                Ok(granted)
            }
        }
    }

    /// The leaf that a token was used for, if it still holds and this is its key.
    fn grant_again(
        &self,
        peer: PeerName,
        leaf_pem: String,
        key: Option<&CsrInfo>,
        now: SystemTime,
    ) -> Result<GrantedLeaf, IssueError> {
        let info = signed_leaf(&leaf_pem)?;
        let is_same_key = key.is_some_and(|key| info.has_public_key(key.public_key_der()));
        if !is_same_key || now > info.not_after {
            return Err(TokenUseError::Used.into());
        }
        if self.dir.is_revoked(&info.serial)? {
            return Err(IssueError::Revoked(info.serial));
        }
        let (serial, not_after) = (info.serial, info.not_after);
        Ok(GrantedLeaf { is_new: false, peer, serial, not_after, leaf_pem })
    }

    /// The next leaf of a peer that has shown its present one, in the second half of its life.
    pub(crate) fn renew(
        &self,
        present: &Identity,
        request: &[u8],
        now: SystemTime,
    ) -> Result<GrantedLeaf, IssueError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _held = self.dir.hold()?;
        let peer = Enrollable::new(present.peer_name().clone())?;
        self.expect_good(present)?;
        if let Some(serial) = self.dir.revoked_serial_sharing_key(present.serial())? {
            return Err(IssueError::RevokedKey(serial));
        }
        let life = present.not_after().duration_since(present.not_before()).unwrap_or_default();
        if now < present.not_before() + life / 2 {
            return Err(IssueError::TooEarly);
        }
        let key = CsrInfo::from_der(request).map_err(IssueError::Request)?;
        self.expect_key_not_revoked(&peer.0, &key)?;
        self.sign(peer, &key, now)
    }

    /// A new certificate would admit a revoked key again, perhaps a stolen one.
    fn expect_key_not_revoked(&self, peer: &PeerName, key: &CsrInfo) -> Result<(), IssueError> {
        match self.dir.revoked_serial_of_key(peer, key.public_key_der())? {
            None => Ok(()),
            Some(serial) => Err(IssueError::RevokedKey(serial)),
        }
    }

    /// Rejects a revoked certificate. Reads list and record again.
    pub(crate) fn expect_good(&self, present: &Identity) -> Result<(), IssueError> {
        self.crl()?;
        if self.dir.is_revoked(present.serial())? {
            return Err(IssueError::Revoked(present.serial().into()));
        }
        Ok(())
    }

    /// The revocation list as it is now, if the directory has one.
    pub(crate) fn crl(&self) -> Result<Option<String>, CertsError> {
        let path = self.dir.at(CRL);
        match files::read_if_there(&path)? {
            Some(text)
                if CrlInfo::all_from_pem(text.as_bytes()).is_ok_and(|all| !all.is_empty()) =>
            {
                self.has_list.store(true, Ordering::Release);
                Ok(Some(text))
            }
            None if !self.has_list.load(Ordering::Acquire) => Ok(None),
            None => Err(CertsError::ListGone { path }),
            _ => Err(CertsError::NothingToInspect { path }),
        }
    }

    /// The only function that uses this CA's key for a peer.
    fn sign(
        &self,
        peer: Enrollable,
        key: &CsrInfo,
        now: SystemTime,
    ) -> Result<GrantedLeaf, IssueError> {
        let Enrollable(peer) = peer;
        expect_valid(&self.ca, now)?;
        let profile = self.profile(&peer, now);
        // Only the key of a request is used; all else in it is ignored.
        let leaf_pem = self.ca.leaf_for_key(&profile, key.public_key_der())?.cert;
        let info = signed_leaf(&leaf_pem)?;
        self.expect_as_meant(&info, &peer)?;
        issued::append(&self.dir.at(ISSUED), &peer, &info, &[])?;
        let (serial, not_after) = (info.serial, info.not_after);
        Ok(GrantedLeaf { is_new: true, peer, serial, not_after, leaf_pem })
    }

    fn profile(&self, peer: &PeerName, now: SystemTime) -> LeafProfile {
        let not_after = (now + self.leaf_life).min(self.ca.info().not_after);
        // An hour would be most of a short life, and a leaf is renewed by its age.
        let not_before = now - BACKDATED.min(self.leaf_life / 10);
        let profile = LeafProfile::new(self.ca.trust_domain(), peer, &[], now);
        LeafProfile { not_before, not_after, ..profile }
    }

    /// Verifies the signed certificate before it is sent.
    fn expect_as_meant(&self, leaf: &CertificateInfo, peer: &PeerName) -> Result<(), CertsError> {
        let is_meant = !leaf.is_ca
            && leaf.uri_sans == [tls::spiffe_uri(self.ca.trust_domain(), peer)]
            && leaf.dns_sans.is_empty()
            && leaf.ip_sans.is_empty()
            && leaf.extended_key_usages == ["client authentication"];
        if is_meant {
            return Ok(());
        }
        Err(CertsError::Signing {
            why: "the signed certificate is not the one that was requested".into(),
        })
    }

    /// A PEM certificate and key for the enroller itself. Names no peer; not stored or recorded.
    pub(crate) fn enroller_leaf(&self, now: SystemTime) -> Result<super::LeafPem, CertsError> {
        self.ca.leaf(&LeafProfile {
            common_name: "dialback enroller".into(),
            uris: vec![tls::enroller_uri(self.ca.trust_domain())],
            hosts: vec![],
            usages: vec![super::Usage::ServerAuth],
            not_before: now - BACKDATED,
            not_after: (now + ENROLLER_LEAF_LIFE).min(self.ca.info().not_after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::{
        JoinToken, KeyRequest,
        fixtures::{HOUR, now, peer, with_ca},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(leaf_life: Duration) -> (tempfile::TempDir, EnrolmentIssuer) {
        let (dir, certs) = with_ca();
        (dir, EnrolmentIssuer::open(certs, leaf_life, now()).expect("opened"))
    }

    fn token(issuer: &EnrolmentIssuer) -> JoinToken {
        issuer.dir.make_token(&peer("agent/a"), 24 * HOUR, now()).expect("made")
    }

    fn identity(leaf_pem: &str) -> Identity {
        let der = tls::pem_bodies(leaf_pem.as_bytes(), tls::PemKind::Certificate).expect("PEM");
        let chain: Vec<_> = der.into_iter().map(Into::into).collect();
        Identity::from_verified_chain(&chain, "dialback.local").expect("an identity")
    }

    #[test]
    fn a_leaf_is_renewed_from_the_middle_of_its_lifetime_on() {
        let ((_dir, issuer), key) = (opened(240 * HOUR), KeyRequest::generate().expect("made"));
        let token = token(&issuer);
        let granted = issuer.join(token.secret(), "agent/a", &key.request, now()).expect("joined");
        let present = identity(&granted.leaf_pem);
        let life = present.not_after().duration_since(present.not_before()).expect("later");
        let middle = present.not_before() + life / 2;
        let renew = |at| issuer.renew(&present, &key.request, at).map(|granted| granted.is_new);
        assert!(matches!(renew(middle - SECOND), Err(IssueError::TooEarly)));
        assert!(matches!(renew(middle), Ok(true)));
    }

    #[test]
    fn a_lost_answer_is_repeated_for_the_same_key_until_its_leaf_ends() {
        let ((_dir, issuer), key) = (opened(HOUR), KeyRequest::generate().expect("made"));
        let token = token(&issuer);
        let join = |key: &KeyRequest, at| {
            let granted = issuer.join(token.secret(), "agent/a", &key.request, at);
            granted.map(|granted| (granted.is_new, granted.serial, granted.not_after))
        };
        let (is_new, serial, end) = join(&key, now()).expect("joined");
        assert!(is_new);
        assert_eq!(join(&key, end).expect("repeated"), (false, serial, end));
        let is_used = |joined| matches!(joined, Err(IssueError::Token(TokenUseError::Used)));
        assert!(is_used(join(&key, end + SECOND)));
        assert!(is_used(join(&KeyRequest::generate().expect("made"), now())));
    }
}
