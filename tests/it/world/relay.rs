//! A path between one dialling party and a node that can go dead, be mended, and change the address that the node sees.

use super::{Background, background};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::{net::UdpSocket, sync::mpsc};

/// What the path is to do from now on.
enum Order {
    /// Swallow everything.
    Cut,
    /// Carry again.
    Mend,
    /// Carry from another port, as after a NAT has forgotten its binding.
    Rebind,
}

/// Carries datagrams between whoever dials it and the node behind it.
pub(crate) struct Relay {
    address: SocketAddr,
    orders: mpsc::Sender<Order>,
    _task: Background<()>,
}

impl Relay {
    pub(crate) async fn to(node: SocketAddr) -> Self {
        let near = socket().await;
        let address = near.local_addr().expect("an address");
        let (orders, heard) = mpsc::channel(8);
        let path = Path { near, far: socket().await, node, dialler: None, is_cut: false };
        Self { address, orders, _task: background(path.carry(heard)) }
    }

    /// Where to dial.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn cut(&self) {
        self.order(Order::Cut).await;
    }

    pub(crate) async fn mend(&self) {
        self.order(Order::Mend).await;
    }

    pub(crate) async fn rebind(&self) {
        self.order(Order::Rebind).await;
    }

    async fn order(&self, order: Order) {
        assert!(self.orders.send(order).await.is_ok(), "the relay has ended");
    }
}

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket"))
}

struct Path {
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    node: SocketAddr,
    dialler: Option<SocketAddr>,
    is_cut: bool,
}

impl Path {
    async fn carry(mut self, mut orders: mpsc::Receiver<Order>) {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(Order::Cut) => self.is_cut = true,
                    Some(Order::Mend) => self.is_cut = false,
                    Some(Order::Rebind) => self.far = socket().await,
                    None => return,
                },
                // What cannot be carried is lost, as on any path.
                Ok((bytes, from)) = self.near.recv_from(&mut up) => {
                    self.dialler = Some(from);
                    if !self.is_cut {
                        drop(self.far.send_to(&up[..bytes], self.node).await);
                    }
                }
                Ok((bytes, _)) = self.far.recv_from(&mut down) => {
                    if let Some(dialler) = self.dialler.filter(|_| !self.is_cut) {
                        drop(self.near.send_to(&down[..bytes], dialler).await);
                    }
                }
            }
        }
    }
}
