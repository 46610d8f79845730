//! Steps that unary and streaming initiators share: limits, opening the stream, sending the
//! request, checking the end of the reply, and mapping faults to statuses.

use super::{
    body::Body,
    message::{Request, Target},
    parts::{MessageParts, NotPassedOn},
    permits::Permit,
    stall::{Stall, write_steadily},
};
use crate::{
    limits::{Limits, RELAY_STATUS_GRACE, STATUS_GRACE, TIMEOUT_MIN},
    link::{CallStream, FrameReader, Link, LinkFault, OpenFault, ReadFault, SendFault},
    name::PeerName,
    status::{Code, Outcome, Status},
    wire::{
        Chunks, RequestHead, RouteKind, StreamCode, WireError, end_chunk, head_chunk,
        metadata_fault, pairs, request_chunks, request_start,
    },
};
use serde_bytes::ByteArray;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub(crate) struct InitiatorLimits {
    pub(super) message_bytes_max: usize,
    queue_wait_max: Duration,
    pub(super) stream_idle_max: Duration,
    /// Time past the deadline to wait for STATUS, once the whole request was handed over.
    pub(super) grace: Duration,
}

impl From<&Limits> for InitiatorLimits {
    fn from(limits: &Limits) -> Self {
        let Limits { message_bytes_max, queue_wait_max, stream_idle_max, .. } = *limits;
        Self { message_bytes_max, queue_wait_max, stream_idle_max, grace: STATUS_GRACE }
    }
}

impl InitiatorLimits {
    /// Limits of a node that relays a call and has waited for a permit, whose bound stream credit
    /// shares. The grace is shorter, so that the node's reply arrives while the caller still waits.
    pub(crate) fn relaying(limits: &Limits, permit: &Permit) -> Self {
        let own = Self::from(limits);
        let queue_wait_max = own.queue_wait_max.saturating_sub(permit.waited());
        Self { queue_wait_max, grace: RELAY_STATUS_GRACE, ..own }
    }

    /// Maximum size of a message on this link: the smaller limit of the two sides.
    pub(super) fn request_bytes_max(self, link: &Link) -> usize {
        self.message_bytes_max.min(link.peer_message_bytes_max())
    }
}

/// Progress of a request. Decides the outcome of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// END was not handed to the transport: no handler ran.
    BeforeEnd,
    /// END was handed to the transport: the handler may run.
    AfterEnd,
}

impl Progress {
    pub(super) const fn outcome(self) -> Outcome {
        match self {
            Self::BeforeEnd => Outcome::NotExecuted,
            Self::AfterEnd => Outcome::Unknown,
        }
    }

    /// Lowers the progress for a stream that a draining peer has not accepted, so never started.
    pub(super) fn unless_past_drain(self, link: &Link, stream_id: u64) -> Self {
        if link.is_past_drain(stream_id) { Self::BeforeEnd } else { self }
    }

    pub(super) fn failed(self, code: Code, message: impl Into<String>) -> Status {
        Status::with_outcome(code, self.outcome(), message)
    }
}

/// Checks the sizes of the request, and opens a stream.
pub(super) async fn begin(
    link: &Link,
    request: &Request,
    limits: InitiatorLimits,
) -> Result<CallStream, Status> {
    check_sizes(link, request, limits)?;
    let until = || request.meta.deadline.min(Instant::now() + limits.queue_wait_max);
    let opened = link.open(until, limits.message_bytes_max).await;
    opened.map_err(|fault| match fault {
        OpenFault::Lost(fault) => unavailable(link, Progress::BeforeEnd, fault),
        OpenFault::Replaced => {
            Status::not_executed(Code::Unavailable, "another link has taken the place of this one")
        }
        OpenFault::NoCredit if Instant::now() >= request.meta.deadline => Status::not_executed(
            Code::DeadlineExceeded,
            "the deadline passed while waiting for a stream",
        ),
        OpenFault::NoCredit => Status::not_executed(
            Code::ResourceExhausted,
            "the peer granted no stream in time (its limit of calls in flight)",
        ),
    })
}

