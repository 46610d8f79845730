//! Tests of outcomes at the initiator of a call, against a scripted responder.

use super::*;
use crate::{
    call::{
        Body, CallMeta, Messages, Reply, Request, Requester, Target, ask, is_retryable_on_next_link,
    },
    lazy_timeout::poll_once,
    limits::{Limits, QUEUE_WAIT_MAX, REPLY_FIN_WAIT_MAX, STATUS_GRACE},
    link::{CallStream, ControlStream, Link, ends::Ends},
    metadata::Metadata,
    name::CallIds,
    wire::{CallKind, CloseCode, Kind, StatusHead, StreamCode, reply_chunks, status_chunk},
};
use bytes::Bytes;
use std::{pin::pin, task::Poll};
use tokio::time::Instant;

const MESSAGE: &[u8] = b"\x62hi";
const BYTES_MAX: usize = 1 << 20;
/// Shorter than the idle time of a link, which has no heartbeat here.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A link on which calls are made, and its other end, which answers them.
struct LinkUnderTest {
    link: Link,
    peer: Link,
    _controls: [ControlStream; 2],
}

fn request(timeout: Duration) -> Request {
    let method = "Stage/Echo".parse().expect("a method");
    let call_id = CallIds::new([7; 16]).next_id();
    let deadline = Instant::now() + timeout;
    Request {
        meta: CallMeta::new(method, CallKind::Unary, Target::Here, call_id, deadline),
        requester: Requester::Verified("caller/ops".parse().expect("a peer")),
        body: Body::Message(Bytes::from_static(MESSAGE)),
    }
}

impl LinkUnderTest {
    async fn new() -> Self {
        let [(link, control), (peer, its_control)] = Ends::new().linked().await;
        Self { link, peer, _controls: [control, its_control] }
    }

    async fn send(&self, mut request: Request) -> Result<Reply, Status> {
        ask(&self.link, &mut request, (&Limits::default()).into(), None, None).await
    }

    /// The next request, read to its end.
    async fn accept(&self) -> CallStream {
        let mut stream = self.peer.accept(BYTES_MAX).await.expect("a stream");
        while stream.reader.next().await.expect("a frame").is_some() {}
        stream
    }

    /// Makes a call that this responder answers.
    async fn answered_by(&self, respond: impl AsyncFnOnce(CallStream)) -> Result<Reply, Status> {
        let respond = async {
            respond(self.accept().await).await;
            // Its values are dropped when the call has ended.
            pending::<()>().await;
        };
        tokio::select! {
            reply = self.send(request(TIMEOUT)) => reply,
            () = respond => unreachable!(),
        }
    }
}

/// A whole reply without an end of the stream.
async fn write_reply(stream: &mut CallStream) {
    let (message, trailing) = (Bytes::from_static(MESSAGE), Metadata::default());
    let mut chunks = reply_chunks(None, &message, &StatusHead::ok(&trailing)).expect("a reply");
    stream.sender.write(&mut chunks).await.expect("written");
}

async fn write_status(stream: &mut CallStream, status: &Status) {
    let mut chunks = status_chunk(&StatusHead::failed(status)).expect("a status");
    stream.sender.write(&mut chunks).await.expect("written");
}

#[track_caller]
fn check_reply(reply: Result<Reply, Status>) {
    assert_eq!(reply.expect("a reply").message(), Ok(&Bytes::from_static(MESSAGE)));
}

