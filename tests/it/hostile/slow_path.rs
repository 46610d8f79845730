//! A path slower than calls want to send: the heartbeat continues next to them.

use crate::{
    raw_peer::{
        Cbor, Head, Issuer, RawListener, RawStream, Settings, end, frame, kind, registered, welcome,
    },
    world::{Background, Stage, soon, spawn},
};
use dialback::{Agent, Limits};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::net::UdpSocket;

/// A path that carries all packets from the dialler to the node and, once `is_one_way` is set, none
/// back: no acknowledgement frees the send buffer.
struct OneWay {
    address: SocketAddr,
    is_one_way: Arc<AtomicBool>,
    _task: Background<()>,
}

impl OneWay {
    async fn to(node: SocketAddr) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (near, far) = (bind().await.expect("a socket"), bind().await.expect("a socket"));
        let (address, is_one_way) = (near.local_addr().expect("an address"), Arc::default());
        let is_cut: Arc<AtomicBool> = Arc::clone(&is_one_way);
        let task = spawn(async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let mut dialler = None;
            loop {
                tokio::select! {
                    Ok((bytes, from)) = near.recv_from(&mut up) => {
                        dialler = Some(from);
                        drop(far.send_to(&up[..bytes], node).await);
                    }
                    Ok((bytes, _)) = far.recv_from(&mut down) => {
                        if let Some(dialler) = dialler && !is_cut.load(Ordering::Acquire) {
                            drop(near.send_to(&down[..bytes], dialler).await);
                        }
                    }
                }
            }
        });
        Self { address, is_one_way, _task: task }
    }
}

/// The number of the next PING; all other frames are ignored.
async fn next_ping(control: &mut RawStream) -> u64 {
    Cbor::decode(&control.expect(kind::PING).await).key(0).expect("a number").as_uint()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_buffer_filled_by_calls_has_room_for_the_heartbeat() {
    let (issuer, stage) = (Issuer::new(), Stage::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let path = OneWay::to(listener.address().parse().expect("an address")).await;
    let limits = Limits {
        send_buffer_bytes: 256 * 1024,
        heartbeat_every: Duration::from_millis(200),
        heartbeat_lost: Duration::from_secs(600),
        idle_max: Duration::from_secs(600),
        ..Limits::default()
    };
    let agent = Agent::builder(issuer.credentials("agent/warehouse"))
        .node(path.address.to_string())
        .limits(limits)
        .serve(stage.service());
    let _agent = agent.start().expect("an agent");
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;

    // A reply of four times the size of the send buffer, which is never acknowledged.
    let mut call = link.open().await;
    let bytes = Cbor::Array(vec![Cbor::text("a"), Cbor::Uint(1 << 20)]).encode();
    call.send(&[Head::here("Stage/Huge").frame(), frame(kind::MESSAGE, &bytes), end()].concat())
        .await;
    call.finish();
    stage.started("a").await;
    path.is_one_way.store(true, Ordering::Release);
    stage.open();
    // Its first byte is sent after the buffer is full.
    soon("the reply begins", call.bytes(1)).await;
    let last = next_ping(&mut control).await;
    // One may have been written before, and one may be in flight now; the others found a full
    // buffer.
    let heartbeat = async { while next_ping(&mut control).await < last + 3 {} };
    tokio::select! {
        () = heartbeat => {}
        // After 10 s without credit, which would free the buffer.
        _ = call.recv.received_reset() => panic!("the heartbeat had to wait until the call was given up"),
    }
}
