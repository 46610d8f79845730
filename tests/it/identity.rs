//! Authentication of peers: every rejected certificate is tested next to an accepted one that
//! differs only in that point.

use crate::world::{
    Presented, RawNode, SilentPort, TicketStore, World, attached, check_status, dial_early,
    dial_raw, logged, quic_client, soon, start_at,
};
use dialback::{
    ALPN, Agent, Caller, CloseCode, Code, ConnectError, LinkFault, Node, Outcome, StartError,
    certs::{LeafProfile, Usage},
};
use quinn::ConnectionError;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The TLS alert that ended a handshake: RFC 8446 section 6.
fn alert(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code) - 0x100),
        ConnectionError::TransportError(error) => Some(u64::from(error.code) - 0x100),
        _ => None,
    }
}

const BAD_CERTIFICATE: u64 = 42;
const UNSUPPORTED_CERTIFICATE: u64 = 43;
const CERTIFICATE_EXPIRED: u64 = 45;
const CERTIFICATE_UNKNOWN: u64 = 46;
const UNKNOWN_CA: u64 = 48;
const ACCESS_DENIED: u64 = 49;
const CERTIFICATE_REQUIRED: u64 = 116;

fn expired(profile: &mut LeafProfile) {
    profile.not_before = SystemTime::now() - 2 * DAY;
    profile.not_after = SystemTime::now() - DAY;
}

fn not_yet_valid(profile: &mut LeafProfile) {
    profile.not_before = SystemTime::now() + DAY;
    profile.not_after = SystemTime::now() + 2 * DAY;
}

fn other_domain(profile: &mut LeafProfile) {
    profile.uris = vec![profile.uris[0].replace("dialback.local", "other.local")];
}

fn two_names(profile: &mut LeafProfile) {
    profile.uris.push(profile.uris[0].replace("warehouse", "boss"));
}

fn for_servers_only(profile: &mut LeafProfile) {
    profile.usages = vec![Usage::ServerAuth];
}

