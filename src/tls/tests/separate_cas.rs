//! Nodes of one CA, agents and callers of another: each CA vouches for its own and for nobody else.

use super::*;
use crate::tls::CrlScope;

/// A CA of agents and callers, and one of nodes.
struct Apart {
    parties: Ca,
    nodes: Ca,
}

impl Apart {
    fn new() -> Self {
        Self { parties: ca(), nodes: ca() }
    }

    fn load(&self, leaf: &LeafPem, crl: Option<&str>) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(&CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: self.parties.pem().as_bytes(),
            node_ca: Some(self.nodes.pem().as_bytes()),
            crl: crl.map(str::as_bytes),
            crl_scope: CrlScope::Leaf,
        })
    }

    /// A peer in its place: of the CA that it should be of.
    fn peer(&self, party: &str) -> Peer {
        let ca = if party.starts_with("node/") { &self.nodes } else { &self.parties };
        let leaf = signed(ca, &profile(ca, party));
        Peer::of(&self.load(&leaf, None).expect("loaded"))
    }

    /// A peer that believes the same and shows a leaf of the CA named.
    fn showing(&self, ca: &Ca, party: &str) -> Peer {
        let shown = Peer::showing(ca, &signed(ca, &profile(ca, party)));
        let mut peer = self.peer("node/any");
        peer.client.client_auth_cert_resolver = shown.client.client_auth_cert_resolver;
        peer.server.cert_resolver = shown.server.cert_resolver;
        peer
    }
}

#[test]
fn each_role_is_believed_when_its_own_ca_has_signed_it_and_not_when_the_other_has() {
    let apart = Apart::new();
    for party in ["agent/warehouse", "caller/ops", "node/edge-2"] {
        accepted(apart.peer(party), apart.peer("node/edge-1"));
        let (own, other) = match party.starts_with("node/") {
            true => (&apart.nodes, &apart.parties),
            false => (&apart.parties, &apart.nodes),
        };
        accepted(apart.showing(own, party), apart.peer("node/edge-1"));
        let false_party = apart.showing(other, party);
        refused(false_party, apart.peer("node/edge-1"), Side::Accepting, "of no CA");
    }
    accepted(apart.peer("agent/warehouse"), apart.showing(&apart.nodes, "node/edge-1"));
    let false_node = apart.showing(&apart.parties, "node/edge-1");
    refused(apart.peer("agent/warehouse"), false_node, Side::Dialling, "of no CA");
    let false_node = apart.showing(&apart.parties, "node/edge-1");
    refused(apart.peer("caller/ops"), false_node, Side::Dialling, "of no CA");
}

#[test]
fn one_bundle_of_both_cas_would_believe_a_node_of_either() {
    let Apart { parties, nodes } = Apart::new();
    let bundle = format!("{}{}", parties.pem(), nodes.pem());
    let peer = |ca: &Ca, party| {
        Peer::of(&load(&signed(ca, &profile(ca, party)), &bundle, None).expect("loaded"))
    };
    for ca in [&parties, &nodes] {
        accepted(peer(&parties, "agent/warehouse"), peer(ca, "node/edge-1"));
    }
}

#[test]
fn a_leaf_that_the_cas_of_its_role_did_not_sign_does_not_load() {
    let apart = Apart::new();
    for party in ["agent/warehouse", "caller/ops", "node/edge-1"] {
        let leaf = |ca: &Ca| signed(ca, &profile(ca, party));
        let is_node = party.starts_with("node/");
        let (own, other, bundle) = match is_node {
            true => (&apart.nodes, &apart.parties, "nodes' CA"),
            false => (&apart.parties, &apart.nodes, "the CA text"),
        };
        assert!(apart.load(&leaf(own), None).is_ok());
        let told = apart.load(&leaf(other), None).expect_err("refused").to_string();
        assert!(told.contains(bundle) && told.contains("in each other's place"), "{told}");
    }
    let leaf = signed(&apart.parties, &profile(&apart.parties, "agent/warehouse"));
    let with = |node_ca: &str| {
        let told = Credentials::from_pem(&CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: apart.parties.pem().as_bytes(),
            node_ca: Some(node_ca.as_bytes()),
            ..CredentialPem::default()
        });
        told.map_err(|error| error.to_string())
    };
    assert!(with("").expect_err("refused").contains("the text of the nodes' CA"));
    assert!(with(&leaf.cert).expect_err("refused").contains("no CA"));
    let both = format!("{}{}", apart.parties.pem(), apart.nodes.pem());
    assert!(with(&both).is_ok(), "one CA may stand in both, while they are taken apart");
}

/// A node's own leaf may be good for the accepting side alone: other tools make such ones.
#[test]
fn a_nodes_leaf_for_servers_only_loads() {
    let apart = Apart::new();
    let mut only = profile(&apart.nodes, "node/edge-1");
    only.usages = vec![Usage::ServerAuth];
    assert!(apart.load(&signed(&apart.nodes, &only), None).is_ok());
}

#[test]
fn lists_of_both_cas_are_minded_and_a_ca_without_a_list_lets_nobody_in() {
    let (apart, now) = (Apart::new(), SystemTime::now());
    let list = |ca: &Ca, serials: &[&str]| {
        let entry = |serial: &&str| RevokedSerial { serial: (*serial).into(), since: now };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        ca.crl(&entries, 1, now, now + DAY).expect("signed")
    };
    let agent = signed(&apart.parties, &profile(&apart.parties, "agent/warehouse"));
    let node = signed(&apart.nodes, &profile(&apart.nodes, "node/edge-1"));
    let minding =
        |leaf: &LeafPem, lists: &str| Peer::of(&apart.load(leaf, Some(lists)).expect("loaded"));
    let (clean_parties, clean_nodes) = (list(&apart.parties, &[]), list(&apart.nodes, &[]));
    let both = format!("{clean_parties}{clean_nodes}");
    accepted(minding(&agent, &both), minding(&node, &both));
    let without_agent = format!("{clean_nodes}{}", list(&apart.parties, &[&agent.serial]));
    refused(minding(&agent, &both), minding(&node, &without_agent), Side::Accepting, "revoked");
    let without_node = format!("{clean_parties}{}", list(&apart.nodes, &[&node.serial]));
    refused(minding(&agent, &without_node), minding(&node, &both), Side::Dialling, "revoked");
    for (agents_lists, nodes_lists, by) in
        [(&both, &clean_nodes, Side::Accepting), (&clean_parties, &both, Side::Dialling)]
    {
        let met = meet(minding(&agent, agents_lists), minding(&node, nodes_lists));
        let refusal = met.err().expect("a refusal");
        assert_eq!(refusal.by, by);
        assert!(
            refusal.ours.reason.contains("no revocation list of our side covers"),
            "{refusal:?}"
        );
    }
}
