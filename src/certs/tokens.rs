//! `join-tokens.jsonl`: the tokens that were made here, by the hashes of their secrets.

use super::{
    CertsDir, CertsError, JoinToken,
    dir::JOIN_TOKENS,
    files::{self, Audience},
    record,
};
use crate::{
    limits::{TOKEN_REMEMBERED, TOKEN_TTL_MAX, TOKENS_MAX},
    name::{PeerName, Role},
    tls::{self, Utc, from_hex, hex},
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Error of creating a join token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Enrollers do not sign nodes.
    #[error(
        "an enroller signs agents and callers only; issue a node's certificate at the CA with `dialback certs issue node NAME --san HOST_OR_IP`"
    )]
    Node,
    /// No time, or too much.
    #[error("invalid ttl: a join token is valid for 1 s to 30 days; write --ttl 1h or --ttl 2d")]
    BadTtl,
    /// The file is full.
    #[error(
        "{path} is full: it has {TOKENS_MAX} join tokens that have not expired; use them, or remove lines", path = path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The directory.
    #[error(transparent)]
    Certs(#[from] CertsError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenUseError {
    #[error("no such token was made here, or it was over more than a week ago")]
    Unknown,
    #[error("the token was already used; each is valid once")]
    Used,
    #[error("the token has expired")]
    Expired,
    #[error("the token is for another peer")]
    OtherPeer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct JoinTokenEntry {
    hash: [u8; tls::DIGEST_BYTES],
    peer: PeerName,
    not_after: SystemTime,
    used: Option<SystemTime>,
    /// The signed certificate, PEM, until `not_after`: its key gets it again if an answer was lost.
    leaf_pem: Option<String>,
}

/// A token whose bearer has shown its secret, and may have a certificate for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GoodToken {
    /// It is unused.
    Unused {
        /// Its index among the tokens.
        at: usize,
        /// The peer that it names.
        peer: PeerName,
    },
    /// Used by this peer, and not expired. The certificate is for the holder of its key.
    Granted {
        /// The peer that it names.
        peer: PeerName,
        /// The certificate that was signed for it, PEM.
        leaf_pem: String,
    },
}

#[derive(Serialize, Deserialize)]
struct JoinTokenRecord {
    hash: String,
    #[serde(rename = "party")]
    peer: String,
    not_after: String,
    used: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leaf: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct JoinTokens(Vec<JoinTokenEntry>);

impl JoinTokens {
    /// Finds the token of a secret, for the peer that its bearer claims to be. Every entry is
    /// compared, each in the same time.
    pub(super) fn check(
        &self,
        secret: &[u8],
        peer: &str,
        now: SystemTime,
    ) -> Result<GoodToken, TokenUseError> {
        let hash = tls::sha256(secret);
        let found = self.0.iter().enumerate().fold(None, |found, (at, entry)| {
            if tls::is_same(&entry.hash, &hash) { Some((at, entry)) } else { found }
        });
        let (at, entry) = found.ok_or(TokenUseError::Unknown)?;
        let (is_over, is_own) = (now > entry.not_after, entry.peer.to_string() == peer);
        let peer = entry.peer.clone();
        match &entry.leaf_pem {
            Some(leaf_pem) if is_own && !is_over => {
                Ok(GoodToken::Granted { peer, leaf_pem: leaf_pem.clone() })
            }
            _ if entry.used.is_some() => Err(TokenUseError::Used),
            _ if is_over => Err(TokenUseError::Expired),
            _ if !is_own => Err(TokenUseError::OtherPeer),
            _ => Ok(GoodToken::Unused { at, peer }),
        }
    }

    /// Uses the token at this index, for this certificate only. Deletes expired tokens.
    pub(super) fn use_up(&mut self, at: usize, leaf_pem: String, now: SystemTime) {
        if let Some(entry) = self.0.get_mut(at) {
            entry.used = Some(now);
            entry.leaf_pem = Some(leaf_pem);
        }
        self.forget(now);
    }

    /// Forgets tokens that were over long ago, and certificates of tokens that are over.
    fn forget(&mut self, now: SystemTime) {
        self.0.retain(|entry| now <= entry.not_after + TOKEN_REMEMBERED);
        for entry in self.0.iter_mut().filter(|entry| now > entry.not_after) {
            entry.leaf_pem = None;
        }
    }

