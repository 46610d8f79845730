//! A machine that changes its network: the dialling side notices and takes a new socket, the
//! accepting side sees where it went. The links stay, and what is in flight on them goes on.
//!
//! quinn tells nobody when it cannot send. So the system is asked, every two seconds, from which
//! address it would send to each node now: a few system calls and no packet, and the same on every
//! system. And when no link hears anything any more, a new socket is tried before the links are
//! given up.

use super::{connection::Link, dial::Dialler};
use crate::{limits::MIGRATION_CHECK_EVERY, net::Net};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::Instant;

/// From which of our addresses each linked node is reached now, if it can be reached at all.
type Ways = BTreeMap<SocketAddr, Option<IpAddr>>;

/// Whether there is another way to a node than before, or one again. A way that is gone is nothing
/// to act on: no socket helps. A node that was not linked before has lost nothing.
fn has_changed(before: &Ways, after: &Ways) -> bool {
    after
        .iter()
        .any(|(node, way)| way.is_some() && before.get(node).is_some_and(|former| former != way))
}

/// Whether the socket, or its binding in a NAT, is to be taken for dead: a PING went out, and no
/// PONG came on any link. Links that stay silent on the new socket too do not get another.
fn is_unresponsive(
    silent: Duration,
    heartbeat_every: Duration,
    since_renewal: Option<Duration>,
) -> bool {
    silent > heartbeat_every + MIGRATION_CHECK_EVERY
        && since_renewal.is_none_or(|since| silent < since)
}

/// What was seen at the last look.
#[derive(Default)]
struct PathMonitor {
    ways: Ways,
    renewed_at: Option<Instant>,
}

impl PathMonitor {
    /// Why a new socket is wanted now, if one is.
    fn look(
        &mut self,
        net: &dyn Net,
        links: &[Link],
        heartbeat_every: Duration,
    ) -> Option<&'static str> {
        let now = Instant::now();
        let nodes = links.iter().map(Link::remote_address);
        let ways = nodes.map(|node| (node, net.source_address(node).ok())).collect();
        let before = std::mem::replace(&mut self.ways, ways);
        if has_changed(&before, &self.ways) {
            return Some("the network has changed");
        }
        let silent =
            links.iter().map(|link| now.saturating_duration_since(link.heard_at())).min()?;
        if is_unresponsive(silent, heartbeat_every, self.renewed_at.map(|at| now - at)) {
            self.renewed_at = Some(now);
            return Some("nothing is heard from any node");
        }
        None
    }
}

impl Dialler {
    /// Minds the network for as long as it is polled.
    pub(crate) async fn roam(self) {
        let mut seen = PathMonitor::default();
        loop {
            tokio::time::sleep(MIGRATION_CHECK_EVERY).await;
            if let Some(why) = seen.look(&**self.net(), &self.trust().up(), self.heartbeat_every())
            {
                match self.rebind() {
                    Ok(()) => tracing::info!("{why}: sending from a new socket, on the same links"),
                    Err(error) => tracing::warn!("{why}, and there is no new socket: {error}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Nodes by their port, and from where each is reached.
    fn ways<const N: usize>(ways: [(u16, Option<u8>); N]) -> Ways {
        let node = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let from = |last| IpAddr::from([10, 0, 0, last]);
        ways.into_iter().map(|(port, way)| (node(port), way.map(from))).collect()
    }

    #[test]
    fn another_way_to_a_node_is_a_change_and_so_is_one_that_is_back() {
        let here = ways([(1, Some(7)), (2, Some(7))]);
        for (after, expected) in [
            (ways([(1, Some(7)), (2, Some(7))]), false),
            (ways([(1, Some(8)), (2, Some(8))]), true),
            (ways([(1, Some(7)), (2, Some(8))]), true),
            // No network at all, or one link less.
            (ways([(1, None), (2, None)]), false),
            (ways([(1, Some(7))]), false),
            (ways([]), false),
            // A link that is new.
            (ways([(1, Some(7)), (2, Some(7)), (3, Some(9))]), false),
        ] {
            assert_eq!(has_changed(&here, &after), expected, "{after:?}");
        }
        assert!(has_changed(&ways([(1, None)]), &ways([(1, Some(7))])));
        assert!(!has_changed(&ways([(1, None)]), &ways([(1, None)])));
    }

    #[test]
    fn a_silence_longer_than_a_heartbeat_and_its_answer_is_worth_one_new_socket() {
        let every = 5 * SECOND;
        assert!(!is_unresponsive(7 * SECOND, every, None));
        assert!(is_unresponsive(8 * SECOND, every, None));
        // It is the same silence still.
        assert!(!is_unresponsive(10 * SECOND, every, Some(2 * SECOND)));
        // Something was heard since.
        assert!(is_unresponsive(8 * SECOND, every, Some(60 * SECOND)));
    }
}
