//! The role matrix: every kind of certificate at a node's listener, at an agent that dials and at a
//! caller that dials. Only the cells that `docs/security.md` documents are accepted.

use crate::world::{Presented, RawNode, World, attached, dial_raw, quic_client, soon};
use dialback::{
    Agent, Caller, ConnectError, CredentialPem, Credentials, LinkFault, Node, NodePolicy,
    certs::{LeafPem, LeafProfile, Usage},
};
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The three places where a certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Acceptance {
    listener: bool,
    agent: bool,
    caller: bool,
}

const NOWHERE: Acceptance = Acceptance { listener: false, agent: false, caller: false };
/// Agents and callers are accepted by a node and never accepted as a node.
const AS_A_PEER: Acceptance = Acceptance { listener: true, ..NOWHERE };
/// Nodes are accepted by every peer that dials them; nodes do not dial nodes.
const AS_A_NODE: Acceptance = Acceptance { listener: false, agent: true, caller: true };

/// The verifying peers: they are of one CA and check its CRL.
struct Verifiers {
    world: World,
    crl: String,
    node: Node,
}

impl Verifiers {
    async fn with_crl(world: World, crl: String) -> Self {
        let credentials = world.presenting(&world.leaf("node/judge"), Some(&crl));
        let node = Node::builder(credentials).listen("127.0.0.1:0").start().await;
        Self { node: node.expect("a node"), world, crl }
    }

    fn of(&self, peer: &str) -> Credentials {
        self.world.presenting(&self.world.leaf(peer), Some(&self.crl))
    }

    async fn verify(&self, presented: &LeafPem) -> Acceptance {
        let (listener, agent, caller) = tokio::join!(
            self.at_the_listener(presented),
            self.by_an_agent(presented),
            self.by_a_caller(presented)
        );
        Acceptance { listener, agent, caller }
    }

    async fn at_the_listener(&self, presented: &LeafPem) -> bool {
        let config = quic_client(&self.of("agent/any"), Presented::Leaf(presented.clone()));
        dial_raw(config, self.node.local_addr()).await.is_ok()
    }

    async fn by_an_agent(&self, presented: &LeafPem) -> bool {
        let node = RawNode::presenting(&self.of("node/any"), presented);
        let agent = Agent::builder(self.of("agent/judge")).node(node.address().to_string());
        let agent = agent.start().expect("an agent");
        let accepted = node.was_accepted().await;
        assert!(agent.nodes().is_empty(), "it says that it is registered");
        accepted
    }

    async fn by_a_caller(&self, presented: &LeafPem) -> bool {
        let node = RawNode::presenting(&self.of("node/any"), presented);
        let caller = Caller::builder(self.of("caller/judge")).node(node.address().to_string());
        let dialled = caller.connect_timeout(Duration::from_secs(30)).connect().await;
        let ConnectError::Link(fault) = dialled.expect_err("a raw node sends no WELCOME") else {
            panic!("the caller did not start")
        };
        let refused = matches!(fault, LinkFault::Handshake { is_identity: true, .. });
        assert_eq!(node.was_accepted().await, !refused, "{fault}");
        !refused
    }
}

/// A leaf with all extensions of a node's, so that only the change of the row matters.
fn node_like(world: &World, peer: &str) -> LeafProfile {
    let hosts = world.profile("node/any").hosts;
    LeafProfile { hosts, ..world.profile(peer) }
}

pub(crate) type Change = fn(&mut LeafProfile);

