//! Tests of the size of datagrams on paths that carry less or more than their first interface.

use super::{Ends, Link, ServedLink, send};
use crate::{
    limits::{DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_USUAL},
    net::memory::MemoryNet,
};

/// A network with these largest UDP payloads on its interfaces and its path.
fn net_with(interface: u16, path: u16) -> MemoryNet {
    let net = MemoryNet::new(1);
    net.set_datagram_bytes_max(interface, path);
    net
}

/// Sends enough for the search for the largest datagram to end.
async fn search(from: &Link, to: &Link) {
    for _ in 0..6 {
        send(from, to, 32).await;
    }
}

fn datagram_bytes(link: &Link) -> u16 {
    link.0.connection.stats().path.current_mtu
}

#[tokio::test(start_paused = true)]
async fn datagrams_are_as_large_as_the_path_carries() {
    let sizes = [
        (DATAGRAM_BYTES_USUAL, DATAGRAM_BYTES_USUAL),
        (DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX),
        // A router behind the interface carries less.
        (DATAGRAM_BYTES_MAX, 1_400),
        (DATAGRAM_BYTES_MAX, 1_200),
        // The path carries more than the interface.
        (1_400, DATAGRAM_BYTES_MAX),
    ];
    for (interface, path) in sizes {
        let ends = Ends::on(&net_with(interface, path));
        let ServedLink { dialled, accepted, .. } = &ServedLink::new(&ends).await;
        for [from, to] in [[dialled, accepted], [accepted, dialled]] {
            search(from, to).await;
            let (found, most) = (datagram_bytes(from), interface.min(path));
            assert!((most - 20..=most).contains(&found), "{found} of {interface}, {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_that_carries_less_than_before_gets_smaller_datagrams() {
    let net = net_with(DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX);
    let ends = Ends::on(&net);
    let ServedLink { dialled, accepted, .. } = &ServedLink::new(&ends).await;
    search(dialled, accepted).await;
    assert_eq!(datagram_bytes(dialled), DATAGRAM_BYTES_MAX);
    net.set_datagram_bytes_max(DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_USUAL);
    search(dialled, accepted).await;
    assert!(datagram_bytes(dialled) <= DATAGRAM_BYTES_USUAL);
}
