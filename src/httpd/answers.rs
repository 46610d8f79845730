//! The interface between the HTTP server and its owner, which answers the requests.

use super::{
    request_body::RequestBody,
    slots::{Admission, SlotOwner},
};
use crate::{
    drain::SignalListener,
    limits::HTTP_STEP,
    tls::{ClientCertificate, HttpTls},
};
use bytes::Bytes;
use http_body::Body;
use hyper::{Request, Response};
use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// The bytes of a connection that has left HTTP.
pub(crate) trait UpgradedIo: AsyncRead + AsyncWrite + Send + Unpin {
    /// Sets whether it ends with a reset when it is dropped: the other protocol may know the end of
    /// something by that of the connection. TLS has an end of its own, which is then missing.
    #[cfg_attr(not(feature = "gateway"), allow(dead_code, reason = "tunnels have no such end"))]
    fn reset_on_drop(&mut self, is_reset: bool);
}

/// A connection that has left HTTP, and the bytes that were read behind its last request. Its owner
/// limits how long it may stall or be idle.
pub(crate) type UpgradedStream = (Box<dyn UpgradedIo>, Vec<u8>);

type Upgrade = Box<dyn FnOnce(UpgradedStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Error of a response that breaks off.
pub(crate) type ResponseBodyError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The local address to which it is connected.
    #[cfg_attr(not(feature = "tunnel"), allow(dead_code, reason = "only tunnels use it"))]
    pub(crate) local: Option<IpAddr>,
    upgrade: Mutex<Option<Upgrade>>,
    pub(crate) shown: Option<ClientCertificate>,
    /// The host that it named in its TLS handshake, in lower case (SNI). A connection may carry
    /// requests to other hosts too.
    #[allow(dead_code, reason = "requests to sites are compared with it")]
    pub(crate) sni: Option<Box<str>>,
    /// True if its connection ends after the current responses.
    is_done: AtomicBool,
    owner: Arc<SlotOwner>,
}

impl Peer {
    pub(super) fn new(
        (address, local): (SocketAddr, Option<IpAddr>),
        (shown, sni): (Option<ClientCertificate>, Option<Box<str>>),
        owner: Arc<SlotOwner>,
    ) -> Self {
        Self {
            address,
            local,
            upgrade: Mutex::default(),
            shown,
            sni,
            is_done: AtomicBool::new(false),
            owner,
        }
    }

    /// Runs this with the connection once HTTP/1.1 has left it: the answer must be `101 Switching
    /// Protocols`, to a request with `Upgrade`. With another answer it is dropped. The connection
    /// keeps its slot meanwhile.
    #[cfg_attr(not(feature = "tunnel"), allow(dead_code, reason = "only tunnels use it"))]
    pub(crate) fn upgrade<F>(&self, run: impl FnOnce(UpgradedStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let run: Upgrade = Box::new(|stream| Box::pin(run(stream)));
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    }

    pub(super) fn take_upgrade(&self) -> Option<Upgrade> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records that it is authenticated: it is not evicted any more.
    pub(crate) fn set_known(&self) {
        self.owner.set_known();
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }

    /// Ends the connection after its current responses, and answers no more requests.
    pub(crate) fn be_done(&self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

/// Owner of the server: answers its requests.
pub(crate) trait Answers: Send + Sync + 'static {
    /// What the server is, for its log.
    const NAME: &'static str;

    /// A body that fails cuts its response, so that the client does not take it for complete: the
    /// connection of HTTP/1 is closed, and the stream of HTTP/2 reset with INTERNAL_ERROR. The
    /// error itself is not sent.
    type Body: Body<Data = Bytes, Error: Into<ResponseBodyError>> + Send + Unpin + 'static;

    fn admits(&self, from: IpAddr) -> Admission;

    /// The TLS of the next connection; `None` for plain HTTP.
    fn tls(&self) -> Option<HttpTls>;

    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error);

    /// Signals to stop accepting requests, and to end the last. `None` if already draining.
    fn draining(&self) -> Option<[SignalListener; 2]>;

    /// Answers one request. Dropped when the client has gone.
    fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Longest time for which the client may take nothing of this response. Then it is reset.
    fn stall_max(&self, _response: &Response<Self::Body>) -> Duration {
        HTTP_STEP
    }
}
