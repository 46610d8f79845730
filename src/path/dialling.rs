//! The socket of one link of the dialling side: UDP, or a tunnel.

use super::{
    carry::carry,
    dial::Tunnel,
    inbox::{Inbox, InboxSender},
    queue::SendQueue,
    tunnels::datagrams,
};
use crate::limits::DATAGRAM_BYTES_MIN;
use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::task::JoinSet;

/// Datagrams that are sent once more on the new path. What the old one lost would otherwise be sent
/// again only when a timer of QUIC expires, which is doubled each time.
const REPLAYED_DATAGRAMS: usize = 8;

/// A UDP socket, or the tunnel of its link.
#[derive(Debug)]
pub(crate) struct DiallingSocket {
    udp: Arc<dyn AsyncUdpSocket>,
    current: Arc<CurrentPath>,
}

/// The path of one link's datagrams, which may change while QUIC knows one address of the node.
#[derive(Debug)]
pub(crate) struct CurrentPath {
    /// The address that QUIC knows.
    remote: SocketAddr,
    state: Mutex<CurrentPathState>,
    /// [`CurrentPathState::is_special`]: looked at for each batch.
    is_special: AtomicBool,
    inbox: Inbox,
    delivery: InboxSender,
}

#[derive(Debug, Default)]
struct CurrentPathState {
    tunnel: Option<TunnelInUse>,
    /// The address of the node by UDP, if it is not the one that QUIC knows.
    udp: Option<SocketAddr>,
    keeps: bool,
    /// The last datagrams that were sent, the oldest first.
    kept: VecDeque<KeptDatagram>,
    /// Bytes of the largest datagram that goes into a tunnel: QUIC takes what a tunnel carries for
    /// what UDP would.
    datagram_bytes_max: usize,
}

#[derive(Debug)]
struct KeptDatagram {
    contents: Bytes,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
}

/// A tunnel in use. Dropping it closes it.
#[derive(Debug)]
struct TunnelInUse {
    queue: Arc<SendQueue>,
    _task: JoinSet<()>,
}

/// A tunnel that is not sent to any more, if there was one. It is read until this is dropped.
pub(crate) struct OldTunnel(#[expect(dead_code, reason = "held for its task")] Option<TunnelInUse>);

impl CurrentPath {
    /// The path of a new link to this address: UDP.
    pub(crate) fn udp(remote: SocketAddr) -> Arc<Self> {
        let (delivery, inbox) = Inbox::new();
        let state = CurrentPathState {
            datagram_bytes_max: DATAGRAM_BYTES_MIN.into(),
            ..CurrentPathState::default()
        };
        Arc::new(Self {
            remote,
            state: Mutex::new(state),
            is_special: AtomicBool::new(false),
            inbox,
            delivery,
        })
    }

    fn state(&self) -> MutexGuard<'_, CurrentPathState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a socket for this link that sends UDP from the given one.
    pub(crate) fn socket(self: &Arc<Self>, udp: Arc<dyn AsyncUdpSocket>) -> Arc<DiallingSocket> {
        Arc::new(DiallingSocket { udp, current: self.clone() })
    }

    /// Gives datagrams of the node's address by UDP the address that QUIC knows.
    fn rename(&self, received: &mut [RecvMeta]) {
        let Some(udp) = self.state().udp else { return };
        received
            .iter_mut()
            .filter(|meta| meta.addr == udp)
            .for_each(|meta| meta.addr = self.remote);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.state().tunnel.is_some()
    }

    /// Keeps the last datagrams from now on, because the path may have to change.
    pub(crate) fn keep_last(&self) {
        self.state().keeps = true;
        self.is_special.store(true, Ordering::Release);
    }

    /// Stops keeping datagrams of a link on UDP.
    pub(crate) fn keep_none(&self) {
        let mut state = self.state();
        if state.tunnel.is_none() {
            (state.keeps, state.kept) = (false, VecDeque::new());
            self.is_special.store(state.is_special(), Ordering::Release);
        }
    }

    /// Sends through this tunnel from now on, datagrams of at most these bytes. Needs a tokio
    /// runtime, in which a task carries the datagrams until the tunnel ends or is replaced. An
    /// earlier tunnel is read until what this returns is dropped.
    pub(crate) fn take_tunnel(&self, tunnel: Tunnel, datagram_bytes_max: usize) -> OldTunnel {
        let queue = Arc::new(SendQueue::default());
        let (queued, delivery, from) = (queue.clone(), self.delivery.clone(), self.remote);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let Tunnel { socket, name, .. } = tunnel;
            let ended = carry(socket, &queued, &delivery, (from, None)).await;
            tracing::debug!("the tunnel {name} has ended: {ended}");
            queued.close();
        });
        let mut state = self.state();
        state.datagram_bytes_max = datagram_bytes_max;
        state.keeps = true;
        self.is_special.store(true, Ordering::Release);
        OldTunnel(state.tunnel.replace(TunnelInUse { queue, _task: task }))
    }

    /// Sends by UDP to this address from now on. The tunnel is read until what this returns is
    /// dropped.
    pub(crate) fn take_udp(&self, to: SocketAddr) -> OldTunnel {
        let mut state = self.state();
        state.udp = (to != self.remote).then_some(to);
        let left = state.tunnel.take();
        self.is_special.store(state.is_special(), Ordering::Release);
        OldTunnel(left)
    }

    /// Returns the address of the node by UDP.
    pub(crate) fn udp_address(&self) -> SocketAddr {
        self.state().udp.unwrap_or(self.remote)
    }

    /// Returns true if the tunnel in use has ended by itself.
    pub(crate) fn is_tunnel_lost(&self) -> bool {
        self.state().tunnel.as_ref().is_some_and(|tunnel| tunnel.queue.is_closed())
    }
}

