//! Request, reply, and the context of a handler.

use super::{body::Body, messages::Messages};
use crate::{
    limits::STREAM_PRIORITY,
    metadata::Metadata,
    name::{CallId, HttpTarget, MethodPath, Name, PeerName, Role},
    observe::{CallInfo, CallStart, RecordedCaller},
    status::{Code, Status},
    trace::Tracer,
    wire::CallKind,
};
use bytes::Bytes;
use std::{
    any::Any,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Target of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The peer that accepts the stream.
    Here,
    /// The agent of this name.
    Agent(Name),
    /// Any agent that may host the service of the method.
    Service,
}

/// Metadata of one call, the same at every hop.
#[derive(Debug, Clone)]
pub struct CallMeta {
    /// The method.
    pub method: MethodPath,
    /// Kind of the call.
    pub kind: CallKind,
    /// Target of the call.
    pub target: Target,
    /// Names the call in every log.
    pub call_id: CallId,
    /// End of the call by this machine's clock, with queueing, credit, writing, handler and reply.
    pub deadline: Instant,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Higher goes first; 0 is usual.
    pub priority: i8,
    /// W3C trace context, if the caller has one. With traces on, it is the position of the step
    /// that handles the call.
    pub traceparent: Option<Box<str>>,
    /// Pairs of text sent with the messages.
    pub metadata: Metadata,
    /// True if the call waits, within its deadline, for an agent to attach.
    pub wait: bool,
    /// Verb and path of an HTTP call, and of no other.
    pub http: Option<HttpTarget>,
    /// Starts the spans of what a handler forwards.
    pub(crate) tracer: Tracer,
}

impl CallMeta {
    /// A first attempt without metadata and `wait`, with the priority of its kind.
    pub fn new(
        method: MethodPath,
        kind: CallKind,
        target: Target,
        call_id: CallId,
        deadline: Instant,
    ) -> Self {
        let priority = if kind == CallKind::Unary { 0 } else { STREAM_PRIORITY };
        let (traceparent, metadata) = (None, Metadata::default());
        Self {
            method,
            kind,
            target,
            call_id,
            deadline,
            attempt: 1,
            priority,
            traceparent,
            metadata,
            wait: false,
            http: None,
            tracer: Tracer::default(),
        }
    }

    /// Data of the audit record of the call. `here` is the local peer, which the call may target.
    pub(crate) fn info(
        &self,
        caller: RecordedCaller,
        here: Option<&PeerName>,
        via: Option<Name>,
    ) -> CallInfo {
        CallInfo {
            caller,
            agent: match &self.target {
                Target::Agent(name) => Some(PeerName::new(Role::Agent, name.clone())),
                Target::Here => here.cloned(),
                Target::Service => None,
            },
            via,
            method: self.method.clone(),
            call_id: self.call_id,
            attempt: self.attempt,
        }
    }

    /// The start of the call for its record.
    pub(crate) const fn start(&self, began: Instant) -> CallStart {
        CallStart { kind: self.kind, began, deadline: self.deadline }
    }
}

/// Requester of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requester {
    /// The peer at the other end of the link, by its certificate; or a client that the gateway has
    /// authenticated; or this process.
    Verified(PeerName),
    /// A peer that the node named, over whose link the call came. The node is known by its
    /// certificate; on an agent only.
    AssertedBy {
        /// The node.
        node: Name,
        /// The requester that the node has authenticated.
        peer: PeerName,
    },
}

impl Requester {
    /// Name of the requester.
    pub const fn peer(&self) -> &PeerName {
        match self {
            Self::Verified(peer) | Self::AssertedBy { peer, .. } => peer,
        }
    }

    /// The node that asserts the requester, if one does.
    pub const fn via(&self) -> Option<&Name> {
        match self {
            Self::Verified(_) => None,
            Self::AssertedBy { node, .. } => Some(node),
        }
    }
}

/// One request, its messages encoded.
#[derive(Debug)]
pub struct Request {
    /// Metadata of the call.
    pub meta: CallMeta,
    /// The requester.
    pub requester: Requester,
    /// CBOR payload: one message, or a stream for streaming kinds.
    pub body: Body,
}

impl Request {
    /// The message of a request that has exactly one.
    ///
    /// # Errors
    /// It carries a stream.
    pub fn message(&self) -> Result<&Bytes, Status> {
        self.body.only("request")
    }

    /// Returns `true` if its stream of messages was taken, so that it cannot be sent again.
    pub(crate) fn is_spent(&self) -> bool {
        let is_empty = matches!(&self.body, Body::Message(message) if message.is_empty());
        self.meta.kind.streams_requests() && is_empty
    }
}

/// Reply of a call that has not failed so far, its messages encoded.
#[derive(Debug, Default)]
pub struct Reply {
    /// CBOR payload. A stream reports its own end.
    pub body: Body,
    /// Pairs that travel before the messages.
    pub metadata: Metadata,
    /// Pairs that travel after a single message. Those of a stream come with its end.
    pub trailing: Metadata,
}

impl Reply {
    /// A reply of one message, without metadata.
    pub fn new(message: Bytes) -> Self {
        Self { body: Body::Message(message), ..Self::default() }
    }

    /// A reply that is a stream of messages.
    pub fn stream(messages: Messages) -> Self {
        Self { body: Body::Messages(messages), ..Self::default() }
    }

    /// The message of a reply that has exactly one.
    ///
    /// # Errors
    /// It carries a stream.
    pub fn message(&self) -> Result<&Bytes, Status> {
        self.body.only("reply")
    }

