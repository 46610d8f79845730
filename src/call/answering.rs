//! The answering half of a call: read the head, arm deadline and cancellation, write the reply.

use super::{
    message::{Reply, Request, Target},
    steady::{Stall, read_steadily, write_steadily},
};
use crate::{
    limits::{HEAD_WAIT_MAX, Limits, STALL_WAIT_MAX, TIMEOUT_CEILING},
    link::{CallStream, FrameReader, FrameSender, ReadFault},
    metadata::Metadata,
    name::{CallId, MethodPath, PeerName},
    patience::ready_by,
    status::{Code, Outcome, Status},
    wire::{
        CallKind, Chunks, Kind, ReplyHead, RequestHead, Route, StatusHead, StreamCode, WireError,
        reply_chunks, status_chunk,
    },
};
use bytes::Bytes;
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;

/// The head of a request as it was read. Who asks is what the peer says; whether that counts is the reception's to judge.
#[derive(Debug)]
pub(crate) struct Head {
    /// What is called.
    pub(crate) method: MethodPath,
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
}

impl Head {
    fn decode(payload: &[u8], received_at: Instant) -> Result<Box<Self>, Status> {
        let mut head = RequestHead::decode(payload).map_err(|fault| malformed(&fault))?;
        if head.kind != CallKind::Unary {
            let text = format!(
                "{} calls are not supported by this version of dialback",
                head.kind.as_str()
            );
            return Err(Status::not_executed(Code::Unimplemented, text));
        }
        let invalid = |fault: crate::name::NameError| {
            Status::not_executed(Code::InvalidArgument, fault.to_string())
        };
        let target = match head.route() {
            Route::Here => Target::Here,
            Route::Agent(name) => Target::Agent(name.parse().map_err(invalid)?),
            Route::Service => {
                let text = "calls that name only a service are not supported by this version of dialback; name an agent";
                return Err(Status::not_executed(Code::Unimplemented, text));
            }
        };
        let timeout = Duration::from_millis(head.timeout_ms).min(TIMEOUT_CEILING);
        Ok(Box::new(Self {
            method: head.method.parse().map_err(invalid)?,
            target,
            caller: head.caller.map(Into::into),
            call_id: CallId::from_bytes(*head.call_id),
            deadline: received_at + timeout,
            attempt: head.attempt,
            priority: head.priority,
            traceparent: head.traceparent.map(Into::into),
            metadata: head.take_metadata(),
        }))
    }

    /// The request that a handler gets, once it is known who really asks.
    pub(crate) fn into_request(self, caller: PeerName, message: Bytes) -> Request {
        let Self {
            method,
            target,
            caller: _,
            call_id,
            deadline,
            attempt,
            priority,
            traceparent,
            metadata,
        } = self;
        Request {
            method,
            target,
            caller,
            call_id,
            deadline,
            attempt,
            priority,
            traceparent,
            metadata,
            message,
        }
    }
}

/// Bytes from a peer that are not what they should be: nothing was started.
fn malformed(fault: &WireError) -> Status {
    let code = if matches!(fault, WireError::TooLarge { .. }) {
        Code::ResourceExhausted
    } else {
        Code::InvalidArgument
    };
    Status::not_executed(code, fault.to_string())
}

/// The rest of a request, to be read once the call was admitted.
pub(crate) struct Body<'a> {
    reader: &'a mut FrameReader,
    message_bytes_max: usize,
    /// After this nobody waits for an answer.
    deadline: Instant,
    /// Set when the request is complete: from then on a handler may run.
    complete: &'a AtomicBool,
}

impl Body<'_> {
    /// The message of a unary request, once END and the end of the stream were received. To be asked for last: what it gives is for a
    /// handler that starts now.
    ///
    /// # Errors
    /// Everything that is not exactly one message, and a deadline that has passed: not executed.
    pub(crate) async fn message(mut self) -> Result<Bytes, Status> {
        self.reader.allow_messages(self.message_bytes_max);
        let message = self.read().await.inspect_err(|status| {
            self.reader.stop(match status.code() {
                Code::ResourceExhausted => StreamCode::TooLarge,
                Code::Cancelled => StreamCode::Cancelled,
                _ => StreamCode::Malformed,
            });
        })?;
        // The last look at the clock before the handler: a slow body or a queue may have used up the time.
        if Instant::now() >= self.deadline {
            let text = "the deadline passed before the handler was started";
            return Err(Status::not_executed(Code::DeadlineExceeded, text));
        }
        self.complete.store(true, Ordering::Relaxed);
        Ok(message)
    }

    async fn read(&mut self) -> Result<Bytes, Status> {
        let invalid = |text: &str| Err(Status::not_executed(Code::InvalidArgument, text));
        let mut message = None;
        loop {
            match (next_frame(self.reader).await?, message.is_some()) {
                (Some((Kind::Message, payload)), false) => message = Some(payload),
                (Some((Kind::Message, _)), true) => {
                    return invalid("a unary request has more than one message");
                }
                (Some((Kind::End, _)), _) => break,
                (Some(_), _) => return invalid("a frame out of place in a request"),
                (None, _) => return invalid("the request ended without END"),
            }
        }
        if next_frame(self.reader).await?.is_some() {
            return invalid("the request goes on after END");
        }
        message.map_or_else(|| invalid("a unary request has no message"), Ok)
    }
}