/// Each kind of certificate, and whether it may dial and may be dialled.
pub(crate) const KINDS: [(&str, Change, [bool; 2]); 10] = [
    ("both uses", |leaf| leaf.usages = vec![Usage::ClientAuth, Usage::ServerAuth], [true, true]),
    ("no uses, which is all of them", |leaf| leaf.usages = vec![], [true, true]),
    ("for clients only", |leaf| leaf.usages = vec![Usage::ClientAuth], [true, false]),
    ("for servers only", |leaf| leaf.usages = vec![Usage::ServerAuth], [false, true]),
    ("no role, a common name only", |leaf| leaf.uris = vec![], [false, false]),
    (
        "another trust domain",
        |leaf| leaf.uris = vec![leaf.uris[0].replace("dialback.local", "other.local")],
        [false, false],
    ),
    (
        "the name of an enroller",
        |leaf| leaf.uris = vec!["spiffe://dialback.local/enroller".into()],
        [false, false],
    ),
    ("two names", |leaf| leaf.uris.push(leaf.uris[0].replace("/x", "/y")), [false, false]),
    (
        "expired",
        |leaf| {
            leaf.not_before = SystemTime::now() - 2 * DAY;
            leaf.not_after = SystemTime::now() - DAY;
        },
        [false, false],
    ),
    (
        "not valid yet",
        |leaf| {
            leaf.not_before = SystemTime::now() + DAY;
            leaf.not_after = SystemTime::now() + 2 * DAY;
        },
        [false, false],
    ),
];