    pub(super) fn read(path: &Path) -> Result<Self, CertsError> {
        let parse = |line: &str| parse(line).ok_or_else(|| "not a join token's record".into());
        Ok(Self(record::read(path, parse)?))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), CertsError> {
        let mut text = String::new();
        for entry in &self.0 {
            text += &line_of(entry)?;
            text.push('\n');
        }
        files::replace(path, &text, Audience::Owner)
    }
}

fn line_of(entry: &JoinTokenEntry) -> Result<String, CertsError> {
    let JoinTokenEntry { hash, peer, not_after, used, leaf_pem } = entry;
    let line = JoinTokenRecord {
        hash: hex(hash),
        peer: peer.to_string(),
        not_after: Utc(*not_after).to_string(),
        used: used.map(|used| Utc(used).to_string()),
        leaf: leaf_pem.clone(),
    };
    record::line(&line)
}

fn parse(line: &str) -> Option<JoinTokenEntry> {
    let line: JoinTokenRecord = serde_json::from_str(line).ok()?;
    Some(JoinTokenEntry {
        hash: from_hex(&line.hash)?,
        peer: line.peer.parse().ok()?,
        not_after: record::moment(&line.not_after).ok()?,
        used: line.used.as_deref().map(record::moment).transpose().ok()?,
        leaf_pem: line.leaf,
    })
}

impl CertsDir {
    /// Makes a join token: it lets one machine join as this peer once, until `ttl` from `now`. Only
    /// a hash of its secret is kept, in `join-tokens.jsonl` (0600), read at every use.
    ///
    /// # Errors
    /// A node, no time or more than 30 days, a directory without a CA or not writable.
    pub fn make_token(
        &self,
        peer: &PeerName,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<JoinToken, TokenError> {
        if peer.role == Role::Node {
            return Err(TokenError::Node);
        }
        if ttl < Duration::from_secs(1) || ttl > TOKEN_TTL_MAX {
            return Err(TokenError::BadTtl);
        }
        let _held = self.hold()?;
        let token = JoinToken::new(peer.clone(), now + ttl, self.ca()?.fingerprint);
        let (path, hash) = (self.at(JOIN_TOKENS), tls::sha256(token.secret()));
        let mut tokens = JoinTokens::read(&path)?;
        tokens.forget(now);
        if tokens.0.len() >= TOKENS_MAX {
            return Err(TokenError::Full { path });
        }
        let not_after = token.not_after();
        let peer = peer.clone();
        tokens.0.push(JoinTokenEntry { hash, peer, not_after, used: None, leaf_pem: None });
        tokens.write(&path)?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::fixtures::{HOUR, now, peer, with_ca};

    /// A certificate, as far as these tests look at it.
    const LEAF: &str = "a leaf";

    fn granted() -> Result<GoodToken, TokenUseError> {
        Ok(GoodToken::Granted { peer: peer("agent/a"), leaf_pem: LEAF.into() })
    }

    fn tokens(certs: &CertsDir) -> JoinTokens {
        JoinTokens::read(&certs.at(JOIN_TOKENS)).expect("read")
    }

    #[test]
    fn a_token_is_valid_once_for_its_peer_until_its_end() {
        let (_dir, certs) = with_ca();
        let token = certs.make_token(&peer("agent/a"), HOUR, now()).expect("made");
        let other = certs.make_token(&peer("caller/a"), HOUR, now()).expect("made");
        let take = |token: &JoinToken, peer: &str, now| {
            let mut tokens = tokens(&certs);
            let checked = tokens.check(token.secret(), peer, now)?;
            if let GoodToken::Unused { at, .. } = &checked {
                tokens.use_up(*at, LEAF.into(), now);
                tokens.write(&certs.at(JOIN_TOKENS)).expect("written");
            }
            Ok(checked)
        };
        let unused = |at, whose| Ok(GoodToken::Unused { at, peer: peer(whose) });
        assert_eq!(take(&token, "agent/b", now()), Err(TokenUseError::OtherPeer));
        assert_eq!(take(&token, "caller/a", now()), Err(TokenUseError::OtherPeer));
        let late = now() + HOUR + Duration::from_secs(1);
        assert_eq!(take(&token, "agent/a", late), Err(TokenUseError::Expired));
        assert_eq!(take(&token, "agent/a", now() + HOUR), unused(0, "agent/a"));
        assert_eq!(take(&token, "agent/a", now() + HOUR), granted());
        assert_eq!(take(&token, "agent/b", now() + HOUR), Err(TokenUseError::Used));
        assert_eq!(take(&token, "agent/a", late), Err(TokenUseError::Used));
        assert_eq!(take(&other, "caller/a", now()), unused(1, "caller/a"));
        let unknown = JoinToken::new(peer("agent/a"), late, *token.ca_fingerprint());
        assert_eq!(take(&unknown, "agent/a", now()), Err(TokenUseError::Unknown));
    }

    #[test]
    fn an_expired_token_keeps_its_use_and_drops_its_certificate() {
        let (_dir, certs) = with_ca();
        let agent = peer("agent/a");
        let token = certs.make_token(&agent, HOUR, now()).expect("made");
        let mut used = tokens(&certs);
        used.use_up(0, LEAF.into(), now());
        used.write(&certs.at(JOIN_TOKENS)).expect("written");
        let check = |now| tokens(&certs).check(token.secret(), "agent/a", now);
        certs.make_token(&agent, HOUR, now() + HOUR).expect("made");
        assert_eq!(check(now()), granted());
        certs.make_token(&agent, HOUR, now() + HOUR + Duration::from_secs(1)).expect("made");
        assert_eq!(check(now()), Err(TokenUseError::Used));
        let text = files::read(&certs.at(JOIN_TOKENS)).expect("read");
        assert!(!text.contains(LEAF), "{text}");
    }

    #[test]
    fn a_use_recorded_by_an_earlier_release_counts() {
        let (_dir, certs) = with_ca();
        let token = certs.make_token(&peer("agent/a"), HOUR, now()).expect("made");
        let text = files::read(&certs.at(JOIN_TOKENS)).expect("read");
        let used = text.replace("\"used\":null", "\"used\":\"2027-01-15T08:00:00Z\"");
        assert_ne!(text, used);
        std::fs::write(certs.at(JOIN_TOKENS), used).expect("written");
        let checked = tokens(&certs).check(token.secret(), "agent/a", now());
        assert_eq!(checked, Err(TokenUseError::Used));
    }

    #[test]
    fn the_file_holds_no_secret_and_only_its_owner_can_read_it() {
        let (_dir, certs) = with_ca();
        let token = certs.make_token(&peer("agent/a"), HOUR, now()).expect("made");
        let text = files::read(&certs.at(JOIN_TOKENS)).expect("read");
        assert!(text.contains("agent/a") && !text.contains(&hex(token.secret())), "{text}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let metadata = std::fs::metadata(certs.at(JOIN_TOKENS)).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn no_token_is_made_for_a_node_for_no_time_or_without_a_ca() {
        let (dir, certs) = with_ca();
        let refused = |certs: &CertsDir, whose: &str, ttl| {
            certs.make_token(&peer(whose), ttl, now()).expect_err("refused").to_string()
        };
        assert!(refused(&certs, "node/edge-1", HOUR).contains("agents and callers only"));
        for ttl in [Duration::ZERO, Duration::from_millis(999), TOKEN_TTL_MAX + HOUR] {
            assert!(refused(&certs, "agent/a", ttl).contains("--ttl"));
        }
        assert!(certs.make_token(&peer("agent/a"), TOKEN_TTL_MAX, now()).is_ok());
        let nowhere = CertsDir::new(dir.path().join("no"));
        assert!(refused(&nowhere, "agent/a", HOUR).contains("certs init"));
        assert!(!dir.path().join("no").exists());
    }

    #[test]
    fn tokens_are_deleted_a_week_after_their_end_and_one_past_the_limit_is_refused() {
        let (_dir, certs) = with_ca();
        let agent = peer("agent/a");
        certs.make_token(&agent, HOUR, now()).expect("made");
        certs.make_token(&agent, HOUR, now() + HOUR + TOKEN_REMEMBERED).expect("made");
        assert_eq!(tokens(&certs).0.len(), 2);
        let later = now() + 2 * HOUR + TOKEN_REMEMBERED;
        certs.make_token(&agent, HOUR, later).expect("made");
        assert_eq!(tokens(&certs).0.len(), 2, "the first one is forgotten");
        let entry = tokens(&certs).0.remove(0);
        let full = JoinTokens(vec![entry; TOKENS_MAX]);
        full.write(&certs.at(JOIN_TOKENS)).expect("written");
        let message = certs.make_token(&agent, HOUR, later).expect_err("full").to_string();
        assert!(message.contains("join-tokens.jsonl"), "{message}");
    }

    #[test]
    fn a_broken_line_is_named_and_admits_no_peer() {
        let (_dir, certs) = with_ca();
        std::fs::write(certs.at(JOIN_TOKENS), "\n{\"hash\":1}\n").expect("written");
        let message = JoinTokens::read(&certs.at(JOIN_TOKENS)).expect_err("refused").to_string();
        assert!(message.contains("join-tokens.jsonl:2:"), "{message}");
    }
}
