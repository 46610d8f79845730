//! Messages that are passed on while they come: the end of a request, its faults, and replies.

use super::*;
use crate::{
    call::{
        Body, CallAcceptor, Head, InitiatorLimits, MessageParts, Next, PendingRequest,
        RelayedReply, Reply, Source, answer, ask, reply_parts::pass_on,
    },
    lazy_timeout::poll_once,
    limits::{PART_BYTES_MIN, PASSED_ON_BYTES_MIN, PASSED_ON_WAIT_MAX, STALL_WAIT_MAX},
    memory::MessageMemory,
    wire::CloseCode,
};
use bytes::BytesMut;
use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    task::{self, Poll},
};
use tokio::sync::mpsc;

/// The smallest message that is passed on.
static LARGE: [u8; PASSED_ON_BYTES_MIN] = [7; PASSED_ON_BYTES_MIN];
const HALF: usize = PASSED_ON_BYTES_MIN / 2;

/// A source that a test feeds.
struct Fed(mpsc::Receiver<Next>);

impl Source for Fed {
    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Next> {
        // Nothing more comes when the test has dropped its end.
        match self.0.poll_recv(cx) {
            Poll::Ready(Some(next)) => Poll::Ready(next),
            _ => Poll::Pending,
        }
    }
}

/// A request whose message comes as the test feeds it.
fn coming() -> (mpsc::Sender<Next>, Request) {
    let (feed, fed) = mpsc::channel(4);
    let parts = MessageParts::new(LARGE.len(), Fed(fed));
    (feed, request(CallKind::Unary, Body::Parts(parts)))
}

async fn feed(feed: &mpsc::Sender<Next>, next: Next) {
    feed.send(next).await.expect("a source");
}

fn half() -> Next {
    Next::Message(Bytes::from_static(&LARGE[..HALF]))
}

fn end() -> Next {
    Next::End(Metadata::default())
}

fn parts(request: &mut Request) -> &mut MessageParts {
    match &mut request.body {
        Body::Parts(parts) => parts,
        body => panic!("{body:?}"),
    }
}

async fn send(pair: &Pair, request: &mut Request) -> Result<Reply, Status> {
    parts(request).expect_by(Instant::now() + PASSED_ON_WAIT_MAX);
    ask(&pair.node, request, InitiatorLimits::from(&limits()), None, None).await
}

/// Reads this many bytes of a message whose start has come.
async fn read_bytes(stream: &mut CallStream, bytes: usize) {
    let mut read = BytesMut::new();
    while read.len() < bytes {
        let left = bytes - read.len();
        stream.reader.read_part(left, &mut read).await.expect("a part");
    }
    assert!(read.iter().all(|byte| *byte == 7));
}

/// The next call that arrives at the agent, up to the header of its message.
async fn begun(pair: &Pair) -> (CallStream, usize) {
    let mut stream = pair.accepted().await;
    stream.reader.allow_parts();
    read_to(&mut stream.reader, Kind::Head).await;
    let start = stream.reader.next().await.expect("a frame").expect("a message");
    assert_eq!(start.payload.len() + start.missing as usize, LARGE.len());
    (stream, start.payload.len())
}