/// The next frame of a request, or why there is none.
async fn next_frame(reader: &mut FrameReader) -> Result<Option<(Kind, Bytes)>, Status> {
    read_steadily(reader).await.map_err(|stall| match stall {
        Stall::Fault(fault) => read_failed(fault),
        Stall::Slow => {
            reader.stop(StreamCode::Slow);
            let text = "the request came too slowly (less than 1 KiB/s)";
            Status::not_executed(Code::ResourceExhausted, text)
        }
    })
}

fn read_failed(fault: ReadFault) -> Status {
    match fault {
        ReadFault::Wire(fault) => malformed(&fault),
        ReadFault::Cut => {
            Status::not_executed(Code::InvalidArgument, "the request ended inside a frame")
        }
        ReadFault::Reset(_) => {
            Status::not_executed(Code::Cancelled, "the asking side broke the request off")
        }
        ReadFault::Lost(fault) => Status::not_executed(Code::Unavailable, fault.to_string()),
    }
}

/// What [`read_failed`] makes of a reset, and nobody else here.
fn was_broken_off(status: &Status) -> bool {
    (status.code(), status.outcome()) == (Code::Cancelled, Outcome::NotExecuted)
}

/// Who receives calls: judges the head, admits, reads the body and starts the handler.
pub(crate) trait Reception: Send + Sync + 'static {
    /// Takes one call. A status that it returns travels as it is.
    fn receive(
        &self,
        head: Box<Head>,
        body: Body<'_>,
    ) -> impl Future<Output = Result<Reply, Status>> + Send;

    /// Hears that the asking side broke a call off that began then and had time until then.
    fn broken_off(&self, began: Instant, deadline: Instant) {
        let _ = (began, deadline);
    }

    /// Whether somebody waits for the calls in flight in order to close their link.
    fn is_leaving(&self) -> bool;
}

/// Answers one call on its stream. Returns when the reply was handed over or the call was broken off, and with it the handler has ended;
/// for a reception that is leaving, when the reply has arrived.
///
/// Everything large is borrowed from here: what an async function takes by value it keeps beside its copy for as long as it runs.
pub(crate) async fn answer<R: Reception>(
    mut stream: CallStream,
    reception: Arc<R>,
    limits: Arc<Limits>,
) {
    let received_at = Instant::now();
    let CallStream { sender, reader } = &mut stream;
    reader.set_code_on_drop(StreamCode::Refused);
    // Before the head was judged nobody may make us hold a message.
    reader.allow_messages(0);
    let (result, deadline) = match read_head(reader, received_at).await {
        Err(status) => (Err(status), received_at + STALL_WAIT_MAX),
        Ok(head) => {
            let deadline = head.deadline;
            match run(head, sender, reader, &*reception, limits.message_bytes_max).await {
                Some(result) => (result, deadline),
                None => {
                    reception.broken_off(received_at, deadline);
                    return sender.reset(StreamCode::Cancelled);
                }
            }
        }
    };
    if result.as_ref().is_err_and(was_broken_off) {
        reception.broken_off(received_at, deadline);
    }
    reader.stop(StreamCode::Refused);
    write_result(sender, result, limits.message_bytes_max, deadline).await;
    arrive(sender, &*reception).await;
}

