//! Order, deadline and cancellation of unary calls, as the responder keeps them.

use super::*;
use crate::{
    call::{CallAcceptor, Head, PendingRequest, Reply, answer},
    limits::{HEAD_WAIT_MAX, TIMEOUT_CEILING},
    wire::Header,
};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// Behaviour of the handler.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handling {
    /// Sends it back.
    #[default]
    Echo,
    /// Sends a reply of this many bytes.
    Long(usize),
    /// Does not end.
    Never,
    /// Ends after this time.
    After(Duration),
    /// Panics before it reads the body.
    PanicAtOnce,
    /// Panics when it has read the body.
    Panic,
    /// Reads the body at the deadline of the call.
    Late,
    /// Reads no body, and refuses.
    Refuse,
}

/// An acceptor that counts its notifications.
#[derive(Default)]
pub(super) struct Acceptor {
    pub(super) handling: Handling,
    pub(super) grace: Duration,
    pub(super) is_draining: bool,
    /// A limit of the method's own.
    pub(super) message_bytes_max: Option<usize>,
    pub(super) started: AtomicUsize,
    pub(super) dropped: AtomicUsize,
    pub(super) resets: AtomicUsize,
    pub(super) misbehaved: AtomicUsize,
}

impl Acceptor {
    pub(super) fn with(handling: Handling) -> Self {
        Self { handling, ..Self::default() }
    }

    /// Handlers that were started, those of them that were dropped, resets and violations.
    pub(super) fn counts(&self) -> [usize; 4] {
        [&self.started, &self.dropped, &self.resets, &self.misbehaved]
            .map(|count| count.load(SeqCst))
    }
}

/// Counts a handler that was dropped before its end.
struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl CallAcceptor for Acceptor {
    async fn receive(&self, head: Box<Head>, pending: PendingRequest<'_>) -> Result<Reply, Status> {
        match self.handling {
            Handling::PanicAtOnce => panic!("of the test"),
            Handling::Refuse => {
                return Err(Status::not_executed(Code::PermissionDenied, "no rule"));
            }
            Handling::Late => tokio::time::sleep_until(head.meta.deadline).await,
            _ => {}
        }
        let body = pending.body(self.message_bytes_max).await?;
        self.started.fetch_add(1, SeqCst);
        let dropped = Dropped(&self.dropped);
        match self.handling {
            Handling::Never => std::future::pending::<()>().await,
            Handling::After(time) => tokio::time::sleep(time).await,
            Handling::Panic => panic!("of the test"),
            _ => {}
        }
        std::mem::forget(dropped);
        let body = match self.handling {
            Handling::Long(bytes) => Body::Message(vec![0; bytes].into()),
            _ => body,
        };
        Ok(Reply { body, metadata: pairs("a", "1"), trailing: pairs("b", "2") })
    }

    fn was_reset(&self, _: Instant, _: Instant) {
        self.resets.fetch_add(1, SeqCst);
    }

    fn misbehaved(&self) {
        self.misbehaved.fetch_add(1, SeqCst);
    }

    fn grace(&self, _: &Head) -> Duration {
        self.grace
    }

    fn is_draining(&self) -> bool {
        self.is_draining
    }
}

/// Frames of a reply, and how it ended.
pub(super) struct Replied {
    pub(super) messages: Vec<Bytes>,
    pub(super) end: Result<Metadata, Status>,
}

/// Reads a reply up to its STATUS.
pub(super) async fn read_reply(stream: &mut CallStream) -> Replied {
    let mut messages = Vec::new();
    loop {
        let frame = stream.reader.next().await.expect("a frame").expect("a status");
        match frame.kind {
            Kind::Message => messages.push(frame.payload),
            Kind::Status => {
                let end = StatusHead::decode(&frame.payload).expect("a status");
                return Replied { messages, end };
            }
            _ => {}
        }
    }
}

/// Has a call answered, to which the initiator does this, and gives the acceptor back.
pub(super) async fn serving<T>(
    acceptor: Acceptor,
    limits: Limits,
    script: impl AsyncFnOnce(CallStream) -> T,
) -> (T, Arc<Acceptor>) {
    let (pair, acceptor) = (Pair::linked().await, Arc::new(acceptor));
    let initiator = async { script(pair.opened().await).await };
    let responder = async {
        let stream = pair.accepted().await;
        answer(stream, acceptor.clone(), Arc::new(limits), MESSAGE_BYTES_MAX).await;
    };
    let (given, ()) = tokio::join!(initiator, responder);
    (given, acceptor)
}