#[tokio::test(start_paused = true)]
async fn a_reply_with_its_status_is_a_success() {
    let call = LinkUnderTest::new().await;
    let reply = call.answered_by(async |mut stream| {
        write_reply(&mut stream).await;
        stream.sender.finish();
        pending().await
    });
    check_reply(reply.await);
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_the_end_of_its_stream_counts_after_a_moment() {
    let call = LinkUnderTest::new().await;
    let began = Instant::now();
    let reply = call.answered_by(async |mut stream| {
        write_reply(&mut stream).await;
        pending().await
    });
    check_reply(reply.await);
    let waited = began.elapsed();
    assert!((REPLY_FIN_WAIT_MAX..2 * REPLY_FIN_WAIT_MAX).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_link_is_lost_after_its_status_counts() {
    let call = LinkUnderTest::new().await;
    let peer = call.peer.clone();
    let reply = call.answered_by(async |mut stream| {
        write_reply(&mut stream).await;
        tokio::time::sleep(REPLY_FIN_WAIT_MAX / 2).await;
        peer.close(CloseCode::Goodbye, "");
        pending().await
    });
    check_reply(reply.await);
}

#[tokio::test(start_paused = true)]
async fn a_reply_without_its_status_is_never_a_success() {
    let call = LinkUnderTest::new().await;
    let reply = call.answered_by(async |mut stream| {
        stream.sender.finish();
        pending().await
    });
    check_status(reply.await, Code::Internal, Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_continues_after_its_status_is_broken() {
    let call = LinkUnderTest::new().await;
    let reply = call.answered_by(async |mut stream| {
        write_reply(&mut stream).await;
        write_reply(&mut stream).await;
        stream.sender.finish();
        pending().await
    });
    check_status(reply.await, Code::Internal, Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn the_status_of_the_responder_counts_with_its_outcome() {
    for outcome in [Outcome::NotExecuted, Outcome::AppError, Outcome::Unknown] {
        let call = LinkUnderTest::new().await;
        let sent = Status::with_outcome(Code::FailedPrecondition, outcome, "closed on Sundays");
        let reply = call.answered_by(async |mut stream| {
            write_status(&mut stream, &sent).await;
            stream.sender.finish();
            pending().await
        });
        check_status(reply.await, Code::FailedPrecondition, outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn the_code_of_a_reset_decides_whether_the_call_was_executed() {
    for (code, expected, outcome) in [
        (StreamCode::Refused, Code::Unavailable, Outcome::NotExecuted),
        (StreamCode::Draining, Code::Unavailable, Outcome::NotExecuted),
        (StreamCode::Overloaded, Code::ResourceExhausted, Outcome::NotExecuted),
        (StreamCode::Deadline, Code::DeadlineExceeded, Outcome::Unknown),
        (StreamCode::Slow, Code::ResourceExhausted, Outcome::Unknown),
        (StreamCode::Cancelled, Code::Internal, Outcome::Unknown),
        (StreamCode::TooLarge, Code::Internal, Outcome::Unknown),
    ] {
        let call = LinkUnderTest::new().await;
        let reply = call.answered_by(async |mut stream| stream.sender.reset(code));
        check_status(reply.await, expected, outcome);
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_before_the_request_means_not_executed() {
    let call = LinkUnderTest::new().await;
    call.link.close(CloseCode::Goodbye, "");
    let reply = call.send(request(TIMEOUT)).await;
    check_status(reply, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_after_the_request_means_unknown() {
    let call = LinkUnderTest::new().await;
    let peer = call.peer.clone();
    let reply = call.answered_by(async |_stream| peer.close(CloseCode::Goodbye, ""));
    check_status(reply.await, Code::Unavailable, Outcome::Unknown);
}

/// A link that is lost after a DRAIN whose last stream is this far from the call's.
async fn lost_after_drain(far: u64) -> Result<Reply, Status> {
    let call = LinkUnderTest::new().await;
    let (link, peer) = (call.link.clone(), call.peer.clone());
    let reply = call.answered_by(async |stream| {
        link.note_drain((stream.reader.stream_id() + far).saturating_sub(4));
        peer.close(CloseCode::Drained, "");
    });
    reply.await
}

#[tokio::test(start_paused = true)]
async fn a_stream_past_the_last_one_of_a_drain_was_not_executed() {
    check_status(lost_after_drain(0).await, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn a_stream_up_to_the_last_one_of_a_drain_may_have_been_executed() {
    check_status(lost_after_drain(4).await, Code::Unavailable, Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_replaced_link_is_for_the_next_one() {
    let call = LinkUnderTest::new().await;
    let other = LinkUnderTest::new().await;
    call.link.replace();
    let reply = call.send(request(TIMEOUT)).await;
    assert!(is_retryable_on_next_link(&reply, &call.link));
    assert!(!is_retryable_on_next_link(&reply, &other.link), "the link stays");
    check_status(reply, Code::Unavailable, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn only_unavailable_and_safe_failures_are_for_the_next_link() {
    let call = LinkUnderTest::new().await;
    call.link.note_drain(0);
    let failed = |code, outcome| Err(Status::with_outcome(code, outcome, ""));
    for (reply, expected) in [
        (failed(Code::Unavailable, Outcome::NotExecuted), true),
        (failed(Code::Unavailable, Outcome::Unknown), false),
        (failed(Code::ResourceExhausted, Outcome::NotExecuted), false),
        (failed(Code::PermissionDenied, Outcome::NotExecuted), false),
        (Ok(Reply::default()), false),
    ] {
        assert_eq!(is_retryable_on_next_link(&reply, &call.link), expected, "{reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_reply_ends_after_its_deadline_and_the_grace_period() {
    let call = LinkUnderTest::new().await;
    let began = Instant::now();
    let reply = call.answered_by(async |_stream| pending().await);
    check_status(reply.await, Code::DeadlineExceeded, Outcome::Unknown);
    assert_eq!(began.elapsed(), TIMEOUT + STATUS_GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_status_within_the_grace_period_counts() {
    let call = LinkUnderTest::new().await;
    let sent = Status::not_executed(Code::DeadlineExceeded, "it was queued");
    let reply = call.answered_by(async |mut stream| {
        tokio::time::sleep(TIMEOUT + STATUS_GRACE / 2).await;
        write_status(&mut stream, &sent).await;
        pending().await
    });
    check_status(reply.await, Code::DeadlineExceeded, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_means_not_executed() {
    let call = LinkUnderTest::new().await;
    let reply = call.send(request(Duration::ZERO)).await;
    check_status(reply, Code::DeadlineExceeded, Outcome::NotExecuted);
}

/// All streams that the peer grants.
async fn take_all_streams(link: &Link) -> Vec<CallStream> {
    let mut streams = Vec::new();
    let until = || Instant::now() + HOUR;
    while let Poll::Ready(stream) = poll_once(pin!(link.open(until, BYTES_MAX))).await {
        streams.push(stream.expect("a stream"));
    }
    streams
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_stream_waits_for_one_and_is_not_executed() {
    let call = LinkUnderTest::new().await;
    let _streams = take_all_streams(&call.link).await;
    let began = Instant::now();
    let reply = call.send(request(TIMEOUT)).await;
    check_status(reply, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!(began.elapsed(), QUEUE_WAIT_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_before_the_end_of_that_wait_is_an_exceeded_deadline() {
    let call = LinkUnderTest::new().await;
    let _streams = take_all_streams(&call.link).await;
    let began = Instant::now();
    let reply = call.send(request(QUEUE_WAIT_MAX / 2)).await;
    check_status(reply, Code::DeadlineExceeded, Outcome::NotExecuted);
    assert_eq!(began.elapsed(), QUEUE_WAIT_MAX / 2);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_is_refused_before_a_stream_is_opened() {
    let call = LinkUnderTest::new().await;
    let mut large = request(TIMEOUT);
    large.body = Body::Message(Bytes::from(vec![0; Limits::default().message_bytes_max + 1]));
    let reply = call.send(large).await;
    check_status(reply, Code::ResourceExhausted, Outcome::NotExecuted);
    let accepted = tokio::time::timeout(SECOND, call.peer.accept(BYTES_MAX)).await;
    assert!(accepted.is_err(), "it opened a stream");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_cancels_its_stream() {
    let call = LinkUnderTest::new().await;
    let mut stream = tokio::select! {
        _ = call.send(request(TIMEOUT)) => unreachable!(),
        stream = call.accept() => stream,
    };
    tokio::time::timeout(SECOND, stream.sender.stopped()).await.expect("the cancellation");
    let (message, trailing) = (Bytes::from_static(MESSAGE), Metadata::default());
    let mut chunks = reply_chunks(None, &message, &StatusHead::ok(&trailing)).expect("a reply");
    assert!(stream.sender.write(&mut chunks).await.is_err(), "the reply was still wanted");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_unknown_from_its_first_message_on_although_the_second_does_not_fit() {
    let call = LinkUnderTest::new().await;
    let (sender, messages) = Messages::channel(2);
    // The second is larger than the window of the stream, and the peer does not read it.
    for message in [Bytes::from_static(MESSAGE), Bytes::from(vec![0; BYTES_MAX / 2])] {
        sender.send(message).await.expect("room");
    }
    let mut request = request(TIMEOUT);
    (request.meta.kind, request.body) = (CallKind::Bidirectional, Body::Messages(messages));
    let respond = async {
        let mut stream = call.peer.accept(BYTES_MAX).await.expect("a stream");
        while stream.reader.next().await.expect("a frame").expect("a frame").kind != Kind::Message {
        }
        stream.sender.reset(StreamCode::Internal);
        pending::<()>().await;
    };
    let ended = async {
        let Body::Messages(mut replies) = call.send(request).await?.body else { unreachable!() };
        replies.next().await.expect("an end").map(drop)
    };
    tokio::select! {
        ended = ended => check_status(ended, Code::Internal, Outcome::Unknown),
        () = respond => unreachable!(),
    }
}
