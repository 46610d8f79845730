//! Outcome, deadline and cancellation of unary calls, as the initiator concludes them.

use super::*;
use crate::{
    call::{InitiatorLimits, Permits, Reply, ask, is_retryable_on_next_link},
    lazy_timeout::poll_once,
    limits::{METADATA_PAIRS_MAX, RELAY_STATUS_GRACE, REPLY_FIN_WAIT_MAX, STATUS_GRACE},
    wire::CloseCode,
};
use std::pin::pin;

/// The result of a unary call, to which the peer does this once the request has arrived.
async fn answered(script: impl AsyncFnOnce(&mut CallStream)) -> Result<Reply, Status> {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        script(&mut stream).await;
        // Held until the call has ended: dropping it would end the stream.
        std::future::pending::<()>().await;
    };
    let limits = InitiatorLimits::from(&limits());
    tokio::select! {
        reply = ask(&pair.node, &mut request, limits, None, None) => reply,
        () = peer => unreachable!(),
    }
}

/// The same for frames that end the stream.
async fn answered_by(frames: Frames) -> Result<Reply, Status> {
    answered(async |stream: &mut CallStream| frames.finish(stream).await).await
}

fn none() -> Metadata {
    Metadata::default()
}

#[tokio::test(start_paused = true)]
async fn a_reply_has_its_message_its_metadata_and_its_trailers() {
    let frames = Frames::default().head(&pairs("a", "1")).message(b"y").ok(&pairs("b", "2"));
    let reply = answered_by(frames).await.expect("a reply");
    assert_eq!(reply.message().map(|message| &message[..]), Ok(&b"y"[..]));
    assert_eq!((reply.metadata.get("a"), reply.trailing.get("b")), (Some("1"), Some("2")));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_handler_arrives_with_its_own_outcome() {
    for outcome in [Outcome::AppError, Outcome::NotExecuted, Outcome::Unknown] {
        let status = Status::with_outcome(Code::NotFound, outcome, "no such row");
        check(answered_by(Frames::default().failed(&status)).await, Code::NotFound, outcome, "row");
    }
}

#[tokio::test(start_paused = true)]
async fn reset_before_the_start_is_not_executed() {
    for (reset, code) in [
        (StreamCode::Refused, Code::Unavailable),
        (StreamCode::Draining, Code::Unavailable),
        (StreamCode::Overloaded, Code::ResourceExhausted),
    ] {
        let reply = answered(async |stream: &mut CallStream| stream.sender.reset(reset)).await;
        check(reply, code, Outcome::NotExecuted, "the peer");
    }
}

#[tokio::test(start_paused = true)]
async fn any_other_reset_after_the_request_was_sent_is_unknown() {
    for (reset, code) in [
        (StreamCode::Deadline, Code::DeadlineExceeded),
        (StreamCode::Slow, Code::ResourceExhausted),
        (StreamCode::Cancelled, Code::Internal),
        (StreamCode::Internal, Code::Internal),
    ] {
        let reply = answered(async |stream: &mut CallStream| stream.sender.reset(reset)).await;
        check(reply, code, Outcome::Unknown, "the peer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_ends_without_its_status_is_unknown() {
    let frames = Frames::default().message(b"y");
    check(answered_by(frames).await, Code::Internal, Outcome::Unknown, "without its STATUS");
    let truncated = Frames::default().message(b"yyyy").without_last(2);
    check(answered_by(truncated).await, Code::Internal, Outcome::Unknown, "inside a frame");
}

#[tokio::test(start_paused = true)]
async fn a_success_without_a_message_is_unknown() {
    let frames = Frames::default().ok(&none());
    check(answered_by(frames).await, Code::Internal, Outcome::Unknown, "no message");
}

#[tokio::test(start_paused = true)]
async fn frames_in_wrong_order_in_a_reply_are_unknown() {
    let metadata = pairs("a", "1");
    for frames in [
        Frames::default().message(b"y").message(b"z").ok(&none()),
        Frames::default().message(b"y").head(&metadata).ok(&none()),
        Frames::default().head(&metadata).head(&metadata).message(b"y").ok(&none()),
        Frames::default().message(b"y").end().ok(&none()),
    ] {
        check(answered_by(frames).await, Code::Internal, Outcome::Unknown, "out of place");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_after_the_status_spoils_the_reply() {
    for frames in [
        Frames::default().message(b"y").ok(&none()).message(b"z"),
        Frames::default().message(b"y").ok(&none()).message(b"zzzz").without_last(2),
    ] {
        check(answered_by(frames).await, Code::Internal, Outcome::Unknown, "after its STATUS");
    }
}

#[tokio::test(start_paused = true)]
async fn part_of_a_frame_after_the_status_spoils_the_reply_without_an_end_too() {
    let frames = Frames::default().message(b"y").ok(&none()).message(b"zzzz").without_last(2);
    let reply = answered(async |stream: &mut CallStream| frames.write(stream).await);
    check(reply.await, Code::Internal, Outcome::Unknown, "after its STATUS");
}

#[tokio::test(start_paused = true)]
async fn a_missing_end_after_the_status_is_waited_for_a_moment_only() {
    let answered_at = std::cell::Cell::new(Instant::now());
    let reply = answered(async |stream: &mut CallStream| {
        Frames::default().message(b"y").ok(&none()).write(stream).await;
        answered_at.set(Instant::now());
    });
    assert!(reply.await.is_ok());
    let waited = answered_at.get().elapsed();
    assert!((REPLY_FIN_WAIT_MAX..REPLY_FIN_WAIT_MAX * 2).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_after_the_request_was_sent_is_unknown_and_has_its_grace() {
    let permit = Permits::new(1, 1).acquire(Instant::now() + SECOND, SECOND).await;
    let permit = permit.expect("a permit");
    for (limits, grace) in [
        (InitiatorLimits::from(&limits()), STATUS_GRACE),
        (InitiatorLimits::relaying(&limits(), &permit), RELAY_STATUS_GRACE),
    ] {
        let (pair, mut request) = (Pair::linked().await, unary(b"x"));
        request.meta.deadline = Instant::now() + SECOND;
        let until = request.meta.deadline + grace;
        let reply = ask(&pair.node, &mut request, limits, None, None).await;
        check(reply, Code::DeadlineExceeded, Outcome::Unknown, "the deadline passed");
        let late = Instant::now().saturating_duration_since(until);
        assert!(Instant::now() >= until && late < Duration::from_millis(5), "{late:?}");
        pair.accepted().await.sender.stopped().await;
    }
}

#[tokio::test(start_paused = true)]
async fn status_within_the_grace_replaces_the_deadline_error() {
    let not_executed = Status::not_executed(Code::ResourceExhausted, "busy");
    let reply = answered(async |stream: &mut CallStream| {
        tokio::time::sleep(TIMEOUT + STATUS_GRACE / 4).await;
        Frames::default().failed(&not_executed).finish(stream).await;
    });
    check(reply.await, Code::ResourceExhausted, Outcome::NotExecuted, "busy");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    request.meta.deadline = Instant::now();
    let reply = ask(&pair.node, &mut request, (&limits()).into(), None, None).await;
    check(reply, Code::DeadlineExceeded, Outcome::NotExecuted, "before the request was sent");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_the_limit_is_sent_and_one_byte_more_is_not() {
    static MESSAGE: [u8; MESSAGE_BYTES_MAX + 1] = [0; MESSAGE_BYTES_MAX + 1];
    let pair = Pair::linked().await;
    let mut request = unary(&MESSAGE);
    let reply = ask(&pair.node, &mut request, (&limits()).into(), None, None).await;
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "message_bytes_max");
    let mut request = unary(&MESSAGE[1..]);
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        Frames::default().message(b"y").ok(&none()).finish(&mut stream).await;
        stream
    };
    let (limits, none_named) = ((&limits()).into(), None);
    let (reply, _stream) =
        tokio::join!(ask(&pair.node, &mut request, limits, none_named, None), peer);
    assert!(reply.is_ok(), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn metadata_over_its_limit_is_not_sent() {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    (0..=METADATA_PAIRS_MAX).for_each(|n| request.meta.metadata.insert(format!("k{n}"), "v"));
    let reply = ask(&pair.node, &mut request, (&limits()).into(), None, None).await;
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "64 pairs");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_after_the_request_was_sent_is_unknown() {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        pair.agent.close(CloseCode::Superseded, "test");
    };
    let (limits, named) = ((&limits()).into(), None);
    let (reply, ()) = tokio::join!(ask(&pair.node, &mut request, limits, named, None), peer);
    check(reply, Code::Unavailable, Outcome::Unknown, "was lost");
    let reply = ask(&pair.node, &mut unary(b"x"), limits, named, None).await;
    check(reply, Code::Unavailable, Outcome::NotExecuted, "was lost");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_a_draining_peer_has_not_taken_was_not_executed() {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        pair.node.note_drain(0);
        stream.sender.reset(StreamCode::Internal);
    };
    let (limits, named) = ((&limits()).into(), None);
    let (reply, ()) = tokio::join!(ask(&pair.node, &mut request, limits, named, None), peer);
    check(reply, Code::Internal, Outcome::NotExecuted, "the peer");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_a_stream_that_a_draining_peer_has_not_taken_was_not_executed() {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    request.meta.deadline = Instant::now() + SECOND;
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        pair.node.note_drain(0);
        std::future::pending::<()>().await;
    };
    let reply = tokio::select! {
        reply = ask(&pair.node, &mut request, (&limits()).into(), None, None) => reply,
        () = peer => unreachable!(),
    };
    check(reply, Code::DeadlineExceeded, Outcome::NotExecuted, "the deadline passed");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_stops_its_peer() {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    let mut stream = {
        let mut call = pin!(ask(&pair.node, &mut request, (&limits()).into(), None, None));
        assert!(poll_once(call.as_mut()).await.is_pending());
        pair.accepted().await
    };
    let stopped = tokio::time::timeout(SECOND, stream.sender.stopped()).await;
    assert!(stopped.is_ok(), "the peer still waits for the reply");
    read_to(&mut stream.reader, Kind::End).await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_link_starts_no_call() {
    let pair = Pair::linked().await;
    pair.node.replace();
    let reply = ask(&pair.node, &mut unary(b"x"), (&limits()).into(), None, None).await;
    check(reply, Code::Unavailable, Outcome::NotExecuted, "another link");
}

#[tokio::test(start_paused = true)]
async fn the_next_link_takes_only_what_was_not_started_on_a_link_that_ends() {
    let unavailable = || Err(Status::not_executed(Code::Unavailable, "x"));
    let others = || {
        [
            Err(Status::unknown(Code::Unavailable, "x")),
            Err(Status::not_executed(Code::ResourceExhausted, "x")),
            Ok(Reply::default()),
        ]
    };
    for end in [|link: &Link| link.note_drain(0), Link::replace] {
        let pair = Pair::linked().await;
        assert!(!is_retryable_on_next_link(&unavailable(), &pair.node), "the link is in use");
        end(&pair.node);
        assert!(is_retryable_on_next_link(&unavailable(), &pair.node));
        for other in others() {
            assert!(!is_retryable_on_next_link(&other, &pair.node), "{other:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_without_stream_credit_is_waited_for_up_to_the_queue_limit_or_the_deadline() {
    let (pair, limits) = (Pair::linked().await, limits());
    let mut held = Vec::new();
    while let std::task::Poll::Ready(stream) = poll_once(pin!(pair.opened())).await {
        held.push(stream);
    }
    let began = Instant::now();
    let reply = ask(&pair.node, &mut unary(b"x"), (&limits).into(), None, None).await;
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "granted no stream");
    assert!(began.elapsed() >= limits.queue_wait_max && began.elapsed() < TIMEOUT);
    let mut request = unary(b"x");
    request.meta.deadline = Instant::now() + limits.queue_wait_max / 2;
    let reply = ask(&pair.node, &mut request, (&limits).into(), None, None).await;
    check(reply, Code::DeadlineExceeded, Outcome::NotExecuted, "waiting for a stream");
}
