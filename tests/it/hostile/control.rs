//! Control streams that break the protocol: the link ends with the documented code, and the next
//! link is unaffected.

use super::{Ledger, linked, node, raw_node};
use crate::raw_peer::{
    Cbor, Head, Issuer, RawLink, RawListener, RawStream, Settings, StreamEnd, end, frame, header,
    hello, hello_of, kind, message, ping, register, registered, soon, status, welcome,
};
use crate::world::until_event;
use dialback::{Agent, Caller, CloseCode, Node};
use std::time::{Duration, Instant};

/// The actions of a peer on its control stream.
enum PeerAction {
    Sends(Vec<u8>),
    Ends,
    Resets,
}

impl PeerAction {
    async fn run(self, control: &mut RawStream) {
        match self {
            Self::Sends(bytes) => control.send(&bytes).await,
            Self::Ends => control.finish(),
            Self::Resets => control.reset(1),
        }
    }
}

async fn check_closed(what: &str, link: &RawLink, code: CloseCode, says: &str) {
    let (have, text) = soon(what, link.closed()).await;
    assert_eq!(have, code.number(), "{what}: {text}");
    assert!(text.contains(says), "{what}: {says:?} is not in {text:?}");
}

/// Performs an action as the first thing on a link to a node; then a valid peer of the same name is
/// welcomed.
async fn check_first(issuer: &Issuer, node: &Node, does: PeerAction, code: CloseCode, says: &str) {
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("agent/raw")).await;
    let mut control = link.open().await;
    does.run(&mut control).await;
    check_closed("a first frame", &link, code, says).await;
    assert_eq!(control.frame().await, Err(StreamEnd::Lost), "it was answered");
    linked(issuer, node, "agent/raw").await;
}

fn hello_with(entries: &[(u64, Cbor)]) -> PeerAction {
    let entries = entries.iter().map(|(key, value)| (Cbor::Uint(*key), value.clone()));
    PeerAction::Sends(frame(kind::HELLO, &Cbor::Map(entries.collect()).encode()))
}

#[tokio::test]
async fn a_link_whose_first_frame_is_not_a_valid_hello_ends() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (one, instance) = (Cbor::Uint(1), Cbor::Bytes(vec![9; 16]));
    let good = |bytes: Vec<u8>| PeerAction::Sends([bytes, hello([1, 1], 1)].concat());
    for (does, says) in [
        (good(register(1, &[])), "not HELLO"),
        (good(welcome(1)), "not HELLO"),
        (good(registered(1)), "not HELLO"),
        (good(ping(1)), "not HELLO"),
        (good(frame(kind::PONG, &[0xa1, 0, 1])), "not HELLO"),
        (good(frame(kind::VIEW, &[0xa0])), "not HELLO"),
        (good(message("x")), "message"),
        (good(Head::here("Echo/Echo").frame()), "call"),
        (good(end()), "call"),
        (good(status(0, 0)), "call"),
        (good(frame(0x00, &[])), "unknown frame kind"),
        (good(frame(0x0a, &[])), "unknown frame kind"),
        (good(frame(0x7f, &[])), "unknown frame kind"),
        (PeerAction::Sends(header(kind::HELLO, 16 * 1024 + 1)), "limit"),
        (PeerAction::Sends(header(kind::HELLO, (1 << 62) - 1)), "limit"),
        (PeerAction::Sends(header(kind::MESSAGE, (1 << 62) - 1)), "limit"),
        (PeerAction::Sends(header(0x80, 1 << 30)), "limit"),
        (PeerAction::Sends(frame(kind::HELLO, &Cbor::nested(16_000).encode())), "malformed"),
        (PeerAction::Sends(frame(kind::HELLO, &[])), "malformed"),
        (PeerAction::Sends(frame(kind::HELLO, &[0xa0, 0x00])), "malformed"),
        (hello_with(&[(0, one.clone()), (1, one.clone())]), ""),
        (hello_with(&[(0, one.clone()), (3, instance.clone())]), ""),
        (hello_with(&[(0, Cbor::Uint(65_536)), (1, one.clone()), (3, instance.clone())]), ""),
        (hello_with(&[(0, Cbor::Negative(0)), (1, one.clone()), (3, instance.clone())]), ""),
        (hello_with(&[(0, one.clone()), (1, one.clone()), (3, Cbor::Bytes(vec![9; 15]))]), ""),
        (
            hello_with(&[
                (0, one.clone()),
                (1, one.clone()),
                (3, instance.clone()),
                (0, one.clone()),
            ]),
            "twice",
        ),
        (PeerAction::Ends, "ended"),
        (PeerAction::Resets, "ended"),
    ] {
        check_first(&issuer, &node, does, CloseCode::Protocol, says).await;
    }
}