    /// Keeps something until the reply has come. A reply in hand needs nothing any more.
    #[must_use]
    pub(crate) fn holding(mut self, guard: impl Any + Send + Sync) -> Self {
        match &mut self.body {
            Body::Messages(messages) => messages.hold(guard),
            Body::Parts(parts) => parts.hold(guard),
            Body::Message(_) => {}
        }
        self
    }

    #[must_use]
    pub(crate) fn holding_some(self, guard: Option<impl Any + Send + Sync>) -> Self {
        match guard {
            Some(guard) => self.holding(guard),
            None => self,
        }
    }

    /// The stream of a reply that has one.
    pub(crate) fn into_messages(self) -> Result<Messages, Status> {
        match self.body {
            Body::Messages(messages) => Ok(messages.with_metadata(self.metadata)),
            Body::Message(_) | Body::Parts(_) => Err(Status::unknown(
                Code::Internal,
                "the reply is one message where a stream was expected",
            )),
        }
    }
}

/// Context of a call, for its handler. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Context(Arc<ContextState>);

#[derive(Debug)]
struct ContextState {
    meta: CallMeta,
    requester: Requester,
    is_cancelled: AtomicBool,
    /// Made by the first who waits: most handlers never do.
    cancelled: OnceLock<CancellationToken>,
    /// Made by the first who adds to it.
    reply: OnceLock<Mutex<ReplyPairs>>,
}

/// Metadata that a handler adds to its reply.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplyPairs {
    pub(super) metadata: Metadata,
    pub(super) trailing: Metadata,
}

/// Marks the call as cancelled if it is dropped before it is disarmed.
#[derive(Debug)]
pub(crate) struct CancelGuard(Option<Context>);

impl CancelGuard {
    /// The handler has ended by itself.
    pub(crate) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(Context(state)) = &self.0 {
            state.is_cancelled.store(true, Ordering::SeqCst);
            if let Some(token) = state.cancelled.get() {
                token.cancel();
            }
        }
    }
}

impl Context {
    /// Splits a request into its context and its body, with the guard of its handler.
    pub(crate) fn split(request: Request) -> (Self, Body, CancelGuard) {
        let state = ContextState {
            meta: request.meta,
            requester: request.requester,
            is_cancelled: AtomicBool::new(false),
            cancelled: OnceLock::new(),
            reply: OnceLock::new(),
        };
        let context = Self(Arc::new(state));
        (context.clone(), request.body, CancelGuard(Some(context)))
    }

    /// The requester. On an agent it is asserted by the node, which took it from a certificate.
    pub fn caller(&self) -> &PeerName {
        self.0.requester.peer()
    }

    /// The node by way of which an agent is called, by its certificate. `None` on a node.
    pub fn via(&self) -> Option<&Name> {
        self.0.requester.via()
    }

    /// Names the call in every log.
    pub fn call_id(&self) -> CallId {
        self.0.meta.call_id
    }

    /// The method that is called.
    pub fn method(&self) -> &MethodPath {
        &self.0.meta.method
    }

    /// When the call is over, by this machine's clock.
    pub fn deadline(&self) -> Instant {
        self.0.meta.deadline
    }

    /// Time until the deadline.
    pub fn remaining(&self) -> Duration {
        self.0.meta.deadline.saturating_duration_since(Instant::now())
    }

    /// 1 for the first attempt.
    pub fn attempt(&self) -> u32 {
        self.0.meta.attempt
    }

    /// W3C trace context, if the caller sent one.
    pub fn traceparent(&self) -> Option<&str> {
        self.0.meta.traceparent.as_deref()
    }

    /// Pairs of text that the caller sent.
    pub fn metadata(&self) -> &Metadata {
        &self.0.meta.metadata
    }

    /// Adds a pair that travels before the reply's messages; ignored once a stream has begun.
    pub fn add_reply_metadata(&self, key: impl Into<String>, value: impl Into<String>) {
        self.edit_reply(|pairs| pairs.metadata.insert(key, value));
    }

    /// Adds a pair that travels after the reply's messages.
    pub fn add_trailing_metadata(&self, key: impl Into<String>, value: impl Into<String>) {
        self.edit_reply(|pairs| pairs.trailing.insert(key, value));
    }

    fn edit_reply(&self, edit: impl FnOnce(&mut ReplyPairs)) {
        let pairs = self.0.reply.get_or_init(Mutex::default);
        edit(&mut pairs.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn reply_pairs(&self) -> ReplyPairs {
        self.0.reply.get().map_or_else(ReplyPairs::default, |pairs| {
            pairs.lock().unwrap_or_else(PoisonError::into_inner).clone()
        })
    }

    /// Returns `true` if the caller has gone or the deadline has passed before the handler ended.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::SeqCst)
    }

    /// Ends when the call is cancelled. A handler's own future is dropped then; this is for work
    /// that it started elsewhere.
    pub async fn cancelled(&self) {
        let token = self.0.cancelled.get_or_init(CancellationToken::new);
        // The guard sets the flag first and then looks for a token: one of the two sees the other.
        if !self.is_cancelled() {
            token.cancelled().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_call_is_its_default_priority() {
        let priority = |kind| {
            let method = "S/M".parse().expect("a method");
            let id = CallId::from_bytes([0; 16]);
            CallMeta::new(method, kind, Target::Service, id, Instant::now()).priority
        };
        assert_eq!(priority(CallKind::Unary), 0);
        assert_eq!(priority(CallKind::ServerStream), STREAM_PRIORITY);
        assert_eq!(priority(CallKind::Tcp), STREAM_PRIORITY);
    }
}
