//! Certificates, trust and rules that change at run time: affected peers are disconnected, others
//! are not.

use crate::{
    raw_peer::{
        Issuer, RawLink, RawListener, RawStream, Settings, hello, kind, registered, welcome,
    },
    world::{Setup, SetupLimits, Stage, World, attached, check_status, logged, soon, spawn, until},
};
use dialback::{
    Agent, AgentEvent, AgentPolicy, Caller, CloseCode, Code, ConfigUpdate, CredentialPem,
    Credentials, CredentialsError, CrlScope, Events, Limits, LinkFault, Node, NodeEvent,
    NodePolicy, Outcome, RevokedSerial, StartError,
    certs::LeafPem,
    policy::{AgentRule, AllowRule},
};
use std::{
    future::IntoFuture,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

const HOUR: Duration = Duration::from_secs(3_600);

fn trusting<P>(credentials: Credentials) -> ConfigUpdate<P> {
    ConfigUpdate { credentials: Some(credentials), ..ConfigUpdate::default() }
}

fn load(leaf: &LeafPem, ca: &str, crl: Option<&str>) -> Credentials {
    let crl = crl.map(str::as_bytes);
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.as_bytes(),
        node_ca: None,
        crl,
        crl_scope: CrlScope::Leaf,
    };
    Credentials::from_pem(&pem).expect("credentials")
}

/// A CRL that ends after `life`, counted from an hour ago.
fn list(world: &World, number: u64, serials: &[&str], life: Duration) -> String {
    let (since, from) = (SystemTime::now(), SystemTime::now() - HOUR);
    let entry = |serial: &&str| RevokedSerial { serial: (*serial).into(), since };
    let entries: Vec<_> = serials.iter().map(entry).collect();
    world.ca().crl(&entries, number, from, from + life).expect("signed")
}

/// The reason for which an agent was lost.
async fn lost(events: &mut Events<NodeEvent>, name: &str) -> LinkFault {
    soon("the agent is lost", async {
        loop {
            match events.next().await.expect("the node runs") {
                NodeEvent::Lost { agent, reason } if agent.as_str() == name => return reason,
                _ => {}
            }
        }
    })
    .await
}

