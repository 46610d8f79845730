//! Outcome, order and end of streaming calls, as the initiator concludes them.

use super::*;
use crate::call::{InitiatorLimits, MessageSender, Messages, Reply, ask};

/// A call whose peer does this once the head has arrived. Gives all messages of the reply, and how
/// they ended.
async fn streamed(
    kind: CallKind,
    body: Body,
    script: impl AsyncFnOnce(&mut CallStream),
) -> (Vec<Bytes>, Result<Metadata, Status>) {
    let (pair, mut request) = (Pair::linked().await, request(kind, body));
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::Head).await;
        script(&mut stream).await;
        std::future::pending::<()>().await;
    };
    let limits = InitiatorLimits::from(&limits());
    let call = async {
        match ask(&pair.node, &mut request, limits, None, None).await {
            Err(status) => (Vec::new(), Err(status)),
            Ok(Reply { body: Body::Message(message), trailing, .. }) => {
                (vec![message], Ok(trailing))
            }
            Ok(Reply { body: Body::Messages(messages), .. }) => read_all(messages).await,
            Ok(Reply { body: Body::Parts(_), .. }) => panic!("it is not taken in parts"),
        }
    };
    tokio::select! {
        ended = call => ended,
        () = peer => unreachable!(),
    }
}

async fn read_all(mut messages: Messages) -> (Vec<Bytes>, Result<Metadata, Status>) {
    let mut read = Vec::new();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => read.push(message),
            Err(status) => return (read, Err(status)),
        }
    }
    (read, Ok(messages.trailing().clone()))
}

fn one() -> Body {
    Body::Message(Bytes::from_static(b"x"))
}

/// A request whose messages the test sends.
fn many() -> (MessageSender, Body) {
    let (sender, messages) = Messages::channel(4);
    (sender, Body::Messages(messages))
}

#[tokio::test(start_paused = true)]
async fn replies_arrive_in_order_with_metadata_and_trailers() {
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        let frames = Frames::default().head(&pairs("a", "1")).message(b"1").message(b"2");
        frames.ok(&pairs("b", "2")).finish(stream).await;
    });
    let (read, end) = ended.await;
    assert_eq!(read, [Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
    assert_eq!(end.expect("a success").get("b"), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_its_status_is_a_failure_and_never_an_end() {
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        Frames::default().message(b"1").finish(stream).await;
    });
    let (read, end) = ended.await;
    assert_eq!(read.len(), 1);
    check(end, Code::Internal, Outcome::Unknown, "without its STATUS");
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_some_replies_keeps_its_own_outcome() {
    let failed = Status::with_outcome(Code::DataLoss, Outcome::AppError, "disk");
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        Frames::default().message(b"1").failed(&failed).finish(stream).await;
    });
    let (read, end) = ended.await;
    assert_eq!(read.len(), 1);
    check(end, Code::DataLoss, Outcome::AppError, "disk");
}

#[tokio::test(start_paused = true)]
async fn head_after_a_reply_is_rejected() {
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        Frames::default().message(b"1").head(&pairs("a", "1")).finish(stream).await;
    });
    check(ended.await.1, Code::Internal, Outcome::Unknown, "out of place");
}

#[tokio::test(start_paused = true)]
async fn second_head_of_a_stream_is_rejected() {
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        let (head, again) = (pairs("a", "1"), pairs("a", "2"));
        Frames::default().head(&head).head(&again).ok(&Metadata::default()).finish(stream).await;
    });
    check(ended.await.1, Code::Internal, Outcome::Unknown, "out of place");
}

#[tokio::test(start_paused = true)]
async fn a_frame_after_the_status_of_a_stream_spoils_it() {
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        let frames = Frames::default().message(b"1").ok(&Metadata::default());
        frames.message(b"2").finish(stream).await;
    });
    check(ended.await.1, Code::Internal, Outcome::Unknown, "after its STATUS");
}

#[tokio::test(start_paused = true)]
async fn a_second_message_of_a_client_streams_reply_is_a_failure() {
    let (sender, body) = many();
    sender.finish().await.expect("room");
    let ended = streamed(CallKind::ClientStream, body, async |stream: &mut CallStream| {
        let frames = Frames::default().message(b"1").message(b"2");
        frames.ok(&Metadata::default()).finish(stream).await;
    });
    check(ended.await.1, Code::Internal, Outcome::Unknown, "second message");
}