fn check_sizes(link: &Link, request: &Request, limits: InitiatorLimits) -> Result<(), Status> {
    let bytes = request.body.message_bytes();
    let max = limits.request_bytes_max(link);
    if bytes > max {
        let whose = match max < limits.message_bytes_max {
            true => format!(" of {}", link.peer()),
            false => String::new(),
        };
        let text = format!(
            "the message of {bytes} bytes is over the limit of {max} bytes (message_bytes_max{whose})"
        );
        return Err(Status::not_executed(Code::ResourceExhausted, text));
    }
    match metadata_fault(&request.meta.metadata) {
        Some(fault) => Err(Status::not_executed(Code::ResourceExhausted, fault)),
        None => Ok(()),
    }
}

pub(super) fn unavailable(link: &Link, progress: Progress, fault: LinkFault) -> Status {
    let fault = link.reason(fault);
    progress.failed(Code::Unavailable, format!("the link to {} was lost: {fault}", link.peer()))
}

/// Sends a whole unary request, or the head of a streaming one. `false` if the peer refused it.
pub(super) async fn send_request(
    link: &Link,
    stream: &mut CallStream,
    request: &mut Request,
    name_caller: Option<&PeerName>,
) -> Result<bool, Status> {
    let progress = Progress::BeforeEnd;
    let left = request.meta.deadline.saturating_duration_since(Instant::now());
    if left < TIMEOUT_MIN {
        return Err(progress
            .failed(Code::DeadlineExceeded, "the deadline passed before the request was sent"));
    }
    let mut chunks = encode(request, left, name_caller).map_err(|fault| {
        Status::not_executed(Code::ResourceExhausted, format!("the head of the request: {fault}"))
    })?;
    if request.meta.priority != 0 {
        stream.sender.set_priority(request.meta.priority);
    }
    if let Body::Parts(parts) = &mut request.body {
        stream.sender.begin_message(parts.bytes());
        // Boxed: few messages are this large, and the other calls do not carry its size.
        let sent = Box::pin(send_parts(link, stream, parts, chunks)).await;
        // For the reply and other attempts: the head was sent before.
        parts.lower(&mut request.meta.deadline);
        return sent;
    }
    stream.sender.begin_message(chunks.bytes_left());
    let written = write_steadily(&mut stream.sender, &mut chunks).await;
    sent(link, stream, written)
}

/// Sends the head and a message while it comes; END only when its end has come.
async fn send_parts(
    link: &Link,
    stream: &mut CallStream,
    parts: &mut MessageParts,
    first: Chunks,
) -> Result<bool, Status> {
    let written = match parts.pass_on(first, &mut stream.sender).await {
        Ok(_) => write_steadily(&mut stream.sender, &mut end_chunk()).await,
        Err(NotPassedOn::Sending(stall)) => Err(stall),
        Err(NotPassedOn::Source(status) | NotPassedOn::End(status)) => return Err(status),
        Err(NotPassedOn::Late) => {
            let text = "the message did not come in time to be passed on";
            return Err(Progress::BeforeEnd.failed(Code::Unavailable, text));
        }
    };
    sent(link, stream, written)
}

/// Result of writing the request. `false` if the peer refused it.
fn sent(
    link: &Link,
    stream: &mut CallStream,
    written: Result<(), Stall<SendFault>>,
) -> Result<bool, Status> {
    match written {
        Ok(()) => Ok(true),
        Err(Stall::Fault(SendFault::Stopped)) => Ok(false),
        Err(Stall::Slow) => {
            stream.set_code_on_drop(StreamCode::Slow);
            Err(too_slow(Progress::BeforeEnd))
        }
        Err(Stall::Fault(SendFault::Lost(fault))) => {
            Err(unavailable(link, Progress::BeforeEnd, fault))
        }
    }
}

pub(super) fn too_slow(progress: Progress) -> Status {
    let text = "the peer takes the request too slowly (less than 1 KiB/s)";
    progress.failed(Code::ResourceExhausted, text)
}

fn encode(
    request: &Request,
    left: Duration,
    name_caller: Option<&PeerName>,
) -> Result<Chunks, WireError> {
    let caller = name_caller.map(ToString::to_string);
    let (route, agent) = match &request.meta.target {
        Target::Here => (RouteKind::Here, None),
        Target::Agent(name) => (RouteKind::Agent, Some(name.as_str())),
        Target::Service => (RouteKind::Service, None),
    };
    let head = RequestHead {
        method: request.meta.method.as_str(),
        route,
        agent,
        kind: request.meta.kind,
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        call_id: ByteArray::new(*request.meta.call_id.as_bytes()),
        attempt: request.meta.attempt,
        priority: request.meta.priority,
        caller: caller.as_deref(),
        traceparent: request.meta.traceparent.as_deref(),
        metadata: pairs(&request.meta.metadata),
        content_type: request.meta.kind.content_type(),
        caller_signature: None,
        wait: request.meta.wait,
        http: request.meta.http.as_ref().map(|http| (http.verb(), http.path())),
    };
    match &request.body {
        Body::Message(message) if !(request.meta.kind.streams_requests() && message.is_empty()) => {
            request_chunks(&head, message)
        }
        Body::Parts(parts) => request_start(&head, parts.bytes()),
        _ => head_chunk(&head),
    }
}

