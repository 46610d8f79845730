//! The asking half of a call: open a stream, send the request, await the reply. Dropping it
//! cancels.
//!
//! Where the line between `not_executed` and `unknown` is: `docs/protocol.md`, "What the initiator
//! concludes". The agent starts a handler only after END, so a failure before END was handed to the
//! transport, with the stream reset, means that nothing ran.

use super::{
    initiator_stream::ask_stream,
    message::{Reply, Request, Target},
    messages::Body,
    permits::Permit,
    steady::{Stall, write_steadily},
};
use crate::{
    lazy_timeout::ready_by,
    limits::{Limits, RELAY_STATUS_GRACE, REPLY_FIN_WAIT_MAX, STATUS_GRACE, TIMEOUT_MIN},
    link::{CallStream, FrameReader, Link, LinkFault, OpenFault, ReadFault, SendFault},
    memory::MemoryAccount,
    metadata::Metadata,
    name::PeerName,
    status::{Code, Outcome, Status},
    wire::{
        CallKind, Kind, ReplyHead, RequestHead, RouteKind, StatusHead, StreamCode, WireError,
        head_chunk, metadata_fault, pairs, request_chunks,
    },
};
use serde_bytes::ByteArray;
use std::{pin::pin, time::Duration};
use tokio::time::Instant;

/// What the asking half needs of the limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AskLimits {
    pub(super) message_bytes_max: usize,
    queue_wait_max: Duration,
    pub(super) stream_idle_max: Duration,
    /// How long past its deadline the STATUS of a request that was handed over is waited for.
    pub(super) patience: Duration,
}

impl From<&Limits> for AskLimits {
    fn from(limits: &Limits) -> Self {
        let Limits { message_bytes_max, queue_wait_max, stream_idle_max, .. } = *limits;
        Self { message_bytes_max, queue_wait_max, stream_idle_max, patience: STATUS_GRACE }
    }
}

impl AskLimits {
    /// Those of a node that passes a call on and has waited for a permit. Permit and stream credit
    /// share one bound. The patience is shorter, so that the node's own answer arrives while the
    /// caller still waits.
    pub(crate) fn relaying(limits: &Limits, permit: &Permit) -> Self {
        let own = Self::from(limits);
        let queue_wait_max = own.queue_wait_max.saturating_sub(permit.waited());
        Self { queue_wait_max, patience: RELAY_STATUS_GRACE, ..own }
    }

    /// The largest message that goes over this link: the smaller limit of the two sides.
    pub(super) fn request_bytes_max(self, link: &Link) -> usize {
        self.message_bytes_max.min(link.peer_message_bytes_max())
    }
}

/// How far a request got. Decides the outcome when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// END was not handed to the transport.
    BeforeEnd,
    /// It was: the handler may run.
    AfterEnd,
}

impl Progress {
    pub(super) const fn outcome(self) -> Outcome {
        match self {
            Self::BeforeEnd => Outcome::NotExecuted,
            Self::AfterEnd => Outcome::Unknown,
        }
    }

    /// A stream above the last one that a leaving peer has taken was never started.
    pub(super) fn judged(self, link: &Link, stream_id: u64) -> Self {
        if link.is_past_drain(stream_id) { Self::BeforeEnd } else { self }
    }

    pub(super) fn failed(self, code: Code, message: impl Into<String>) -> Status {
        Status::with_outcome(code, self.outcome(), message)
    }
}

/// Asks over a link. `name_caller` is written into the head as who asks; only a node may, and
/// agents believe only nodes. The messages of the reply are counted in `memory`.
///
/// A request's stream of messages is taken out of it.
pub(crate) async fn ask(
    link: &Link,
    request: &mut Request,
    limits: AskLimits,
    name_caller: Option<&PeerName>,
    memory: Option<MemoryAccount>,
) -> Result<Reply, Status> {
    match request.meta.kind {
        CallKind::Unary => ask_one(link, request, limits, name_caller, memory).await,
        _ => Box::pin(ask_stream(link, request, limits, name_caller, memory)).await,
    }
}

