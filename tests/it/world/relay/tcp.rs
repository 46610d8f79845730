//! Carries TCP connections of tunnels to a node, on the port of the relay for datagrams. It can be
//! blocked; it has no other conditions.

use super::super::{Background, spawn};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Accepts connections and connects each to the node.
pub(super) async fn start(
    at: SocketAddr,
    node: SocketAddr,
    blocked: watch::Receiver<bool>,
) -> Background<()> {
    let listener = TcpListener::bind(at).await.expect("the port is free for TCP");
    spawn(async move {
        let mut carried = tokio::task::JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            let blocked = blocked.clone();
            carried.spawn(async move {
                let Ok(far) = TcpStream::connect(node).await else { return };
                let ((near_read, near_write), (far_read, far_write)) =
                    (near.into_split(), far.into_split());
                tokio::join!(
                    carry(near_read, far_write, blocked.clone()),
                    carry(far_read, near_write, blocked),
                );
            });
        }
    })
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut blocked: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let passes = blocked.wait_for(|blocked| !blocked).await.is_ok();
        if !passes || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}
