//! Requests that break the protocol, towards every role that answers calls: each is refused with
//! its code, and only its stream ends.

use super::{Ledger, MESSAGE_BYTES_MAX, agent, good_body, linked, node, raw_agent, raw_node};
use crate::raw_peer::{
    Cbor, Head, Issuer, RawLink, RawStream, Settings, end, frame, header, kind, message, soon,
    status,
};
use dialback::{Code, Outcome, StreamCode};
use std::any::Any;

/// A responder: over `link`, to requests that begin with `head`.
struct Responder {
    name: &'static str,
    link: RawLink,
    head: fn() -> Head,
    ledger: Ledger,
    _kept: Box<dyn Any>,
}

const ECHO: &str = "Echo/Echo";

/// A real node, called by a caller for an agent's service.
async fn node_called_by_caller(issuer: &Issuer) -> Responder {
    let (ledger, not_counted) = (Ledger::default(), Ledger::default());
    let node = node(issuer, &not_counted).await;
    let agent = agent(issuer, &node.local_addr().to_string(), &ledger);
    soon("registration", agent.registered(1)).await;
    let (link, control) = linked(issuer, &node, "caller/ops").await;
    let head = || Head::agent(ECHO, "warehouse");
    let name = "a node that a caller asks";
    Responder { name, link, head, ledger, _kept: Box::new((node, agent, control)) }
}

/// A real node, called by an agent for its own service.
async fn node_called_by_agent(issuer: &Issuer) -> Responder {
    let ledger = Ledger::default();
    let node = node(issuer, &ledger).await;
    let (link, control) = linked(issuer, &node, "agent/raw").await;
    let name = "a node that an agent asks";
    Responder { name, link, head: || Head::here(ECHO), ledger, _kept: Box::new((node, control)) }
}

/// A real agent, called by a node.
async fn agent_called_by_node(issuer: &Issuer) -> Responder {
    let ledger = Ledger::default();
    let (agent, link, control) = raw_node(issuer, &ledger).await;
    let name = "an agent that a node asks";
    Responder { name, link, head: || Head::here(ECHO), ledger, _kept: Box::new((agent, control)) }
}

/// The bytes sent on a stream, and whether it ends there.
struct Sent {
    bytes: Vec<u8>,
    fin: bool,
}

fn open(bytes: impl Into<Vec<u8>>) -> Sent {
    Sent { bytes: bytes.into(), fin: false }
}

fn whole(bytes: impl Into<Vec<u8>>) -> Sent {
    Sent { bytes: bytes.into(), fin: true }
}

async fn send(responder: &Responder, sent: Sent) -> RawStream {
    let mut stream = responder.link.open().await;
    stream.send(&sent.bytes).await;
    if sent.fin {
        stream.finish();
    }
    stream
}

/// Sends an invalid request, and then its valid counterpart on the same link.
async fn check(
    responder: &Responder,
    what: &str,
    refused: Sent,
    (code, stop): (Code, Option<StreamCode>),
    counterpart: Vec<u8>,
) {
    let (ran, at) = (responder.ledger.count(), format!("{what}, to {}", responder.name));
    let fin = refused.fin;
    let mut stream = send(responder, refused).await;
    let reply = soon(&at, stream.reply()).await;
    let wanted = (u64::from(code.number()), u64::from(Outcome::NotExecuted.number()), None);
    assert_eq!((reply.code, reply.outcome, reply.message), wanted, "{at}: {}", reply.text);
    assert!(!reply.text.is_empty(), "{at}: no reason was given");
    assert!(stop.is_none() || !fin, "{at}: an ended stream is not stopped");
    if let Some(stop) = stop {
        assert_eq!(stream.stop_code().await, Some(stop.number()), "{at}: the stop code");
    }
    assert_eq!(responder.ledger.count(), ran, "{at}: a handler ran");
    check_good(responder, &at, counterpart).await;
}

async fn check_good(responder: &Responder, at: &str, request: Vec<u8>) {
    let ran = responder.ledger.count();
    let reply = soon(at, send(responder, whole(request)).await.reply()).await;
    assert_eq!(
        (reply.code, reply.outcome),
        (0, 0),
        "the valid counterpart of {at}: {}",
        reply.text
    );
    assert_eq!(responder.ledger.count(), ran + 1, "the valid counterpart of {at} did not run once");
    assert!(responder.link.is_open(), "{at}: the link ended");
}

