//! Head of a request, as decoded by the responder.

use super::{
    body::Body,
    message::{CallMeta, Request, Requester, Target},
};
use crate::{
    limits::TIMEOUT_CEILING,
    name::{CallId, HttpTarget, MethodPath, NameError, PeerName},
    status::{Code, Status},
    trace::Tracer,
    wire::{CallKind, RequestHead, RouteKind, WireError},
};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::time::Instant;

/// Head of a request. The requester in it is a claim of the peer, which the acceptor verifies.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) meta: CallMeta,
    pub(crate) claimed: Option<Box<str>>,
    /// Receives the agent that was picked, if it is recorded.
    pub(crate) picked: Option<Arc<OnceLock<PeerName>>>,
}

impl Head {
    pub(super) fn decode(payload: &[u8], received_at: Instant) -> Result<Box<Self>, Status> {
        let mut head = RequestHead::decode(payload).map_err(|fault| malformed(&fault))?;
        let invalid =
            |fault: NameError| Status::not_executed(Code::InvalidArgument, fault.to_string());
        let target = match (head.route, head.agent) {
            (RouteKind::Agent, Some(name)) => Target::Agent(name.parse().map_err(invalid)?),
            (RouteKind::Service, _) => Target::Service,
            _ => Target::Here,
        };
        let method: MethodPath = head.method.parse().map_err(invalid)?;
        check_forward(&method, head.kind, &target)?;
        let http = head.http.map(|(verb, path)| HttpTarget::from_wire(verb, path)).transpose();
        let http =
            http.map_err(|fault| Status::not_executed(Code::InvalidArgument, fault.to_string()))?;
        let timeout = Duration::from_millis(head.timeout_ms).min(TIMEOUT_CEILING);
        let meta = CallMeta {
            method,
            kind: head.kind,
            target,
            call_id: CallId::from_bytes(*head.call_id),
            deadline: received_at + timeout,
            attempt: head.attempt,
            priority: head.priority,
            traceparent: head.traceparent.map(Into::into),
            metadata: head.take_metadata(),
            wait: head.wait,
            http,
            tracer: Tracer::default(),
        };
        Ok(Box::new(Self { meta, claimed: head.caller.map(Into::into), picked: None }))
    }

    /// The request for a handler, with the verified requester.
    pub(crate) fn into_request(self, requester: Requester, body: Body) -> Request {
        Request { meta: self.meta, requester, body }
    }
}

/// Checks that name and kind agree (rules allow forwards by name); a forward must name its agent.
fn check_forward(method: &MethodPath, kind: CallKind, target: &Target) -> Result<(), Status> {
    let is_named_so = if kind.is_forward() {
        method.is_forward() && kind.calls_forwards_of(method.service())
    } else {
        !method.is_forward()
    };
    let text = if !is_named_so {
        format!("a call of the kind {kind} does not go to {method}")
    } else if kind == CallKind::Tcp && *target == Target::Service {
        format!("{method} is a forward of one agent: the call has to name the agent")
    } else {
        return Ok(());
    };
    Err(Status::not_executed(Code::InvalidArgument, text))
}

/// Error for malformed bytes of a peer: nothing was started.
pub(super) fn malformed(fault: &WireError) -> Status {
    let code = if matches!(fault, WireError::TooLarge { .. }) {
        Code::ResourceExhausted
    } else {
        Code::InvalidArgument
    };
    Status::not_executed(code, fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &str, kind: CallKind, target: Target, fault: Option<&str>) {
        let method = method.parse().expect("a method");
        let text = check_forward(&method, kind, &target).map_err(|status| status.to_string());
        match (text, fault) {
            (Ok(()), None) => {}
            (Err(text), Some(fault)) => assert!(text.contains(fault), "{text}"),
            (other, _) => panic!("{method} as {kind}: {other:?}"),
        }
    }

    #[test]
    fn a_forward_is_called_as_the_kind_of_its_service() {
        use CallKind::{Http, Tcp, Unary};
        let wrong = Some("does not go to");
        for (method, kind, fault) in [
            ("S/M", Unary, None),
            ("tcp:db", Tcp, None),
            ("http:web", Http, None),
            ("mcp:jira", Http, None),
            ("mcp:jira/create_issue", Http, None),
            ("mcp:jira/client", Http, None),
            ("S/M", Http, wrong),
            ("mcp/jira", Http, wrong),
            ("mcp:jira/create_issue", Unary, wrong),
            ("mcp:jira", Tcp, wrong),
            ("tcp:db", Http, wrong),
        ] {
            check(method, kind, Target::Here, fault);
        }
        check("mcp:jira/x", Http, Target::Service, None);
        check("S/M", Unary, Target::Service, None);
    }
}
