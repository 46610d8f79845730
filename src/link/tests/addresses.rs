//! Tests of links that continue by UDP at another address of their node, over loopback.

use super::{Ends, ServedLink, send, soon};
use crate::{
    link::{connection::LinkEnd, link_socket::LinkSocket},
    net,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::time::Instant;

fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[tokio::test]
async fn a_link_continues_at_each_address_of_its_node_of_either_family() {
    if !has_ipv6() {
        return eprintln!("not tested: this machine has no IPv6");
    }
    let net = net::system();
    let ends = Ends::at(&net, (Ipv6Addr::UNSPECIFIED, 0).into());
    let port = ends.listener.local_addr().port();
    let [v4, v6] = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
        .map(|ip| SocketAddr::new(ip, port));
    let node = v4.to_string().parse().expect("an address");
    let accepted = async { ends.welcomed(ends.greeted().await).await };
    let (dialled, accepted) =
        soon(async { tokio::join!(ends.dialler.dial(&node, None), accepted) }).await;
    let (dialled, control, _welcome) = dialled.expect("a link");
    let link = ServedLink::of([(dialled, control), accepted]);
    let LinkEnd::Dialled { socket, .. } = &link.dialled.0.end else {
        unreachable!("this side has dialled")
    };
    let source = || link.accepted.0.connection.remote_address().ip().to_canonical();
    for to in [v6, v4, v6] {
        drop(socket.take_udp(&*net, to).expect("a socket of its family"));
        // The node learns the new address with the first packet that comes from there.
        let moved = async {
            while source() != to.ip() {
                send(&link.dialled, &link.accepted, 1).await;
            }
        };
        soon(moved).await;
        assert_eq!(link.dialled.0.connection.remote_address(), v4, "what QUIC knows stays");
        assert_eq!(link.dialled.remote_address(), to);
        socket.rebind(&*net).expect("another socket of its family");
        send(&link.dialled, &link.accepted, 1).await;
    }
}

#[tokio::test]
async fn an_address_that_answers_a_probe_and_not_the_link_is_left_for_a_while() {
    let to = |last| SocketAddr::from(([127, 0, 0, last], 9));
    let socket = LinkSocket::open(&*net::system(), to(1)).expect("a socket");
    let (path, now) = (&socket.path, Instant::now());
    socket.link_is_up(0.5);
    let leave = |at: SocketAddr, after: Duration| {
        drop(path.current.take_udp(at));
        path.with_policy(|policy| {
            policy.on_tunnel(now, 0.5);
            policy.on_udp(now);
        });
        path.reject_address_on_trial(to(1), now + after);
    };
    leave(to(1), Duration::from_secs(2));
    assert!(!path.is_rejected(to(1), now), "the one that QUIC knows is always tried");
    leave(to(2), Duration::from_secs(20));
    assert!(!path.is_rejected(to(2), now), "it has stayed");
    leave(to(2), Duration::from_secs(2));
    assert!(path.is_rejected(to(2), now) && !path.is_rejected(to(3), now));
    assert!(!path.is_rejected(to(2), now + Duration::from_secs(700)));
}