async fn on_every_responder(run: impl AsyncFn(&Responder)) {
    let issuer = Issuer::new();
    run(&node_called_by_caller(&issuer).await).await;
    run(&node_called_by_agent(&issuer).await).await;
    run(&agent_called_by_node(&issuer).await).await;
}

const REFUSED: (Code, Option<StreamCode>) = (Code::InvalidArgument, Some(StreamCode::Refused));
const MALFORMED: (Code, Option<StreamCode>) = (Code::InvalidArgument, Some(StreamCode::Malformed));
/// The stream was read to its end, so there is nothing to stop.
const AT_ITS_END: (Code, Option<StreamCode>) = (Code::InvalidArgument, None);

fn good(head: &Head) -> Vec<u8> {
    [head.frame(), good_body()].concat()
}

/// A head with one invalid key, and the same with that key valid.
async fn check_head(responder: &Responder, what: &str, wrong: Head, right: Head) {
    check(responder, what, open(wrong.frame()), REFUSED, good(&right)).await;
}

#[tokio::test]
async fn a_first_frame_that_is_not_a_head_ends_the_stream() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        for (what, first) in [
            ("MESSAGE first", message("x")),
            ("END first", end()),
            ("STATUS first", status(0, 0)),
            ("HELLO on a call's stream", crate::raw_peer::hello([1, 1], 1)),
            ("PING on a call's stream", crate::raw_peer::ping(1)),
        ] {
            let bytes = [first, good(&head)].concat();
            check(responder, what, open(bytes), REFUSED, good(&head)).await;
        }
        check(responder, "FIN at once", whole([]), AT_ITS_END, good(&head)).await;
        let truncated = head.frame()[..9].to_vec();
        check(responder, "FIN inside HEAD", whole(truncated), AT_ITS_END, good(&head)).await;
    })
    .await;
}