/// Has the reception take the call, with deadline and cancellation armed. `None` if the asking side has gone.
async fn run<R: Reception>(
    head: Box<Head>,
    sender: &FrameSender,
    reader: &mut FrameReader,
    reception: &R,
    message_bytes_max: usize,
) -> Option<Result<Reply, Status>> {
    let deadline = head.deadline;
    if head.priority != 0 {
        sender.set_priority(head.priority.into());
    }
    let complete = AtomicBool::new(false);
    let body = Body { reader, message_bytes_max, deadline, complete: &complete };
    let receive = pin!(reception.receive(head, body));
    let mut work = pin!(caught(receive));
    // Made when first polled: a handler that answers at once never needs it.
    let stopped = async { sender.stopped().await };
    let ended = tokio::select! {
        biased;
        ended = ready_by(|| deadline, work.as_mut()) => ended,
        // Its stream was broken off, and nobody reads an answer.
        () = stopped => return None,
    };
    let outcome =
        if complete.load(Ordering::Relaxed) { Outcome::Unknown } else { Outcome::NotExecuted };
    Some(match ended {
        Ok(Ok(result)) => result,
        Ok(Err(Panicked)) => {
            Err(Status::with_outcome(Code::Internal, outcome, "the handler panicked"))
        }
        Err(_elapsed) => {
            Err(Status::with_outcome(Code::DeadlineExceeded, outcome, "the deadline passed"))
        }
    })
}

/// Closing a link throws away what is still on its way. Whoever waits for its calls before it closes must wait for their replies to
/// arrive; at all other times that would be a wake-up a call for nothing.
async fn arrive<R: Reception>(sender: &FrameSender, reception: &R) {
    if reception.is_leaving() {
        drop(tokio::time::timeout(STALL_WAIT_MAX, sender.delivered()).await);
    }
}

async fn read_head(reader: &mut FrameReader, received_at: Instant) -> Result<Box<Head>, Status> {
    let read = ready_by(|| received_at + HEAD_WAIT_MAX, pin!(reader.next())).await;
    let frame = match read {
        Ok(Ok(Some(frame))) if frame.kind == Kind::Head => frame,
        Ok(Ok(_)) | Ok(Err(ReadFault::Wire(WireError::TooLarge { kind: "Message", .. }))) => {
            return Err(Status::not_executed(
                Code::InvalidArgument,
                "the first frame of a call was not HEAD",
            ));
        }
        Ok(Err(fault)) => return Err(read_failed(fault)),
        Err(_elapsed) => {
            reader.stop(StreamCode::Slow);
            return Err(Status::not_executed(
                Code::ResourceExhausted,
                "the head of the call did not come in time",
            ));
        }
    };
    Head::decode(&frame.payload, received_at)
}

/// The work panicked; the panic itself was printed by the panic hook.
struct Panicked;

/// Runs the work so that its panic ends this call and nothing else.
fn caught<F: Future>(mut work: Pin<&mut F>) -> impl Future<Output = Result<F::Output, Panicked>> {
    std::future::poll_fn(move |cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_panic) => Poll::Ready(Err(Panicked)),
        }
    })
}

async fn write_result(
    sender: &mut FrameSender,
    result: Result<Reply, Status>,
    message_bytes_max: usize,
    deadline: Instant,
) {
    let chunks = match &result {
        Ok(reply) => encode(reply, message_bytes_max),
        Err(status) => return write_status(sender, status).await,
    };
    match chunks {
        Ok(chunks) => write(sender, chunks, deadline).await,
        Err(status) => write_status(sender, &status).await,
    }
}

fn encode(reply: &Reply, message_bytes_max: usize) -> Result<Chunks, Status> {
    let (bytes, max) = (reply.message.len(), message_bytes_max);
    if bytes > max {
        let text = format!(
            "the reply of {bytes} bytes is over the limit of {max} bytes (message_bytes_max)"
        );
        return Err(Status::unknown(Code::Internal, text));
    }
    let head = (!reply.metadata.is_empty()).then(|| ReplyHead::new(&reply.metadata));
    reply_chunks(head.as_ref(), &reply.message, &StatusHead::ok(&reply.trailing)).map_err(|fault| {
        Status::unknown(Code::Internal, format!("the metadata of the reply: {fault}"))
    })
}

/// A failure travels even when its deadline has passed: the asking side may be late to notice.
async fn write_status(sender: &mut FrameSender, status: &Status) {
    match status_chunk(&StatusHead::failed(status)) {
        Ok(chunks) => write(sender, chunks, Instant::now() + STALL_WAIT_MAX).await,
        Err(_too_large) => sender.reset(StreamCode::Internal),
    }
}

async fn write(sender: &mut FrameSender, mut chunks: Chunks, until: Instant) {
    let written = ready_by(|| until, pin!(write_steadily(sender, &mut chunks))).await;
    match written {
        Ok(Ok(())) => sender.finish(),
        Ok(Err(Stall::Slow)) => sender.reset(StreamCode::Slow),
        Ok(Err(Stall::Fault(_gone))) => sender.reset(StreamCode::Cancelled),
        Err(_elapsed) => sender.reset(StreamCode::Deadline),
    }
}
