//! A [`Link`]: one QUIC connection with a verified peer, which opens and accepts the streams of
//! calls. The side that keeps the link up holds its control stream.

#[cfg(feature = "admin")]
use super::link_stats::{LinkStats, LinkTotals};
use super::{
    endpoint,
    fault::LinkFault,
    link_socket::LinkSocket,
    path_change::{LinkPath, PathChange, PathChangeCause},
    pulse::Pulse,
    remotes::{Remotes, canonical},
    stream::CallStream,
    windows::StreamWindows,
};
use crate::{
    drain::UnderWay,
    lazy_timeout::{WaitCount, poll_once},
    name::{NodeAddress, PeerName},
    net::SharedNet,
    tls::{ChainBound, Identity},
    wire::{CloseCode, StreamCode},
};
use std::{
    fmt,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{sync::Mutex, time::Instant};

/// One authenticated connection. Cloning shares it; it ends by [`Link::close`] or when the peer or
/// the path ends it.
#[derive(Clone)]
pub(crate) struct Link(pub(super) Arc<LinkInner>);

pub(super) struct LinkInner {
    net: SharedNet,
    pub(super) connection: quinn::Connection,
    identity: Identity,
    /// The end of the peer's chain, by the credentials with which it was verified last.
    pub(super) ends: StdMutex<ChainBound>,
    pub(super) end: LinkEnd,
    /// The last address of the peer that was known.
    last_remote: StdMutex<Option<SocketAddr>>,
    made_at: Instant,
    pulse: Arc<Pulse>,
    windows: Option<Arc<StreamWindows>>,
    /// Held while waiting for stream credit: first come first served, unlike quinn's own wait.
    turn: Mutex<()>,
    /// The number of callers that wait for their turn. A later one does not overtake them.
    waiting: AtomicUsize,
    /// The reason of its end, once this side has closed it or knows.
    pub(super) ended: OnceLock<LinkFault>,
    taken: StdMutex<TakenStreams>,
    /// The last stream of this side that a draining peer has taken; `NOT_DRAINING` until it drains.
    peer_took: AtomicU64,
    peer_message_bytes_max: usize,
    /// Replies that this side waits for.
    awaited: UnderWay,
    /// Calls of the peer's that this side answers.
    answered: UnderWay,
    /// Another link has replaced it: it opens no stream any more.
    is_replaced: AtomicBool,
    /// Where its packets are added once it has ended.
    #[cfg(feature = "admin")]
    pub(super) totals: OnceLock<Arc<LinkTotals>>,
}

#[cfg(feature = "admin")]
impl Drop for LinkInner {
    fn drop(&mut self) {
        if let Some(totals) = self.totals.get() {
            totals.add(&LinkStats::of(&self.connection));
        }
    }
}

/// What only one side of a link has.
pub(super) enum LinkEnd {
    /// The peer was dialled, at this address.
    Dialled { address: NodeAddress, socket: LinkSocket },
    /// The peer has dialled.
    Accepted(Remotes),
}

/// The peer's streams that this side has taken.
#[derive(Debug, Default)]
struct TakenStreams {
    /// The number of the last one; 0, which is the control stream's, if there was none.
    last: u64,
    /// No more streams will come.
    is_over: bool,
}

/// No stream has this number: they have 62 bits.
const NOT_DRAINING: u64 = u64::MAX;

type OpenResult = Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>;

#[derive(Debug)]
pub(crate) enum OpenFault {
    /// The peer granted no stream in time.
    NoCredit,
    Replaced,
    Lost(LinkFault),
}

impl Link {
    pub(super) fn new(
        net: SharedNet,
        connection: quinn::Connection,
        (identity, ends): (Identity, ChainBound),
        end: LinkEnd,
        (pulse, windows): (Arc<Pulse>, Option<Arc<StreamWindows>>),
        peer_message_bytes_max: u64,
    ) -> Self {
        // A limit that is not given, as by peers that are older than the key, is not a limit.
        let announced =
            usize::try_from(peer_message_bytes_max).ok().filter(|announced| *announced > 0);
        Self(Arc::new(LinkInner {
            net,
            peer_message_bytes_max: announced.unwrap_or(usize::MAX),
            end,
            last_remote: StdMutex::default(),
            connection,
            identity,
            ends: StdMutex::new(ends),
            made_at: Instant::now(),
            pulse,
            windows,
            turn: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            ended: OnceLock::new(),
            taken: StdMutex::default(),
            peer_took: AtomicU64::new(NOT_DRAINING),
            awaited: UnderWay::default(),
            answered: UnderWay::default(),
            is_replaced: AtomicBool::new(false),
            #[cfg(feature = "admin")]
            totals: OnceLock::new(),
        }))
    }

    pub(crate) fn net(&self) -> &SharedNet {
        &self.0.net
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Returns the end of the peer's chain: its certificate, or an intermediate that ends earlier.
    pub(crate) fn ends(&self) -> ChainBound {
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn peer(&self) -> &PeerName {
        self.0.identity.peer_name()
    }

    pub(crate) fn peer_message_bytes_max(&self) -> usize {
        self.0.peer_message_bytes_max
    }

    pub(crate) fn age(&self) -> Duration {
        self.0.made_at.elapsed()
    }

    /// Returns the present address of the peer, which may change. With a tunnel it is the source of
    /// the TCP connection.
    pub(crate) fn remote_address(&self) -> SocketAddr {
        let address = canonical(self.0.connection.remote_address());
        let remotes = match &self.0.end {
            LinkEnd::Dialled { socket, .. } => return socket.remote_address(address),
            LinkEnd::Accepted(remotes) => remotes,
        };
        let mut last = self.0.last_remote.lock().unwrap_or_else(PoisonError::into_inner);
        // A tunnel that has ended is not known any more.
        *last = remotes.real(address).or(*last);
        last.unwrap_or(address)
    }

    /// Returns the path on which the datagrams of the link travel now.
    pub(crate) fn path(&self) -> LinkPath {
        match &self.0.end {
            LinkEnd::Dialled { socket, .. } => socket.path(),
            LinkEnd::Accepted(remotes) => remotes.path(self.0.connection.remote_address()),
        }
    }

    /// Describes a change of the path; `None` if the peer has dialled, and decides about it.
    pub(super) fn path_change(
        &self,
        [old, new]: [LinkPath; 2],
        cause: PathChangeCause,
    ) -> Option<PathChange> {
        let LinkEnd::Dialled { address, .. } = &self.0.end else { return None };
        let (node, address) = (self.peer().name.clone(), address.clone());
        Some(PathChange { node, address, old, new, cause, is_replaced: self.is_replaced() })
    }

    /// The host name by which the peer was dialled; `None` if the peer dialled.
    pub(super) fn dialled_host(&self) -> Option<&str> {
        match &self.0.end {
            LinkEnd::Dialled { address, .. } => Some(address.host()),
            LinkEnd::Accepted(_) => None,
        }
    }

    /// Returns true if the link has ended. Checked first: quinn yields buffered streams afterwards.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.connection.close_reason().is_some()
    }

    /// Opens a stream, first come first served among all who wait, until the given moment.
    pub(crate) async fn open(
        &self,
        until: impl FnOnce() -> Instant,
        message_bytes_max: usize,
    ) -> Result<CallStream, OpenFault> {
        // Counted before the check: the drain of a replaced link waits for all counted until then.
        let awaited = self.0.awaited.count();
        if self.is_replaced() {
            return Err(OpenFault::Replaced);
        }
        let opened = match self.open_at_once().await {
            Some(opened) => Ok(opened),
            None => tokio::time::timeout_at(until(), self.open_in_turn()).await,
        };
        match opened {
            Ok(Ok((send, recv))) => {
                Ok(self.stream((send, recv), message_bytes_max).awaited(awaited))
            }
            Ok(Err(error)) => Err(OpenFault::Lost(self.reason(LinkFault::lost(error)))),
            Err(_elapsed) => Err(OpenFault::NoCredit),
        }
    }

    /// The usual case: no waiter, and the peer has granted a stream.
    async fn open_at_once(&self) -> Option<OpenResult> {
        if self.0.waiting.load(Ordering::Acquire) > 0 {
            return None;
        }
        match poll_once(pin!(self.0.connection.open_bi())).await {
            Poll::Ready(opened) => Some(opened),
            Poll::Pending => None,
        }
    }

    async fn open_in_turn(&self) -> OpenResult {
        let _waiting = WaitCount::new(&self.0.waiting);
        let _turn = self.0.turn.lock().await;
        self.0.connection.open_bi().await
    }

    /// Returns the next stream that the peer opened; `None` once the link has ended. Streams that
    /// come after [`Link::stop_taking`] are reset with DRAINING and not returned.
    pub(crate) async fn accept(&self, message_bytes_max: usize) -> Option<CallStream> {
        loop {
            let (send, recv) = self.0.connection.accept_bi().await.ok()?;
            let stream_id = recv.id().into();
            let mut stream = self.stream((send, recv), message_bytes_max);
            // A separate flag: quinn's query takes the connection's lock once more for every call.
            if self.0.ended.get().is_some() {
                // The close may be sent after what the drop sends.
                stream.set_code_on_drop(StreamCode::Refused);
                return None;
            }
            let is_taken = self.take(stream_id);
            if is_taken {
                return Some(stream.answered(self.0.answered.count()));
            }
            stream.set_code_on_drop(StreamCode::Draining);
        }
    }

    fn stream(
        &self,
        halves: (quinn::SendStream, quinn::RecvStream),
        message_bytes_max: usize,
    ) -> CallStream {
        CallStream::new(halves, message_bytes_max, self.0.windows.as_ref())
    }

    /// Records a stream as taken, unless no more are taken.
    fn take(&self, stream_id: u64) -> bool {
        let mut taken = self.taken();
        if !taken.is_over {
            taken.last = taken.last.max(stream_id);
        }
        !taken.is_over
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, TakenStreams> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more streams of the peer. Returns the number of the last one that was taken.
    pub(crate) fn stop_taking(&self) -> u64 {
        let mut taken = self.taken();
        taken.is_over = true;
        taken.last
    }

    /// Records that the peer drains, and the last stream that it took; of two, the lower counts.
    pub(crate) fn note_drain(&self, last_stream: u64) {
        self.0.peer_took.fetch_min(last_stream.min(NOT_DRAINING - 1), Ordering::AcqRel);
    }

    pub(crate) fn is_peer_draining(&self) -> bool {
        self.0.peer_took.load(Ordering::Acquire) != NOT_DRAINING
    }

    /// Returns true if the draining peer did not take this stream, so that it started nothing.
    pub(crate) fn is_past_drain(&self, stream_id: u64) -> bool {
        stream_id > self.0.peer_took.load(Ordering::Acquire)
    }

    pub(crate) fn replace(&self) {
        self.0.is_replaced.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_replaced(&self) -> bool {
        self.0.is_replaced.load(Ordering::SeqCst)
    }

    /// Resolves when this side waits for no reply on it.
    pub(crate) async fn quiet(&self) {
        self.0.awaited.nothing().await;
    }

    /// Resolves when this side answers no call on it.
    pub(crate) async fn idle(&self) {
        self.0.answered.nothing().await;
    }

    pub(crate) async fn closed(&self) {
        self.0.connection.closed().await;
    }

    /// Ends the link at once: streams in flight break off. The text goes to the peer.
    pub(crate) fn close(&self, code: CloseCode, text: &str) {
        self.end(LinkFault::Closed { code, text: text.into(), by_peer: false });
    }

    /// Ends the link for a reason, unless it has ended already. Returns the first reason.
    pub(crate) fn end(&self, fault: LinkFault) -> LinkFault {
        let first = self.0.ended.get_or_init(|| fault);
        let text = match first {
            LinkFault::Closed { text, .. } => text.clone(),
            other => other.to_string(),
        };
        endpoint::close(&self.0.connection, first.close_code(), &text);
        first.clone()
    }

    /// Returns the reason of this side for an end that streams see as closed by this side.
    pub(crate) fn reason(&self, seen: LinkFault) -> LinkFault {
        match seen {
            LinkFault::Closed { by_peer: false, .. } => self.0.ended.get().cloned().unwrap_or(seen),
            other => other,
        }
    }

    /// Sends a PING now and waits for the answer. All that the peer sent on the control stream
    /// before has then arrived.
    pub(crate) async fn ping(&self) -> Result<(), LinkFault> {
        tokio::select! {
            biased;
            () = self.0.pulse.fresh() => Ok(()),
            error = self.0.connection.closed() => Err(self.reason(LinkFault::lost(error))),
        }
    }

    pub(super) fn want_ping(&self) {
        self.0.pulse.want_ping();
    }

    pub(super) fn received_at(&self) -> Instant {
        self.0.pulse.received_at()
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.0.connection.rtt()
    }

    /// Calls of both sides that are on it.
    #[cfg(feature = "admin")]
    pub(crate) fn calls_in_flight(&self) -> usize {
        self.0.awaited.len() + self.0.answered.len()
    }

    #[cfg(feature = "admin")]
    pub(crate) fn stats(&self) -> LinkStats {
        LinkStats::of(&self.0.connection)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} at {})", self.peer(), self.remote_address())
    }
}
