//! [`Callee`] and [`Call`]: the API for making calls.

use super::{
    ReplyFuture, SharedHandler,
    body::Body,
    codec::{decode_reply, encode_request, invalid},
    message::{CallMeta, Reply, Request, Requester, Target},
    messages::Messages,
    shapes::{Bidirectional, ClientStream, ServerStream, Shape, Tcp, Unary},
};
use crate::{
    drain::Tasks,
    limits::{Limits, STREAM_PRIORITY, TIMEOUT_CEILING},
    metadata::Metadata,
    name::{CallId, CallIds, MethodPath, Name, NameError, PeerName},
    status::Status,
    wire::CallKind,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

/// Target of calls: an agent through a node, or the peer of a link. Cloning is cheap.
#[derive(Clone)]
pub struct Callee(Arc<CalleeState>);

struct CalleeState {
    handler: SharedHandler,
    target: Target,
    requester: PeerName,
    call_ids: Arc<CallIds>,
    timeout_default: Duration,
    stream_timeout_default: Duration,
    tasks: Tasks,
}

/// State that all callees of one caller share.
pub(crate) struct CallOrigin<'a> {
    /// Handler that sends its calls.
    pub(crate) handler: SharedHandler,
    /// Name of the caller.
    pub(crate) peer: &'a PeerName,
    pub(crate) call_ids: &'a Arc<CallIds>,
    pub(crate) limits: &'a Limits,
    /// Its tasks: a call whose request is a stream has one.
    pub(crate) tasks: &'a Tasks,
}

impl Callee {
    pub(crate) fn new(requester: CallOrigin<'_>, target: Target) -> Self {
        let CallOrigin { handler, peer, call_ids, limits, tasks } = requester;
        Self(Arc::new(CalleeState {
            handler,
            target,
            requester: peer.clone(),
            call_ids: call_ids.clone(),
            timeout_default: limits.timeout_default,
            stream_timeout_default: limits.stream_timeout_default,
            tasks: tasks.clone(),
        }))
    }

    /// A unary call, with the message encoded as CBOR and the reply decoded into `R`.
    ///
    /// Nothing is sent before the call is awaited; dropping its future cancels it. The timeout is
    /// 30 s unless set otherwise.
    pub fn call<R>(&self, method: impl IntoMethod, message: &(impl Serialize + ?Sized)) -> Call<R> {
        self.call_with(method, encode_request(message))
    }

    /// A unary call whose message is CBOR already.
    pub fn call_encoded<R>(&self, method: impl IntoMethod, message: Bytes) -> Call<R> {
        self.call_with(method, Ok(message))
    }

    /// A call of one message that is answered with a stream: `.await` gives its
    /// [`Inbound`](super::Inbound) when the first reply has come.
    ///
    /// The timeout is 24 h unless set otherwise, and 5 min without a message end it.
    pub fn server_stream<T: Serialize + ?Sized, R>(
        &self,
        method: impl IntoMethod,
        message: &T,
    ) -> Call<R, ServerStream> {
        self.call_with(method, encode_request(message))
    }

    /// The same with a message that is CBOR already.
    pub fn server_stream_encoded<R>(
        &self,
        method: impl IntoMethod,
        message: Bytes,
    ) -> Call<R, ServerStream> {
        self.call_with(method, Ok(message))
    }

    /// A call of a stream of messages that is answered with one: `.await` gives the
    /// [`Outbound`](super::Outbound) for the messages and the [`Answer`](super::Answer) to wait
    /// for. Needs a tokio runtime.
    pub fn client_stream<T, R>(&self, method: impl IntoMethod) -> Call<R, ClientStream<T>> {
        self.call_with(method, Ok(Bytes::new()))
    }

    /// A call of a stream of messages that is answered with another: `.await` gives both ends.
    /// Needs a tokio runtime.
    ///
    /// The handler starts with the first message, or when this side finishes without one.
    pub fn bidirectional<T, R>(&self, method: impl IntoMethod) -> Call<R, Bidirectional<T>> {
        self.call_with(method, Ok(Bytes::new()))
    }

    /// A TCP connection to one of the agent's forwards: `tcp("db")` to `tcp:db`. `.await` gives the
    /// [`ByteStream`](super::ByteStream) when its upstream is connected. Needs a tokio runtime.
    ///
    /// The connection counts as a call in flight at every hop for as long as it lives. It may live
    /// for 24 h unless set otherwise; five minutes without a byte end it, unless the agent's owner
    /// has set another time. Connecting times out after 10 s, with [`Call::wait`] at the timeout.
    ///
    /// # Errors
    /// As any call; `UNAVAILABLE`, not executed, if the agent cannot reach the upstream.
    pub fn tcp(&self, name: impl AsRef<str>) -> Call<(), Tcp> {
        let name = name.as_ref().parse::<Name>();
        self.call_with(name.map(|name| MethodPath::tcp(&name)), Ok(Bytes::new()))
    }