/// The reply to a request of these frames.
async fn reply_to(acceptor: Acceptor, frames: Frames) -> (Replied, Arc<Acceptor>) {
    serving(acceptor, limits(), async |mut stream: CallStream| {
        frames.finish(&mut stream).await;
        read_reply(&mut stream).await
    })
    .await
}

fn head() -> Frames {
    Frames::default().request_head("S/M", CallKind::Unary, TIMEOUT)
}

fn call() -> Frames {
    head().message(b"x").end()
}

#[tokio::test(start_paused = true)]
async fn a_handlers_reply_is_written_with_its_trailers() {
    let (replied, acceptor) = reply_to(Acceptor::default(), call()).await;
    assert_eq!(replied.messages, [Bytes::from_static(b"x")]);
    assert_eq!(replied.end.expect("a success").get("b"), Some("2"));
    assert_eq!(acceptor.counts(), [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reads_no_body_and_starts_no_handler() {
    let (replied, acceptor) = reply_to(Acceptor::with(Handling::Refuse), head()).await;
    check(replied.end, Code::PermissionDenied, Outcome::NotExecuted, "no rule");
    assert_eq!(acceptor.counts(), [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_break_the_protocol_start_no_handler_and_are_counted() {
    let metadata = pairs("a", "1");
    for (frames, text) in [
        (Frames::default().message(b"x").end(), "not HEAD"),
        (head().end(), "no message"),
        (head().message(b"x"), "without END"),
        (head().message(b"x").message(b"y").end(), "more than one message"),
        (call().message(b"y"), "after END"),
        (head().head(&metadata).message(b"x").end(), "out of place"),
        (head().message(b"xxxx").without_last(2), "inside a frame"),
        (Frames::default().request_head("S", CallKind::Unary, TIMEOUT), "S"),
        (Frames::default().request_head("tcp:db", CallKind::Unary, TIMEOUT), "of the kind unary"),
        (Frames::default().request_head("S/M", CallKind::Tcp, TIMEOUT), "of the kind tcp"),
        (Frames::default().request_head("tcp:db", CallKind::Http, TIMEOUT), "of the kind http"),
    ] {
        let (replied, acceptor) = reply_to(Acceptor::default(), frames).await;
        check(replied.end, Code::InvalidArgument, Outcome::NotExecuted, text);
        assert_eq!(acceptor.counts(), [0, 0, 0, 1], "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_waited_for_a_bounded_time() {
    let began = Instant::now();
    let (replied, acceptor) =
        serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
            head().without_last(1).write(&mut stream).await;
            read_reply(&mut stream).await
        })
        .await;
    check(replied.end, Code::ResourceExhausted, Outcome::NotExecuted, "did not come in time");
    assert!(began.elapsed() >= HEAD_WAIT_MAX, "{:?}", began.elapsed());
    assert_eq!(acceptor.counts(), [0, 0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn deadline_before_the_body_is_complete_is_not_executed() {
    let (replied, acceptor) =
        serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
            head().message(b"x").write(&mut stream).await;
            read_reply(&mut stream).await
        })
        .await;
    check(replied.end, Code::DeadlineExceeded, Outcome::NotExecuted, "the deadline passed");
    assert_eq!(acceptor.counts(), [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_drops_the_handler_and_is_unknown() {
    let began = Instant::now();
    let (replied, acceptor) = reply_to(Acceptor::with(Handling::Never), call()).await;
    check(replied.end, Code::DeadlineExceeded, Outcome::Unknown, "the deadline passed");
    assert_eq!(acceptor.counts(), [1, 1, 0, 0]);
    assert!(began.elapsed() >= TIMEOUT && began.elapsed() < TIMEOUT + SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_handler_does_not_start_at_its_deadline() {
    let (replied, acceptor) = reply_to(Acceptor::with(Handling::Late), call()).await;
    check(replied.end, Code::DeadlineExceeded, Outcome::NotExecuted, "the deadline passed");
    assert_eq!(acceptor.counts(), [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn draining_side_waits_until_its_reply_has_arrived() {
    for is_draining in [true, false] {
        let acceptor = Arc::new(Acceptor { is_draining, ..Acceptor::default() });
        let pair = Pair::linked().await;
        let initiator = async {
            let mut stream = pair.opened().await;
            call().finish(&mut stream).await;
            read_to(&mut stream.reader, Kind::Status).await;
            let arrived = Instant::now();
            assert!(matches!(stream.reader.next().await, Ok(None)));
            arrived
        };
        let responder = async {
            let stream = pair.accepted().await;
            answer(stream, acceptor, Arc::new(limits()), MESSAGE_BYTES_MAX).await;
            Instant::now()
        };
        let (arrived, ended) = tokio::join!(initiator, responder);
        assert_eq!(ended > arrived, is_draining, "{:?}", ended.checked_duration_since(arrived));
    }
}

#[test]
fn a_timeout_has_a_ceiling() {
    let frames = Frames::default();
    let frames = frames.request_head("S/M", CallKind::Unary, Duration::from_millis(u64::MAX));
    let (header, now) = (Header::parse(&frames.0, 0).expect("a header"), Instant::now());
    let payload = &frames.0[header.expect("whole").header_bytes..];
    let head = Head::decode(payload, now).expect("a head");
    assert_eq!(head.meta.deadline, now + TIMEOUT_CEILING);
}

#[tokio::test(start_paused = true)]
async fn a_relay_waits_for_its_grace_past_the_deadline_and_no_longer() {
    let grace = SECOND;
    for (time, code) in
        [(TIMEOUT + grace / 2, Code::Ok), (TIMEOUT + 2 * grace, Code::DeadlineExceeded)]
    {
        let acceptor = Acceptor { grace, ..Acceptor::with(Handling::After(time)) };
        let (replied, _) = reply_to(acceptor, call()).await;
        let have = replied.end.as_ref().map_or_else(Status::code, |_| Code::Ok);
        assert_eq!(have, code, "after {time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_grace_is_for_calls_that_may_run() {
    let acceptor = Acceptor { grace: TIMEOUT, ..Acceptor::default() };
    let began = Instant::now();
    let (replied, _) = serving(acceptor, limits(), async |mut stream: CallStream| {
        head().write(&mut stream).await;
        read_reply(&mut stream).await
    })
    .await;
    check(replied.end, Code::DeadlineExceeded, Outcome::NotExecuted, "the deadline passed");
    assert!(began.elapsed() < TIMEOUT + SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_reset_before_its_end_starts_no_handler() {
    let (_, acceptor) = serving(Acceptor::default(), limits(), async |mut stream: CallStream| {
        head().message(b"x").write(&mut stream).await;
        tokio::time::sleep(SECOND / 10).await;
    })
    .await;
    assert_eq!(acceptor.counts(), [0, 0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_reset_while_it_runs_drops_its_handler_and_is_counted() {
    let acceptor = Acceptor::with(Handling::Never);
    let (_, acceptor) = serving(acceptor, limits(), async |mut stream: CallStream| {
        call().finish(&mut stream).await;
        tokio::time::sleep(SECOND / 10).await;
    })
    .await;
    assert_eq!(acceptor.counts(), [1, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_unknown_and_one_that_did_not_start_is_not_executed() {
    for (handling, outcome) in
        [(Handling::Panic, Outcome::Unknown), (Handling::PanicAtOnce, Outcome::NotExecuted)]
    {
        let (replied, _) = reply_to(Acceptor::with(handling), call()).await;
        check(replied.end, Code::Internal, outcome, "panicked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_over_a_limit_counts_only_if_the_initiator_knows_the_limit() {
    for (bytes_max, misbehaved) in [(Some(1), 0), (None, 1)] {
        let acceptor = Acceptor { message_bytes_max: bytes_max, ..Acceptor::default() };
        let message = vec![0; bytes_max.unwrap_or(MESSAGE_BYTES_MAX) + 1];
        let (replied, acceptor) = reply_to(acceptor, head().message(&message).end()).await;
        check(replied.end, Code::ResourceExhausted, Outcome::NotExecuted, "bytes");
        assert_eq!(acceptor.counts(), [0, 0, 0, misbehaved]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_of_the_limit_is_written_and_one_byte_more_is_a_failure() {
    let (replied, _) = reply_to(Acceptor::with(Handling::Long(MESSAGE_BYTES_MAX)), call()).await;
    assert!(replied.end.is_ok() && replied.messages[0].len() == MESSAGE_BYTES_MAX);
    let (replied, _) =
        reply_to(Acceptor::with(Handling::Long(MESSAGE_BYTES_MAX + 1)), call()).await;
    check(replied.end, Code::Internal, Outcome::Unknown, "message_bytes_max");
    assert!(replied.messages.is_empty());
}
