//! Datagrams that came out of tunnels, and the reading of a socket that has UDP and tunnels.

use super::message;
use crate::limits::DATAGRAM_BYTES_MAX;
use bytes::Bytes;
use quinn::udp::RecvMeta;
use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Messages that wait to be read by QUIC. A tunnel whose message finds no room waits, and so does
/// its peer; tunnels take turns.
const MESSAGES_WAITING_MAX: usize = 64;

/// Bytes of the smallest packet of QUIC that is not dropped: a stateless reset (RFC 9000 section
/// 10.3).
const PACKET_BYTES_MIN: usize = 21;

/// A message of a tunnel.
#[derive(Debug)]
pub(super) struct TunnelMessage {
    pub(super) message: Bytes,
    /// The address by which QUIC knows the tunnel.
    pub(super) from: SocketAddr,
    /// The local address of its TCP connection. QUIC sends from there as long as the connection
    /// lives, also once it is on UDP.
    pub(super) to: Option<IpAddr>,
}

/// The end at which tunnels deliver messages.
pub(super) type InboxSender = mpsc::Sender<TunnelMessage>;

/// The received messages of all tunnels of one socket.
pub(super) struct Inbox(Mutex<InboxState>);

struct InboxState {
    messages: mpsc::Receiver<TunnelMessage>,
    /// The message of which datagrams are left.
    current: Option<TunnelMessage>,
    /// Tunnels are read before UDP.
    tunnels_first: bool,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    pub(super) fn new() -> (InboxSender, Self) {
        let (delivery, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        let state = InboxState { messages, current: None, tunnels_first: false };
        (delivery, Self(Mutex::new(state)))
    }

    /// Reads datagrams of UDP, by `udp`, or of tunnels, which take turns. Returns their number.
    pub(super) fn poll_with(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
        udp: impl FnOnce(
            &mut Context<'_>,
            &mut [IoSliceMut<'_>],
            &mut [RecvMeta],
        ) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.tunnels_first = !state.tunnels_first;
        if state.tunnels_first
            && let Poll::Ready(count) = state.poll(context, buffers, received)
        {
            return Poll::Ready(Ok(count));
        }
        if let Poll::Ready(count) = udp(context, buffers, received) {
            return Poll::Ready(count);
        }
        if !state.tunnels_first
            && let Poll::Ready(count) = state.poll(context, buffers, received)
        {
            return Poll::Ready(Ok(count));
        }
        Poll::Pending
    }
}

impl InboxState {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<usize> {
        let mut count = 0;
        while count < buffers.len().min(received.len()) {
            if let Some((datagram, from, to)) = self.next_of_current() {
                if let Some(buffer) = buffers[count].get_mut(..datagram.len()) {
                    buffer.copy_from_slice(&datagram);
                    let mut meta = RecvMeta::default();
                    (meta.addr, meta.dst_ip) = (from, to);
                    (meta.len, meta.stride) = (datagram.len(), datagram.len());
                    received[count] = meta;
                    count += 1;
                }
                continue;
            }
            match self.messages.poll_recv(context) {
                Poll::Ready(Some(message)) => self.current = Some(message),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(count) }
    }

    /// Takes the next datagram of the current message that may be a packet of QUIC. Smaller ones
    /// would cost their work and be dropped then, and larger ones were not announced.
    fn next_of_current(&mut self) -> Option<(Bytes, SocketAddr, Option<IpAddr>)> {
        let current = self.current.as_mut()?;
        while let Some(datagram) = message::pop(&mut current.message) {
            if (PACKET_BYTES_MIN..=DATAGRAM_BYTES_MAX.into()).contains(&datagram.len()) {
                return Some((datagram, current.from, current.to));
            }
        }
        self.current = None;
        None
    }
}