/// Whether nothing more comes for a while.
async fn is_silent(stream: &mut CallStream) -> bool {
    let mut read = BytesMut::new();
    let more = stream.reader.read_part(1, &mut read);
    tokio::time::timeout(PASSED_ON_WAIT_MAX / 4, more).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn parts_leave_as_they_come_and_end_leaves_after_the_last() {
    let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
    let agent = async {
        let (mut stream, read) = begun(&pair).await;
        assert!(is_silent(&mut stream).await, "nothing has come");
        feed(&feeder, half()).await;
        read_bytes(&mut stream, HALF - read).await;
        feed(&feeder, half()).await;
        read_bytes(&mut stream, HALF).await;
        assert!(is_silent(&mut stream).await, "the end has not come");
        feed(&feeder, end()).await;
        read_to(&mut stream.reader, Kind::End).await;
        assert!(stream.reader.next().await.expect("the end of the stream").is_none());
        Frames::default().message(b"y").ok(&Metadata::default()).finish(&mut stream).await;
        stream
    };
    let (reply, _stream) = tokio::join!(send(&pair, &mut request), agent);
    assert_eq!(reply.expect("a reply").message().map(|message| &message[..]), Ok(&b"y"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_stream_of_replies_passes_its_only_message_on_too() {
    let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
    request.meta.kind = CallKind::ServerStream;
    let agent = async {
        let (mut stream, read) = begun(&pair).await;
        feed(&feeder, half()).await;
        read_bytes(&mut stream, HALF - read).await;
        feed(&feeder, half()).await;
        read_bytes(&mut stream, HALF).await;
        assert!(is_silent(&mut stream).await, "the end has not come");
        feed(&feeder, end()).await;
        read_to(&mut stream.reader, Kind::End).await;
        assert!(stream.reader.next().await.expect("the end of the stream").is_none());
        Frames::default().message(b"y").ok(&Metadata::default()).finish(&mut stream).await;
        stream
    };
    let (reply, _stream) = tokio::join!(send(&pair, &mut request), agent);
    let mut messages = reply.expect("a reply").into_messages().expect("a stream");
    assert_eq!(messages.next().await, Some(Ok(Bytes::from_static(b"y"))));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_resets_the_stream_before_its_end_and_is_not_sent_again() {
    let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
    let agent = async {
        let (mut stream, read) = begun(&pair).await;
        feed(&feeder, half()).await;
        read_bytes(&mut stream, HALF - read).await;
        let fault = Status::not_executed(Code::Cancelled, "the initiator reset the request");
        feed(&feeder, Next::Failed(fault)).await;
        reset_code(&mut stream.reader).await
    };
    let (reply, code) = tokio::join!(send(&pair, &mut request), agent);
    check(reply, Code::Cancelled, Outcome::NotExecuted, "reset the request");
    assert_eq!(code, Some(StreamCode::Cancelled));
    assert!(!request.body.can_be_sent_again());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_too_late_frees_the_agent_and_is_sent_whole_afterwards() {
    let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
    feed(&feeder, half()).await;
    let began = Instant::now();
    let agent = async {
        let (mut stream, _) = begun(&pair).await;
        reset_code(&mut stream.reader).await
    };
    let (late, code) = tokio::join!(send(&pair, &mut request), agent);
    check(late, Code::Unavailable, Outcome::NotExecuted, "in time");
    assert_eq!(code, Some(StreamCode::Cancelled));
    let took = began.elapsed();
    assert!((PASSED_ON_WAIT_MAX..2 * PASSED_ON_WAIT_MAX).contains(&took), "{took:?}");
    assert!(parts(&mut request).is_late());
    feed(&feeder, half()).await;
    feed(&feeder, end()).await;
    parts(&mut request).become_whole().await.expect("whole");
    assert!(request.body.coming().is_none());
    let agent = async {
        let (mut stream, read) = begun(&pair).await;
        read_bytes(&mut stream, LARGE.len() - read).await;
        read_to(&mut stream.reader, Kind::End).await;
        Frames::default().message(b"y").ok(&Metadata::default()).finish(&mut stream).await;
        stream
    };
    let (reply, _stream) = tokio::join!(send(&pair, &mut request), agent);
    assert!(reply.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_while_the_message_comes_is_the_result_and_the_message_remains() {
    let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
    feed(&feeder, half()).await;
    let refused = Status::not_executed(Code::ResourceExhausted, "no permit");
    let agent = async {
        let (mut stream, _) = begun(&pair).await;
        stream.reader.stop(StreamCode::Refused);
        Frames::default().failed(&refused).finish(&mut stream).await;
        stream
    };
    let (reply, _stream) = tokio::join!(send(&pair, &mut request), agent);
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "no permit");
    assert!(request.body.can_be_sent_again());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_while_the_message_comes_is_not_executed() {
    let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
    feed(&feeder, half()).await;
    let agent = async {
        let (_stream, _) = begun(&pair).await;
        pair.agent.close(CloseCode::Goodbye, "");
        std::future::pending::<()>().await;
    };
    let reply = tokio::select! {
        reply = send(&pair, &mut request) => reply,
        () = agent => unreachable!(),
    };
    check(reply, Code::Unavailable, Outcome::NotExecuted, "was lost");
    assert!(request.body.can_be_sent_again());
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_of_the_agent_is_refused_before_a_stream_is_opened() {
    let pair = Pair::linked().await;
    let (_feeder, fed) = mpsc::channel(1);
    let body = Body::Parts(MessageParts::new(MESSAGE_BYTES_MAX + 1, Fed(fed)));
    let mut request = request(CallKind::Unary, body);
    let reply = send(&pair, &mut request).await;
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "message_bytes_max");
    assert!(poll_once(pin!(pair.accepted())).await.is_pending());
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_its_check_and_fails_with_it() {
    let checks = [(Ok(Instant::now()), None), (Err("late"), Some(Code::DeadlineExceeded))];
    for (checked, code) in checks {
        let (feeder, mut request) = coming();
        let (open, opened) = tokio::sync::oneshot::channel::<()>();
        parts(&mut request).check_end(Box::pin(async move {
            opened.await.expect("a test");
            checked.map_err(|text| Status::not_executed(Code::DeadlineExceeded, text))
        }));
        for next in [half(), half(), end()] {
            feed(&feeder, next).await;
        }
        let mut whole = pin!(parts(&mut request).become_whole());
        assert!(poll_once(whole.as_mut()).await.is_pending(), "it is checked first");
        open.send(()).expect("a check");
        assert_eq!(whole.await.err().map(|status| status.code()), code);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_checked_lowers_the_deadline_of_its_call_and_does_not_extend_it() {
    for (lost, waits) in [(true, SECOND), (false, TIMEOUT)] {
        let (pair, (feeder, mut request)) = (Pair::linked().await, coming());
        let (began, given) = (Instant::now(), request.meta.deadline);
        let checked = if lost { began + SECOND } else { given + TIMEOUT };
        parts(&mut request).check_end(Box::pin(async move { Ok(checked) }));
        for next in [half(), half(), end()] {
            feed(&feeder, next).await;
        }
        let agent = async {
            let (mut stream, read) = begun(&pair).await;
            read_bytes(&mut stream, LARGE.len() - read).await;
            read_to(&mut stream.reader, Kind::End).await;
            stream
        };
        let (reply, _stream) = tokio::join!(send(&pair, &mut request), agent);
        check(reply, Code::DeadlineExceeded, Outcome::Unknown, "the deadline passed");
        assert_eq!(request.meta.deadline, checked.min(given));
        assert_eq!(began.elapsed().as_secs(), waits.as_secs());
    }
}

/// An acceptor that takes requests in parts, and answers them with parts if it has some.
#[derive(Default)]
struct Passing {
    memory: Option<MessageMemory>,
    reply: std::sync::Mutex<Option<MessageParts>>,
    /// Takes the rest of the message at the deadline of the call.
    is_late: bool,
    begun: AtomicUsize,
    whole: AtomicUsize,
    resets: AtomicUsize,
    misbehaved: AtomicUsize,
}

impl CallAcceptor for Passing {
    async fn receive(&self, head: Box<Head>, pending: PendingRequest<'_>) -> Result<Reply, Status> {
        let pending = match &self.memory {
            Some(memory) => pending.counted_in(memory.account(&"caller/ops".parse().expect("ops"))),
            None => pending,
        };
        let mut body = pending.passed_on().body(None).await?;
        self.begun.fetch_add(1, SeqCst);
        if self.is_late {
            tokio::time::sleep_until(head.meta.deadline).await;
        }
        if let Some(parts) = body.coming() {
            parts.become_whole().await?;
        }
        self.whole.fetch_add(1, SeqCst);
        // The handler starts elsewhere and takes its time.
        tokio::time::sleep(SECOND).await;
        let parts = self.reply.lock().expect("a reply").take();
        Ok(match parts {
            Some(parts) => Reply { body: Body::Parts(parts), ..Reply::default() },
            None => Reply::new(Bytes::from_static(b"y")),
        })
    }

    fn was_reset(&self, _: Instant, _: Instant) {
        self.resets.fetch_add(1, SeqCst);
    }

    fn misbehaved(&self) {
        self.misbehaved.fetch_add(1, SeqCst);
    }

    fn is_draining(&self) -> bool {
        false
    }
}

impl Passing {
    /// Messages that have begun, those that have ended, resets and violations.
    fn counts(&self) -> [usize; 4] {
        [&self.begun, &self.whole, &self.resets, &self.misbehaved].map(|count| count.load(SeqCst))
    }
}

/// Has a call answered whose initiator does this.
async fn served<T>(
    acceptor: Passing,
    script: impl AsyncFnOnce(&mut CallStream, &Passing) -> T,
) -> (T, Passing) {
    let (pair, acceptor) = (Pair::linked().await, Arc::new(acceptor));
    let initiator = async {
        let mut stream = pair.opened().await;
        let given = script(&mut stream, &acceptor).await;
        (given, stream)
    };
    let responder = async {
        let stream = pair.accepted().await;
        answer(stream, acceptor.clone(), Arc::new(limits()), MESSAGE_BYTES_MAX).await;
    };
    let ((given, _stream), ()) = tokio::join!(initiator, responder);
    (given, Arc::into_inner(acceptor).expect("no call"))
}

/// A unary request, of which this many last bytes are missing.
fn large(timeout: Duration, missing: usize) -> Frames {
    let head = Frames::default().request_head("S/M", CallKind::Unary, timeout);
    head.message(&LARGE).end().without_last(missing)
}

async fn status(stream: &mut CallStream) -> Result<Metadata, Status> {
    responder::read_reply(stream).await.end
}

#[tokio::test(start_paused = true)]
async fn a_request_is_a_body_once_its_header_has_come_and_whole_at_its_end() {
    let (reply, acceptor) = served(Passing::default(), async |stream, acceptor| {
        large(TIMEOUT, 2 + PART_BYTES_MIN).write(stream).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(acceptor.counts(), [1, 0, 0, 0]);
        Frames(vec![7; PART_BYTES_MIN]).write(stream).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(acceptor.counts(), [1, 0, 0, 0], "END is missing");
        Frames::default().end().write(stream).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(acceptor.counts(), [1, 0, 0, 0], "the end of the stream is missing");
        stream.sender.finish();
        status(stream).await
    })
    .await;
    assert!(reply.is_ok());
    assert_eq!(acceptor.counts(), [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_a_deadline_turns_unknown_with_the_end_of_the_message() {
    for (missing, whole, outcome) in [(1, 0, Outcome::NotExecuted), (0, 1, Outcome::Unknown)] {
        let (reply, acceptor) = served(Passing::default(), async |stream, _| {
            large(SECOND / 2, missing).write(stream).await;
            if missing == 0 {
                stream.sender.finish();
            }
            status(stream).await
        })
        .await;
        check(reply, Code::DeadlineExceeded, outcome, "the deadline passed");
        assert_eq!(acceptor.counts(), [1, whole, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_read_at_the_deadline_is_not_passed_on() {
    let acceptor = Passing { is_late: true, ..Passing::default() };
    let (reply, acceptor) = served(acceptor, async |stream, _| {
        let whole = large(SECOND, 0);
        // The header alone comes first: otherwise the message is not one that is coming.
        Frames(whole.0[..HALF].to_vec()).write(stream).await;
        tokio::time::sleep(SECOND / 2).await;
        Frames(whole.0[HALF..].to_vec()).finish(stream).await;
        status(stream).await
    })
    .await;
    check(reply, Code::DeadlineExceeded, Outcome::NotExecuted, "before the handler was started");
    assert_eq!(acceptor.counts(), [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn faults_of_a_message_that_comes_are_those_of_one_that_is_read_whole() {
    let long = 2 * STALL_WAIT_MAX;
    let violation = [1, 0, 0, 1];
    for (frames, ends, code, text, counts) in [
        (large(TIMEOUT, 2).message(b"y").end(), true, 3, "more than one message", violation),
        (large(TIMEOUT, 0).message(b"y"), true, 3, "after END", violation),
        (large(TIMEOUT, 2), true, 3, "without END", violation),
        (large(TIMEOUT, 9), true, 3, "inside a frame", violation),
        (large(long, HALF), false, 8, "too slowly", violation),
        (large(long, 2), false, 8, "too slowly", violation),
        (large(long, 0), false, 8, "too slowly", violation),
    ] {
        let code = if code == 3 { Code::InvalidArgument } else { Code::ResourceExhausted };
        let (reply, acceptor) = served(Passing::default(), async |stream, _| {
            frames.write(stream).await;
            if ends {
                stream.sender.finish();
            }
            status(stream).await
        })
        .await;
        check(reply, code, Outcome::NotExecuted, text);
        assert_eq!(acceptor.counts(), counts, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_of_which_a_byte_comes_now_and_then_is_too_slow() {
    let (reply, acceptor) = served(Passing::default(), async |stream, _| {
        large(2 * STALL_WAIT_MAX, HALF).write(stream).await;
        for _ in 0..2 {
            tokio::time::sleep(STALL_WAIT_MAX * 9 / 10).await;
            Frames(vec![7]).write(stream).await;
        }
        status(stream).await
    })
    .await;
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "too slowly");
    assert_eq!(acceptor.counts(), [1, 0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_steadily_may_take_longer_than_a_stall() {
    let (reply, acceptor) = served(Passing::default(), async |stream, _| {
        large(4 * STALL_WAIT_MAX, 2 + HALF).write(stream).await;
        for _ in 0..2 {
            tokio::time::sleep(STALL_WAIT_MAX * 9 / 10).await;
            Frames(vec![7; HALF / 2]).write(stream).await;
        }
        Frames::default().end().finish(stream).await;
        status(stream).await
    })
    .await;
    assert!(reply.is_ok(), "{reply:?}");
    assert_eq!(acceptor.counts(), [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_reset_while_it_comes_is_counted_as_a_reset() {
    let (reply, acceptor) = served(Passing::default(), async |stream, _| {
        large(TIMEOUT, HALF).write(stream).await;
        tokio::time::sleep(SECOND).await;
        stream.sender.reset(StreamCode::Cancelled);
        status(stream).await
    })
    .await;
    check(reply, Code::Cancelled, Outcome::NotExecuted, "reset");
    assert_eq!(acceptor.counts(), [1, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_counted_from_its_header_on_and_refused_without_room() {
    let memory = MessageMemory::new(&Limits { memory_max: Some(4 * LARGE.len()), ..limits() });
    let account = memory.account(&"caller/ops".parse().expect("ops"));
    let acceptor = Passing { memory: Some(memory.clone()), ..Passing::default() };
    let (reply, _) = served(acceptor, async |stream, acceptor| {
        large(TIMEOUT, HALF).write(stream).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(acceptor.counts(), [1, 0, 0, 0]);
        assert!(account.take(PART_BYTES_MIN).is_err(), "the whole message is counted");
        Frames(vec![7; HALF - 2]).end().finish(stream).await;
        tokio::time::sleep(SECOND / 2).await;
        assert_eq!(acceptor.counts(), [1, 1, 0, 0]);
        assert!(account.take(PART_BYTES_MIN).is_err(), "its parts are kept until the call ends");
        status(stream).await
    })
    .await;
    assert!(reply.is_ok());
    let held = account.take(PART_BYTES_MIN).expect("it is no longer counted");
    let acceptor = Passing { memory: Some(memory), ..Passing::default() };
    let (reply, acceptor) = served(acceptor, async |stream, _| {
        large(TIMEOUT, HALF).write(stream).await;
        status(stream).await
    })
    .await;
    drop(held);
    check(reply, Code::ResourceExhausted, Outcome::NotExecuted, "share of the memory");
    assert_eq!(acceptor.counts(), [0; 4], "not a fault of the initiator");
}

/// A reply whose message comes as the test feeds it.
fn replying(bytes: usize) -> (mpsc::Sender<Next>, Passing) {
    let (feed, fed) = mpsc::channel(4);
    let reply = Some(MessageParts::new(bytes, Fed(fed))).into();
    (feed, Passing { reply, ..Passing::default() })
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_written_as_it_comes_and_its_status_after_its_end() {
    let (feeder, acceptor) = replying(LARGE.len());
    let (end, _) = served(acceptor, async |stream, _| {
        large(TIMEOUT, 0).finish(stream).await;
        stream.reader.allow_parts();
        feed(&feeder, half()).await;
        let start = stream.reader.next().await.expect("a frame").expect("a message");
        read_bytes(stream, HALF - start.payload.len()).await;
        feed(&feeder, half()).await;
        read_bytes(stream, HALF).await;
        feed(&feeder, Next::End(pairs("b", "2"))).await;
        status(stream).await
    })
    .await;
    assert_eq!(end.expect("a success").get("b"), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_passed_on_goes_before_those_that_begin_later() {
    // Several times what a path carries at once, and within the window of a stream.
    const BYTES: usize = 7 * HALF;
    let pair = Pair::linked().await;
    pair._sockets.2.set_delay(SECOND / 100);
    let pass = async |stream: &mut CallStream| {
        let (feeder, fed) = mpsc::channel(8);
        for _ in 0..7 {
            feed(&feeder, half()).await;
        }
        feed(&feeder, end()).await;
        let body = Body::Parts(MessageParts::new(BYTES, Fed(fed)));
        let mut reply = Reply { body, ..Reply::default() };
        let deadline = Instant::now() + TIMEOUT;
        assert!(pass_on(&mut stream.sender, &mut reply, BYTES, deadline).await.is_ok());
    };
    let (mut earlier, mut later) = (pair.opened().await, pair.opened().await);
    pass(&mut earlier).await;
    pass(&mut later).await;
    let mut earlier = pair.accepted().await;
    earlier.reader.allow_messages(BYTES);
    read_to(&mut earlier.reader, Kind::Message).await;
    let mut later = pair.accepted().await;
    later.reader.allow_messages(BYTES);
    drop(poll_once(pin!(later.reader.next())).await);
    let come = later.reader.received_bytes();
    assert!(come < BYTES / 2, "{come}");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_fails_while_it_comes_is_reset_with_a_code_that_means_unknown() {
    for (code, reset) in
        [(Code::Unavailable, StreamCode::Lost), (Code::DeadlineExceeded, StreamCode::Deadline)]
    {
        let (feeder, acceptor) = replying(LARGE.len());
        feed(&feeder, half()).await;
        feed(&feeder, Next::Failed(Status::unknown(code, "lost"))).await;
        let (ended, _) = served(acceptor, async |stream, _| {
            large(TIMEOUT, 0).finish(stream).await;
            reset_code(&mut stream.reader).await
        })
        .await;
        assert_eq!(ended, Some(reset));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_the_whole_message_of_a_reply_is_reported() {
    let (feeder, acceptor) = replying(LARGE.len());
    let (end, _) = served(acceptor, async |stream, _| {
        large(TIMEOUT, 0).finish(stream).await;
        stream.reader.allow_parts();
        feed(&feeder, half()).await;
        feed(&feeder, half()).await;
        let start = stream.reader.next().await.expect("a frame").expect("a message");
        read_bytes(stream, LARGE.len() - start.payload.len()).await;
        feed(&feeder, Next::Failed(Status::new(Code::NotFound, "no such entry"))).await;
        status(stream).await
    })
    .await;
    check(end, Code::NotFound, Outcome::AppError, "no such entry");
}

#[tokio::test(start_paused = true)]
async fn a_reply_over_the_limit_of_the_initiator_is_a_status_and_no_message() {
    let (_feeder, acceptor) = replying(MESSAGE_BYTES_MAX + 1);
    let (reply, _) = served(acceptor, async |stream, _| {
        large(TIMEOUT, 0).finish(stream).await;
        responder::read_reply(stream).await
    })
    .await;
    assert!(reply.messages.is_empty());
    check(reply.end, Code::Internal, Outcome::Unknown, "message_bytes_max");
}

/// A unary call whose reply may come in parts, and the agent's end of it.
async fn asked_in_parts(
    script: impl AsyncFnOnce(&Pair, &mut CallStream),
    taken: impl AsyncFnOnce(Result<Reply, Status>),
) {
    let (pair, mut request) = (Pair::linked().await, unary(b"x"));
    let memory = MessageMemory::new(&limits()).reply_account(request.requester.peer());
    let relayed = Some(RelayedReply { memory, in_parts: true });
    let agent = async {
        let mut stream = pair.accepted().await;
        read_to(&mut stream.reader, Kind::End).await;
        script(&pair, &mut stream).await;
        std::future::pending::<()>().await;
    };
    let limits = InitiatorLimits::from(&limits());
    let call = async { taken(ask(&pair.node, &mut request, limits, None, relayed).await).await };
    tokio::select! {
        () = call => {}
        () = agent => unreachable!(),
    }
}

fn parts_of(reply: Result<Reply, Status>) -> MessageParts {
    match reply.expect("a reply").body {
        Body::Parts(parts) => parts,
        body => panic!("{body:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_reply_is_returned_once_its_header_has_come() {
    let script = async |_: &Pair, stream: &mut CallStream| {
        let reply = Frames::default().message(&LARGE).ok(&Metadata::default());
        Frames(reply.0[..HALF].to_vec()).write(stream).await;
        tokio::time::sleep(SECOND).await;
        Frames(reply.0[HALF..].to_vec()).finish(stream).await;
    };
    asked_in_parts(script, async |reply| {
        let began = Instant::now();
        let mut parts = parts_of(reply);
        assert_eq!(parts.bytes(), LARGE.len());
        parts.become_whole().await.expect("whole");
        assert!(began.elapsed() >= SECOND / 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_whose_agent_is_lost_or_breaks_off_while_it_comes_is_unknown() {
    let begin = async |stream: &mut CallStream| {
        Frames::default().message(&LARGE).without_last(HALF).write(stream).await;
    };
    asked_in_parts(
        async |pair, stream| {
            begin(stream).await;
            tokio::time::sleep(SECOND).await;
            pair.agent.close(CloseCode::Goodbye, "");
        },
        async |reply| {
            let whole = parts_of(reply).become_whole().await;
            check(whole, Code::Unavailable, Outcome::Unknown, "was lost");
        },
    )
    .await;
    asked_in_parts(
        async |_, stream| {
            begin(stream).await;
            tokio::time::sleep(SECOND).await;
            stream.sender.reset(StreamCode::Cancelled);
        },
        async |reply| {
            let whole = parts_of(reply).become_whole().await;
            check(whole, Code::Internal, Outcome::Unknown, "reset the call");
        },
    )
    .await;
    asked_in_parts(
        async |_, stream| {
            let twice = Frames::default().message(&LARGE).message(b"y");
            Frames(twice.0[..HALF].to_vec()).write(stream).await;
            tokio::time::sleep(SECOND).await;
            Frames(twice.0[HALF..].to_vec()).finish(stream).await;
        },
        async |reply| {
            let whole = parts_of(reply).become_whole().await;
            check(whole, Code::Internal, Outcome::Unknown, "out of place");
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_comes_is_bounded_by_the_deadline_of_the_request_and_not_of_its_caller() {
    let script = async |_: &Pair, stream: &mut CallStream| {
        Frames::default().message(&LARGE).without_last(HALF).write(stream).await;
        loop {
            tokio::time::sleep(SECOND).await;
            Frames(vec![7]).write(stream).await;
        }
    };
    let began = Instant::now();
    asked_in_parts(script, async |reply| {
        let reply = Some(parts_of(reply)).into();
        let (ended, _) = served(Passing { reply, ..Passing::default() }, async |stream, _| {
            large(2 * TIMEOUT, 0).finish(stream).await;
            reset_code(&mut stream.reader).await
        })
        .await;
        assert_eq!(ended, Some(StreamCode::Deadline));
    })
    .await;
    assert!((TIMEOUT..TIMEOUT + SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
}
