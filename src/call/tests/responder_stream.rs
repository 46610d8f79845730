//! Idle times, faults and ends of streaming calls, as the responder keeps them.

use super::{
    responder::{Acceptor, Handling, read_reply, serving},
    *,
};

/// A limit that is shorter than a call.
const IDLE_MAX: Duration = SECOND;

fn idle_limits() -> Limits {
    Limits { stream_idle_max: IDLE_MAX, ..limits() }
}

fn head() -> Frames {
    Frames::default().request_head("S/M", CallKind::Bidirectional, TIMEOUT)
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_back_message_by_message() {
    let (replied, acceptor) =
        serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
            head().message(b"1").message(b"2").end().finish(&mut stream).await;
            read_reply(&mut stream).await
        })
        .await;
    assert_eq!(replied.messages, [Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
    assert!(replied.end.is_ok());
    assert_eq!(acceptor.counts(), [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_starts_with_the_first_message_or_the_end_of_a_stream() {
    for frames in [head().message(b"1"), head().end()] {
        let acceptor = Acceptor::with(Handling::Never);
        let (_, acceptor) = serving(acceptor, limits(), async |mut stream: CallStream| {
            match frames.0.ends_with(&[Kind::End.byte(), 0]) {
                true => frames.finish(&mut stream).await,
                false => frames.write(&mut stream).await,
            }
            tokio::time::sleep(SECOND / 2).await;
        })
        .await;
        assert_eq!(acceptor.counts()[0], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_first_message_is_given_up_after_the_idle_time() {
    let began = Instant::now();
    let (replied, acceptor) =
        serving(Acceptor::default(), idle_limits(), async |mut stream: CallStream| {
            head().write(&mut stream).await;
            read_reply(&mut stream).await
        })
        .await;
    check(replied.end, Code::DeadlineExceeded, Outcome::NotExecuted, "stream_idle_max");
    assert!(began.elapsed() >= IDLE_MAX && began.elapsed() < TIMEOUT);
    assert_eq!(acceptor.counts(), [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_which_nothing_moves_is_given_up_after_the_idle_time() {
    let began = Instant::now();
    let (replied, _) =
        serving(Acceptor::default(), idle_limits(), async |mut stream: CallStream| {
            head().message(b"1").write(&mut stream).await;
            // Each message is one more move, and prolongs it.
            tokio::time::sleep(IDLE_MAX / 2).await;
            Frames::default().message(b"2").write(&mut stream).await;
            read_reply(&mut stream).await
        })
        .await;
    assert_eq!(replied.messages.len(), 2);
    check(replied.end, Code::DeadlineExceeded, Outcome::Unknown, "stream_idle_max");
    assert!(began.elapsed() >= IDLE_MAX * 3 / 2 && began.elapsed() < TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn deadline_within_a_stream_is_reported_as_unknown() {
    let (replied, _) = serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
        head().message(b"1").write(&mut stream).await;
        read_reply(&mut stream).await
    })
    .await;
    assert_eq!(replied.messages.len(), 1);
    check(replied.end, Code::DeadlineExceeded, Outcome::Unknown, "the deadline passed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_the_protocol_while_its_handler_runs_is_counted_and_unknown() {
    for (frames, text) in [
        (Frames::default().head(&pairs("a", "1")), "out of place"),
        (Frames::default().end().message(b"2"), "after END"),
    ] {
        let (replied, acceptor) =
            serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
                head().message(b"1").write(&mut stream).await;
                read_to(&mut stream.reader, Kind::Message).await;
                frames.finish(&mut stream).await;
                read_reply(&mut stream).await
            })
            .await;
        check(replied.end, Code::InvalidArgument, Outcome::Unknown, text);
        assert_eq!(acceptor.counts(), [1, 0, 0, 1], "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_stream_of_replies_is_not_a_fault_of_the_initiator() {
    let (_, acceptor) = serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
        head().message(b"1").write(&mut stream).await;
        read_to(&mut stream.reader, Kind::Message).await;
    })
    .await;
    assert_eq!(acceptor.counts(), [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_in_a_running_stream_ends_it_as_unknown() {
    let acceptor = Acceptor { message_bytes_max: Some(1), ..Acceptor::default() };
    let (replied, acceptor) = serving(acceptor, limits(), async |mut stream: CallStream| {
        head().message(b"1").write(&mut stream).await;
        read_to(&mut stream.reader, Kind::Message).await;
        Frames::default().message(b"22").write(&mut stream).await;
        read_reply(&mut stream).await
    })
    .await;
    check(replied.end, Code::ResourceExhausted, Outcome::Unknown, "bytes");
    assert_eq!(acceptor.counts(), [1, 0, 0, 0], "the initiator does not know the limit");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_too_slowly_ends_its_stream() {
    let (replied, acceptor) =
        serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
            let head = Frames::default().request_head("S/M", CallKind::Bidirectional, 60 * SECOND);
            head.message(b"1").write(&mut stream).await;
            // One byte a second keeps the link, and is less than a peer has to send.
            for byte in Frames::default().message(&[0; 4096]).0.into_iter().take(25) {
                Frames(vec![byte]).write(&mut stream).await;
                tokio::time::sleep(SECOND).await;
            }
            read_reply(&mut stream).await
        })
        .await;
    assert_eq!(replied.messages.len(), 1);
    check(replied.end, Code::ResourceExhausted, Outcome::Unknown, "too slowly");
    assert_eq!(acceptor.counts(), [1, 0, 0, 1]);
}