#[tokio::test]
async fn unknown_frame_kinds_are_refused_below_0x80_and_skipped_above() {
    on_every_responder(async |responder| {
        let head = (responder.head)().frame();
        let skipped = |kind| frame(kind, b"whatever");
        for (wrong, right) in [(0x00, 0x80), (0x0a, 0x81), (0x14, 0xc0), (0x7f, 0xff)] {
            let at = |kind| [skipped(kind), head.clone(), good_body()].concat();
            check(responder, "an unknown kind first", open(at(wrong)), REFUSED, at(right)).await;
            let at = |kind| [head.clone(), skipped(kind), good_body()].concat();
            check(responder, "an unknown kind after HEAD", open(at(wrong)), MALFORMED, at(right))
                .await;
            let at = |kind| [head.clone(), good_body(), skipped(kind)].concat();
            check(responder, "an unknown kind after END", open(at(wrong)), MALFORMED, at(right))
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn frames_at_their_limit_pass_and_over_it_are_refused_by_their_header() {
    const HEAD_BYTES_MAX: usize = 16 * 1024;
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let padded = |bytes: usize| {
            // Three bytes for the key and for the start of the padding each.
            let padding = bytes - head.payload().len() - 5;
            let padded = head.clone().and(Cbor::Uint(99), Cbor::Bytes(vec![0; padding]));
            assert_eq!(padded.payload().len(), bytes);
            good(&padded)
        };
        let too_large = |stop| (Code::ResourceExhausted, Some(stop));
        let over = open(padded(HEAD_BYTES_MAX + 1));
        let at_limit = padded(HEAD_BYTES_MAX);
        check(responder, "a long HEAD", over, too_large(StreamCode::Refused), at_limit).await;
        for claims in [16 * 1024 + 1, 1 << 30, (1 << 62) - 1] {
            let claim = open(header(kind::HEAD, claims));
            let refused = too_large(StreamCode::Refused);
            check(responder, "HEAD that claims much", claim, refused, good(&head)).await;
            let claim = open([head.frame(), header(kind::MESSAGE, claims.max(1 << 20))].concat());
            let refused = too_large(StreamCode::TooLarge);
            check(responder, "MESSAGE that claims much", claim, refused, good(&head)).await;
            let claim = open(header(0x80, claims));
            let refused = too_large(StreamCode::Refused);
            check(responder, "an optional frame that claims much", claim, refused, good(&head))
                .await;
            let claim = open([head.frame(), header(0x80, claims)].concat());
            let refused = too_large(StreamCode::TooLarge);
            check(responder, "an optional frame after HEAD", claim, refused, good(&head)).await;
        }
        let sized = |bytes: usize| {
            let message = message(&"x".repeat(bytes - 5));
            assert_eq!(message.len(), 5 + bytes);
            [head.frame(), message, end()].concat()
        };
        let over = open(sized(MESSAGE_BYTES_MAX + 1));
        let at_limit = sized(MESSAGE_BYTES_MAX);
        check(responder, "a long MESSAGE", over, too_large(StreamCode::TooLarge), at_limit).await;
        let end_with_payload = [head.frame(), message("x"), frame(kind::END, &[0])].concat();
        let refused = too_large(StreamCode::TooLarge);
        check(responder, "END with a payload", open(end_with_payload), refused, good(&head)).await;
        let end_first = open(frame(kind::END, &[0]));
        let refused = too_large(StreamCode::Refused);
        check(responder, "END with a payload as the first", end_first, refused, good(&head)).await;
    })
    .await;
}

#[tokio::test]
async fn cbor_with_wrong_lengths_deep_nesting_or_duplicate_keys_is_refused() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let with = |bytes: &[u8]| head.clone().and(Cbor::Uint(99), Cbor::Raw(bytes.to_vec()));
        // The map itself is one level of the 32.
        let nested = |levels| with(&Cbor::nested(levels).encode());
        check_head(responder, "33 levels", nested(32), nested(31)).await;
        let deep = frame(kind::HEAD, &Cbor::nested(16_000).encode());
        check(responder, "16,000 levels", open(deep), REFUSED, good(&head)).await;
        let deep = frame(kind::HEAD, &Cbor::nested(100_000).encode());
        let too_large = (Code::ResourceExhausted, Some(StreamCode::Refused));
        check(responder, "100,000 levels in HEAD", open(deep), too_large, good(&head)).await;
        let deep = frame(kind::MESSAGE, &Cbor::nested(100_000).encode());
        let deep = [head.frame(), deep, end()].concat();
        check(responder, "100,000 levels in MESSAGE", whole(deep), AT_ITS_END, good(&head)).await;
        for (what, lie) in [
            ("bytes that claim 2^60", &[0x5b, 0x10, 0, 0, 0, 0, 0, 0, 0][..]),
            ("a text that claims 2^60", &[0x7b, 0x10, 0, 0, 0, 0, 0, 0, 0]),
            ("an array that claims 2^60", &[0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]),
            ("a map that claims 2^60", &[0xbb, 0x10, 0, 0, 0, 0, 0, 0, 0]),
            ("a map that claims 2^63", &[0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("a text one byte short", &[0x62, b'a']),
            ("an indefinite array", &[0x9f, 0x00, 0xff]),
            ("an indefinite map", &[0xbf, 0xff]),
            ("a tag", &[0xc0, 0x00]),
            ("a reserved form", &[0x1c]),
            ("a simple value without a meaning", &[0xf8, 0x63]),
            ("a map with a text as key", &[0xa1, 0x61, b'a', 0x00]),
            ("a tag within an array", &[0x81, 0xc0, 0x00]),
        ] {
            check_head(responder, what, with(lie), with(&[0x82, 0x61, b'a', 0x20])).await;
        }
        for good_value in [
            &[0xf6][..],
            &[0xf7],
            &[0xf9, 0x3c, 0x00],
            &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
            &[0xa1, 0x00, 0xf5],
        ] {
            check_good(responder, "an unknown key", good(&with(good_value))).await;
        }
        let no_text = head.clone().with(0, Cbor::Raw(vec![0x61, 0xff]));
        check_head(responder, "a method that is not UTF-8", no_text, head.clone()).await;
        let entries = head.payload();
        let mut one_more = entries.clone();
        one_more[0] += 1;
        check(
            responder,
            "an entry too few",
            open(frame(kind::HEAD, &one_more)),
            REFUSED,
            good(&head),
        )
        .await;
        let trailing = [entries, vec![0]].concat();
        check(
            responder,
            "trailing bytes",
            open(frame(kind::HEAD, &trailing)),
            REFUSED,
            good(&head),
        )
        .await;
        let empty = open(frame(kind::HEAD, &[]));
        check(responder, "an empty HEAD", empty, REFUSED, good(&head)).await;
    })
    .await;
}

#[tokio::test]
async fn keys_are_unique_unsigned_numbers_and_unknown_ones_are_ignored() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let plus = |key, value| head.clone().and(key, value);
        let unknown = plus(Cbor::Uint(99), Cbor::Array(vec![]));
        let wrong = plus(Cbor::Uint(4), Cbor::Uint(1_000));
        check_head(responder, "timeout twice", wrong, unknown.clone()).await;
        let wrong = plus(Cbor::Raw(vec![0x18, 4]), Cbor::Uint(1_000));
        check_head(responder, "timeout twice, once in a longer form", wrong, unknown.clone()).await;
        let wrong = unknown.clone().and(Cbor::Uint(99), Cbor::Uint(1));
        check_head(responder, "an unknown key twice", wrong, unknown.clone()).await;
        let far = plus(Cbor::Uint(u64::MAX), Cbor::Uint(1));
        check_head(responder, "a negative key", plus(Cbor::Negative(0), Cbor::Uint(1)), far).await;
        for key in [
            Cbor::text("x"),
            Cbor::text("method"),
            Cbor::Bytes(vec![1]),
            Cbor::Array(vec![]),
            Cbor::Raw(vec![0xf5]),
        ] {
            let what = format!("the key {key:?}");
            check_head(responder, &what, plus(key, Cbor::Uint(1)), unknown.clone()).await;
        }
        // The names of fields are internal to the library: they are not keys.
        let named = head.clone().without(4).and(Cbor::text("timeout_ms"), Cbor::Uint(5_000));
        check_head(responder, "a timeout under its name", named, head.clone()).await;
        let array = frame(kind::HEAD, &head.as_array());
        check(responder, "an array for HEAD", open(array), REFUSED, good(&head)).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_is_one_message_then_end_then_fin() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let request = |parts: &[Vec<u8>]| [vec![head.frame()], parts.to_vec()].concat().concat();
        let (m, e) = (message("x"), end());
        for (what, parts) in [
            ("END twice", vec![m.clone(), e.clone(), e.clone()]),
            ("MESSAGE after END", vec![m.clone(), e.clone(), m.clone()]),
            ("HEAD after END", vec![m.clone(), e.clone(), head.frame()]),
            ("half a frame after END", vec![m.clone(), e.clone(), vec![kind::MESSAGE, 9]]),
            ("two messages", vec![m.clone(), m.clone()]),
            ("no message", vec![e.clone()]),
            ("HEAD twice", vec![head.frame(), m.clone()]),
            ("STATUS in a request", vec![m.clone(), status(0, 0)]),
            ("PING in a request", vec![crate::raw_peer::ping(1)]),
        ] {
            let expected = if what == "no message" || what.starts_with("half") {
                // These are only invalid because the stream ends there.
                check(responder, what, whole(request(&parts)), AT_ITS_END, good(&head)).await;
                continue;
            } else {
                MALFORMED
            };
            check(responder, what, open(request(&parts)), expected, good(&head)).await;
        }
        for (what, parts) in [
            ("FIN after HEAD", vec![]),
            ("FIN after MESSAGE", vec![m.clone()]),
            ("FIN inside MESSAGE", vec![m[..m.len() - 1].to_vec()]),
            ("FIN inside END", vec![m.clone(), vec![kind::END]]),
            ("a length that swallows END", vec![frame(kind::MESSAGE, &[&m[..], &e[..]].concat())]),
            ("MESSAGE shorter than its item", vec![frame(kind::MESSAGE, &[0x62, b'a']), e.clone()]),
            ("MESSAGE longer than its item", vec![frame(kind::MESSAGE, &[0x60, 0]), e.clone()]),
            ("MESSAGE of another type", vec![frame(kind::MESSAGE, &[0x01]), e.clone()]),
            ("an empty MESSAGE", vec![frame(kind::MESSAGE, &[]), e.clone()]),
        ] {
            check(responder, what, whole(request(&parts)), AT_ITS_END, good(&head)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_without_its_fin_starts_no_handler() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let mut stream = send(responder, open(good(&head))).await;
        // Other calls begin and end meanwhile.
        check_good(responder, "another call", good(&head)).await;
        let ran = responder.ledger.count();
        stream.reset(StreamCode::Cancelled.number() as u32);
        let reply = stream.reply().await;
        assert_eq!((reply.code, reply.outcome), (1, 2), "{}", reply.text);
        assert_eq!(responder.ledger.count(), ran, "a handler ran without FIN");
    })
    .await;
}