/// It met a link that was about to be left, by either side, and was not started: the same attempt
/// goes on over the next link, which is another one.
pub(crate) fn is_for_the_next_link(reply: &Result<Reply, Status>, link: &Link) -> bool {
    let is_unavailable = |status: &Status| status.code() == Code::Unavailable;
    (link.is_peer_leaving() || link.is_replaced())
        && reply.as_ref().is_err_and(|fault| is_unavailable(fault) && fault.is_safe_to_retry())
}

/// One message each way.
async fn ask_one(
    link: &Link,
    request: &Request,
    limits: AskLimits,
    name_caller: Option<&PeerName>,
    memory: Option<MemoryAccount>,
) -> Result<Reply, Status> {
    let mut stream = begin(link, request, limits).await?;
    if let Some(memory) = memory {
        stream.reader.count_in(memory);
    }
    let sent = {
        let sending = pin!(send_request(link, &mut stream, request, name_caller));
        ready_by(|| request.meta.deadline, sending).await
    };
    let (progress, until) = match sent {
        Ok(Ok(true)) => {
            stream.sender.finish();
            // The answering side knows whether a handler ran: its STATUS says more than the line
            // does.
            (Progress::AfterEnd, request.meta.deadline + limits.patience)
        }
        Ok(Ok(false)) => (Progress::BeforeEnd, request.meta.deadline),
        Ok(Err(fault)) => return Err(fault),
        Err(_elapsed) => return Err(too_late(link, &mut stream, Progress::BeforeEnd)),
    };
    let reading = read_reply(link, &mut stream.reader, progress);
    match tokio::time::timeout_at(until, reading).await {
        Ok(answer) => {
            let answer = answer?;
            wait_for_end(&mut stream.reader, progress).await?;
            answer
        }
        Err(_elapsed) => Err(too_late(link, &mut stream, progress)),
    }
}

fn too_late(link: &Link, stream: &mut CallStream, progress: Progress) -> Status {
    stream.set_code_on_drop(StreamCode::Deadline);
    let progress = progress.judged(link, stream.reader.stream_id());
    progress.failed(Code::DeadlineExceeded, "the deadline passed")
}

/// Looks at the sizes of what is to be sent, and opens a stream.
pub(super) async fn begin(
    link: &Link,
    request: &Request,
    limits: AskLimits,
) -> Result<CallStream, Status> {
    check_sizes(link, request, limits)?;
    open(link, request, limits).await
}

