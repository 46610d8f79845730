//! Tests of links that go on by UDP at another address of their node, over loopback.

use super::{Ends, MESSAGE_BYTES_MAX, ServedLink, opening, soon};
use crate::{link::connection::LinkEnd, net, wire::Batch};
use bytes::Bytes;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

/// Sends a message, and waits until it is acknowledged.
async fn send(ServedLink { dialled, accepted, .. }: &ServedLink) {
    let sent = async {
        let mut stream = opening(dialled).await.expect("a stream");
        let mut batch = Batch::default();
        batch.push(Bytes::from(vec![7; 1 << 16]));
        stream.sender.write(&mut batch.into_chunks()).await.expect("it is sent");
        stream.sender.finish();
        stream.sender.delivered().await;
    };
    let received = async {
        let mut stream = accepted.accept(MESSAGE_BYTES_MAX).await.expect("a stream");
        while stream.reader.next().await.expect("a frame").is_some() {}
    };
    soon(async { tokio::join!(sent, received) }).await;
}

#[tokio::test]
async fn a_link_goes_on_at_each_address_of_its_node_of_either_family() {
    let net = net::system();
    let ends = Ends::at(&net, (Ipv6Addr::UNSPECIFIED, 0).into());
    let port = ends.listener.local_addr().port();
    let at = |ip: IpAddr| SocketAddr::new(ip, port);
    let v4 = |last| at(Ipv4Addr::new(127, 0, 0, last).into());
    let node = v4(1).to_string().parse().expect("an address");
    let accepted = async { ends.welcomed(ends.greeted().await).await };
    let (dialled, accepted) =
        soon(async { tokio::join!(ends.dialler.dial(&node, None), accepted) }).await;
    let (dialled, control, _welcome) = dialled.expect("a link");
    let link = ServedLink::of([(dialled, control), accepted]);
    send(&link).await;
    let LinkEnd::Dialled { socket, .. } = &link.dialled.0.end else {
        unreachable!("this side has dialled")
    };
    let source = || link.accepted.0.connection.remote_address().ip().to_canonical();
    for to in [at(Ipv6Addr::LOCALHOST.into()), v4(2), v4(1)] {
        drop(socket.take_udp(&*net, to).expect("a socket of its family"));
        // The node learns the new address with the first packet that comes from there.
        let moved = async {
            while source().is_ipv4() != to.is_ipv4() {
                send(&link).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), moved).await.expect("the node follows");
        send(&link).await;
        assert_eq!(link.dialled.0.connection.remote_address(), v4(1), "what QUIC knows stays");
        socket.rebind(&*net).expect("another socket of its family");
        send(&link).await;
    }
}
