//! Moves links of the dialling side from UDP to tunnels and back, while they live.

use super::{
    connection::{Link, LinkEnd},
    connector,
    dial::Dialler,
    endpoint,
    fault::LinkFault,
    link_socket::{LinkSocket, PathState},
    path_change::{LinkPath, PathChange, PathChangeCause},
    peer_chain,
};
use crate::{
    limits::PATH_CHECK_EVERY,
    name::NodeAddress,
    path::{OldTunnel, PathAction, PathChoice, Traffic, TunnelReason},
    wire::CloseCode,
};
use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{AcqRel, Release},
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

/// The close text of a connection that only probed UDP.
const PROBED: &str = "a probe of UDP";

/// Time for which a tunnel is still read after its link has moved to UDP.
const DRAIN_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// A change of path that was made, and the tunnel that the link has left with it.
type MovedLink = (PathChange, OldTunnel);

impl Dialler {
    /// Watches the acknowledgements of all links, changes the paths of those that need it, and
    /// reports the changes. Runs for as long as it is polled.
    pub(super) async fn watch_tunnels(&self, report: &impl Fn(&PathChange)) {
        if self.connector().path_selection.settings().choice == PathChoice::Udp {
            return;
        }
        let mut ticks =
            tokio::time::interval_at(Instant::now() + PATH_CHECK_EVERY, PATH_CHECK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut actions = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(performed) = actions.join_next() => {
                    if let Ok(Some((change, left))) = performed {
                        report(&change);
                        actions.spawn(read_out(left));
                    }
                }
                _ = ticks.tick() => {
                    for link in self.trust().up() {
                        if let Some(action) = self.next_action(&link) {
                            actions.spawn(perform(self.clone(), link, action));
                        }
                    }
                }
            }
        }
    }

    /// Returns what to do for a link now, and marks it busy with that.
    fn next_action(&self, link: &Link) -> Option<PathAction> {
        let LinkEnd::Dialled { socket, .. } = &link.0.end else { return None };
        let state = &socket.path;
        let action = {
            let mut policy = state.policy();
            let policy = policy.as_mut()?;
            let action = policy.look(Instant::now(), traffic(link), state.current.is_tunnel_lost());
            if !policy.is_silent() {
                state.current.keep_none();
            }
            action?
        };
        if action == PathAction::ProbeUdp
            && self.connector().path_selection.settings().choice == PathChoice::Tunnel
        {
            let now = Instant::now();
            state.with_policy(|policy| policy.no_udp(now, self.net().chance()));
            return None;
        }
        let is_news = busy_with(state, action).is_none_or(|is_busy| !is_busy.swap(true, AcqRel));
        is_news.then_some(action)
    }

    /// Opens a tunnel and moves the link to it.
    async fn open_tunnel(
        &self,
        link: &Link,
        (address, socket): (&NodeAddress, &LinkSocket),
        reason: TunnelReason,
    ) -> Option<MovedLink> {
        let state = &socket.path;
        let before = socket.path();
        let was_tunnel = before == LinkPath::Tunnel;
        let opened = tokio::select! {
            opened = self.connector().path_selection.settings().open(address) => opened,
            () = acknowledged(link), if !was_tunnel => return None,
            _closed = link.closed() => return None,
        };
        let _changing = state.changing();
        match opened {
            // Meanwhile UDP was probed, and works.
            Ok(_) if was_tunnel && !state.current.is_tunnel() => None,
            Ok(tunnel) => {
                state.reject_address_on_trial(link.0.connection.remote_address(), Instant::now());
                let datagram_bytes_max = link.0.connection.stats().path.current_mtu;
                let left = state.current.take_tunnel(tunnel, datagram_bytes_max.into());
                socket.announce();
                link.want_ping();
                let chance = self.net().chance();
                state.with_policy(|policy| policy.on_tunnel(Instant::now(), chance));
                if !was_tunnel {
                    self.connector().path_selection.note(address, false);
                }
                let cause = cause_of(before, reason);
                Some((link.path_change([before, LinkPath::Tunnel], cause)?, left))
            }
            Err(fault) => {
                let chance = self.net().chance();
                let is_refusal = fault.is_refusal();
                let is_first = state
                    .with_policy(|policy| policy.no_tunnel(Instant::now(), chance, is_refusal));
                if is_first && was_tunnel {
                    tracing::warn!(%address, reason = %fault, "the tunnel to {address} cannot be opened again: {fault}");
                } else if is_first {
                    tracing::warn!(
                        %address,
                        reason = %fault,
                        "{address} does not acknowledge anything by UDP, and a tunnel cannot be opened: {fault}"
                    );
                }
                None
            }
        }
    }

    /// Performs a handshake by UDP with any address of the node, and moves the link to it.
    async fn probe_udp(
        &self,
        link: &Link,
        (address, socket): (&NodeAddress, &LinkSocket),
    ) -> Option<MovedLink> {
        let config = self.dialling_config();
        let probed = tokio::select! {
            probed = self.connector().race(address, &config) => probed,
            _closed = link.closed() => return None,
        };
        let _changing = socket.path.changing();
        let moved = probed.and_then(|(probe, _socket)| {
            self.check(link, &probe)?;
            let to = probe.remote_address();
            if socket.path.is_rejected(to, Instant::now()) {
                let why = format!("{to} answers a probe, and did not answer the link");
                return Err(LinkFault::Broken(why));
            }
            let moved = socket.take_udp(&**self.net(), to);
            moved.map_err(|error| connector::unsendable(address, &error))
        });
        match moved {
            Ok(left) => {
                link.want_ping();
                socket.path.with_policy(|policy| policy.on_udp(Instant::now()));
                self.connector().path_selection.note(address, true);
                let cause = PathChangeCause::UdpAnswers;
                Some((link.path_change([LinkPath::Tunnel, LinkPath::Udp], cause)?, left))
            }
            Err(fault) => {
                tracing::debug!(%address, reason = %fault, "{address} does not answer by UDP: {fault}");
                let chance = self.net().chance();
                socket.path.with_policy(|policy| policy.no_udp(Instant::now(), chance));
                None
            }
        }
    }

    /// Checks that a probe has reached the peer of the link, and closes the probe.
    fn check(&self, link: &Link, connection: &quinn::Connection) -> Result<(), LinkFault> {
        let verified = peer_chain::verified(connection, &self.trust().credentials());
        endpoint::close(connection, CloseCode::Goodbye, PROBED);
        let (identity, _ends) = verified?;
        if identity.peer_name() == link.peer() {
            return Ok(());
        }
        let other = identity.peer_name();
        Err(LinkFault::Broken(format!("{other} answers there, and not {}", link.peer())))
    }
}

