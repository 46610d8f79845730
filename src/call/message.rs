//! What goes into a call and what comes out: request, reply, and what a handler may know of its call.

use crate::{
    metadata::Metadata,
    name::{CallId, MethodPath, Name, PeerName},
};
use bytes::Bytes;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the party at hand: the one that accepts the stream.
    Here,
    /// To the agent of this name.
    Agent(Name),
}

/// One request, its message encoded.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is called.
    pub method: MethodPath,
    /// Where.
    pub target: Target,
    /// Who asks: from a certificate, never from the request itself.
    pub caller: PeerName,
    /// Names the call in every log.
    pub call_id: CallId,
    /// When the call is over, by this machine's clock. It covers queueing, credit, writing, the handler and the reply.
    pub deadline: Instant,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Higher goes first; 0 is usual.
    pub priority: i8,
    /// W3C trace context, if the caller has one.
    pub traceparent: Option<Box<str>>,
    /// Pairs of text beside the message.
    pub metadata: Metadata,
    /// The message, CBOR.
    pub message: Bytes,
}

/// The reply of a call that went well, its message encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// The message, CBOR.
    pub message: Bytes,
    /// Pairs that travel before the message.
    pub metadata: Metadata,
    /// Pairs that travel after it.
    pub trailing: Metadata,
}

impl Reply {
    /// A reply without metadata.
    pub fn new(message: Bytes) -> Self {
        Self { message, ..Self::default() }
    }
}

/// What a handler may know of its call. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Context(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    caller: PeerName,
    call_id: CallId,
    deadline: Instant,
    attempt: u32,
    traceparent: Option<Box<str>>,
    metadata: Metadata,
    is_cancelled: AtomicBool,
    /// Made by the first who waits: most handlers never do.
    cancelled: OnceLock<CancellationToken>,
}

/// Dropped before it is disarmed, it says that the call was cancelled.
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
        if let Some(Context(facts)) = &self.0 {
            facts.is_cancelled.store(true, Ordering::SeqCst);
            if let Some(token) = facts.cancelled.get() {
                token.cancel();
            }
        }
    }
}

impl Context {
    /// Splits a request into its context and its message. Dropping the guard before it is disarmed says that the call was cancelled.
    pub(crate) fn split(request: Request) -> (Self, Bytes, CancelGuard) {
        let facts = Facts {
            caller: request.caller,
            call_id: request.call_id,
            deadline: request.deadline,
            attempt: request.attempt,
            traceparent: request.traceparent,
            metadata: request.metadata,
            is_cancelled: AtomicBool::new(false),
            cancelled: OnceLock::new(),
        };
        let context = Self(Arc::new(facts));
        (context.clone(), request.message, CancelGuard(Some(context)))
    }

    /// Who asks. On an agent this is the word of the node, which took it from a certificate.
    pub fn caller(&self) -> &PeerName {
        &self.0.caller
    }

    /// Names the call in every log.
    pub fn call_id(&self) -> CallId {
        self.0.call_id
    }

    /// When the call is over, by this machine's clock.
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// What is left of the call's time.
    pub fn remaining(&self) -> Duration {
        self.0.deadline.saturating_duration_since(Instant::now())
    }

    /// 1 for the first attempt.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// W3C trace context, if the caller sent one.
    pub fn traceparent(&self) -> Option<&str> {
        self.0.traceparent.as_deref()
    }

    /// Pairs of text that the caller sent.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// Whether the caller has gone or the deadline has passed before the handler ended.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::SeqCst)
    }

    /// Ends when the call is cancelled. A handler's own future is dropped then; this is for work that it started elsewhere.
    pub async fn cancelled(&self) {
        let token = self.0.cancelled.get_or_init(CancellationToken::new);
        // The guard sets the flag first and looks for a token then, so one of the two sees the other.
        if !self.is_cancelled() {
            token.cancelled().await;
        }
    }
}
