//! The interface between the HTTP server and its owner, which answers the requests.

use super::{
    request_body::RequestBody,
    slots::{Admission, SlotOwner},
};
use crate::{
    drain::SignalListener,
    tls::{ClientCertificate, Credentials, HttpTls},
};
use bytes::Bytes;
use http_body::Body;
use hyper::{Request, Response};
use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) shown: Option<ClientCertificate>,
    /// True if its connection ends after the current responses.
    is_done: AtomicBool,
    owner: Arc<SlotOwner>,
}

impl Peer {
    pub(super) fn new(
        address: SocketAddr,
        shown: Option<ClientCertificate>,
        owner: Arc<SlotOwner>,
    ) -> Self {
        Self { address, shown, is_done: AtomicBool::new(false), owner }
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
    type Body: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static;

    fn admits(&self, from: IpAddr) -> Admission;

    /// TLS and the current credentials; `None` for plain HTTP.
    fn tls(&self) -> Option<(Arc<HttpTls>, Credentials)>;

    fn handshake_failed(&self, from: SocketAddr, fault: &std::io::Error);

    /// Signals to stop accepting requests, and to end the last. `None` if already draining.
    fn draining(&self) -> Option<[SignalListener; 2]>;

    /// Answers one request. Dropped when the client has gone.
    fn answer(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}
