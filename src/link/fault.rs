//! Reasons why a link could not be made, or was lost, with the remedy.

#[cfg(feature = "tunnel")]
use crate::path::TunnelFault;
use crate::{
    backoff::BackoffCause,
    limits::PROBE_BYTES,
    name::NodeAddress,
    printable::printable,
    system,
    tls::{self, RejectedBy},
    wire::{CloseCode, Reaction},
};
use std::io;

/// Reason why a link could not be made or was lost. Its text has the cause and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// The host name has no address.
    #[error(
        "the name {host} does not resolve: {reason}; check the name, and the DNS of this machine"
    )]
    Unresolved {
        /// The host.
        host: String,
        /// The error of the resolver.
        reason: String,
    },
    /// The node did not answer.
    #[error(
        "the node at {address} does not answer; is it running, and does a firewall block UDP on the way, or packets of {PROBE_BYTES} bytes?"
    )]
    NoAnswer {
        /// The node.
        address: NodeAddress,
    },
    /// The machine answered that nothing listens on that port.
    #[error(
        "the node at {address} is not there: nothing listens on that UDP port (connection refused); is it running, is it the right port, or does a firewall reject UDP?"
    )]
    ConnectionRefused {
        /// The node.
        address: NodeAddress,
    },
    /// The MTU of the path is smaller than QUIC needs.
    #[error(
        "the path to {address} is too small for QUIC, which needs packets of {PROBE_BYTES} bytes (message too long); raise the MTU of the interface, VPN or tunnel on the way to 1,280"
    )]
    MtuTooSmall {
        /// The node.
        address: NodeAddress,
    },
    /// The socket could not send.
    #[error("cannot send to {address}: {reason}")]
    Unsendable {
        /// The node.
        address: NodeAddress,
        /// The error of the system.
        reason: String,
    },
    /// A tunnel could not be opened.
    #[cfg(feature = "tunnel")]
    #[error(transparent)]
    Tunnel(Box<TunnelFault>),
    /// Neither UDP nor a tunnel leads to the node.
    #[cfg(feature = "tunnel")]
    #[error("{} By a tunnel over TCP: {tunnel}", sentence(udp))]
    NoPath {
        /// The fault of UDP.
        udp: Box<Self>,
        /// The fault of the tunnel.
        tunnel: Box<TunnelFault>,
    },
    /// One side refused the other during the handshake.
    #[error("{reason}; {remedy}")]
    Handshake {
        /// True if a certificate was refused, rather than the protocol.
        is_identity: bool,
        /// True if a certificate was refused because it is not valid yet by the clock of one side.
        /// It may become valid by itself.
        is_not_valid_yet: bool,
        /// The fault.
        reason: String,
        /// The remedy.
        remedy: String,
    },
    /// A side closed the link with a code.
    #[error("{} with {code}: {text}", if *.by_peer { "the peer closed the link" } else { "we closed the link" })]
    Closed {
        /// The code.
        code: CloseCode,
        /// The reason, with control characters escaped.
        text: String,
        /// True if the peer closed it.
        by_peer: bool,
    },
    /// The peer is draining. The link is still up, for the calls that are on it.
    #[error("the peer is leaving: {reason}")]
    Draining {
        /// The reason, with control characters escaped.
        reason: String,
    },
    /// The certificate of a node is near its end, and a dial found no newer one.
    #[error("the certificate of the node is about to end, and it shows no newer one")]
    NotNewer,
    /// Nothing was received for too long.
    #[error("the link went silent: {0}")]
    Silent(&'static str),
    /// The peer broke the protocol, or QUIC itself failed.
    #[error("the link broke: {0}")]
    Broken(String),
}

