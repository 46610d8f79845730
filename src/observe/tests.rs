//! Records, program events and limits of the observer.

use super::{Event, Observer, program::NodeEvent};
use crate::{
    audit::{Audit, MemorySink},
    drain::Tasks,
    link::{LinkFault, LinkPath, PathChange, PathChangeCause},
    name::{MethodPath, Name, PeerName},
    observe::AgentEvent,
    status::Code,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

fn peer(text: &str) -> PeerName {
    text.parse().expect("a peer")
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn lost() -> LinkFault {
    LinkFault::Silent("no heartbeat")
}

/// Audit records of these events on a node.
fn records(report: impl FnOnce(&Observer<NodeEvent>)) -> Vec<String> {
    let sink = MemorySink::default();
    let audit = Audit::to(sink.clone()).expect("a thread");
    report(&Observer::new(&audit, peer("node/edge")));
    let after_event = |line: &String| line.split_once("\"event\":").expect("an event").1.into();
    sink.lines(&audit).iter().map(after_event).collect()
}

/// Events that a program receives on a node.
async fn program_events(report: impl FnOnce(&Observer<NodeEvent>)) -> Vec<NodeEvent> {
    let (observer, owner) = (Observer::new(&Audit::default(), peer("node/edge")), Tasks::default());
    let mut events = observer.events(&owner);
    report(&observer);
    owner.stop();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

fn registered<'a>(agent: &'a Name, is_new: bool, superseded: &'a [SocketAddr]) -> Event<'a> {
    let is_again = false;
    Event::AgentRegistered {
        agent,
        address: address(9),
        path: LinkPath::Udp,
        services: 2,
        is_new,
        is_again,
        superseded,
    }
}

#[test]
fn a_refused_call_is_recorded_with_caller_target_code_and_reason() {
    let (caller, target, method) =
        (peer("caller/ops"), peer("agent/shop"), "S/M".parse::<MethodPath>());
    let method = method.expect("a method");
    let refused = |target, via| Event::CallRefused {
        caller: &caller,
        target,
        via,
        method: &method,
        code: Code::PermissionDenied,
        reason: &"no rule",
    };
    let node = name("edge");
    let lines = records(|observer| {
        observer.report(refused(Some(&target), None));
        observer.report(refused(None, None));
        observer.report(refused(Some(&target), Some(&node)));
    });
    let end = "\"method\":\"S/M\",\"code\":\"PERMISSION_DENIED\",\"reason\":\"no rule\"}";
    let head = "\"call_refused\",\"by\":\"node/edge\",\"caller\":\"caller/ops\"";
    assert_eq!(
        lines,
        [
            format!("{head},\"agent\":\"agent/shop\",{end}"),
            format!("{head},\"agent\":null,{end}"),
            format!("{head},\"agent\":\"agent/shop\",\"via\":\"node/edge\",{end}"),
        ]
    );
}

#[test]
fn every_refused_call_is_recorded_although_its_log_lines_are_limited() {
    let (caller, method) = (peer("caller/ops"), "S/M".parse::<MethodPath>().expect("a method"));
    let lines = records(|observer| {
        for _ in 0..100 {
            observer.report(Event::CallRefused {
                caller: &caller,
                target: None,
                via: None,
                method: &method,
                code: Code::ResourceExhausted,
                reason: &"rate",
            });
        }
    });
    assert_eq!(lines.len(), 100);
}

#[test]
fn unauthenticated_clients_cause_a_bounded_number_of_records() {
    let from = IpAddr::from([192, 0, 2, 7]);
    let lines = records(|observer| {
        for port in 0..100 {
            let (claim, reason) = (None, &lost());
            let address = SocketAddr::new(from, port);
            observer.report(Event::HandshakeRefused { address, peer: None, claim, reason });
            observer.report(Event::HttpRefused { address: from, claim, reason: &"no token" });
        }
    });
    let count = |event| lines.iter().filter(|line| line.starts_with(event)).count();
    assert_eq!((count("\"link_refused\""), count("\"http_refused\"")), (20, 20));
}

#[test]
fn one_address_does_not_silence_another() {
    let lines = records(|observer| {
        for last in [1, 1, 1, 2].into_iter().flat_map(|last| [last; 20]) {
            let address = IpAddr::from([192, 0, last, 7]);
            observer.report(Event::HttpRefused { address, claim: None, reason: &"no token" });
        }
    });
    assert_eq!(lines.iter().filter(|line| line.contains("192.0.2.7")).count(), 20);
    assert_eq!(lines.iter().filter(|line| line.contains("192.0.1.7")).count(), 20);
    let first_of_other = lines.iter().find(|line| line.contains("192.0.2.7"));
    assert!(first_of_other.is_some_and(|line| line.contains("\"left_out\":40")), "{lines:?}");
}

#[test]
fn ignored_handshakes_and_refused_dials_are_recorded() {
    let lines = records(|observer| {
        observer.report(Event::HandshakesIgnored { last: address(1), count: 3, per_second: 10 });
        observer.report(Event::DialRefused { address: &"edge:4433", reason: &lost() });
    });
    assert_eq!(
        lines[0],
        "\"handshakes_ignored\",\"by\":\"node/edge\",\"address\":\"192.0.2.1:1\",\"count\":3}"
    );
    assert!(lines[1].starts_with(
        "\"link_refused\",\"by\":\"node/edge\",\"peer\":null,\"serial\":null,\"address\":\"edge:4433\""
    ));
}

#[test]
fn events_without_a_record_write_none() {
    let agent = name("shop");
    let lines = records(|observer| {
        observer.report(registered(&agent, true, &[]));
        observer.report(Event::AgentDetached { agent: &agent, reason: &lost() });
        observer.report(Event::CallsAborted { after: Duration::from_secs(1) });
        observer.report(Event::ConfigApplied { config_version: 2, changed: &"rules", closed: 0 });
    });
    assert!(lines.is_empty(), "{lines:?}");
}

#[tokio::test]
async fn a_program_learns_of_agents_that_come_go_drain_and_take_over() {
    let (agent, reason) = (name("shop"), lost());
    let events = program_events(|observer| {
        observer.report(registered(&agent, true, &[]));
        observer.report(registered(&agent, false, &[]));
        let mut again = registered(&agent, false, &[]);
        if let Event::AgentRegistered { is_again, .. } = &mut again {
            *is_again = true;
        }
        observer.report(again);
        observer.report(registered(&agent, false, &[address(1), address(2)]));
        for has_other_link in [true, false] {
            let (address, reason) = (address(9), "it stops");
            let agent = &agent;
            observer.report(Event::AgentDraining { agent, address, has_other_link, reason });
        }
        observer.report(Event::AgentDetached { agent: &agent, reason: &reason });
    })
    .await;
    let [
        NodeEvent::Attached { address: new, .. },
        NodeEvent::LinkAdded { .. },
        NodeEvent::TakenOver { old, .. },
        NodeEvent::Draining { .. },
        NodeEvent::Lost { .. },
    ] = events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((*new, *old), (address(9), address(2)));
}

#[tokio::test]
async fn a_program_learns_once_that_a_certificate_is_used_twice() {
    let agent = name("shop");
    let events = program_events(|observer| {
        for is_first in [true, false, false] {
            let (agent, address, other) = (&agent, address(1), address(2));
            observer.report(Event::AgentHeldBack { agent, address, other, is_first });
        }
    })
    .await;
    assert!(matches!(events.as_slice(), [NodeEvent::CertificateUsedTwice { .. }]), "{events:?}");
}

#[tokio::test]
async fn an_agents_program_learns_of_its_nodes() {
    let (observer, owner) =
        (Observer::new(&Audit::default(), peer("agent/shop")), Tasks::default());
    let mut events = observer.events(&owner);
    let (node, reason) = (name("edge"), lost());
    observer.report(Event::Registered {
        node: &node,
        address: &"edge:4433",
        remote: address(1),
        path: LinkPath::Udp,
    });
    for is_replaced in [true, false] {
        let (node, address) = (node.clone(), "edge:4433".parse().expect("an address"));
        let (old, new, cause) = (LinkPath::Udp, LinkPath::Tunnel, PathChangeCause::UdpSilent);
        let change = PathChange { node, address, old, new, cause, is_replaced };
        observer.report(Event::PathChanged(&change));
    }
    observer.report(Event::NodeDraining { node: &node });
    observer.report(Event::NodeLost { node: &node, reason: &reason });
    observer.report(Event::CallsAborted { after: Duration::ZERO });
    owner.stop();
    let registered = events.next().await;
    assert!(matches!(registered, Some(AgentEvent::Registered { path: LinkPath::Udp, .. })));
    // Once: the other link was replaced.
    let changed = events.next().await;
    let Some(AgentEvent::PathChanged { old, new, cause, .. }) = changed else {
        panic!("{changed:?}")
    };
    assert_eq!([old, new], [LinkPath::Udp, LinkPath::Tunnel]);
    assert_eq!(cause, PathChangeCause::UdpSilent);
    assert!(matches!(events.next().await, Some(AgentEvent::Draining { .. })));
    assert!(matches!(events.next().await, Some(AgentEvent::Lost { .. })));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_program_receives_an_event_before_its_log_line_and_record_are_written() {
    let sink = MemorySink::default();
    let audit = Audit::to(sink.clone()).expect("a thread");
    let (observer, owner) =
        (Observer::<NodeEvent>::new(&audit, peer("node/edge")), Tasks::default());
    let mut events = observer.events(&owner);
    let agent = name("shop");
    let report = observer.send_to_programs(registered(&agent, true, &[]));
    assert!(matches!(events.next().await, Some(NodeEvent::Attached { .. })));
    drop(report);
    let ignored = Event::HandshakesIgnored { last: address(1), count: 1, per_second: 1 };
    let report = observer.send_to_programs(ignored);
    assert!(sink.lines(&audit).is_empty());
    drop(report);
    assert!(!sink.lines(&audit).is_empty());
}
