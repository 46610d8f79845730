//! Connection migration: the dialling side monitors its paths and takes a new socket when the
//! network changes; the accepting side logs the new address. Links and the calls on them continue.
//!
//! quinn does not report when it cannot send. So it queries the system, every two seconds, for the
//! source address of packets to each node: a few system calls and no packet. When no link receives
//! anything any more, a new socket is tried before the links are given up.

use super::{
    connection::Link,
    dial::Dialler,
    path_change::{LinkPath, PathChange, PathChangeCause},
};
use crate::{limits::MIGRATION_CHECK_EVERY, net::Net};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::Instant;

/// The source address of packets to each linked node, if there is a path.
type Paths = BTreeMap<SocketAddr, Option<IpAddr>>;

/// Returns true if there is another path to a node than before, or one again. A path that is gone
/// is ignored, because no socket helps. A node that was not linked before has lost nothing.
fn has_changed(before: &Paths, after: &Paths) -> bool {
    after.iter().any(|(node, path)| {
        path.is_some() && before.get(node).is_some_and(|previous| previous != path)
    })
}

/// Returns true if the socket, or its binding in a NAT, counts as dead: a PING was sent, and no
/// PONG came on any link. Links that stay silent on the new socket too do not get another.
fn is_unresponsive(
    silent: Duration,
    heartbeat_every: Duration,
    since_renewal: Option<Duration>,
) -> bool {
    silent > heartbeat_every + MIGRATION_CHECK_EVERY
        && since_renewal.is_none_or(|since| silent < since)
}

#[derive(Default)]
struct PathMonitor {
    paths: Paths,
    renewed_at: Option<Instant>,
}

impl PathMonitor {
    /// Returns the reason to take a new socket now, if one is needed.
    fn look(
        &mut self,
        net: &dyn Net,
        links: &[Link],
        heartbeat_every: Duration,
    ) -> Option<PathChangeCause> {
        let now = Instant::now();
        let nodes = links.iter().map(Link::remote_address);
        let paths = nodes.map(|node| (node, net.source_address(node).ok())).collect();
        let before = std::mem::replace(&mut self.paths, paths);
        if has_changed(&before, &self.paths) {
            return Some(PathChangeCause::NetworkChanged);
        }
        let silent =
            links.iter().map(|link| now.saturating_duration_since(link.received_at())).min()?;
        if is_unresponsive(silent, heartbeat_every, self.renewed_at.map(|at| now - at)) {
            self.renewed_at = Some(now);
            return Some(PathChangeCause::NodesSilent);
        }
        None
    }
}

impl Dialler {
    /// Watches the paths of all links: takes new sockets when they change or go silent, moves them
    /// into tunnels and back, and reports each change. Runs for as long as it is polled.
    pub(crate) async fn watch_paths(self, report: impl Fn(&PathChange)) {
        #[cfg(feature = "tunnel")]
        tokio::join!(self.watch_sockets(&report), self.watch_tunnels(&report));
        #[cfg(not(feature = "tunnel"))]
        self.watch_sockets(&report).await;
    }

    async fn watch_sockets(&self, report: &impl Fn(&PathChange)) {
        let mut seen = PathMonitor::default();
        loop {
            tokio::time::sleep(MIGRATION_CHECK_EVERY).await;
            self.connector().endpoints().drop_idle();
            let links = self.trust().up();
            let Some(cause) = seen.look(&**self.net(), &links, self.heartbeat_every()) else {
                continue;
            };
            match self.rebind() {
                Ok(()) => {
                    // Those in tunnels get new tunnels, each with a report of its own.
                    let by_udp = links.iter().filter(|link| link.path() == LinkPath::Udp);
                    let changes =
                        by_udp.filter_map(|link| link.path_change([LinkPath::Udp; 2], cause));
                    changes.for_each(|change| report(&change));
                }
                Err(error) => {
                    tracing::warn!(reason = %error, "{cause}, and there is no new socket: {error}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Nodes by their port, with the source address of each.
    fn paths<const N: usize>(paths: [(u16, Option<u8>); N]) -> Paths {
        let node = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let from = |last| IpAddr::from([10, 0, 0, last]);
        paths.into_iter().map(|(port, path)| (node(port), path.map(from))).collect()
    }

    #[test]
    fn a_new_path_to_a_node_is_a_change_and_so_is_a_restored_one() {
        let here = paths([(1, Some(7)), (2, Some(7))]);
        for (after, expected) in [
            (paths([(1, Some(7)), (2, Some(7))]), false),
            (paths([(1, Some(8)), (2, Some(8))]), true),
            (paths([(1, Some(7)), (2, Some(8))]), true),
            // No network at all, or one link less.
            (paths([(1, None), (2, None)]), false),
            (paths([(1, Some(7))]), false),
            (paths([]), false),
            // A link that is new.
            (paths([(1, Some(7)), (2, Some(7)), (3, Some(9))]), false),
        ] {
            assert_eq!(has_changed(&here, &after), expected, "{after:?}");
        }
        assert!(has_changed(&paths([(1, None)]), &paths([(1, Some(7))])));
        assert!(!has_changed(&paths([(1, None)]), &paths([(1, None)])));
    }

    #[test]
    fn silence_longer_than_a_heartbeat_and_its_answer_takes_one_new_socket() {
        let every = 5 * SECOND;
        assert!(!is_unresponsive(7 * SECOND, every, None));
        assert!(is_unresponsive(8 * SECOND, every, None));
        // It is the same silence still.
        assert!(!is_unresponsive(10 * SECOND, every, Some(2 * SECOND)));
        // Something was received since.
        assert!(is_unresponsive(8 * SECOND, every, Some(60 * SECOND)));
    }
}