impl LinkFault {
    /// Makes the fault of a handshake that failed, or of a link that was lost.
    pub(super) fn lost(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => {
                Self::closed_by_peer(close.error_code.into_inner(), &close.reason)
            }
            E::ConnectionClosed(close) => match alert_of(close.error_code) {
                Some(alert) => Self::handshake(RejectedBy::Peer, alert, &text_of(&close.reason)),
                None => Self::Broken(
                    format!("{} {}", close.error_code, text_of(&close.reason)).trim().to_owned(),
                ),
            },
            E::TransportError(error) => match alert_of(error.code) {
                Some(alert) => Self::handshake(RejectedBy::Us, alert, &error.reason),
                None => Self::Broken(error.to_string()),
            },
            E::TimedOut => Self::Silent("nothing was heard within the idle time"),
            E::Reset => {
                Self::Silent("the peer no longer knows this link, it was probably restarted")
            }
            E::LocallyClosed => Self::Closed {
                code: CloseCode::Goodbye,
                text: "this side has ended it".into(),
                by_peer: false,
            },
            E::VersionMismatch => Self::Broken("the peer speaks another version of QUIC".into()),
            E::CidsExhausted => Self::Broken("no connection ids are left".into()),
        }
    }

    /// The kind of a failed handshake, for a metric: one of a few words.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Handshake { is_identity: true, .. } => "certificate",
            Self::Handshake { .. } => "protocol",
            Self::Silent(_) => "silent",
            Self::Closed { .. } => "closed",
            _ => "broken",
        }
    }

    pub(crate) fn draining(reason: &str) -> Self {
        Self::Draining { reason: text_of(reason.as_bytes()) }
    }

    /// The peer has closed the link, or has sent GOODBYE.
    pub(super) fn closed_by_peer(number: u64, reason: &[u8]) -> Self {
        match CloseCode::from_number(number) {
            Some(code) => Self::Closed { code, text: text_of(reason), by_peer: true },
            None => Self::Broken(format!(
                "the peer closed it with the unknown code {number:#x} {}",
                text_of(reason)
            )),
        }
    }

    fn handshake(rejected_by: RejectedBy, alert: u8, text: &str) -> Self {
        let explanation = tls::explain(rejected_by, alert, text);
        Self::Handshake {
            is_identity: explanation.is_identity,
            is_not_valid_yet: explanation.is_not_valid_yet,
            reason: explanation.reason,
            remedy: explanation.remedy.to_string(),
        }
    }

    /// Returns the code with which the side that found this closes the link.
    pub(super) fn close_code(&self) -> CloseCode {
        match self {
            Self::Silent(_) => CloseCode::Idle,
            Self::Closed { code, by_peer: false, .. } => *code,
            // The peer has finished and waits for this, or is about to.
            Self::Closed { by_peer: true, .. } | Self::Draining { .. } | Self::NotNewer => {
                CloseCode::Goodbye
            }
            _ => CloseCode::Protocol,
        }
    }

    /// Returns true if one side refused the other, so that waiting alone does not help.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Handshake { .. } => true,
            #[cfg(feature = "tunnel")]
            Self::Tunnel(tunnel) | Self::NoPath { tunnel, .. } => tunnel.is_refusal(),
            Self::Closed { code, by_peer, .. } => {
                *by_peer && code.reaction() == Reaction::BackOffLong
            }
            _ => false,
        }
    }

    /// Returns true if the reason may be a clock that is behind, which is often set after a start.
    pub fn is_not_valid_yet(&self) -> bool {
        matches!(self, Self::Handshake { is_not_valid_yet: true, .. })
    }

    /// Returns the kind of wait before the next dial; `None` for no wait.
    pub(crate) fn backoff(&self) -> Option<BackoffCause> {
        match self {
            Self::Closed { code, by_peer: true, .. } => match code.reaction() {
                Reaction::ReconnectNow => None,
                Reaction::BackOff => Some(BackoffCause::Unreachable),
                Reaction::BackOffLong => Some(BackoffCause::Refused),
            },
            Self::Draining { .. } => None,
            _ if self.is_refusal() => Some(BackoffCause::Refused),
            _ => Some(BackoffCause::Unreachable),
        }
    }

    /// Returns true if it is about the identity of one side: UNAUTHENTICATED, not UNAVAILABLE.
    pub(crate) fn is_about_identity(&self) -> bool {
        match self {
            Self::Handshake { is_identity, .. } => *is_identity,
            Self::Closed { code, .. } => {
                use CloseCode::{Expired, Revoked, TrustChanged, Unauthorized};
                matches!(code, Unauthorized | Revoked | Expired | TrustChanged)
            }
            _ => false,
        }
    }

    /// Returns true if the resolver or the network reported that the node cannot be reached, so
    /// that waiting for an answer is useless.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Unresolved { .. }
            | Self::ConnectionRefused { .. }
            | Self::MtuTooSmall { .. }
            | Self::Unsendable { .. } => true,
            #[cfg(feature = "tunnel")]
            Self::Tunnel(tunnel) => tunnel.is_unreachable(),
            #[cfg(feature = "tunnel")]
            Self::NoPath { udp, .. } => udp.is_unreachable(),
            _ => false,
        }
    }

    /// Makes the fault of an error that the system or ICMP reported for an address.
    pub(super) fn unreachable(address: NodeAddress, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let remedy = match error.kind() {
            // Windows reports ICMP's "port unreachable" as a reset.
            Kind::ConnectionRefused | Kind::ConnectionReset => {
                return Self::ConnectionRefused { address };
            }
            _ if system::is_message_too_long(error) => return Self::MtuTooSmall { address },
            Kind::NetworkUnreachable => "; has this machine a network, and a route there?",
            Kind::HostUnreachable => {
                "; is the machine up, and does a router or firewall on the way reject it?"
            }
            Kind::PermissionDenied => "; does a firewall on this machine block UDP?",
            _ => "",
        };
        Self::Unsendable { address, reason: format!("{}{remedy}", system::explain(error)) }
    }

    pub(super) fn unresolved(host: &str, error: &io::Error) -> Self {
        Self::Unresolved { host: host.to_owned(), reason: system::explain(error) }
    }
}

