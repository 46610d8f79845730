//! Accepts handshakes and starts a task for each peer.

use super::{admit, state::NodeState};
use crate::{
    handshake_limiter::{Accept, HandshakeLimiter, Incoming},
    limits::{self, Limits},
    link::{IncomingLink, LinkListener},
    observe::Event,
    rate_limit::RateLimit,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// The node's socket as a source of handshakes.
pub(super) struct Handshakes {
    pub(super) shared: Arc<NodeState>,
    pub(super) listener: Arc<LinkListener>,
}

impl Handshakes {
    fn is_draining(&self) -> bool {
        self.shared.drain.is_notified() || self.shared.calls.is_draining()
    }
}

impl Accept for Handshakes {
    type Incoming = IncomingLink;

    async fn accept(&self) -> Option<IncomingLink> {
        loop {
            let incoming = self.listener.next_incoming().await?;
            if !self.is_draining() {
                return Some(incoming);
            }
            incoming.ignore();
        }
    }

    fn ignored(&self, last: SocketAddr, count: u64) {
        let per_second = self.shared.limits.get().handshakes_per_address;
        self.shared.observer.report(Event::HandshakesIgnored { last, count, per_second });
    }
}

/// Rate at which one address may begin handshakes.
fn handshake_rate(limits: &Limits) -> RateLimit {
    let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let every = Duration::from_secs(1) / bounded(limits.handshakes_per_address);
    RateLimit::new(bounded(limits.handshakes_burst), every)
}

/// Accepts peers until the socket is closed, each in a task of its own, limited in time and number.
pub(super) async fn accept_loop(handshakes: Handshakes) {
    let shared = &handshakes.shared;
    let mut limits = shared.limits.get();
    let mut limiter =
        HandshakeLimiter::new(limits::HANDSHAKES_AT_ONCE_MAX, handshake_rate(&limits));
    while let Some((incoming, permit)) = limiter.next(&handshakes).await {
        if handshakes.is_draining() {
            incoming.ignore();
            continue;
        }
        shared.links.spawn(admit::admit(shared.clone(), incoming, permit));
        let limits_now = shared.limits.get();
        if !Arc::ptr_eq(&limits, &limits_now) {
            limits = limits_now;
            limiter.set_rate(handshake_rate(&limits));
        }
    }
}
