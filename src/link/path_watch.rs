//! Moves links of the dialling side from UDP to tunnels and back, while they live.

use super::{
    connection::{Link, LinkEnd},
    connector,
    dial::Dialler,
    endpoint,
    fault::LinkFault,
    link_socket::{LinkSocket, PathState},
    peer_chain,
};
use crate::{
    limits::PATH_CHECK_EVERY,
    name::NodeAddress,
    path::{OldTunnel, PathAction, PathChoice, Traffic},
    wire::CloseCode,
};
use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{AcqRel, Release},
    },
};
use tokio::{task::JoinSet, time::Instant};

/// The close text of a connection that only probed UDP.
const PROBED: &str = "a probe of UDP";

/// Time for which a tunnel is still read after its link has moved to UDP.
const DRAIN_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

impl Dialler {
    /// Watches the acknowledgements of all links, and changes the paths of those that need it. Runs
    /// for as long as it is polled.
    pub(super) async fn watch_tunnels(&self) {
        if self.connector().path_selection.settings().choice == PathChoice::Udp {
            return;
        }
        let mut actions = JoinSet::new();
        loop {
            tokio::time::sleep(PATH_CHECK_EVERY).await;
            while actions.try_join_next().is_some() {}
            for link in self.trust().up() {
                if let Some(action) = self.next_action(&link) {
                    actions.spawn(perform(self.clone(), link, action));
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

    /// Opens a tunnel and moves the link to it. Returns an earlier one.
    async fn open_tunnel(
        &self,
        link: &Link,
        address: &NodeAddress,
        socket: &LinkSocket,
    ) -> Option<OldTunnel> {
        let state = &socket.path;
        let was_tunnel = state.current.is_tunnel();
        let opened = tokio::select! {
            opened = self.connector().path_selection.settings().open(address) => opened,
            () = acknowledged(link), if !was_tunnel => return None,
            _closed = link.closed() => return None,
        };
        match opened {
            // Meanwhile UDP was probed, and works.
            Ok(_) if was_tunnel && !state.current.is_tunnel() => None,
            Ok(tunnel) => {
                let datagram_bytes_max = link.0.connection.stats().path.current_mtu;
                let old = state.current.take_tunnel(tunnel, datagram_bytes_max.into());
                socket.announce();
                link.want_ping();
                let chance = self.net().chance();
                state.with_policy(|policy| policy.on_tunnel(Instant::now(), chance));
                self.log_tunnel(address, was_tunnel);
                Some(old)
            }
            Err(fault) => {
                let chance = self.net().chance();
                let is_refusal = fault.is_refusal();
                let is_first = state
                    .with_policy(|policy| policy.no_tunnel(Instant::now(), chance, is_refusal));
                if is_first && was_tunnel {
                    tracing::warn!("the tunnel to {address} cannot be opened again: {fault}");
                } else if is_first {
                    tracing::warn!(
                        "{address} does not acknowledge anything by UDP, and a tunnel cannot be opened: {fault}"
                    );
                }
                None
            }
        }
    }

    fn log_tunnel(&self, address: &NodeAddress, was_tunnel: bool) {
        if was_tunnel {
            tracing::info!("the tunnel to {address} was replaced by a new one");
            return;
        }
        self.connector().path_selection.note(address, false);
        tracing::warn!(
            "{address} does not acknowledge anything by UDP any more: the link goes on through a tunnel over TCP"
        );
    }

    /// Performs a handshake by UDP with any address of the node, and moves the link to it. Returns
    /// the tunnel that it has left.
    async fn probe_udp(
        &self,
        link: &Link,
        address: &NodeAddress,
        socket: &LinkSocket,
    ) -> Option<OldTunnel> {
        let config = self.dialling_config();
        let probed = tokio::select! {
            probed = self.connector().race(address, &config) => probed,
            _closed = link.closed() => return None,
        };
        let moved = probed.and_then(|(probe, _socket)| {
            self.check(link, &probe)?;
            let moved = socket.take_udp(&**self.net(), probe.remote_address());
            moved.map_err(|error| connector::unsendable(address, &error))
        });
        match moved {
            Ok(tunnel) => {
                link.want_ping();
                socket.path.with_policy(|policy| policy.on_udp(Instant::now()));
                self.connector().path_selection.note(address, true);
                tracing::info!("{address} answers by UDP: the link has left its tunnel");
                Some(tunnel)
            }
            Err(fault) => {
                tracing::debug!("{address} does not answer by UDP: {fault}");
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

async fn perform(dialler: Dialler, link: Link, action: PathAction) {
    let LinkEnd::Dialled { address, socket } = &link.0.end else { return };
    let busy = Busy(socket.path.clone(), action);
    let left = match action {
        PathAction::Ask => {
            socket.path.current.keep_last();
            link.want_ping();
            None
        }
        PathAction::OpenTunnel => dialler.open_tunnel(&link, address, socket).await,
        PathAction::ProbeUdp => dialler.probe_udp(&link, address, socket).await,
    };
    drop(busy);
    if left.is_some() {
        // What the node has sent before it knew is still read.
        tokio::time::sleep(DRAIN_WAIT).await;
    }
}

/// Returns the mark of an action that takes time. A tunnel may be opened while UDP is probed.
fn busy_with(path: &PathState, action: PathAction) -> Option<&AtomicBool> {
    match action {
        PathAction::Ask => None,
        PathAction::OpenTunnel => Some(&path.is_opening),
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