/// No FIN arrived in time after STATUS. The reply counts, unless part of another frame arrived.
pub(super) fn end_unseen(reader: &FrameReader, progress: Progress) -> Result<(), Status> {
    if reader.is_inside_a_frame() { Err(continues_after_status(progress)) } else { Ok(()) }
}

fn continues_after_status(progress: Progress) -> Status {
    broken(progress, "the reply continues after its STATUS")
}

/// Reads the end of a reply after STATUS.
pub(super) async fn expect_end(reader: &mut FrameReader, progress: Progress) -> Result<(), Status> {
    match reader.next().await {
        Ok(Some(_)) | Err(ReadFault::Wire(_) | ReadFault::Exhausted(_) | ReadFault::Truncated) => {
            Err(continues_after_status(progress))
        }
        Ok(None) | Err(ReadFault::Reset(_) | ReadFault::Lost(_)) => Ok(()),
    }
}

/// Error for a reply that violates the protocol.
pub(super) fn broken(progress: Progress, why: &str) -> Status {
    progress.failed(Code::Internal, why)
}

pub(super) fn read_failed(link: &Link, progress: Progress, fault: ReadFault) -> Status {
    match fault {
        ReadFault::Lost(fault) => unavailable(link, progress, fault),
        ReadFault::Truncated => broken(progress, "the reply ended inside a frame"),
        ReadFault::Wire(fault) => {
            broken(progress, &format!("the reply is over a limit or malformed: {fault}"))
        }
        ReadFault::Exhausted(why) => {
            let text = format!("the reply was not taken: {why}");
            progress.failed(Code::ResourceExhausted, text)
        }
        ReadFault::Reset(code) => reset_by_peer(progress, code),
    }
}

/// Error for a stream that the peer reset. The first three codes mean that nothing was started.
fn reset_by_peer(progress: Progress, code: Option<StreamCode>) -> Status {
    match code {
        Some(StreamCode::Refused) => {
            Status::not_executed(Code::Unavailable, "the peer refused the call")
        }
        Some(StreamCode::Draining) => {
            Status::not_executed(Code::Unavailable, "the peer is leaving")
        }
        Some(StreamCode::Overloaded) => {
            Status::not_executed(Code::ResourceExhausted, "the peer is overloaded")
        }
        Some(StreamCode::Deadline) => {
            progress.failed(Code::DeadlineExceeded, "the peer saw the deadline pass")
        }
        Some(StreamCode::Slow) => {
            progress.failed(Code::ResourceExhausted, "the peer found this side too slow")
        }
        Some(StreamCode::Lost) => {
            progress.failed(Code::Unavailable, "the peer lost its link in the middle of the reply")
        }
        Some(code) => broken(progress, &format!("the peer reset the call with {code}")),
        None => broken(progress, "the peer reset the call with an unknown code"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Permits, *};
    use std::pin::pin;

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_permit_and_for_stream_credit_share_one_bound() {
        let limits = Limits { queue_wait_max: Duration::from_secs(2), ..Limits::default() };
        let (permits, deadline) = (Permits::new(1, 1), Instant::now() + Duration::from_secs(60));
        let acquire = || permits.acquire(deadline, limits.queue_wait_max);
        let left = |permit: &Permit| InitiatorLimits::relaying(&limits, permit).queue_wait_max;
        let first = acquire().await.expect("a permit");
        assert_eq!(left(&first), limits.queue_wait_max, "it did not wait");
        let mut second = pin!(acquire());
        let queued = tokio::time::timeout(Duration::from_millis(1_500), second.as_mut()).await;
        assert!(queued.is_err(), "it waits for the first");
        drop(first);
        let second = second.await.expect("a permit");
        assert_eq!(left(&second), Duration::from_millis(500));
    }
}
