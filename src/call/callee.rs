//! Somebody who can be called, and a call on its way: what programs hold in their hands.

use super::{
    SharedHandler,
    message::{Reply, Request, Target},
    typed::decode_reply,
};
use crate::{
    limits::TIMEOUT_CEILING,
    metadata::Metadata,
    name::{CallId, CallIds, MethodPath, NameError, PeerName},
    status::{Code, Status},
    wire::encode_value,
};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Somebody who can be called: an agent through a node, or the party at the other end of a link. Cloning is cheap.
#[derive(Clone)]
pub struct Callee(Arc<Inner>);

struct Inner {
    handler: SharedHandler,
    target: Target,
    asker: PeerName,
    call_ids: Arc<CallIds>,
    timeout_default: Duration,
}

impl Callee {
    pub(crate) fn new(
        handler: SharedHandler,
        target: Target,
        asker: PeerName,
        call_ids: Arc<CallIds>,
        timeout_default: Duration,
    ) -> Self {
        Self(Arc::new(Inner { handler, target, asker, call_ids, timeout_default }))
    }

    /// A unary call, with the message encoded as CBOR and the reply decoded into `R`.
    ///
    /// Nothing is sent before the call is awaited; dropping its future cancels it. The timeout is 30 s unless set otherwise.
    pub fn call<R>(&self, method: impl IntoMethod, message: &(impl Serialize + ?Sized)) -> Call<R> {
        let message = encode_value(message)
            .map_err(|fault| invalid(format!("the message does not encode: {fault}")));
        self.call_with(method, message)
    }

    /// A unary call whose message is CBOR already.
    pub fn call_encoded<R>(&self, method: impl IntoMethod, message: Bytes) -> Call<R> {
        self.call_with(method, Ok(message))
    }

    fn call_with<R>(&self, method: impl IntoMethod, message: Result<Bytes, Status>) -> Call<R> {
        let method = method.into_method().map_err(|fault| invalid(fault.to_string()));
        Call {
            callee: self.clone(),
            call_id: self.0.call_ids.next_id(),
            what: method.and_then(|method| message.map(|message| (method, message))),
            timeout: self.0.timeout_default,
            metadata: Metadata::default(),
            priority: 0,
            traceparent: None,
            _reply: PhantomData,
        }
    }
}

fn invalid(text: String) -> Status {
    Status::not_executed(Code::InvalidArgument, text)
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

/// What can name a method: `"HelloService/Hello"`, or a [`MethodPath`] that was parsed before.
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

impl IntoMethod for &MethodPath {
    fn into_method(self) -> Result<MethodPath, NameError> {
        Ok(self.clone())
    }
}

/// A unary call that is about to be made. `.await` makes it.
#[must_use = "a call is made when it is awaited"]
pub struct Call<R> {
    callee: Callee,
    call_id: CallId,
    what: Result<(MethodPath, Bytes), Status>,
    timeout: Duration,
    metadata: Metadata,
    priority: i8,
    traceparent: Option<Box<str>>,
    _reply: PhantomData<fn() -> R>,
}

impl<R> Call<R> {
    /// Names the call in every log, here and at the peers. Known before the call is made.
    pub const fn call_id(&self) -> CallId {
        self.call_id
    }

    /// Sets how long the call may take in all, from the moment it is awaited. Zero is refused, more than a year is a year.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Adds a pair of text that the handler may read.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value);
        self
    }

    /// Sets the priority among the calls of one link: higher goes first, 0 is usual.
    pub fn priority(mut self, priority: i8) -> Self {
        self.priority = priority;
        self
    }

    /// Passes on a W3C trace context.
    pub fn traceparent(mut self, traceparent: impl Into<Box<str>>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    /// Makes the call and gives the reply as it came, encoded and with its metadata.
    ///
    /// # Errors
    /// The failure, with its code and outcome. Dropping the future cancels the call.
    pub async fn raw(self) -> Result<Reply, Status> {
        let (method, message) = self.what?;
        if self.timeout.is_zero() {
            return Err(invalid("a timeout of 0; a call needs time".into()));
        }
        let Inner { handler, target, asker, .. } = &*self.callee.0;
        let request = Request {
            method,
            target: target.clone(),
            caller: asker.clone(),
            call_id: self.call_id,
            deadline: Instant::now() + self.timeout.min(TIMEOUT_CEILING),
            attempt: 1,
            priority: self.priority,
            traceparent: self.traceparent,
            metadata: self.metadata,
            message,
        };
        handler.call_boxed(request).await
    }
}

impl<R: DeserializeOwned + 'static> IntoFuture for Call<R> {
    type Output = Result<R, Status>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { decode_reply(&self.raw().await?.message) })
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("what", &self.what.as_ref().map(|(method, _)| method))
            .finish_non_exhaustive()
    }
}
