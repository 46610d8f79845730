//! The accepting side of a handshake: certificate, HELLO, and then WELCOME or a refusal.

use super::{
    connection::{Link, LinkEnd},
    control::ControlStream,
    endpoint::{self, AcceptingConfig},
    fault::LinkFault,
    peer_address::PeerAddress,
    peer_chain::verified,
    remotes::{Remotes, canonical},
    trust::TrustedLinks,
    windows::StreamWindows,
};
use crate::{
    limits::{HELLO_WAIT_MAX, Limits},
    tls::{ChainBound, Claim, ClaimSlot, Credentials, Identity},
    wire::{CloseCode, Control, Hello, PROTOCOL_VERSION},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// A peer with a verified certificate and HELLO. It may not open calls before WELCOME.
pub(crate) struct Greeted {
    connection: quinn::Connection,
    remotes: Remotes,
    pub(crate) identity: Identity,
    ends: ChainBound,
    control: ControlStream,
    pub(crate) hello: Hello,
    trust: Arc<TrustedLinks>,
    /// The credentials with which it was verified, or those just before.
    credentials: Credentials,
}

/// A client that was not accepted as a peer.
pub(crate) struct NotGreeted {
    /// Its identity, if its certificate was valid and something later was not.
    pub(crate) identity: Option<Identity>,
    /// The claim of its certificate, if the handshake refused that. Nothing of it is proved.
    pub(crate) claim: Option<Claim>,
    pub(crate) fault: LinkFault,
}

impl From<LinkFault> for NotGreeted {
    fn from(fault: LinkFault) -> Self {
        Self { identity: None, claim: None, fault }
    }
}

/// Waits for the handshake and for HELLO. The result is boxed, because its owner waits with it.
pub(super) async fn greet(
    (incoming, remotes): (quinn::Incoming, Remotes),
    config: &AcceptingConfig,
    trust: Arc<TrustedLinks>,
) -> Result<Box<Greeted>, NotGreeted> {
    let credentials = trust.credentials();
    let slot = ClaimSlot::default();
    let datagram_bytes_max = trust.net().datagram_bytes_max(canonical(incoming.remote_address()));
    let server = config
        .of_one(&credentials, &slot, datagram_bytes_max)
        .map_err(|error| LinkFault::Broken(error.to_string()))?;
    let connecting = incoming.accept_with(server).map_err(LinkFault::lost)?;
    let connection = endpoint::handshake(connecting).await.map_err(|fault| NotGreeted {
        identity: None,
        claim: slot.get().cloned(),
        fault,
    })?;
    let (identity, ends) = verified(&connection, &credentials)
        .inspect_err(|fault| endpoint::refuse(&connection, fault))?;
    let hello = async {
        let (send, recv) = connection.accept_bi().await.map_err(LinkFault::lost)?;
        let mut control = ControlStream::new(send, recv);
        match control.first().await? {
            Control::Hello(hello) => Ok((control, hello)),
            _ => Err(LinkFault::Broken("the first frame was not HELLO".into())),
        }
    };
    match endpoint::within(HELLO_WAIT_MAX, hello, "no HELLO came in time").await {
        Ok((control, hello)) => {
            let greeted =
                Greeted { connection, remotes, identity, ends, control, hello, trust, credentials };
            greeted.check_version().map(Box::new)
        }
        Err(fault) => {
            endpoint::refuse(&connection, &fault);
            Err(NotGreeted { identity: Some(identity), claim: None, fault })
        }
    }
}

impl Greeted {
    fn check_version(self) -> Result<Self, NotGreeted> {
        let (min, max) = (self.hello.protocol_min, self.hello.protocol_max);
        if (min..=max).contains(&PROTOCOL_VERSION) {
            return Ok(self);
        }
        let text = format!(
            "the peer speaks protocol versions {min} to {max}, this node speaks {PROTOCOL_VERSION}"
        );
        endpoint::close(&self.connection, CloseCode::Version, &text);
        let fault = LinkFault::Broken(text);
        Err(NotGreeted { identity: Some(self.identity), claim: None, fault })
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        self.remotes.real(address).unwrap_or_else(|| canonical(address))
    }

    pub(crate) fn refuse(self, code: CloseCode, text: &str) {
        endpoint::close(&self.connection, code, text);
    }

    /// Makes the link, on which the peer may have `calls_max` calls in flight to this side. The
    /// caller of this function sends WELCOME: from then on the peer may open calls. The link is
    /// verified with the others from now on.
    pub(crate) fn into_link(
        self: Box<Self>,
        calls_max: usize,
        limits: &Limits,
    ) -> (Link, ControlStream) {
        let Self { connection, remotes, identity, ends, mut control, hello, trust, credentials } =
            *self;
        let initiated = usize::try_from(hello.calls_in_flight_max).unwrap_or(usize::MAX);
        let window = endpoint::window_for(calls_max, initiated.min(limits.calls_in_flight_max));
        connection.set_max_concurrent_bi_streams(endpoint::streams_for(calls_max).into());
        endpoint::set_receive_window(&connection, window.into());
        control.grant(StreamWindows::new(&connection, window));
        control.reserve(connection.clone(), limits);
        control.watch(PeerAddress::of(connection.clone(), remotes.clone()));
        control.start_heartbeat(silence_max(&hello, limits));
        let net = trust.net().clone();
        let bytes_max = hello.message_bytes_max;
        let shared = (control.pulse(), control.windows());
        let link = Link::new(
            net,
            connection,
            (identity, ends),
            LinkEnd::Accepted(remotes),
            shared,
            bytes_max,
        );
        trust.add(&link, &credentials);
        (link, control)
    }
}

/// Returns the longest silence of a peer. One on a metered network may send PING less often; it is
/// lost after two and a half of its own intervals.
fn silence_max(hello: &Hello, limits: &Limits) -> Duration {
    limits.heartbeat_lost.max(Duration::from_millis(hello.heartbeat_ms.min(600_000)).mul_f64(2.5))
}