#[tokio::test]
async fn version_ranges_with_ours_are_welcomed_and_others_are_refused_naming_both() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    for [min, max] in [[2, 3], [0, 0], [5, 0], [2, 65_535]] {
        let does = PeerAction::Sends(hello([min, max], 1));
        let says = format!("versions {min} to {max}, this node speaks 1");
        check_first(&issuer, &node, does, CloseCode::Version, &says).await;
    }
    for versions in [[0, 5], [1, 1], [0, 1], [1, 65_535]] {
        let link = RawLink::dial(node.local_addr(), &issuer.credentials("agent/raw")).await;
        let mut control = link.open().await;
        control.send(&hello(versions, 1)).await;
        let welcome = Cbor::decode(&control.expect(kind::WELCOME).await);
        assert_eq!(welcome.key(0), Some(&Cbor::Uint(1)), "for {versions:?}");
    }
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("agent/raw")).await;
    let mut control = link.open().await;
    // Optional frames and unknown keys are not a fault.
    let newer = Cbor::map([
        (0, Cbor::Uint(1)),
        (1, Cbor::Uint(2)),
        (2, Cbor::Array(vec![Cbor::text("x")])),
        (3, Cbor::Bytes(vec![9; 16])),
        (77, Cbor::Array(vec![])),
    ]);
    control.send(&[frame(0xfe, b"new"), frame(kind::HELLO, &newer.encode())].concat()).await;
    control.expect(kind::WELCOME).await;
}

/// Performs an action on a welcomed link.
async fn check_later(issuer: &Issuer, node: &Node, peer: &str, does: PeerAction, says: &str) {
    let (link, mut control) = linked(issuer, node, peer).await;
    does.run(&mut control).await;
    check_closed(says, &link, CloseCode::Protocol, says).await;
    // For comparison: a link of the same peer that only sends a heartbeat.
    let (link, mut control) = linked(issuer, node, peer).await;
    control.send(&[frame(0x90, b"skipped"), frame(kind::VIEW, &[0xa0]), ping(7)].concat()).await;
    let pong = Cbor::decode(&control.expect(kind::PONG).await);
    assert_eq!(pong.key(0), Some(&Cbor::Uint(7)));
    assert!(link.is_open());
}

#[tokio::test]
async fn frames_that_a_dialler_must_not_send_end_its_link() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    for peer in ["agent/raw", "caller/ops"] {
        for (does, says) in [
            (PeerAction::Sends(hello([1, 1], 1)), "only a node sends"),
            (PeerAction::Sends(welcome(1)), "only a node sends"),
            (PeerAction::Sends(registered(1)), "only a node sends"),
            (PeerAction::Sends(message("x")), "message"),
            (PeerAction::Sends(Head::here("Echo/Echo").frame()), "call"),
            (PeerAction::Sends(frame(0x14, &[])), "unknown frame kind"),
            (PeerAction::Sends(frame(kind::PING, &[0xa0])), "number"),
            (PeerAction::Sends(header(kind::REGISTER, 256 * 1024 + 1)), "limit"),
            (PeerAction::Ends, "ended"),
            (PeerAction::Resets, "ended"),
        ] {
            check_later(&issuer, &node, peer, does, says).await;
        }
    }
    let does = PeerAction::Sends(register(1, &[("Echo", &["Echo"])]));
    check_later(&issuer, &node, "caller/ops", does, "a caller registers nothing").await;
}