fn code(fault: &LinkFault) -> CloseCode {
    match fault {
        LinkFault::Closed { code, .. } => *code,
        other => panic!("not closed with a code: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_agent_is_disconnected_and_returns_with_a_new_certificate_unnoticed_by_others() {
    let (world, stage) = (World::new(), Stage::default());
    let (node_leaf, stolen) = (world.leaf("node/edge-1"), world.leaf("agent/warehouse"));
    let ca = world.ca().pem();
    let with_crl = |number, serials: &[&str]| {
        load(&node_leaf, ca, Some(&list(&world, number, serials, 24 * HOUR)))
    };
    let node = Node::builder(with_crl(1, &[])).listen("127.0.0.1:0");
    let node = node.policy(NodePolicy::allow_all()).start().await.expect("a node");
    let at = node.local_addr().to_string();
    let agent = Agent::builder(load(&stolen, ca, None)).node(&at).serve(stage.service());
    let agent = attached(agent).await;
    let other = attached(world.agent("other", node.local_addr()).serve(stage.service())).await;
    let held = node.agent("other").handle().expect("a name").call::<String>("Stage/Hold", "held");
    let held = spawn(held.into_future());
    stage.started("held").await;
    let mut events = node.events();
    let applied = node.apply(trusting(with_crl(2, &[&stolen.serial]))).await.expect("applied");
    assert_eq!((applied.generation, applied.closed), (2, 1));
    assert_eq!(code(&lost(&mut events, "warehouse").await), CloseCode::Revoked);
    logged(&["refused: node", &at, "revoked"]).await;
    let failed =
        node.agent("warehouse").handle().expect("a name").call::<String>("Stage/Note", "n");
    check_status(failed.await, Code::Unavailable, Outcome::NotExecuted);
    // Its back-off is ten seconds or more by now; another certificate makes it dial at once.
    agent.apply(trusting(world.credentials("agent/warehouse"))).await.expect("applied");
    soon("it reconnects", node.agent("warehouse").connected()).await.expect("back");
    stage.open();
    assert_eq!(soon("the other's call ends", held).await, Ok("held".into()));
    assert_eq!(other.nodes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_crl_is_refused_while_running_and_revoked_peers_stay_rejected() {
    let (world, stage) = (World::new(), Stage::default());
    let leaf = world.leaf("node/edge-1");
    let with = |number, serials: &[&str]| {
        world.presenting(&leaf, Some(&list(&world, number, serials, 2 * HOUR)))
    };
    let node = Node::builder(with(1, &[])).listen("127.0.0.1:0").policy(NodePolicy::allow_all());
    let node = node.start().await.expect("a node");
    let agent = world.agent("warehouse", node.local_addr()).serve(stage.service());
    let agent = attached(agent).await;
    let serial = agent.credentials().identity().serial().to_owned();
    let mut events = node.events();
    node.apply(trusting(with(3, &[&serial]))).await.expect("applied");
    assert_eq!(code(&lost(&mut events, "warehouse").await), CloseCode::Revoked);
    let error = node.apply(trusting(with(2, &[]))).await.expect_err("refused");
    let StartError::Credentials(CredentialsError::OlderList { found, in_use, .. }) = &error else {
        panic!("{error:?}")
    };
    assert!(found.starts_with("number 2 of") && in_use.starts_with("number 3 of"), "{error}");
    let late = world.agent("warehouse", node.local_addr()).start().expect("an agent");
    soon("an agent with another certificate attaches", late.registered(1)).await;
    node.apply(trusting(with(4, &[]))).await.expect("applied");
    soon("the CRL without it is applied", agent.registered(1)).await;
}

#[test]
fn crls_of_an_unknown_ca_or_with_a_wrong_signature_are_refused_when_loaded() {
    let (world, other) = (World::new(), World::new());
    let leaf = world.leaf("node/edge-1");
    let load = |crl: &str| {
        let pem = CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: world.ca().pem().as_bytes(),
            crl: Some(crl.as_bytes()),
            ..CredentialPem::default()
        };
        Credentials::from_pem(&pem)
    };
    let (own, foreign) = (world.crl(&[]), other.crl(&[]));
    assert!(load(&own).is_ok() && load(&(foreign.clone() + &own)).is_ok());
    let refused = load(&foreign).expect_err("refused");
    assert!(matches!(refused, CredentialsError::ForeignLists { .. }), "{refused}");
    assert!(refused.to_string().contains("dialback certs crl"), "{refused}");
    // The last line before the end belongs to the signature.
    let at = own.find("\n-----END").and_then(|end| own[..end].rfind('\n')).expect("lines") + 1;
    let other_digit = if own[at..].starts_with('A') { "B" } else { "A" };
    let mut forged = own.clone();
    forged.replace_range(at..=at, other_digit);
    let refused = load(&forged).expect_err("refused");
    assert!(matches!(refused, CredentialsError::ForgedList { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_crl_ends_only_the_links_that_it_names() {
    let (world, stage) = (World::new(), Stage::default());
    let (node_leaf, named) = (world.leaf("node/edge-1"), world.leaf("agent/named"));
    let ca = world.ca().pem();
    let node = Node::builder(load(&node_leaf, ca, None)).listen("127.0.0.1:0");
    let node = node.start().await.expect("a node");
    let at = node.local_addr();
    let _good = attached(world.agent("good", at).serve(stage.service())).await;
    let bad = Agent::builder(load(&named, ca, None)).node(at.to_string());
    let _bad = attached(bad.serve(stage.service())).await;
    let old = list(&world, 1, &[&named.serial], HOUR / 2);
    let applied = node.apply(trusting(load(&node_leaf, ca, Some(&old)))).await.expect("applied");
    assert_eq!(applied.closed, 1);
    let good = node.agent("good").handle().expect("a name");
    assert_eq!(good.call::<String>("Stage/Note", "n").await, Ok("n".into()));
    let late = world.agent("late", at).start().expect("an agent");
    logged(&["refused", "revocation list", "expired"]).await;
    assert!(late.nodes().is_empty());
}

/// Calls until it is stopped. Returns the number of calls; each one succeeds.
async fn call_until_stopped(setup: &Setup, done: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !done.load(Ordering::SeqCst) {
        for (way, callee) in setup.callees() {
            let id = format!("{way}-{count}");
            let reply: Result<String, _> = callee.call("Stage/Note", &id).await;
            assert_eq!(reply, Ok(id), "by the {way}");
        }
        count += 2;
    }
    count
}

/// Waits until agent and caller have another link and have closed the old one.
async fn renewed(setup: &Setup, (of_agent, of_node): &mut (Events<AgentEvent>, Events<NodeEvent>)) {
    let registered = soon("the agent registers again", of_agent.next()).await;
    assert!(matches!(registered, Some(AgentEvent::Registered { .. })), "{registered:?}");
    soon("the caller makes a new link and closes the old one", async {
        while !matches!(of_node.next().await, Some(NodeEvent::CallerLinked { .. })) {}
        while !matches!(of_node.next().await, Some(NodeEvent::CallerLeft { .. })) {}
    })
    .await;
    until("the old link is closed", || setup.agent.retiring_links() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_every_role_change_repeatedly_under_load_and_no_call_fails() {
    let setup = Setup::open().await;
    let done = Arc::new(AtomicBool::new(false));
    let mut events = (setup.agent.events(), setup.node.events());
    let renewing = async {
        for _ in 0..12 {
            let world = &setup.world;
            let next = [world.credentials("node/edge-1"), world.credentials("agent/warehouse")];
            let [node, agent] = next;
            setup.node.apply(trusting(node)).await.expect("applied");
            setup.agent.apply(trusting(agent)).await.expect("applied");
            setup.caller.apply(world.credentials("caller/ops")).await.expect("applied");
            renewed(&setup, &mut events).await;
        }
        done.store(true, Ordering::SeqCst);
    };
    let (calls, ()) = tokio::join!(call_until_stopped(&setup, done.clone()), renewing);
    assert!(calls > 0);
    assert_eq!(setup.stage.all_runs(), calls, "a call ran twice, or not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_is_replaced_through_a_bundle_and_no_call_fails() {
    let (setup, next) = (Setup::open().await, World::new());
    let (old_ca, new_ca) = (setup.world.ca().pem(), next.ca().pem());
    let bundle = format!("{old_ca}{new_ca}");
    let done = Arc::new(AtomicBool::new(false));
    let mut events = (setup.agent.events(), setup.node.events());
    let changing = async {
        // Nodes before their diallers, so that the new links use their new certificates.
        for (signer, ca) in [(&setup.world, &*bundle), (&next, &*bundle), (&next, new_ca)] {
            let of = |peer: &str| load(&signer.leaf(peer), ca, None);
            setup.node.apply(trusting(of("node/edge-1"))).await.expect("applied");
            setup.agent.apply(trusting(of("agent/warehouse"))).await.expect("applied");
            setup.caller.apply(of("caller/ops")).await.expect("applied");
            renewed(&setup, &mut events).await;
        }
        done.store(true, Ordering::SeqCst);
    };
    let (calls, ()) = tokio::join!(call_until_stopped(&setup, done.clone()), changing);
    assert_eq!(setup.stage.all_runs(), calls);
    // A peer that still presents a certificate of the old CA is rejected.
    let old = setup.world.agent("late", setup.node.local_addr()).start().expect("an agent");
    logged(&["refused: node", &setup.node.local_addr().to_string(), "CA"]).await;
    assert!(old.nodes().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_the_old_link_continues_after_a_renewal_and_then_that_link_closes() {
    let setup = Setup::open().await;
    let calls = setup
        .callees()
        .map(|(way, callee)| spawn(callee.call::<String>("Stage/Hold", way).into_future()));
    setup.stage.busy(2).await;
    let (mut of_node, mut of_agent) = (setup.node.events(), setup.agent.events());
    setup.agent.apply(trusting(setup.world.credentials("agent/warehouse"))).await.expect("applied");
    until("it is registered on another link", || setup.agent.retiring_links() == 1).await;
    assert_eq!(setup.agent.nodes().len(), 1);
    let after: Result<String, _> = setup.by_caller().call("Stage/Note", "after").await;
    assert_eq!(after, Ok("after".into()));
    setup.stage.open();
    for call in calls {
        soon("a call ends", call).await.expect("answered");
    }
    until("the old link is gone", || setup.agent.retiring_links() == 0).await;
    assert_eq!(setup.stage.all_runs(), 3);
    // No agent was lost and none drains: the agent is still attached.
    let registered = soon("an event", of_agent.next()).await.expect("an event");
    assert!(matches!(registered, AgentEvent::Registered { .. }), "{registered:?}");
    setup.agent.shutdown().await;
    let lost = soon("an event", of_agent.next()).await.expect("an event");
    assert!(matches!(lost, AgentEvent::Lost { .. }), "{lost:?}");
    let event = soon("an event", of_node.next()).await.expect("an event");
    assert!(matches!(event, NodeEvent::LinkAdded { .. }), "{event:?}");
    let event = soon("an event", of_node.next()).await.expect("an event");
    assert!(matches!(event, NodeEvent::Draining { .. } | NodeEvent::Lost { .. }), "{event:?}");
}

fn brief_drain() -> Limits {
    Limits { drain_max: Duration::from_millis(1), ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_longer_than_the_drain_time_outlive_three_renewals_and_the_fourth_ends_the_oldest() {
    let setup = Setup::with(SetupLimits { agent: brief_drain(), ..SetupLimits::default() }).await;
    let mut calls = Vec::new();
    for (earlier, id) in ["one", "two", "three", "four"].into_iter().enumerate() {
        let call = setup.by_node().call::<String>("Stage/Hold", id).into_future();
        calls.push(spawn(call));
        setup.stage.started(id).await;
        let mut events = setup.agent.events();
        let next = setup.world.credentials("agent/warehouse");
        setup.agent.apply(trusting(next)).await.expect("applied");
        drop(soon("it registers again", events.next()).await);
        until("at most three old links remain", || {
            setup.agent.retiring_links() == (earlier + 1).min(3)
        })
        .await;
    }
    let failed = soon("the first call is aborted", calls.remove(0)).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    setup.stage.open();
    for call in calls {
        soon("a call ends", call).await.expect("answered");
    }
    until("the old links are gone", || setup.agent.retiring_links() == 0).await;
    assert_eq!(setup.stage.all_runs(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_longer_than_the_drain_time_outlives_the_renewals_of_its_caller() {
    let setup = Setup::with(SetupLimits { caller: brief_drain(), ..SetupLimits::default() }).await;
    let held = spawn(setup.by_caller().call::<String>("Stage/Hold", "one").into_future());
    setup.stage.started("one").await;
    let mut events = setup.node.events();
    for _ in 0..6 {
        let next = setup.world.credentials("caller/ops");
        setup.caller.apply(next).await.expect("applied");
        soon("the caller makes a new link", async {
            while !matches!(events.next().await, Some(NodeEvent::CallerLinked { .. })) {}
        })
        .await;
    }
    setup.stage.open();
    soon("the call ends", held).await.expect("answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_the_certificate_that_it_was_made_with() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let mut profile = world.profile("agent/brief");
    profile.not_after = SystemTime::now() + Duration::from_secs(3);
    let leaf = world.ca().leaf(&profile).expect("a leaf");
    let mut events = node.events();
    let brief = Agent::builder(load(&leaf, world.ca().pem(), None));
    let brief = brief.node(node.local_addr().to_string()).serve(stage.service());
    let _brief = attached(brief).await;
    let _other = attached(world.agent("other", node.local_addr()).serve(stage.service())).await;
    assert_eq!(code(&lost(&mut events, "brief").await), CloseCode::Expired);
    let other = node.agent("other").handle().expect("a name");
    assert_eq!(other.call::<String>("Stage/Note", "n").await, Ok("n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_callers_make_a_new_link_before_the_nodes_certificate_expires() {
    let (world, stage) = (World::new(), Stage::default());
    let mut profile = world.profile("node/edge-1");
    profile.not_after = SystemTime::now() + Duration::from_secs(20);
    let brief = load(&world.ca().leaf(&profile).expect("a leaf"), world.ca().pem(), None);
    let node = Node::builder(brief).listen("127.0.0.1:0").policy(NodePolicy::allow_all());
    let node = node.start().await.expect("a node");
    let at = node.local_addr();
    let agent = attached(world.agent("warehouse", at).serve(stage.service())).await;
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    logged(&[&at.to_string(), "it shows no newer one"]).await;
    let mut events = agent.events();
    node.apply(trusting(world.credentials("node/edge-1"))).await.expect("applied");
    let registered = soon("it registers again", events.next()).await.expect("an event");
    assert!(matches!(registered, AgentEvent::Registered { .. }), "{registered:?}");
    until("the old link is closed", || agent.retiring_links() == 0).await;
    let callee = caller.agent("warehouse").expect("a name");
    assert_eq!(callee.call::<String>("Stage/Note", "n").await, Ok("n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_closes_an_untrusted_peer_with_trust_changed() {
    let (setup, other_ca) = (Setup::open().await, World::new());
    let mut events = setup.node.events();
    let of_other_ca = |peer: &str| load(&other_ca.leaf(peer), other_ca.ca().pem(), None);
    let elsewhere = of_other_ca("node/edge-1");
    let applied = setup.node.apply(trusting(elsewhere)).await.expect("applied");
    assert_eq!(applied.closed, 2, "the agent's link and the caller's");
    assert_eq!(code(&lost(&mut events, "warehouse").await), CloseCode::TrustChanged);

    let setup = Setup::open().await;
    let mut events = setup.agent.events();
    let elsewhere = of_other_ca("agent/warehouse");
    let applied = setup.agent.apply(trusting(elsewhere)).await.expect("applied");
    assert_eq!(applied.closed, 1);
    let lost = soon("an event", events.next()).await.expect("an event");
    let AgentEvent::Lost { reason, .. } = lost else { panic!("{lost:?}") };
    assert_eq!(code(&reason), CloseCode::TrustChanged);
}

/// A caller that accepts one byte of its WELCOME: the node is still sending it.
async fn read_one_byte_of_welcome(world: &World, node: &Node) -> (RawLink, RawStream) {
    let narrow = Settings { stream_window: 1, ..Settings::default() };
    let credentials = world.credentials("caller/ops");
    let link = RawLink::dial_with(node.local_addr(), &credentials, narrow).await;
    let link = link.expect("a handshake");
    let mut control = link.open().await;
    control.send(&hello([1, 1], 16)).await;
    control.bytes(1).await;
    (link, control)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_verified_by_new_credentials_from_its_welcome_on() {
    let (world, other_ca) = (World::new(), World::new());
    let node = world.node().start().await.expect("a node");
    let (link, _control) = read_one_byte_of_welcome(&world, &node).await;
    let elsewhere = trusting(other_ca.credentials("node/edge-1"));
    assert_eq!(node.apply(elsewhere).await.expect("applied").closed, 1);
    assert_eq!(link.closed().await.0, CloseCode::TrustChanged.number());
}

/// A caller that was welcomed may close its old link at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_reports_a_callers_link_before_the_caller_gets_its_welcome() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let mut events = node.events();
    let (link, _control) = read_one_byte_of_welcome(&world, &node).await;
    let event = soon("an event", events.next()).await;
    assert!(matches!(event, Some(NodeEvent::CallerLinked { .. })), "{event:?}");
    link.connection.close(0x40_u32.into(), b"bye");
    let event = soon("an event", events.next()).await;
    assert!(matches!(event, Some(NodeEvent::CallerLeft { .. })), "{event:?}");
}

/// A raw node accepts the next link and has not sent WELCOME yet.
async fn next_hello(listener: &RawListener) -> (RawLink, RawStream) {
    let link = listener.accept().await;
    let mut control = link.accept().await;
    control.expect(kind::HELLO).await;
    (link, control)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_renewed_while_it_dials_makes_its_link_again() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let agent = Agent::builder(issuer.credentials("agent/warehouse")).node(listener.address());
    let agent = agent.start().expect("an agent");
    let (link, mut control) = next_hello(&listener).await;
    let next = issuer.credentials("agent/warehouse");
    agent.apply(trusting(next)).await.expect("applied");
    control.send(&welcome(1)).await;
    control.expect(kind::REGISTER).await;
    control.send(&registered(1)).await;
    next_hello(&listener).await;
    assert!(link.is_open(), "it was lost first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_renewed_while_it_dials_makes_its_link_again() {
    let issuer = Issuer::new();
    let listener = RawListener::bind(&issuer.credentials("node/edge-1"), Settings::default());
    let connect = Caller::connect(listener.address(), issuer.credentials("caller/ops"));
    let welcomed = async {
        let (link, mut control) = next_hello(&listener).await;
        control.send(&welcome(1)).await;
        (link, control)
    };
    let (caller, (lost, _control)) = tokio::join!(connect, welcomed);
    let caller = caller.expect("a caller");
    lost.connection.close(0x40_u32.into(), b"the node stops");
    let (link, mut control) = next_hello(&listener).await;
    caller.apply(issuer.credentials("caller/ops")).await.expect("applied");
    control.send(&welcome(1)).await;
    next_hello(&listener).await;
    assert!(link.is_open(), "it was lost first");
}

/// A program that has seen a state and subscribes from then on receives later events, not that
/// state again.
#[tokio::test(flavor = "multi_thread")]
async fn events_already_seen_are_not_reported_again() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    for round in 0..40 {
        let name = format!("agent-{round}");
        let agent = world.agent(&name, node.local_addr()).start().expect("an agent");
        let (agents_side, nodes_side) = tokio::join!(
            async {
                soon("it is registered", agent.registered(1)).await;
                agent.events()
            },
            async {
                soon("it is attached", node.agent(&name).connected()).await.expect("attached");
                node.events()
            },
        );
        let (mut agents_side, mut nodes_side) = (agents_side, nodes_side);
        agent.shutdown().await;
        let event = soon("an event", agents_side.next()).await;
        assert!(matches!(event, Some(AgentEvent::Lost { .. })), "round {round}: {event:?}");
        let event = soon("an event", nodes_side.next()).await;
        let is_later = matches!(event, Some(NodeEvent::Draining { .. } | NodeEvent::Lost { .. }));
        assert!(is_later, "round {round}: {event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_another_identity_are_refused_and_nothing_changes() {
    let setup = Setup::open().await;
    let other = |peer: &str| setup.world.credentials(peer);
    let before = setup.agent.credentials().identity().serial().to_owned();
    let of_node = setup.node.apply(trusting(other("node/edge-2"))).await;
    let of_agent = setup.agent.apply(trusting(other("caller/warehouse"))).await;
    let of_caller = setup.caller.apply(other("caller/boss")).await;
    for refused in [of_node.map(drop), of_agent.map(drop), of_caller] {
        let refused = refused.expect_err("another peer was accepted");
        let is_other =
            matches!(&refused, StartError::Credentials(CredentialsError::OtherPeer { .. }));
        assert!(is_other && refused.to_string().contains("runs here"), "{refused}");
    }
    assert_eq!(setup.agent.credentials().identity().serial(), before);
    for (_, callee) in setup.callees() {
        assert_eq!(callee.call::<String>("Stage/Note", "n").await, Ok("n".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_either_end_apply_as_soon_as_they_are_set() {
    let setup = Setup::open().await;
    let note = || {
        let callee = setup.by_caller();
        async move { callee.call::<String>("Stage/Note", "n").await }
    };
    let rules = |policy| ConfigUpdate { policy: Some(policy), ..ConfigUpdate::default() };
    assert!(note().await.is_ok());
    setup.node.apply(rules(NodePolicy::default())).await.expect("applied");
    check_status(note().await, Code::PermissionDenied, Outcome::NotExecuted);
    let allow = AllowRule::parse("ops", "warehouse", "Stage/*").expect("a rule");
    setup.node.apply(rules(NodePolicy::default().allow(allow))).await.expect("applied");
    assert!(note().await.is_ok());
    let rules = |policy| ConfigUpdate { policy: Some(policy), ..ConfigUpdate::default() };
    let strict = AgentRule::parse("edge-1", "boss", "*/*").expect("a rule");
    let strict = AgentPolicy::default().allow(strict);
    setup.agent.apply(rules(strict)).await.expect("applied");
    check_status(note().await, Code::PermissionDenied, Outcome::NotExecuted);
    setup.agent.apply(rules(AgentPolicy::default())).await.expect("applied");
    assert!(note().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_limits_apply_to_later_links() {
    let setup = Setup::with(SetupLimits::default()).await;
    let narrow = Limits { caller_links_max: 1, ..Limits::default() };
    let bounds = ConfigUpdate { limits: Some(narrow), ..ConfigUpdate::default() };
    setup.node.apply(bounds).await.expect("applied");
    let second = setup.world.caller("ops", setup.node.local_addr());
    let refused = second.connect().await.expect_err("a second link of one caller");
    assert!(refused.to_string().contains("caller_links_max"), "{refused}");
    // The agent makes another link, so that its node receives them.
    let few = Limits { calls_in_flight_max: 1, queue_max: 0, ..Limits::default() };
    let mut events = setup.agent.events();
    let bounds = ConfigUpdate { limits: Some(few), ..ConfigUpdate::default() };
    setup.agent.apply(bounds).await.expect("applied");
    drop(soon("it registers again", events.next()).await);
    until("the old link is closed", || setup.agent.retiring_links() == 0).await;
    let held = spawn(setup.by_node().call::<String>("Stage/Hold", "one").into_future());
    setup.stage.started("one").await;
    let refused = setup.by_node().call::<String>("Stage/Note", "two").await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    setup.stage.open();
    soon("the first ends", held).await.expect("answered");
}