async fn perform(dialler: Dialler, link: Link, action: PathAction) -> Option<MovedLink> {
    let LinkEnd::Dialled { address, socket } = &link.0.end else { return None };
    let _busy = Busy(socket.path.clone(), action);
    match action {
        PathAction::Ask => {
            socket.path.current.keep_last();
            link.want_ping();
            None
        }
        PathAction::OpenTunnel(reason) => {
            dialler.open_tunnel(&link, (address, socket), reason).await
        }
        PathAction::ProbeUdp => dialler.probe_udp(&link, (address, socket)).await,
    }
}

/// Reads a tunnel for a while after its link has left it: what the node sent before it knew.
async fn read_out(left: OldTunnel) -> Option<MovedLink> {
    tokio::time::sleep(DRAIN_WAIT).await;
    drop(left);
    None
}

/// Returns the cause of the move of a link to another tunnel.
const fn cause_of(before: LinkPath, reason: TunnelReason) -> PathChangeCause {
    match (reason, before) {
        (TunnelReason::Silent, LinkPath::Udp) => PathChangeCause::UdpSilent,
        (TunnelReason::Silent, LinkPath::Tunnel) => PathChangeCause::TunnelSilent,
        (TunnelReason::Ended, _) => PathChangeCause::TunnelEnded,
        (TunnelReason::NetworkChanged, _) => PathChangeCause::NetworkChanged,
    }
}

/// Returns the mark of an action that takes time. A tunnel may be opened while UDP is probed.
fn busy_with(path: &PathState, action: PathAction) -> Option<&AtomicBool> {
    match action {
        PathAction::Ask => None,
        PathAction::OpenTunnel(_) => Some(&path.is_opening),
        PathAction::ProbeUdp => Some(&path.is_probing),
    }
}

/// Marks a link busy with an action until it is dropped.
struct Busy(Arc<PathState>, PathAction);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(is_busy) = busy_with(&self.0, self.1) {
            is_busy.store(false, Release);
        }
    }
}

fn traffic(link: &Link) -> Traffic {
    let stats = link.0.connection.stats();
    Traffic { acks: stats.frame_rx.acks, sent: stats.udp_tx.datagrams }
}

/// Resolves when the peer acknowledges something.
async fn acknowledged(link: &Link) {
    let before = traffic(link).acks;
    while traffic(link).acks == before {
        tokio::time::sleep(PATH_CHECK_EVERY / 2).await;
    }
}