#[tokio::test]
async fn registrations_follow_the_grammar_of_names_or_end_the_link() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (long_service, long_method) = ("s".repeat(201), "m".repeat(101));
    let cases: [(&str, &[&str]); 12] = [
        ("", &["Echo"]),
        ("..", &["Echo"]),
        ("a/b", &["Echo"]),
        ("é", &["Echo"]),
        ("a\0", &["Echo"]),
        (&long_service, &["Echo"]),
        ("Echo", &[""]),
        ("Echo", &["a.b"]),
        ("Echo", &["Echo", "é"]),
        ("Echo", &[&long_method]),
        // A service without methods still has a name.
        ("a b", &[]),
        ("\u{1b}[31m", &[]),
    ];
    for case in cases {
        let bytes = register(1, &[("Good", &["Good"]), case]);
        check_later(&issuer, &node, "agent/raw", PeerAction::Sends(bytes), "invalid name").await;
    }
    assert!(!node.agents().iter().any(|agent| agent.attached), "{:?}", node.agents());
    let kind = Cbor::map([(0, Cbor::text("M")), (1, Cbor::Uint(6))]);
    let service = Cbor::map([(0, Cbor::text("S")), (1, Cbor::Array(vec![kind]))]);
    let fields = Cbor::map([(0, Cbor::Uint(1)), (1, Cbor::Array(vec![service]))]);
    let bytes = frame(kind::REGISTER, &fields.encode());
    check_later(&issuer, &node, "agent/raw", PeerAction::Sends(bytes), "kind").await;
    let (_link, mut control) = linked(&issuer, &node, "agent/raw").await;
    let (long_service, long_method) = ("s".repeat(200), "m".repeat(100));
    let good: [(&str, &[&str]); 3] =
        [("a.b.C", &["_m"]), (&long_service, &[&long_method]), ("E", &[])];
    for generation in 1..=2 {
        control.send(&register(generation, &good)).await;
        let fields = Cbor::decode(&control.expect(kind::REGISTERED).await);
        assert_eq!(fields.key(0), Some(&Cbor::Uint(generation)));
    }
    assert_eq!(node.agents().iter().filter(|agent| agent.attached).count(), 1);
}

/// REGISTER of `S/M` with this text under this key, of the method or of the service.
fn described(key: u64, text: Cbor, is_of_method: bool) -> Vec<u8> {
    let entry = |key: u64, value| (Cbor::Uint(key), value);
    let mut method = vec![entry(0, Cbor::text("M")), entry(1, Cbor::Uint(0))];
    let mut service = vec![entry(0, Cbor::text("S"))];
    if is_of_method {
        method.push(entry(key, text.clone()));
    }
    service.push(entry(1, Cbor::Array(vec![Cbor::Map(method)])));
    if !is_of_method {
        service.push(entry(key, text));
    }
    let services = Cbor::Array(vec![Cbor::Map(service)]);
    frame(kind::REGISTER, &Cbor::map([(0, Cbor::Uint(1)), (1, services)]).encode())
}

#[tokio::test]
async fn service_descriptions_over_their_limits_end_the_link() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let text = |bytes: usize| Cbor::text(&"x".repeat(bytes));
    let rows = [(2, false, 1024), (2, true, 1024), (3, true, 4096), (4, true, 4096)];
    for (key, is_of_method, most) in rows {
        let bytes = described(key, text(most + 1), is_of_method);
        check_later(&issuer, &node, "agent/raw", PeerAction::Sends(bytes), "are the most").await;
        let (_link, mut control) = linked(&issuer, &node, "agent/raw").await;
        control.send(&described(key, text(most), is_of_method)).await;
        control.expect(kind::REGISTERED).await;
    }
    for (key, is_of_method) in rows.map(|(key, is_of_method, _)| (key, is_of_method)) {
        let bytes = described(key, Cbor::Uint(7), is_of_method);
        check_later(&issuer, &node, "agent/raw", PeerAction::Sends(bytes), "").await;
    }
    // Keys that are not defined yet are ignored.
    let (_link, mut control) = linked(&issuer, &node, "agent/raw").await;
    control.send(&described(9, text(9_000), true)).await;
    control.expect(kind::REGISTERED).await;
}

#[tokio::test]
async fn a_newer_instance_takes_over_and_the_older_link_is_notified() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let mut links = Vec::new();
    for instance in [[1; 16], [2; 16]] {
        let link = RawLink::dial(node.local_addr(), &issuer.credentials("agent/raw")).await;
        let mut control = link.open().await;
        control.send(&hello_of(instance, [1, 1], 16)).await;
        control.expect(kind::WELCOME).await;
        links.push((link, control));
    }
    // Admitted second, registers first.
    for at in [1, 0] {
        links[at].1.send(&register(1, &[])).await;
        if at == 1 {
            links[at].1.expect(kind::REGISTERED).await;
        }
    }
    check_closed("the stale one", &links[0].0, CloseCode::Superseded, "later link").await;
    assert!(links[1].0.is_open());
}

#[tokio::test]
async fn a_node_that_dials_a_node_is_rejected() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let link = RawLink::dial(node.local_addr(), &issuer.credentials("node/edge-2")).await;
    link.open().await.send(&hello([1, 1], 1)).await;
    check_closed("a node", &link, CloseCode::Unauthorized, "nodes").await;
}