/// The places that accept a role with a certificate that may dial, may be dialled.
fn expected(peer: &str, [dials, is_dialled]: [bool; 2]) -> Acceptance {
    match peer {
        "node/x" if is_dialled => AS_A_NODE,
        "agent/x" | "caller/x" if dials => AS_A_PEER,
        _ => NOWHERE,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_documented_certificates_are_accepted_for_each_role() {
    let (world, other_ca) = (World::new(), World::new());
    let sign = |profile: &LeafProfile| world.ca().leaf(profile).expect("a leaf");
    let mut rows = vec![];
    let mut revoked = vec![];
    for peer in ["agent/x", "caller/x", "node/x"] {
        let own = if peer == "node/x" { AS_A_NODE } else { AS_A_PEER };
        rows.push((peer, "as it is issued", sign(&world.profile(peer)), own));
        for (kind, change, uses) in KINDS {
            let mut profile = node_like(&world, peer);
            change(&mut profile);
            rows.push((peer, kind, sign(&profile), expected(peer, uses)));
        }
        let foreign = other_ca.ca().leaf(&node_like(&world, peer)).expect("a leaf");
        rows.push((peer, "another CA", foreign, NOWHERE));
        let revoked_leaf = sign(&node_like(&world, peer));
        revoked.push(revoked_leaf.serial.clone());
        rows.push((peer, "revoked", revoked_leaf, NOWHERE));
    }
    let serials: Vec<&str> = revoked.iter().map(String::as_str).collect();
    let crl = world.crl(&serials);
    let verifiers = Verifiers::with_crl(world, crl).await;
    let mut wrong = vec![];
    for (peer, kind, presented, expected) in rows {
        let found = verifiers.verify(&presented).await;
        if found != expected {
            wrong.push(format!("{peer}, {kind}: {found:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(verifiers.node.agents(), []);
}

/// Derives the names of the leaf from the valid name.
type Alter = dyn Fn(&str) -> Vec<String>;

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_name_is_rejected_on_both_sides() {
    let world = World::new();
    let crl = world.crl(&[]);
    let verifiers = Verifiers::with_crl(world, crl).await;
    let world = &verifiers.world;
    let leaf = |role: &str, change: &Alter| {
        let mut profile = node_like(world, &format!("{role}/x"));
        profile.uris = change(&profile.uris[0]);
        world.ca().leaf(&profile).expect("a leaf")
    };
    let cases: [(&str, &Alter); 14] = [
        ("two URIs", &|good| vec![good.into(), good.replace("/x", "/y")]),
        ("the same URI twice", &|good| vec![good.into(), good.into()]),
        ("100 URIs", &|good| (0..100).map(|at| format!("{good}{at}")).collect()),
        ("another domain", &|good| vec![good.replace("dialback.local", "dialback.locale")]),
        ("a domain in upper case", &|good| vec![good.replace("dialback", "Dialback")]),
        ("a name in upper case", &|good| vec![good.replace("/x", "/X")]),
        ("a scheme in upper case", &|good| vec![good.replace("spiffe", "SPIFFE")]),
        ("a percent escape", &|good| vec![good.replace("/x", "/%78")]),
        ("an empty segment", &|good| vec![good.replace("/x", "//x")]),
        ("a way up", &|good| vec![good.replace("/x", "/y/../x")]),
        ("a slash at the end", &|good| vec![format!("{good}/")]),
        ("a query", &|good| vec![format!("{good}?x")]),
        ("a second name of another scheme", &|good| {
            vec![good.into(), "https://example.com".into()]
        }),
        ("a common name only", &|_| vec![]),
    ];
    for (what, change) in cases {
        assert_eq!(verifiers.verify(&leaf("agent", change)).await, NOWHERE, "an agent with {what}");
        assert_eq!(verifiers.verify(&leaf("node", change)).await, NOWHERE, "a node with {what}");
    }
    let unbent = |good: &str| vec![good.to_owned()];
    assert_eq!(verifiers.verify(&leaf("agent", &unbent)).await, AS_A_PEER);
    assert_eq!(verifiers.verify(&leaf("node", &unbent)).await, AS_A_NODE);
    // Many host names are not a fault: the URI names the peer.
    let mut many = node_like(world, "node/x");
    many.hosts.extend((0..100).map(|at| format!("host-{at}.example.com")));
    assert_eq!(verifiers.verify(&world.ca().leaf(&many).expect("a leaf")).await, AS_A_NODE);
}

/// Credentials where nodes have a separate CA.
fn apart(leaf: &LeafPem, peers: &World, nodes: &World) -> Credentials {
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: peers.ca().pem().as_bytes(),
        node_ca: Some(nodes.ca().pem().as_bytes()),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

#[tokio::test(flavor = "multi_thread")]
async fn with_separate_cas_neither_ca_can_issue_for_the_others_roles() {
    let (peers, nodes) = (World::new(), World::new());
    let of = |peer: &str| {
        let ca = if peer.starts_with("node/") { &nodes } else { &peers };
        apart(&ca.leaf(peer), &peers, &nodes)
    };
    let node = Node::builder(of("node/edge-1")).listen("127.0.0.1:0");
    let node = node.policy(NodePolicy::allow_all()).start().await.expect("a node");
    let at: SocketAddr = node.local_addr();
    attached(Agent::builder(of("agent/warehouse")).node(at.to_string())).await;
    let caller = Caller::builder(of("caller/ops")).node(at.to_string()).connect();
    soon("a caller is linked", caller).await.expect("linked");
    let shows = |leaf| dial_raw(quic_client(&of("agent/any"), Presented::Leaf(leaf)), at);
    assert!(shows(peers.leaf("agent/x")).await.is_ok());
    assert!(shows(nodes.leaf("agent/x")).await.is_err(), "the nodes' CA has issued an agent");
    for (made_by, is_believed) in [(&nodes, true), (&peers, false)] {
        let raw = RawNode::presenting(&of("node/any"), &made_by.leaf("node/edge-1"));
        let to = raw.address().to_string();
        let _agent = Agent::builder(of("agent/warehouse")).node(&to).start().expect("an agent");
        assert_eq!(raw.was_accepted().await, is_believed, "by an agent");
        let raw = RawNode::presenting(&of("node/any"), &made_by.leaf("node/edge-1"));
        let caller = Caller::builder(of("caller/ops")).node(raw.address().to_string());
        assert!(caller.connect().await.is_err(), "a raw node welcomes nobody");
        assert_eq!(raw.was_accepted().await, is_believed, "by a caller");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_accepts_leafs_of_both_cas_during_a_change() {
    let (old, new) = (World::new(), World::new());
    let bundle = format!("{}{}", old.ca().pem(), new.ca().pem());
    let of = |world: &World, peer: &str| {
        let leaf = world.leaf(peer);
        let pem = CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: bundle.as_bytes(),
            ..CredentialPem::default()
        };
        Credentials::from_pem(&pem).expect("credentials")
    };
    for node_of in [&old, &new] {
        let node = Node::builder(of(node_of, "node/edge-1")).listen("127.0.0.1:0");
        let node = node.start().await.expect("a node");
        let at = node.local_addr().to_string();
        for (world, name) in [(&old, "agent/old"), (&new, "agent/new")] {
            attached(Agent::builder(of(world, name)).node(&at)).await;
        }
        // A peer with only the old CA can link as long as the node's own leaf is of it.
        let behind = Caller::builder(old.credentials("caller/ops")).node(&at).connect().await;
        assert_eq!(behind.is_ok(), std::ptr::eq(node_of, &raw const old));
    }
}