#[tokio::test]
async fn a_timeout_is_a_number_of_at_least_one() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let with = |value| head.clone().with(4, value);
        for (what, value) in [
            ("a timeout of 0", Cbor::Uint(0)),
            ("a negative timeout", Cbor::Negative(0)),
            ("the most negative timeout", Cbor::Negative(u64::MAX)),
            ("a timeout of 1.0", Cbor::Raw(vec![0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0])),
            ("a timeout of 5000.0 in half precision", Cbor::Raw(vec![0xf9, 0x6c, 0xe2])),
            ("a timeout that is a text", Cbor::text("5000")),
            ("a timeout of null", Cbor::Raw(vec![0xf6])),
            ("a timeout that is true", Cbor::Raw(vec![0xf5])),
        ] {
            check_head(responder, what, with(value), with(Cbor::Uint(u64::MAX))).await;
        }
        let year = with(Cbor::Uint(365 * 24 * 3_600 * 1_000));
        check_head(responder, "no timeout", head.clone().without(4), year).await;
    })
    .await;
}

#[tokio::test]
async fn a_timeout_of_one_millisecond_is_kept_or_never_started() {
    on_every_responder(async |responder| {
        for _ in 0..20 {
            let ran = responder.ledger.count();
            let head = (responder.head)().with(4, Cbor::Uint(1));
            let reply = send(responder, whole(good(&head))).await.reply().await;
            match (reply.code, reply.outcome) {
                (0, 0) => assert_eq!(responder.ledger.count(), ran + 1),
                (4, 2) => assert_eq!(responder.ledger.count(), ran, "not executed, and yet it ran"),
                (4, 3) => assert!(responder.ledger.count() <= ran + 1),
                other => panic!("{other:?}: {}", reply.text),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_other_keys_of_a_head_have_their_types_and_bounds() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let with = |key, value| head.clone().with(key, value);
        let id = |bytes: usize| with(5, Cbor::Bytes(vec![1; bytes]));
        check_head(responder, "a call id of 15 bytes", id(15), id(16)).await;
        check_head(responder, "a call id of 17 bytes", id(17), id(16)).await;
        check_head(responder, "no call id", head.clone().without(5), id(16)).await;
        check_head(responder, "no method", head.clone().without(0), head.clone()).await;
        check_head(responder, "no kind", head.clone().without(3), head.clone()).await;
        check_head(responder, "a kind of no meaning", with(3, Cbor::Uint(6)), head.clone()).await;
        check_head(responder, "a route of no meaning", with(1, Cbor::Uint(3)), head.clone()).await;
        let here_and_agent = head.clone().without(1).with(2, Cbor::text("warehouse"));
        check_head(responder, "an agent without its route", here_and_agent, head.clone()).await;
        let agent_of_no_name = with(1, Cbor::Uint(1)).without(2);
        check_head(responder, "a route without its agent", agent_of_no_name, head.clone()).await;
        let priority = |value| with(7, value);
        check_head(
            responder,
            "a priority of 128",
            priority(Cbor::Uint(128)),
            priority(Cbor::Negative(127)),
        )
        .await;
        let pairs = |count: usize, bytes: usize| {
            let pair = Cbor::Array(vec![Cbor::text("k"), Cbor::text(&"v".repeat(bytes))]);
            with(10, Cbor::Array(vec![pair; count]))
        };
        check_head(responder, "65 pairs", pairs(65, 1), pairs(64, 1)).await;
        check_head(responder, "8 KiB and some of metadata", pairs(32, 256), pairs(32, 255)).await;
        let http = with(3, Cbor::Uint(4));
        check_head(responder, "an HTTP call without a verb and path", http, head.clone()).await;
        let verb_and_path = Cbor::Array(vec![Cbor::text("GET"), Cbor::text("/")]);
        let not_http = with(14, verb_and_path);
        check_head(responder, "a verb and path of another call", not_http, head.clone()).await;
        // Rules use the name, so the name has to state the kind of call; and a forward belongs to
        // one agent.
        let named = |text: &str| with(0, Cbor::text(text));
        let tcp = |head: Head| head.with(3, Cbor::Uint(5));
        check_head(responder, "a method as tcp", tcp(head.clone()), head.clone()).await;
        check_head(responder, "a forward as unary", named("tcp:db"), head.clone()).await;
        check_head(responder, "another forward as tcp", tcp(named("http:db")), head.clone()).await;
        let any = tcp(named("tcp:db")).with(1, Cbor::Uint(2)).without(2);
        check_head(responder, "a forward of any agent", any, head.clone()).await;
    })
    .await;
}

/// Texts that are neither the name of a method nor that of a peer.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> =
        ["", "..", ".", "a..b", "/", "a//b", "a/b/c", "../b", "é/b", "a/é", "a/b\0", "\0", "a b"]
            .map(String::from)
            .into();
    names.extend(["x".repeat(255), format!("Echo/{}", "x".repeat(255)), "𝔞/𝔟".into()]);
    names
}

#[tokio::test]
async fn null_under_an_optional_key_counts_as_absent() {
    on_every_responder(async |responder| {
        let null = || Cbor::Raw(vec![0xf6]);
        let head = (responder.head)();
        for key in [6, 7, 8, 9, 10, 11, 12, 13] {
            let what = format!("null under key {key}");
            check_good(responder, &what, good(&head.clone().with(key, null()))).await;
        }
        for key in [0, 3, 4, 5] {
            let what = format!("null under the required key {key}");
            check_head(responder, &what, head.clone().with(key, null()), head.clone()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn malformed_method_names_are_refused() {
    on_every_responder(async |responder| {
        let head = (responder.head)();
        let named = |text: &str| head.clone().with(0, Cbor::text(text));
        for name in bad_names().iter().map(String::as_str).chain(["a", "a1", "Echo", "Echo/"]) {
            check_head(responder, &format!("the method {name:?}"), named(name), named("Echo.Echo"))
                .await;
        }
        let unimplemented = (Code::Unimplemented, None);
        for name in ["a/b", "Echo/Ech", "Echo/Echo1", "echo/Echo", "Echo/echo", "E.Echo/Echo"] {
            let request = whole(good(&named(name)));
            check(responder, &format!("the method {name:?}"), request, unimplemented, good(&head))
                .await;
        }
    })
    .await;
}

#[tokio::test]
async fn malformed_agent_names_are_refused() {
    let issuer = Issuer::new();
    let responder = node_called_by_caller(&issuer).await;
    let named = |text: &str| Head::agent(ECHO, text);
    for name in bad_names().iter().map(String::as_str).chain(["a/b", "A", "-a", "agent/warehouse"])
    {
        check_head(&responder, &format!("the agent {name:?}"), named(name), named("warehouse"))
            .await;
    }
    let unavailable = (Code::Unavailable, None);
    for name in ["a", "a1", "warehous", "warehouse1", "warehouse.a", "a.warehouse"] {
        let request = whole(good(&named(name)));
        let what = format!("the agent {name:?}");
        check(&responder, &what, request, unavailable, good(&named("warehouse"))).await;
    }
}

#[tokio::test]
async fn only_the_node_may_name_a_caller_in_a_head() {
    let issuer = Issuer::new();
    // A caller's claim is not even read.
    let responder = node_called_by_caller(&issuer).await;
    for claimed in ["caller/root", "nonsense", "caller/a/b\0"] {
        let head = (responder.head)().with(8, Cbor::text(claimed));
        check_good(&responder, "a claim of a caller", good(&head)).await;
    }
    let node = node(&issuer, &Ledger::default()).await;
    let (agent, _agent_control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    for peer in ["caller/ops", "agent/other"] {
        let (link, _control) = linked(&issuer, &node, peer).await;
        for claimed in [None, Some("caller/root"), Some("node/edge-1"), Some("agent/raw")] {
            let mut head = Head::agent(ECHO, "raw");
            if let Some(text) = claimed {
                head = head.with(8, Cbor::text(text));
            }
            let mut request_stream = link.open().await;
            request_stream.send(&good(&head)).await;
            request_stream.finish();
            let mut seen = agent.accept().await;
            let head = Cbor::decode(&seen.expect(kind::HEAD).await);
            assert_eq!(head.key(8), Some(&Cbor::text(peer)), "the claim was {claimed:?}");
            seen.send(&[message("x"), status(0, 0)].concat()).await;
            seen.finish();
            assert_eq!(request_stream.reply().await.code, 0);
        }
    }
    let responder = agent_called_by_node(&issuer).await;
    let named = |text: &str| Head::here(ECHO).with(8, Cbor::text(text));
    for name in bad_names().iter().map(String::as_str).chain([
        "",
        "ops",
        "boss/ops",
        "caller/",
        "enroller/x",
    ]) {
        let what = format!("the caller {name:?}");
        check_head(&responder, &what, named(name), named("caller/ops")).await;
    }
    for peer in ["node/edge-1", "agent/other", "caller/ops"] {
        check_good(&responder, "a peer as the caller", good(&named(peer))).await;
    }
    let passed_on = Head::agent(ECHO, "other");
    check_head(&responder, "a call for another agent", passed_on, named("agent/other")).await;
}