/// Plays a node towards a real agent up to a point, and then performs an action.
async fn check_agent(before: &[Vec<u8>], does: PeerAction, code: CloseCode, says: &str) {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
    let _agent = super::agent(&issuer, &listener.address(), &ledger);
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    for bytes in before {
        control.send(bytes).await;
    }
    does.run(&mut control).await;
    check_closed(says, &link, code, says).await;
    // It reconnects and registers at a node that follows the protocol.
    let again = listener.accept().await;
    let mut control = again.accept().await;
    control.expect(kind::HELLO).await;
    control.send(&welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    control.send(&ping(3)).await;
    control.expect(kind::PONG).await;
}

#[tokio::test]
async fn an_agent_closes_the_link_of_a_node_that_breaks_the_protocol_and_redials() {
    let none: [Vec<u8>; 0] = [];
    let (welcomed, done) = ([welcome(1)], [welcome(1), registered(1)]);
    for (before, does, says) in [
        (&none[..], PeerAction::Sends(welcome(2)), "version 2"),
        (&none, PeerAction::Sends(welcome(0)), "version 0"),
        (&none, PeerAction::Sends(registered(1)), "not WELCOME"),
        (&none, PeerAction::Sends(ping(1)), "not WELCOME"),
        (&none, PeerAction::Sends(frame(kind::WELCOME, &[0xa0])), ""),
        (&none, PeerAction::Sends(message("x")), "message"),
        (&none, PeerAction::Sends(frame(0x0b, &[])), "unknown frame kind"),
        (&none, PeerAction::Ends, "ended"),
        (&welcomed, PeerAction::Sends(registered(2)), "confirm"),
        (&welcomed, PeerAction::Sends(welcome(1)), "confirm"),
        (&done, PeerAction::Sends(welcome(1)), "only an agent"),
        (&done, PeerAction::Sends(register(1, &[])), "only an agent"),
        (&done, PeerAction::Sends(hello([1, 1], 1)), "only an agent"),
        (&done, PeerAction::Sends(status(0, 0)), "call"),
        (&done, PeerAction::Sends(header(kind::WELCOME, 1 << 40)), "limit"),
        (&done, PeerAction::Ends, "ended"),
        (&done, PeerAction::Resets, "ended"),
    ] {
        check_agent(before, does, CloseCode::Protocol, says).await;
    }
}

#[tokio::test]
async fn an_agent_waits_for_welcome_and_registered_with_a_timeout() {
    let wait = Duration::from_secs(5);
    let (welcomed, began) = ([welcome(1)], Instant::now());
    tokio::join!(
        check_agent(&[], PeerAction::Sends(vec![]), CloseCode::Protocol, "no WELCOME"),
        check_agent(&welcomed, PeerAction::Sends(vec![]), CloseCode::Idle, "did not confirm"),
    );
    assert!(began.elapsed() >= wait, "it gave up too early");
}

#[tokio::test]
async fn a_caller_closes_the_link_of_a_node_that_breaks_the_protocol() {
    let issuer = Issuer::new();
    let play = async |bytes: Vec<u8>| {
        let listener = RawListener::bind(&issuer.credentials("node/raw"), Settings::default());
        let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
        // A caller whose link is closed redials automatically; here it is dropped with its set.
        let mut connecting = tokio::task::JoinSet::new();
        connecting.spawn(connect);
        let link = listener.accept().await;
        let mut control = link.accept().await;
        control.expect(kind::HELLO).await;
        control.send(&bytes).await;
        (link, control, connecting)
    };
    for (bytes, says) in [
        (welcome(2), "version 2"),
        (registered(1), "not WELCOME"),
        (ping(1), "not WELCOME"),
        ([welcome(1), registered(1)].concat(), "no use for"),
        ([welcome(1), message("x")].concat(), "message"),
    ] {
        let (link, _control, _connecting) = play(bytes).await;
        check_closed(says, &link, CloseCode::Protocol, says).await;
    }
    let (_link, mut control, mut connecting) = play(welcome(1)).await;
    let caller =
        soon("the caller", connecting.join_next()).await.expect("a task").expect("no panic");
    assert!(caller.is_ok(), "{caller:?}");
    control.send(&ping(1)).await;
    control.expect(kind::PONG).await;
}

#[tokio::test]
async fn an_agent_reconnects_to_a_node_that_closes_the_link() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let (agent, link, _control): (Agent, _, _) = raw_node(&issuer, &ledger).await;
    let mut stream = link.open().await;
    stream.send(&Head::here("Echo/Echo").frame()).await;
    link.connection.close(0x42u32.into(), b"drained");
    until_event("the registration ends", agent.events(), || agent.nodes().is_empty()).await;
    assert_eq!(ledger.count(), 0);
}