impl DiallingSocket {
    /// Sends the last datagrams again on the present path.
    pub(crate) fn replay(&self) {
        let kept: Vec<_> = self.current.state().kept.drain(..).collect();
        for KeptDatagram { contents, ecn, src_ip } in &kept {
            let batch = Transmit {
                destination: self.current.remote,
                ecn: *ecn,
                contents,
                segment_size: None,
                src_ip: *src_ip,
            };
            drop(self.try_send(&batch));
        }
    }
}

impl CurrentPathState {
    /// Returns true if a datagram is not simply sent by UDP to the address that QUIC knows.
    fn is_special(&self) -> bool {
        self.tunnel.is_some() || self.keeps || self.udp.is_some()
    }

    fn keep(&mut self, batch: &Transmit<'_>) {
        let skipped = datagrams(batch).count().saturating_sub(REPLAYED_DATAGRAMS);
        for datagram in datagrams(batch).skip(skipped) {
            if self.kept.len() == REPLAYED_DATAGRAMS {
                self.kept.pop_front();
            }
            let contents = Bytes::copy_from_slice(datagram);
            self.kept.push_back(KeptDatagram { contents, ecn: batch.ecn, src_ip: batch.src_ip });
        }
    }

    /// Returns true if a tunnel has taken the batch, or dropped what it has no room for.
    fn send(&mut self, batch: &Transmit<'_>) -> bool {
        if self.keeps {
            self.keep(batch);
        }
        let Some(tunnel) = &self.tunnel else { return false };
        let fitting = datagrams(batch).filter(|datagram| datagram.len() <= self.datagram_bytes_max);
        fitting.for_each(|datagram| tunnel.queue.push(datagram));
        true
    }
}

impl AsyncUdpSocket for DiallingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.udp.clone().create_io_poller()
    }

    fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()> {
        if !self.current.is_special.load(Ordering::Acquire) {
            return self.udp.try_send(batch);
        }
        let mut state = self.current.state();
        if state.send(batch) {
            return Ok(());
        }
        match state.udp {
            None => self.udp.try_send(batch),
            Some(to) => self.udp.try_send(&Transmit { destination: to, src_ip: None, ..*batch }),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.current.inbox.poll_with(context, buffers, received, |context, buffers, received| {
            let polled = self.udp.poll_recv(context, buffers, received);
            if let Poll::Ready(Ok(count)) = polled
                && self.current.is_special.load(Ordering::Acquire)
            {
                self.current.rename(&mut received[..count]);
            }
            polled
        })
    }

    super::as_its_udp_socket!();
}