#[tokio::test(start_paused = true)]
async fn a_client_streams_reply_without_a_message_is_a_failure() {
    let (sender, body) = many();
    sender.finish().await.expect("room");
    let ended = streamed(CallKind::ClientStream, body, async |stream: &mut CallStream| {
        Frames::default().ok(&Metadata::default()).finish(stream).await;
    });
    check(ended.await.1, Code::Internal, Outcome::Unknown, "no message");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_unknown_from_its_first_message_on() {
    let reset = async |stream: &mut CallStream| stream.sender.reset(StreamCode::Internal);
    let (_sender, body) = many();
    let ended = streamed(CallKind::Bidirectional, body, reset).await;
    check(ended.1, Code::Internal, Outcome::NotExecuted, "the peer");
    let (sender, body) = many();
    sender.send(Bytes::from_static(b"1")).await.expect("room");
    let ended = streamed(CallKind::Bidirectional, body, async |stream: &mut CallStream| {
        read_to(&mut stream.reader, Kind::Message).await;
        stream.sender.reset(StreamCode::Internal);
    });
    check(ended.await.1, Code::Internal, Outcome::Unknown, "the peer");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fails_at_its_source_resets_the_stream() {
    for sends_first in [false, true] {
        let (sender, body) = many();
        if sends_first {
            sender.send(Bytes::from_static(b"1")).await.expect("room");
        }
        let aborted = Status::unknown(Code::Aborted, "the program gave up");
        sender.fail(aborted).await.expect("room");
        let ended = streamed(CallKind::Bidirectional, body, async |stream: &mut CallStream| {
            assert_eq!(reset_code(&mut stream.reader).await, Some(StreamCode::Cancelled));
        });
        let outcome = if sends_first { Outcome::Unknown } else { Outcome::NotExecuted };
        let (_, end) = ended.await;
        let status = end.expect_err("a failure");
        assert_eq!((status.code(), status.outcome()), (Code::Aborted, outcome), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_is_not_sent_in_a_stream() {
    let (sender, body) = many();
    sender.send(Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1])).await.expect("room");
    let ended = streamed(CallKind::Bidirectional, body, async |stream: &mut CallStream| {
        assert_eq!(reset_code(&mut stream.reader).await, Some(StreamCode::Cancelled));
    });
    let status = ended.await.1.expect_err("a failure");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("message_bytes_max"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn peer_that_stops_the_request_gives_the_reason_in_its_reply() {
    let (sender, body) = many();
    sender.send(Bytes::from_static(b"1")).await.expect("room");
    let denied = Status::not_executed(Code::PermissionDenied, "no rule");
    let ended = streamed(CallKind::Bidirectional, body, async |stream: &mut CallStream| {
        stream.reader.stop(StreamCode::Refused);
        Frames::default().failed(&denied).finish(stream).await;
    });
    check(ended.await.1, Code::PermissionDenied, Outcome::NotExecuted, "no rule");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_middle_of_a_stream_is_unknown_and_has_no_grace() {
    let began = Instant::now();
    let ended = streamed(CallKind::ServerStream, one(), async |stream: &mut CallStream| {
        Frames::default().message(b"1").write(stream).await;
    });
    let (read, end) = ended.await;
    assert_eq!(read.len(), 1);
    check(end, Code::DeadlineExceeded, Outcome::Unknown, "the deadline passed");
    assert!(began.elapsed() < TIMEOUT + Duration::from_millis(20), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_a_stream_of_replies_that_a_draining_peer_has_not_taken_was_not_executed() {
    let (pair, mut request) = (Pair::linked().await, request(CallKind::ServerStream, one()));
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
async fn a_reply_that_has_arrived_counts_although_the_request_fails_after_it() {
    let (sender, body) = many();
    let (pair, mut request) = (Pair::linked().await, request(CallKind::Bidirectional, body));
    sender.send(Bytes::from_static(b"1")).await.expect("room");
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::Message).await;
        Frames::default().message(b"1").write(&mut stream).await;
        stream
    };
    let (limits, named) = (InitiatorLimits::from(&limits()), None);
    let (reply, mut stream) =
        tokio::join!(ask(&pair.node, &mut request, limits, named, None), peer);
    Frames::default().message(b"2").ok(&Metadata::default()).finish(&mut stream).await;
    stream.sender.delivered().await;
    sender.fail(Status::unknown(Code::Aborted, "the program gave up")).await.expect("room");
    let replies = reply.expect("a stream").into_messages().expect("a stream");
    let (read, end) = read_all(replies).await;
    assert_eq!(read, [Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
    assert_eq!(end, Ok(Metadata::default()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_replies_are_dropped_stops_its_peer() {
    let (pair, mut request) = (Pair::linked().await, request(CallKind::ServerStream, one()));
    let peer = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        Frames::default().message(b"1").write(&mut stream).await;
        stream
    };
    let (limits, named) = (InitiatorLimits::from(&limits()), None);
    let (reply, stream) = tokio::join!(ask(&pair.node, &mut request, limits, named, None), peer);
    drop(reply.expect("a stream"));
    let stopped = tokio::time::timeout(SECOND, stream.sender.stopped()).await;
    assert!(stopped.is_ok(), "the peer still sends");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_sent_keeps_its_message_for_another_attempt() {
    let (pair, mut request) = (Pair::linked().await, request(CallKind::ServerStream, one()));
    let peer = async { drop(pair.accepted().await) };
    let (limits, named) = (InitiatorLimits::from(&limits()), None);
    let (reply, ()) = tokio::join!(ask(&pair.node, &mut request, limits, named, None), peer);
    assert!(reply.is_err());
    assert!(matches!(request.body, Body::Message(message) if &message[..] == b"x"));
}