/// The text of a fault with the end of a sentence.
#[cfg(feature = "tunnel")]
pub(crate) fn sentence(fault: &impl ToString) -> String {
    let text = fault.to_string();
    let end = if text.ends_with(['?', '.']) { "" } else { "." };
    format!("{text}{end}")
}

/// The TLS alert in a QUIC error code: RFC 9001 section 4.8.
fn alert_of(code: quinn::TransportErrorCode) -> Option<u8> {
    let number = u64::from(code);
    (0x100..0x200).contains(&number).then_some((number & 0xff) as u8)
}

/// Makes text from a peer safe to show.
fn text_of(bytes: &[u8]) -> String {
    printable(&String::from_utf8_lossy(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed_with(code: quinn::TransportErrorCode) -> LinkFault {
        let reason = Default::default();
        let close = quinn::ConnectionClose { error_code: code, frame_type: None, reason };
        LinkFault::lost(quinn::ConnectionError::ConnectionClosed(close))
    }

    #[cfg(unix)]
    #[test]
    fn network_errors_of_an_address_are_distinguished() {
        let fault = |kind: io::ErrorKind| LinkFault::unreachable(address(), &kind.into());
        let refused = fault(io::ErrorKind::ConnectionRefused);
        assert!(matches!(refused, LinkFault::ConnectionRefused { .. }), "{refused}");
        assert!(refused.to_string().contains("nothing listens on that UDP port"), "{refused}");
        for (kind, fact) in [
            (io::ErrorKind::NetworkUnreachable, "a route there?"),
            (io::ErrorKind::HostUnreachable, "is the machine up"),
            (io::ErrorKind::PermissionDenied, "a firewall on this machine"),
        ] {
            let text = fault(kind).to_string();
            assert!(
                text.starts_with("cannot send to edge-1:4433: ") && text.contains(fact),
                "{text}"
            );
        }
        for fault in [refused, fault(io::ErrorKind::NetworkUnreachable)] {
            assert!(fault.is_unreachable() && !fault.is_refusal(), "{fault}");
            assert_eq!(fault.backoff(), Some(BackoffCause::Unreachable), "an agent tries again");
        }
        assert!(!LinkFault::NoAnswer { address: address() }.is_unreachable());
        let unresolved = LinkFault::unresolved("edge-1", &io::Error::other("unknown name"));
        assert!(unresolved.is_unreachable(), "a name without an address is told at once too");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_path_below_1200_bytes_is_reported_with_its_size() {
        let too_long = io::Error::from_raw_os_error(90);
        let fault = LinkFault::unreachable(address(), &too_long);
        assert!(matches!(fault, LinkFault::MtuTooSmall { .. }), "{fault}");
        assert!(fault.to_string().contains("needs packets of 1200 bytes"), "{fault}");
        let silent = LinkFault::NoAnswer { address: address() };
        assert!(silent.to_string().contains("firewall block UDP on the way, or packets of 1200"));
    }

    fn address() -> NodeAddress {
        "edge-1:4433".parse().expect("an address")
    }

    #[test]
    fn text_of_a_peer_is_escaped_once() {
        let reason = b"trust domain \"a\", and \x1b[2J".as_slice().into();
        let code = quinn::TransportErrorCode::crypto(42);
        let close = quinn::ConnectionClose { error_code: code, frame_type: None, reason };
        let message = LinkFault::lost(quinn::ConnectionError::ConnectionClosed(close)).to_string();
        assert!(message.contains("trust domain \"a\", and \\u{1b}[2J"), "{message}");
    }

    #[test]
    fn a_tls_alert_is_a_refusal_and_connection_refused_is_a_lost_path() {
        let refused = closed_with(quinn::TransportErrorCode::crypto(42));
        assert_eq!(refused.backoff(), Some(BackoffCause::Refused));
        let lost = closed_with(quinn::TransportErrorCode::CONNECTION_REFUSED);
        assert_eq!((lost.is_refusal(), lost.backoff()), (false, Some(BackoffCause::Unreachable)));
    }
}