/// A leaf for a peer, changed in one point.
fn changed(world: &World, peer: &str, change: fn(&mut LeafProfile)) -> Presented {
    let mut profile = world.profile(peer);
    change(&mut profile);
    Presented::Leaf(world.ca().leaf(&profile).expect("a leaf"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_accepts_a_good_certificate_and_rejects_every_other() {
    let (world, other_ca) = (World::new(), World::new());
    let node = world.node().start().await.expect("a node");
    let good = world.credentials("agent/warehouse");
    let dial = |presented| dial_raw(quic_client(&good, presented), node.local_addr());
    let cases: [(&str, Presented, &[u64]); 7] = [
        ("no certificate", Presented::Nothing, &[CERTIFICATE_REQUIRED]),
        ("another CA", Presented::Leaf(other_ca.leaf("agent/warehouse")), &[UNKNOWN_CA]),
        ("expired", changed(&world, "agent/warehouse", expired), &[CERTIFICATE_EXPIRED]),
        ("early", changed(&world, "agent/warehouse", not_yet_valid), &[CERTIFICATE_EXPIRED]),
        (
            "another trust domain",
            changed(&world, "agent/warehouse", other_domain),
            &[CERTIFICATE_UNKNOWN, ACCESS_DENIED],
        ),
        (
            "two names",
            changed(&world, "agent/warehouse", two_names),
            &[CERTIFICATE_UNKNOWN, ACCESS_DENIED],
        ),
        (
            "not for clients",
            changed(&world, "agent/warehouse", for_servers_only),
            &[BAD_CERTIFICATE, UNSUPPORTED_CERTIFICATE],
        ),
    ];
    for (what, presented, alerts) in cases {
        let error = dial(presented).await.err().unwrap_or_else(|| panic!("{what}: was accepted"));
        assert!(alert(&error).is_some_and(|alert| alerts.contains(&alert)), "{what}: {error:?}");
        assert!(dial(changed(&world, "agent/warehouse", |_| ())).await.is_ok(), "next to {what}");
    }
    assert_eq!(node.agents(), [], "an unregistered agent is in the registry");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_agents_certificate_may_register() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let dial = |peer| {
        let good = world.credentials(peer);
        dial_raw(quic_client(&good, Presented::Leaf(world.leaf(peer))), node.local_addr())
    };
    let code_of = |error| match error {
        ConnectionError::ApplicationClosed(close) => {
            CloseCode::from_number(close.error_code.into_inner())
        }
        _ => None,
    };
    let mut caller = dial("caller/warehouse").await.expect("the caller is welcomed");
    assert!(!caller.register().await, "a caller has registered");
    assert_eq!(code_of(caller.ended().await), Some(CloseCode::Protocol));
    let refused = dial("node/warehouse").await.err().expect("a node was welcomed");
    assert_eq!(code_of(refused), Some(CloseCode::Unauthorized));
    assert_eq!(node.agents(), []);
    let mut agent = dial("agent/warehouse").await.expect("the agent is welcomed");
    assert!(agent.register().await, "an agent was refused");
    assert_eq!(node.agents().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_starts_only_with_a_certificate_of_its_own_role() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr().to_string();
    for peer in ["node/a", "agent/a", "caller/a"] {
        let credentials = || world.credentials(peer);
        let as_node = Node::builder(credentials()).listen("127.0.0.1:0").start().await;
        let as_agent = Agent::builder(credentials()).node(&at).start();
        let as_caller = Caller::builder(credentials()).node(&at).connect().await;
        let is_wrong = |error: &StartError| matches!(error, StartError::Credentials(_));
        assert!(as_node.as_ref().map_or_else(is_wrong, |_| peer == "node/a"));
        assert!(as_agent.as_ref().map_or_else(is_wrong, |_| peer == "agent/a"));
        let as_caller = match as_caller {
            Ok(_) => peer == "caller/a",
            Err(error) => peer != "caller/a" && matches!(error, ConnectError::Start(_)),
        };
        assert!(as_caller, "{peer} as a caller");
    }
}

/// The result of a caller that dials a listener with this leaf.
async fn met(world: &World, leaf: &Presented) -> LinkFault {
    let Presented::Leaf(leaf) = leaf else { panic!("a node shows something") };
    let node = RawNode::presenting(&world.credentials("node/good"), leaf);
    match world.caller("ops", node.address()).connect().await.expect_err("it never sends WELCOME") {
        ConnectError::Link(fault) => fault,
        error => panic!("{error}"),
    }
}

/// The raw node closes every accepted link with a code that no failed handshake has.
fn was_accepted(fault: &LinkFault) -> bool {
    matches!(fault, LinkFault::Closed { code: CloseCode::Unauthorized, by_peer: true, .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dialling_side_accepts_only_a_nodes_certificate() {
    let (world, other_ca) = (World::new(), World::new());
    // Host names and key usage of a node: only the role in the name differs.
    let posing = |peer: &str| {
        let uris = world.profile(peer).uris;
        let profile = LeafProfile { uris, ..world.profile("node/edge-1") };
        Presented::Leaf(world.ca().leaf(&profile).expect("a leaf"))
    };
    let cases = [
        ("an agent's role", posing("agent/edge-1")),
        ("a caller's role", posing("caller/edge-1")),
        ("another CA", Presented::Leaf(other_ca.leaf("node/edge-1"))),
        ("expired", changed(&world, "node/edge-1", expired)),
        ("early", changed(&world, "node/edge-1", not_yet_valid)),
        ("another trust domain", changed(&world, "node/edge-1", other_domain)),
        (
            "another host",
            changed(&world, "node/edge-1", |profile| profile.hosts = vec!["127.0.0.2".into()]),
        ),
        ("no host", changed(&world, "node/edge-1", |profile| profile.hosts = vec![])),
        (
            "not for servers",
            changed(&world, "node/edge-1", |profile| profile.usages = vec![Usage::ClientAuth]),
        ),
    ];
    for (what, presented) in cases {
        let fault = met(&world, &presented).await;
        assert!(matches!(fault, LinkFault::Handshake { is_identity: true, .. }), "{what}: {fault}");
        let status = ConnectError::Link(fault).to_status();
        check_status::<()>(Err(status), Code::Unauthenticated, Outcome::NotExecuted);
    }
    for counterpart in [posing("node/edge-1"), changed(&world, "node/edge-1", |_| ())] {
        let fault = met(&world, &counterpart).await;
        assert!(was_accepted(&fault), "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_agent_logs_the_reason_and_never_registers() {
    let (world, other_ca) = (World::new(), World::new());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    // It trusts our CA, so that only the node rejects; in the other case it rejects the node.
    let leaf = other_ca.leaf("agent/warehouse");
    let refused = dialback::CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: world.ca().pem().as_bytes(),
        ..dialback::CredentialPem::default()
    };
    let refused = dialback::Credentials::from_pem(&refused).expect("they load");
    let refused = Agent::builder(refused).node(at.to_string()).start().expect("an agent");
    let refusing = other_ca.agent("warehouse", at).start().expect("an agent");
    let port = at.port().to_string();
    let line = logged(&["refused: node", &port, "our certificate"]).await;
    assert!(line.contains("CA") && line.contains("retrying in 1"), "{line}");
    let line = logged(&["refused: node", &port, "the peer's certificate"]).await;
    assert!(line.contains("CA"), "{line}");
    assert_eq!((refused.nodes(), refusing.nodes(), node.agents()), (vec![], vec![], vec![]));
    let good = attached(world.agent("warehouse", at)).await;
    assert_eq!((good.nodes().len(), node.agents().len()), (1, 1));
    assert_eq!((refused.nodes(), refusing.nodes()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_name_is_not_in_its_certificate_is_rejected() {
    let world = World::new();
    for (listens, dialled, is_named) in [
        ("127.0.0.1", "localhost", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.2", "127.0.0.2", false),
    ] {
        let node = world.node().listen(format!("{listens}:0")).start().await.expect("a node");
        let address = format!("{dialled}:{}", node.local_addr().port());
        match Caller::connect(address, world.credentials("caller/ops")).await {
            Ok(_) => assert!(is_named, "{dialled} was accepted"),
            Err(error) => {
                assert!(!is_named && error.to_string().contains("host name"), "{dialled}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_a_rejected_link_is_unauthenticated_and_not_executed() {
    let (world, other_ca) = (World::new(), World::new());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let absent = callee.call::<()>("Any/Thing", &()).await;
    check_status(absent, Code::Unavailable, Outcome::NotExecuted);
    soon("the node stops", node.shutdown()).await;
    let _other = start_at(at, || other_ca.node()).await;
    let refused = callee.call::<()>("Any/Thing", &()).timeout(Duration::from_secs(40)).await;
    check_status(refused, Code::Unauthenticated, Outcome::NotExecuted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_issues_no_ticket_that_would_skip_verification() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let good = world.credentials("agent/warehouse");
    let tickets = TicketStore::new();
    let mut config = quic_client(&good, Presented::Leaf(world.leaf("agent/warehouse")));
    config.resumption = tickets.resumption();
    config.enable_early_data = true;
    for _ in 0..2 {
        assert!(dial_raw(config.clone(), node.local_addr()).await.is_ok());
    }
    assert_eq!(tickets.stored(), 0, "the node issued tickets");
    // A server that issues tickets fills the same store.
    let mut giving = world.credentials("node/edge-1").accepting_config(ALPN).expect("a config");
    giving.send_tls13_tickets = 2;
    giving.session_storage = TicketStore::new();
    let giving = RawNode::start(giving);
    assert!(dial_raw(config, giving.address()).await.is_err());
    assert!(tickets.stored() > 0, "the store accepts no tickets");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_accepts_no_early_data_even_from_a_peer_with_a_ticket() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let good = world.credentials("agent/warehouse");
    let mut config = quic_client(&good, Presented::Leaf(world.leaf("agent/warehouse")));
    config.resumption = TicketStore::new().resumption();
    config.enable_early_data = true;
    assert_eq!(dial_early(config.clone(), node.local_addr()).await, None, "without a ticket");
    let mut giving = world.credentials("node/edge-1").accepting_config(ALPN).expect("a config");
    giving.send_tls13_tickets = 4;
    giving.session_storage = TicketStore::new();
    giving.max_early_data_size = u32::MAX;
    let giving = RawNode::start(giving);
    assert!(dial_raw(config.clone(), giving.address()).await.is_err());
    assert_eq!(
        dial_early(config.clone(), giving.address()).await,
        Some(true),
        "a server accepts it"
    );
    assert_eq!(dial_early(config.clone(), node.local_addr()).await, Some(false));
    assert!(dial_raw(config, node.local_addr()).await.is_ok(), "a full handshake is accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dialling_side_never_offers_to_resume() {
    let world = World::new();
    let sessions = TicketStore::new();
    let mut giving = world.credentials("node/edge-1").accepting_config(ALPN).expect("a config");
    giving.send_tls13_tickets = 2;
    giving.session_storage = sessions.clone();
    let giving = RawNode::start(giving);
    let ours = world.credentials("caller/ops").dialling_config(ALPN).expect("a config");
    for _ in 0..2 {
        assert!(dial_raw(ours.clone(), giving.address()).await.is_err());
    }
    assert!(sessions.stored() > 0, "the server issued no tickets");
    assert_eq!(sessions.offered(), 0, "our side offered a ticket");
    let mut resuming = ours;
    resuming.resumption = TicketStore::new().resumption();
    for _ in 0..2 {
        assert!(dial_raw(resuming.clone(), giving.address()).await.is_err());
    }
    assert!(sessions.offered() > 0, "the server would not have noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_port_is_not_reported_as_a_rejection() {
    let (world, port) = (World::new(), SilentPort::take());
    let caller = world.caller("ops", port.address()).connect_timeout(Duration::from_millis(300));
    let error = caller.connect().await.expect_err("no node listens there");
    check_status::<()>(Err(error.to_status()), Code::Unavailable, Outcome::NotExecuted);
}