fn check_sizes(link: &Link, request: &Request, limits: AskLimits) -> Result<(), Status> {
    let bytes = request.message().map_or(0, bytes::Bytes::len);
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

async fn open(link: &Link, request: &Request, limits: AskLimits) -> Result<CallStream, Status> {
    let until = || request.meta.deadline.min(Instant::now() + limits.queue_wait_max);
    link.open(until, limits.message_bytes_max).await.map_err(|fault| match fault {
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

pub(super) fn unavailable(link: &Link, progress: Progress, fault: LinkFault) -> Status {
    let fault = link.reason(fault);
    progress.failed(Code::Unavailable, format!("the link to {} was lost: {fault}", link.peer()))
}

/// Hands over what is in hand: the whole of a request with one message, the head of one with a
/// stream. `false` if the peer has refused already: what it says decides.
pub(super) async fn send_request(
    link: &Link,
    stream: &mut CallStream,
    request: &Request,
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
        stream.sender.set_priority(request.meta.priority.into());
    }
    match write_steadily(&mut stream.sender, &mut chunks).await {
        Ok(()) => Ok(true),
        Err(Stall::Fault(SendFault::Stopped)) => Ok(false),
        Err(Stall::Slow) => {
            stream.set_code_on_drop(StreamCode::Slow);
            Err(too_slow(progress))
        }
        Err(Stall::Fault(SendFault::Lost(fault))) => Err(unavailable(link, progress, fault)),
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
) -> Result<crate::wire::Chunks, WireError> {
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
    };
    match &request.body {
        Body::Message(message) if !request.meta.kind.streams_requests() => {
            request_chunks(&head, message)
        }
        _ => head_chunk(&head),
    }
}

/// What a reply may be made of, as it comes in.
#[derive(Default)]
struct Parts {
    metadata: Option<Metadata>,
    message: Option<bytes::Bytes>,
}

/// What a STATUS says, with all that came before it.
type Answer = Result<Reply, Status>;

/// Reads `[HEAD] MESSAGE STATUS`. A reply without its STATUS is never a short success.
///
/// # Errors
/// There is no STATUS, or something before it is wrong.
async fn read_reply(
    link: &Link,
    reader: &mut FrameReader,
    progress: Progress,
) -> Result<Answer, Status> {
    let mut parts = Parts::default();
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(broken(progress, "the reply ended without its STATUS")),
            Err(fault) => {
                let progress = progress.judged(link, reader.stream_id());
                return Err(read_failed(link, progress, fault));
            }
        };
        match frame.kind {
            Kind::Head if parts.metadata.is_none() && parts.message.is_none() => {
                parts.metadata = Some(
                    ReplyHead::decode(&frame.payload)
                        .map_err(|fault| broken(progress, &fault.to_string()))?,
                );
            }
            Kind::Message if parts.message.is_none() => parts.message = Some(frame.payload),
            Kind::Status => {
                let status = StatusHead::decode(&frame.payload)
                    .map_err(|fault| broken(progress, &fault.to_string()))?;
                return Ok(complete(parts, status, progress));
            }
            _ => return Err(broken(progress, "the reply has a frame out of place")),
        }
    }
}

/// After STATUS the answer is whole. Only more frames could still spoil it; a lost link or a
/// missing FIN cannot.
async fn wait_for_end(reader: &mut FrameReader, progress: Progress) -> Result<(), Status> {
    let until = || Instant::now() + REPLY_FIN_WAIT_MAX;
    let ended = ready_by(until, pin!(expect_end(reader, progress))).await.ok();
    ended.unwrap_or_else(|| end_unseen(reader, progress))
}

/// No FIN came after STATUS in time. The reply counts, unless part of another frame has come.
pub(super) fn end_unseen(reader: &FrameReader, progress: Progress) -> Result<(), Status> {
    if reader.is_inside_a_frame() { Err(goes_on(progress)) } else { Ok(()) }
}

fn goes_on(progress: Progress) -> Status {
    broken(progress, "the reply goes on after its STATUS")
}

/// The end of a reply whose STATUS was read.
pub(super) async fn expect_end(reader: &mut FrameReader, progress: Progress) -> Result<(), Status> {
    match reader.next().await {
        Ok(Some(_)) | Err(ReadFault::Wire(_) | ReadFault::Exhausted(_) | ReadFault::Cut) => {
            Err(goes_on(progress))
        }
        Ok(None) | Err(ReadFault::Reset(_) | ReadFault::Lost(_)) => Ok(()),
    }
}

fn complete(
    parts: Parts,
    status: Result<Metadata, Status>,
    progress: Progress,
) -> Result<Reply, Status> {
    let trailing = status?;
    let message = parts.message.ok_or_else(|| broken(progress, "the reply has no message"))?;
    let metadata = parts.metadata.unwrap_or_default();
    Ok(Reply { body: Body::Message(message), metadata, trailing })
}

/// What came back is not the protocol.
pub(super) fn broken(progress: Progress, why: &str) -> Status {
    progress.failed(Code::Internal, why)
}

pub(super) fn read_failed(link: &Link, progress: Progress, fault: ReadFault) -> Status {
    match fault {
        ReadFault::Lost(fault) => unavailable(link, progress, fault),
        ReadFault::Cut => broken(progress, "the reply ended inside a frame"),
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

/// The table of stream codes: the first three say that nothing was started.
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
        Some(code) => broken(progress, &format!("the peer broke the call off with {code}")),
        None => broken(progress, "the peer broke the call off with an unknown code"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Permits, *};

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_permit_and_for_stream_credit_share_one_bound() {
        let limits = Limits { queue_wait_max: Duration::from_secs(2), ..Limits::default() };
        let (permits, deadline) = (Permits::new(1, 1), Instant::now() + Duration::from_secs(60));
        let acquire = || permits.acquire(deadline, limits.queue_wait_max);
        let left = |permit: &Permit| AskLimits::relaying(&limits, permit).queue_wait_max;
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
