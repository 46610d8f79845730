//! Agents that answer wrongly: the caller gets the true outcome, and the next call on the same link
//! works.

use super::{Ledger, MESSAGE_BYTES_MAX, node, raw_agent};
use crate::raw_peer::{
    Cbor, Issuer, RawLink, RawStream, Settings, StreamEnd, end, frame, header, kind, message, ping,
    soon, status,
};
use dialback::{AgentHandle, Code, Node, Outcome, Status, StreamCode};
use std::{future::IntoFuture, time::Duration};

struct ReplySetup {
    node: Node,
    link: RawLink,
    control: RawStream,
    agent: AgentHandle,
}

async fn world() -> ReplySetup {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (link, control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    let agent = soon("the agent", node.agent("raw").connected()).await.expect("a name");
    ReplySetup { node, link, control, agent }
}

/// The way in which an agent ends its answer.
#[derive(Debug, Clone, Copy)]
enum Then {
    Fin,
    Reset(u32),
    /// Leaves the stream open.
    Waits,
}

type Wanted = Result<(), (Code, Outcome)>;

const BROKEN: Wanted = Err((Code::Internal, Outcome::Unknown));

impl ReplySetup {
    async fn call(&self, text: &str) -> Result<String, Status> {
        let call = self.agent.call("Echo/Echo", text).timeout(Duration::from_secs(20));
        soon("the call's end", call.into_future()).await
    }

    async fn read_request(&self) -> RawStream {
        let mut stream = self.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream.expect(kind::MESSAGE).await;
        stream.expect(kind::END).await;
        assert_eq!(stream.frame().await, Err(StreamEnd::Fin));
        stream
    }

    async fn exchange(&self, bytes: &[u8], then: Then) -> (Result<String, Status>, RawStream) {
        let answered = async {
            let mut stream = self.read_request().await;
            stream.send(bytes).await;
            match then {
                Then::Fin => stream.finish(),
                Then::Reset(code) => stream.reset(code),
                Then::Waits => {}
            }
            stream
        };
        tokio::join!(self.call("x"), answered)
    }

    /// One wrong answer, then a valid one.
    async fn check(&self, what: &str, bytes: &[u8], then: Then, wanted: Wanted) {
        let (result, _stream) = self.exchange(bytes, then).await;
        let have = result.map(drop).map_err(|status| (status.code(), status.outcome()));
        assert_eq!(have, wanted, "{what}");
        self.check_good(what).await;
    }

    async fn check_good(&self, what: &str) {
        let good = [message("x"), status(0, 0)].concat();
        let (result, _stream) = self.exchange(&good, Then::Fin).await;
        assert_eq!(result, Ok("x".into()), "the call after: {what}");
        let in_flight: u64 = self.node.agents().iter().map(|agent| agent.calls_in_flight).sum();
        assert_eq!(in_flight, 0, "{what} kept a permit");
        assert!(self.link.is_open(), "{what} ended the link");
    }
}

#[tokio::test]
async fn a_malformed_answer_is_unknown_and_never_a_success() {
    let world = world().await;
    let (m, ok, head) = (message("x"), status(0, 0), frame(kind::HEAD, &[0xa0]));
    let status_frame = |bytes: &[u8]| frame(kind::STATUS, bytes);
    for (what, parts) in [
        ("nothing", vec![]),
        ("no STATUS", vec![m.clone()]),
        ("STATUS OK without MESSAGE", vec![ok.clone()]),
        ("more after STATUS", vec![m.clone(), ok.clone(), m.clone()]),
        ("STATUS twice", vec![m.clone(), ok.clone(), ok.clone()]),
        ("half a frame after STATUS", vec![m.clone(), ok.clone(), vec![kind::MESSAGE]]),
        ("an unknown kind after STATUS", vec![m.clone(), ok.clone(), frame(0x14, &[])]),
        ("more after a failure", vec![status(5, 1), m.clone()]),
        ("two messages", vec![m.clone(), m.clone(), ok.clone()]),
        ("HEAD after MESSAGE", vec![m.clone(), head.clone(), ok.clone()]),
        ("HEAD twice", vec![head.clone(), head.clone(), m.clone(), ok.clone()]),
        ("a malformed HEAD", vec![frame(kind::HEAD, &[0x80]), m.clone(), ok.clone()]),
        ("END in a reply", vec![m.clone(), end(), ok.clone()]),
        ("PING in a reply", vec![ping(1), m.clone(), ok.clone()]),
        ("an unknown kind", vec![frame(0x0a, &[]), m.clone(), ok.clone()]),
        ("FIN inside MESSAGE", vec![m[..6].to_vec()]),
        ("FIN inside STATUS", vec![m.clone(), ok[..6].to_vec()]),
        ("OK with outcome unknown", vec![m.clone(), status(0, 3)]),
        ("OK with outcome not_executed", vec![m.clone(), status(0, 2)]),
        ("INTERNAL with outcome ok", vec![m.clone(), status(13, 0)]),
        ("an outcome of no meaning", vec![status(13, 4)]),
        ("a code over a byte", vec![status(256, 1)]),
        ("a STATUS of no keys", vec![m.clone(), status_frame(&[0xa0])]),
        ("a STATUS with a key twice", vec![m.clone(), status_frame(&[0xa3, 0, 0, 1, 0, 0, 0])]),
        ("a STATUS with trailing bytes", vec![m.clone(), status_frame(&[0xa2, 0, 0, 1, 0, 0])]),
        (
            "a STATUS of text keys",
            vec![m.clone(), status_frame(b"\xa2\x64code\x00\x67outcome\x00")],
        ),
        ("a deep STATUS", vec![m.clone(), status_frame(&Cbor::nested(16_000).encode())]),
        ("a MESSAGE of another type", vec![frame(kind::MESSAGE, &[0x01]), ok.clone()]),
        ("a deep MESSAGE", vec![frame(kind::MESSAGE, &Cbor::nested(100_000).encode()), ok.clone()]),
    ] {
        world.check(what, &parts.concat(), Then::Fin, BROKEN).await;
    }
    for (what, parts) in [
        ("a HEAD that claims 2^40", vec![header(kind::HEAD, 1 << 40)]),
        ("a MESSAGE that claims 2^40", vec![header(kind::MESSAGE, 1 << 40)]),
        ("a STATUS that claims 17 KiB", vec![m.clone(), header(kind::STATUS, 17 * 1024)]),
        ("an optional frame that claims 2^40", vec![header(0x80, 1 << 40)]),
        ("a MESSAGE one over", vec![header(kind::MESSAGE, MESSAGE_BYTES_MAX as u64 + 1)]),
    ] {
        // It is refused by its header, without waiting for the rest.
        world.check(what, &parts.concat(), Then::Waits, BROKEN).await;
    }
}

#[tokio::test]
async fn valid_answers_of_every_form_are_accepted() {
    let world = world().await;
    let (m, ok, head) = (message("x"), status(0, 0), frame(kind::HEAD, &[0xa0]));
    let more_keys = frame(kind::STATUS, &[0xa3, 0, 0, 1, 0, 0x18, 99, 0x80]);
    for (what, parts) in [
        ("plain", vec![m.clone(), ok.clone()]),
        ("with HEAD", vec![head, m.clone(), ok.clone()]),
        ("with unknown keys", vec![m.clone(), more_keys]),
        ("among optional frames", vec![frame(0x80, b"a"), m.clone(), frame(0xff, b""), ok.clone()]),
        ("with an optional frame behind", vec![m.clone(), ok, frame(0x80, b"a")]),
    ] {
        world.check(what, &parts.concat(), Then::Fin, Ok(())).await;
    }
    for (code, outcome, wanted) in [
        (5, 1, (Code::NotFound, Outcome::AppError)),
        (14, 2, (Code::Unavailable, Outcome::NotExecuted)),
        (13, 3, (Code::Internal, Outcome::Unknown)),
        (17, 1, (Code::Unknown, Outcome::AppError)),
        (255, 3, (Code::Unknown, Outcome::Unknown)),
    ] {
        world.check("a failure", &status(code, outcome), Then::Fin, Err(wanted)).await;
        // A message before a failure is dropped with it.
        let late = [m.clone(), status(code, outcome)].concat();
        world.check("a failure after a message", &late, Then::Fin, Err(wanted)).await;
    }
}

#[tokio::test]
async fn the_code_of_a_reset_decides_whether_the_call_was_executed() {
    use StreamCode as S;
    let world = world().await;
    let not_executed = |code| Err((code, Outcome::NotExecuted));
    let unknown = |code| Err((code, Outcome::Unknown));
    for (code, wanted) in [
        (S::Refused.number(), not_executed(Code::Unavailable)),
        (S::Draining.number(), not_executed(Code::Unavailable)),
        (S::Overloaded.number(), not_executed(Code::ResourceExhausted)),
        (S::Cancelled.number(), BROKEN),
        (S::Deadline.number(), unknown(Code::DeadlineExceeded)),
        (S::TooLarge.number(), BROKEN),
        (S::Malformed.number(), BROKEN),
        (S::Internal.number(), BROKEN),
        (S::Slow.number(), unknown(Code::ResourceExhausted)),
        (S::Lost.number(), unknown(Code::Unavailable)),
        (0, BROKEN),
        (0x0a, BROKEN),
        // A link code has no meaning here.
        (0x42, BROKEN),
        (0x3fff_ffff, BROKEN),
    ] {
        let code = u32::try_from(code).expect("a small code");
        let what = format!("a reset with {code:#x}");
        world.check(&what, &[], Then::Reset(code), wanted).await;
    }
}

#[tokio::test]
async fn a_reply_at_the_message_limit_is_accepted() {
    let world = world().await;
    let text = "x".repeat(MESSAGE_BYTES_MAX - 5);
    let at_limit = [message(&text), status(0, 0)].concat();
    let (result, _stream) = world.exchange(&at_limit, Then::Fin).await;
    assert_eq!(result, Ok(text));
}

#[tokio::test]
async fn a_link_that_ends_after_the_request_makes_the_call_unknown() {
    let mut world = world().await;
    let closed = async {
        let stream = world.read_request().await;
        world.link.connection.close(0x40u32.into(), b"bye");
        stream
    };
    let (result, _stream) = tokio::join!(world.call("x"), closed);
    let status = result.expect_err("the link ended");
    assert_eq!((status.code(), status.outcome()), (Code::Unavailable, Outcome::Unknown));
    assert_eq!(world.control.frame().await, Err(StreamEnd::Lost));
    let status = world.call("x").await.expect_err("the agent is gone");
    assert_eq!((status.code(), status.outcome()), (Code::Unavailable, Outcome::NotExecuted));
}

/// An agent whose stream windows are too small for the request, so that END is not sent before the
/// agent reads.
async fn narrow() -> ReplySetup {
    let issuer = Issuer::new();
    let node = Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .start()
        .await
        .expect("a node");
    let (link, control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    link.connection.set_receive_window(0u32.into());
    let agent = soon("the agent", node.agent("raw").connected()).await.expect("a name");
    ReplySetup { node, link, control, agent }
}

#[tokio::test]
async fn a_call_that_fails_before_its_end_frame_is_not_executed() {
    // More than quinn's default window of a stream.
    let long = "x".repeat(3 << 20);
    let world = narrow().await;
    let timed = world.agent.call::<String>("Echo/Echo", &long).timeout(Duration::from_millis(300));
    let waits = async {
        let mut stream = world.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream
    };
    let (result, mut stream) = tokio::join!(timed.into_future(), waits);
    let status = result.expect_err("END was not read");
    let not_executed = Outcome::NotExecuted;
    assert_eq!((status.code(), status.outcome()), (Code::DeadlineExceeded, not_executed));
    let ended = stream.frame().await;
    assert_eq!(ended, Err(StreamEnd::Reset(StreamCode::Deadline.number())));
    // Refused in the middle: STOP_SENDING, and the reply has the reason.
    let refused = async {
        let mut stream = world.link.accept().await;
        stream.expect(kind::HEAD).await;
        let bytes = self::status(7, 2);
        stream.send(&bytes).await;
        stream.finish();
        stream.recv.stop(1u32.into()).expect("open");
        stream
    };
    let (result, _stream) = tokio::join!(world.call(&long), refused);
    let status = result.expect_err("refused");
    assert_eq!((status.code(), status.outcome()), (Code::PermissionDenied, not_executed));
    // A reset by the peer in the middle, with a code without meaning.
    let reset = async {
        let mut stream = world.link.accept().await;
        stream.expect(kind::HEAD).await;
        stream.recv.stop(9u32.into()).expect("open");
        stream.reset(8);
        stream
    };
    let (result, _stream) = tokio::join!(world.call(&long), reset);
    let status = result.expect_err("reset");
    assert_eq!((status.code(), status.outcome()), (Code::Internal, not_executed));
    world.check_good("requests that were not read").await;
    // The link ends in the middle.
    let closed = async {
        let mut stream = world.link.accept().await;
        stream.expect(kind::HEAD).await;
        world.link.connection.close(0x40u32.into(), b"bye");
        stream
    };
    let (result, _stream) = tokio::join!(world.call(&long), closed);
    let status = result.expect_err("the link ended");
    assert_eq!((status.code(), status.outcome()), (Code::Unavailable, not_executed));
}