    fn call_with<R, S: Shape>(
        &self,
        method: impl IntoMethod,
        message: Result<Bytes, Status>,
    ) -> Call<R, S> {
        let method = method.into_method().map_err(|fault| invalid(fault.to_string()));
        let is_unary = S::KIND == CallKind::Unary;
        let CalleeState { timeout_default, stream_timeout_default, call_ids, .. } = &*self.0;
        Call {
            callee: self.clone(),
            call_id: call_ids.next_id(),
            what: method.and_then(|method| message.map(|message| (method, message))),
            timeout: if is_unary { *timeout_default } else { *stream_timeout_default },
            metadata: Metadata::default(),
            priority: if is_unary { 0 } else { STREAM_PRIORITY },
            traceparent: None,
            wait: false,
            _shape: PhantomData,
        }
    }
}

impl AsRef<Self> for Callee {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callee").field("target", &self.0.target).finish_non_exhaustive()
    }
}

/// Name of a method: `"HelloService/Hello"`, or a parsed [`MethodPath`].
pub trait IntoMethod {
    /// The method.
    ///
    /// # Errors
    /// The text does not follow the grammar.
    fn into_method(self) -> Result<MethodPath, NameError>;
}

impl IntoMethod for &str {
    fn into_method(self) -> Result<MethodPath, NameError> {
        self.parse()
    }
}

impl IntoMethod for MethodPath {
    fn into_method(self) -> Result<MethodPath, NameError> {
        Ok(self)
    }
}

/// Result of parsing a name.
impl IntoMethod for Result<MethodPath, NameError> {
    fn into_method(self) -> Result<MethodPath, NameError> {
        self
    }
}

impl IntoMethod for &MethodPath {
    fn into_method(self) -> Result<MethodPath, NameError> {
        Ok(self.clone())
    }
}

/// A call that is about to be made, of the shape `S`. `.await` makes it.
#[must_use = "a call is made when it is awaited"]
pub struct Call<R, S = Unary> {
    callee: Callee,
    call_id: CallId,
    what: Result<(MethodPath, Bytes), Status>,
    timeout: Duration,
    metadata: Metadata,
    priority: i8,
    traceparent: Option<Box<str>>,
    wait: bool,
    _shape: PhantomData<fn() -> (R, S)>,
}

impl<R, S: Shape> Call<R, S> {
    /// Names the call in every log, here and at the peers. Known before the call is made.
    pub const fn call_id(&self) -> CallId {
        self.call_id
    }

    /// Sets the maximum time from when it is awaited. Zero is refused, more than a year is a year.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds a pair of text that the handler may read.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value);
        self
    }

    /// Waits, within the timeout, for an agent to attach. Default: an absent agent ends the call.
    pub fn wait(mut self, wait: bool) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the priority among the calls of one link, in both directions: higher goes first. 0 is
    /// usual, and -16 for streaming calls. A node takes at most 0 from outside.
    pub fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }

    /// Passes on a W3C trace context.
    pub fn traceparent(mut self, traceparent: impl Into<Box<str>>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Everything that happens before the first wait. A stream of messages replaces the message.
    pub(super) fn begin(self, messages: Option<Messages>) -> Result<ReplyFuture, Status> {
        let (method, message) = self.what?;
        if self.timeout.is_zero() {
            return Err(invalid("a timeout of 0; a call needs time".into()));
        }
        let CalleeState { handler, target, requester, .. } = &*self.callee.0;
        let deadline = Instant::now() + self.timeout.min(TIMEOUT_CEILING);
        let meta = CallMeta {
            priority: self.priority,
            traceparent: self.traceparent,
            metadata: self.metadata,
            wait: self.wait,
            ..CallMeta::new(method, S::KIND, target.clone(), self.call_id, deadline)
        };
        let requester = Requester::Verified(requester.clone());
        let body = messages.map_or(Body::Message(message), Body::Messages);
        let request = Request { meta, requester, body };
        Ok(handler.clone().call_boxed(request))
    }

    pub(super) const fn waits(&self) -> bool {
        self.wait
    }

    pub(super) fn tasks(&self) -> Tasks {
        self.callee.0.tasks.clone()
    }
}

impl<R> Call<R> {
    /// Makes the call and gives the reply as it came, encoded and with its metadata.
    ///
    /// # Errors
    /// The failure, with its code and outcome. Dropping the future cancels the call.
    pub async fn raw(self) -> Result<Reply, Status> {
        self.begin(None)?.await
    }
}

impl<R: DeserializeOwned + 'static> IntoFuture for Call<R> {
    type Output = Result<R, Status>;
    type IntoFuture = CallFuture<R>;

    fn into_future(self) -> Self::IntoFuture {
        CallFuture {
            reply: self
                .begin(None)
                .unwrap_or_else(|status| Box::pin(std::future::ready(Err(status)))),
            _reply: PhantomData,
        }
    }
}

/// A call that is being made. Dropping it cancels the call.
#[must_use = "a call is made when it is awaited"]
pub struct CallFuture<R> {
    reply: ReplyFuture,
    _reply: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> Future for CallFuture<R> {
    type Output = Result<R, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        self.reply.as_mut().poll(cx).map(|reply| decode_reply(reply?.message()?))
    }
}

impl<R> fmt::Debug for CallFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").finish_non_exhaustive()
    }
}

impl<R, S> fmt::Debug for Call<R, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("what", &self.what.as_ref().map(|(method, _)| method))
            .finish_non_exhaustive()
    }
}
