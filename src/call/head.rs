//! The head of a request as the answering side has read it.

use super::{
    message::{Request, Target},
    messages::Body,
};
use crate::{
    limits::TIMEOUT_CEILING,
    metadata::Metadata,
    name::{CallId, MethodPath, NameError, PeerName},
    status::{Code, Status},
    wire::{CallKind, RequestHead, Route, WireError},
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::Instant;

/// The head of a request. Who asks is what the peer says; whether that counts is the reception's to judge.
#[derive(Debug)]
pub(crate) struct Head {
    /// What is called.
    pub(crate) method: MethodPath,
    /// How many messages go each way.
    pub(crate) kind: CallKind,
    /// Where.
    pub(crate) target: Target,
    /// Who asks, by the peer's word.
    pub(crate) caller: Option<Box<str>>,
    /// Names the call.
    pub(crate) call_id: CallId,
    /// When it is over.
    pub(crate) deadline: Instant,
    /// 1 for the first attempt.
    pub(crate) attempt: u32,
    /// Higher goes first.
    pub(crate) priority: i8,
    /// W3C trace context.
    pub(crate) traceparent: Option<Box<str>>,
    /// Pairs of text.
    pub(crate) metadata: Metadata,
    /// Whether to wait for an agent.
    pub(crate) wait: bool,
    /// Where whoever picks an agent says which, if somebody wants to know.
    pub(crate) picked: Option<Arc<OnceLock<PeerName>>>,
}

impl Head {
    pub(super) fn decode(payload: &[u8], received_at: Instant) -> Result<Box<Self>, Status> {
        let mut head = RequestHead::decode(payload).map_err(|fault| malformed(&fault))?;
        if matches!(head.kind, CallKind::Http | CallKind::Tcp) {
            let text = format!("{} calls are not supported by this version of dialback", head.kind);
            return Err(Status::not_executed(Code::Unimplemented, text));
        }
        let invalid =
            |fault: NameError| Status::not_executed(Code::InvalidArgument, fault.to_string());
        let target = match head.route() {
            Route::Here => Target::Here,
            Route::Agent(name) => Target::Agent(name.parse().map_err(invalid)?),
            Route::Service => Target::Service,
        };
        let timeout = Duration::from_millis(head.timeout_ms).min(TIMEOUT_CEILING);
        Ok(Box::new(Self {
            method: head.method.parse().map_err(invalid)?,
            kind: head.kind,
            target,
            caller: head.caller.map(Into::into),
            call_id: CallId::from_bytes(*head.call_id),
            deadline: received_at + timeout,
            attempt: head.attempt,
            priority: head.priority,
            traceparent: head.traceparent.map(Into::into),
            metadata: head.take_metadata(),
            wait: head.wait,
            picked: None,
        }))
    }

    /// The request that a handler gets, once it is known who really asks.
    pub(crate) fn into_request(self, caller: PeerName, body: Body) -> Request {
        let Self {
            method,
            kind,
            target,
            caller: _,
            call_id,
            deadline,
            attempt,
            priority,
            traceparent,
            metadata,
            wait,
            picked: _,
        } = self;
        Request {
            method,
            kind,
            target,
            caller,
            via: None,
            call_id,
            deadline,
            attempt,
            priority,
            traceparent,
            metadata,
            wait,
            body,
        }
    }
}

/// Bytes from a peer that are not what they should be: nothing was started.
pub(super) fn malformed(fault: &WireError) -> Status {
    let code = if matches!(fault, WireError::TooLarge { .. }) {
        Code::ResourceExhausted
    } else {
        Code::InvalidArgument
    };
    Status::not_executed(code, fault.to_string())
}
