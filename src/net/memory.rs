//! A network in memory, for tests: packets take a fixed time on tokio's clock, which may be paused,
//! and a seed decides which are lost.

use super::{
    network::{Net, NetFuture, SharedNet},
    runtime::BatchingRuntime,
    suspend::Suspend,
};
use crate::limits::DATAGRAM_BYTES_USUAL;
use quinn::{
    AsyncUdpSocket, Runtime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending},
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};
use tokio::time::{Instant, Sleep, sleep_until};

/// The host of all sockets; each has a port of its own.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A network in memory. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryNet(Arc<MemoryNetState>);

#[derive(Debug)]
struct MemoryNetState {
    state: Mutex<NetworkState>,
    random: AtomicU64,
    suspend: Suspend,
}

#[derive(Debug)]
struct NetworkState {
    sockets: HashMap<u16, Weak<PacketQueue>>,
    next_port: u16,
    delay: Duration,
    /// The number of lost packets of 256.
    loss: u8,
    /// True if all packets are lost.
    is_down: bool,
    /// Bytes of the largest UDP payload that the interface takes, and that arrives.
    datagram_bytes_max: (u16, u16),
    /// The wall clock is ahead of the real one by this.
    clock_ahead: Duration,
    sent: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryNet {
    /// Makes a network without loss, on which a packet takes one millisecond.
    pub(crate) fn new(seed: u64) -> Self {
        let state = NetworkState {
            sockets: HashMap::new(),
            next_port: 50_000,
            delay: Duration::from_millis(1),
            loss: 0,
            is_down: false,
            datagram_bytes_max: (DATAGRAM_BYTES_USUAL, DATAGRAM_BYTES_USUAL),
            clock_ahead: Duration::ZERO,
            sent: 0,
        };
        // A seed of zero would stay zero.
        let random = AtomicU64::new(seed.wrapping_mul(2) + 1);
        Self(Arc::new(MemoryNetState {
            state: Mutex::new(state),
            random,
            suspend: Suspend::default(),
        }))
    }

    /// Returns the same network for a builder.
    pub(crate) fn shared(&self) -> SharedNet {
        Arc::new(self.clone())
    }

    /// Loses this many of 256 packets from now on.
    pub(crate) fn lose(&self, of_256: u8) {
        lock(&self.0.state).loss = of_256;
    }

    /// Takes the network down, or restores it.
    pub(crate) fn set_down(&self, is_down: bool) {
        lock(&self.0.state).is_down = is_down;
    }

    /// Sets the time that a packet takes.
    pub(crate) fn set_delay(&self, delay: Duration) {
        lock(&self.0.state).delay = delay;
    }

    /// Sets the bytes of the largest UDP payload that the interface takes, and that arrives.
    pub(crate) fn set_datagram_bytes_max(&self, interface: u16, path: u16) {
        lock(&self.0.state).datagram_bytes_max = (interface, path);
    }

    /// Sets the wall clock ahead.
    pub(crate) fn set_clock_ahead(&self, by: Duration) {
        lock(&self.0.state).clock_ahead = by;
    }

    /// Returns the number of packets that were sent, the lost ones included.
    pub(crate) fn sent(&self) -> u64 {
        lock(&self.0.state).sent
    }

    fn next_random(&self) -> u64 {
        // splitmix64, https://prng.di.unimi.it/splitmix64.c
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns the queue of a packet's receiver and the time of arrival, unless it is lost.
    fn route(&self, to: SocketAddr, bytes: usize) -> Option<(Arc<PacketQueue>, Instant)> {
        let random = self.next_random();
        let mut state = lock(&self.0.state);
        state.sent += 1;
        let is_too_large = bytes > state.datagram_bytes_max.1.into();
        let is_lost = state.is_down || is_too_large || (random & 0xff) < u64::from(state.loss);
        let queue = state.sockets.get(&to.port()).and_then(Weak::upgrade);
        queue.filter(|_| !is_lost).map(|queue| (queue, Instant::now() + state.delay))
    }
}

impl Net for MemoryNet {
    fn runtime(&self) -> io::Result<Arc<dyn Runtime>> {
        Ok(Arc::new(BatchingRuntime::default()))
    }

    fn bind(&self, address: SocketAddr, _: &dyn Runtime) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = lock(&self.0.state);
        let port = match address.port() {
            0 => {
                state.next_port += 1;
                state.next_port
            }
            port => port,
        };
        if state.sockets.get(&port).is_some_and(|queue| queue.strong_count() > 0) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let queue = Arc::<PacketQueue>::default();
        state.sockets.insert(port, Arc::downgrade(&queue));
        let address = SocketAddr::new(HOST, port);
        Ok(Arc::new(MemorySocket { net: self.clone(), address, queue, timer: Mutex::default() }))
    }

    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> NetFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![SocketAddr::new(HOST, port)]) })
    }

    fn source_address(&self, _: SocketAddr) -> io::Result<IpAddr> {
        Ok(HOST)
    }

    fn datagram_bytes_max(&self, _: SocketAddr) -> u16 {
        lock(&self.0.state).datagram_bytes_max.0
    }

    fn probe(&self, _: SocketAddr) -> NetFuture<'_, io::Error> {
        Box::pin(pending())
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + lock(&self.0.state).clock_ahead
    }

    fn random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_random().to_le_bytes()[..chunk.len()]);
        }
    }

    fn suspend(&self) -> &Suspend {
        &self.0.suspend
    }
}

#[derive(Debug)]
struct MemoryPacket {
    from: SocketAddr,
    arrives: Instant,
    contents: Vec<u8>,
}

/// The packets that a socket has not read yet. The delay is the same for all, so the first one
/// arrives first.
#[derive(Debug, Default)]
struct PacketQueue {
    packets: Mutex<VecDeque<MemoryPacket>>,
    reader: Mutex<Option<Waker>>,
}

#[derive(Debug)]
struct MemorySocket {
    net: MemoryNet,
    address: SocketAddr,
    queue: Arc<PacketQueue>,
    /// Until the first packet arrives.
    timer: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl AsyncUdpSocket for MemorySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let contents = transmit.contents.to_vec();
        let route = self.net.route(transmit.destination, contents.len());
        let Some((queue, arrives)) = route else { return Ok(()) };
        lock(&queue.packets).push_back(MemoryPacket { from: self.address, arrives, contents });
        if let Some(reader) = lock(&queue.reader).take() {
            reader.wake();
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        *lock(&self.queue.reader) = Some(context.waker().clone());
        loop {
            let mut packets = lock(&self.queue.packets);
            let Some(arrives) = packets.front().map(|packet| packet.arrives) else {
                return Poll::Pending;
            };
            if arrives > Instant::now() {
                drop(packets);
                let mut timer = lock(&self.timer);
                let timer = timer.insert(Box::pin(sleep_until(arrives)));
                std::task::ready!(timer.as_mut().poll(context));
                continue;
            }
            let Some(packet) = packets.pop_front() else { return Poll::Pending };
            let len = packet.contents.len();
            bufs[0][..len].copy_from_slice(&packet.contents);
            meta[0] = RecvMeta { addr: packet.from, len, stride: len, ecn: None, dst_ip: None };
            return Poll::Ready(Ok(1));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A poller of a socket that can always send.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
