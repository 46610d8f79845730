//! Errors of joining and renewing, with the remedy.

#[cfg(feature = "tunnel")]
use crate::link::sentence;
use crate::{
    certs::CertsError,
    link::LinkFault,
    name::{NodeAddress, PeerName},
    tls::{CredentialsError, Utc},
    wire::JoinRefusal,
};
use std::path::PathBuf;

/// Error of joining or renewing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// A valid certificate of this peer exists. No request was sent, and the token was not used.
    #[error(
        "{path} exists and is valid until {until}; the enroller was not asked and the token was not used; replace it with --force", path = path.display()
    )]
    AlreadyThere {
        /// The certificate.
        path: PathBuf,
        /// End of its validity.
        until: Utc,
    },
    /// The directory trusts another CA.
    #[error(
        "unknown CA: {path} does not hold the CA that the token names; choose another --dir, or remove the file if it is no longer needed", path = path.display()
    )]
    OtherCa {
        /// The file.
        path: PathBuf,
    },
    /// The token has expired by the local clock. No request was sent.
    #[error(
        "the token has expired: it was valid until {until}, and the local clock says {now}; ask for a new one, or check the clock"
    )]
    TokenOver {
        /// End of its validity.
        until: Utc,
        /// The local clock.
        now: Utc,
    },
    /// The present certificate has expired, so it cannot be used to renew itself.
    #[error(
        "certificate expired: {location} was valid until {until}, and the local clock says {now}, so it cannot be renewed; ask the operator of the enroller for `dialback enroll token {peer}`, then run `dialback {role} join --enroll HOST:PORT --token T` here; or check the clock",
        role = peer.split(' ').next().unwrap_or_default()
    )]
    TooLate {
        /// The certificate.
        location: String,
        /// End of its validity.
        until: Utc,
        /// The local clock.
        now: Utc,
        /// Role and name, as the command wants them.
        peer: String,
    },
    /// The files of the present certificate cannot be loaded.
    #[error(transparent)]
    Credentials(CredentialsError),
    /// Local files or keys cannot be used.
    #[error(transparent)]
    Files(#[from] CertsError),
    /// No answer, or a network error.
    #[error("cannot reach the enroller at {address}: {why}")]
    Unreachable {
        /// Its address.
        address: NodeAddress,
        /// The cause.
        why: String,
        /// True if waiting alone does not help: a proxy refused this process.
        is_refusal: bool,
    },
    /// One side rejected the other in the handshake.
    #[error(
        "handshake with {address} failed: {reason}; check --enroll, and if it is right {remedy}"
    )]
    Untrusted {
        /// Its address.
        address: NodeAddress,
        /// The fault.
        reason: String,
        /// The remedy.
        remedy: &'static str,
    },
    /// The enroller refused.
    #[error("the enroller at {address} rejected {peer}: {code}: {text}; {remedy}", remedy = remedy(*code))]
    Refused {
        /// Its address.
        address: NodeAddress,
        /// The requesting peer.
        peer: PeerName,
        /// The reason.
        code: JoinRefusal,
        /// Its text, with control characters escaped.
        text: String,
    },
    /// The enroller granted something that cannot be used.
    #[error("invalid answer from the enroller at {address}: {why}; check its log and its CA")]
    BadAnswer {
        /// Its address.
        address: NodeAddress,
        /// The fault.
        why: String,
    },
}

const fn remedy(code: JoinRefusal) -> &'static str {
    match code {
        JoinRefusal::TokenUnknown
        | JoinRefusal::TokenUsed
        | JoinRefusal::TokenExpired
        | JoinRefusal::OtherPeer => {
            "ask the operator of the enroller for a new token: `dialback enroll token ROLE NAME`"
        }
        JoinRefusal::TooMany => "wait a minute, then try again with the right token",
        JoinRefusal::Revoked | JoinRefusal::NoCertificate => {
            "ask the operator of the CA; a new token gives a new certificate"
        }
        JoinRefusal::Role => "issue a node's certificate at the CA",
        JoinRefusal::TooEarly => "nothing needs to be done yet; check both clocks if that is wrong",
        JoinRefusal::Malformed => "run one release on both sides",
        JoinRefusal::Internal => "see the enroller's log",
    }
}

impl EnrollError {
    /// True if the enroller, this side, or a proxy rejected the request: an immediate retry is
    /// useless.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Untrusted { .. }
                | Self::Unreachable { is_refusal: true, .. }
        )
    }

    pub(super) fn of_link(address: &NodeAddress, fault: LinkFault, remedy: &'static str) -> Self {
        let address = address.clone();
        match fault {
            #[cfg(feature = "tunnel")]
            LinkFault::NoPath { udp, tunnel } => match Self::of_link(&address, *udp, remedy) {
                Self::Unreachable { why, .. } => {
                    let why = format!("{} By a tunnel over TCP: {tunnel}", sentence(&why));
                    Self::Unreachable { address, why, is_refusal: tunnel.is_refusal() }
                }
                other => other,
            },
            LinkFault::Handshake { is_identity: true, is_not_valid_yet, reason, .. } => {
                let clocks = "check the clocks of both sides, of which one may be behind";
                let remedy = if is_not_valid_yet { clocks } else { remedy };
                Self::Untrusted { address, reason, remedy }
            }
            LinkFault::NoAnswer { .. } => Self::Unreachable {
                address,
                why: "it does not answer; is `dialback enroll` running there, and does a firewall block UDP on the way, or packets of 1,200 bytes?"
                    .into(),
                is_refusal: false,
            },
            LinkFault::ConnectionRefused { .. } => Self::Unreachable {
                address,
                why: "nothing listens on that UDP port (connection refused); is `dialback enroll` running there, is it the right port, or does a firewall reject UDP?"
                    .into(),
                is_refusal: false,
            },
            other => {
                let is_refusal = other.is_refusal() && !matches!(other, LinkFault::Handshake { .. });
                Self::Unreachable { address, why: other.to_string(), is_refusal }
            }
        }
    }
}

impl From<CredentialsError> for EnrollError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Expired { location, until, now, peer } => {
                Self::TooLate { location, until, now, peer }
            }
            other => Self::Credentials(other),
        }
    }
}
