//! Tests of separate CAs for nodes and for agents and callers: each CA is trusted only for its own
//! roles.

use super::*;
use crate::tls::CrlScope;

/// A CA of agents and callers, and one of nodes.
struct SeparateCas {
    clients: Ca,
    nodes: Ca,
}

impl SeparateCas {
    fn new() -> Self {
        Self { clients: ca(), nodes: ca() }
    }

    fn load(&self, leaf: &LeafPem, crl: Option<&str>) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(&CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: self.clients.pem().as_bytes(),
            node_ca: Some(self.nodes.pem().as_bytes()),
            crl: crl.map(str::as_bytes),
            crl_scope: CrlScope::Leaf,
        })
    }

    /// A peer with a leaf of the CA of its role.
    fn peer(&self, peer: &str) -> Peer {
        let ca = if peer.starts_with("node/") { &self.nodes } else { &self.clients };
        let leaf = signed(ca, &profile(ca, peer));
        Peer::of(&self.load(&leaf, None).expect("loaded"))
    }

    /// A peer that trusts the same and shows a leaf of the CA named.
    fn showing(&self, ca: &Ca, peer: &str) -> Peer {
        let shown = Peer::showing(ca, &signed(ca, &profile(ca, peer)));
        let mut peer = self.peer("node/any");
        peer.client.client_auth_cert_resolver = shown.client.client_auth_cert_resolver;
        peer.server.cert_resolver = shown.server.cert_resolver;
        peer
    }
}

#[test]
fn each_role_is_accepted_only_with_a_leaf_of_its_own_ca() {
    let separate = SeparateCas::new();
    for peer in ["agent/warehouse", "caller/ops", "node/edge-2"] {
        accepted(separate.peer(peer), separate.peer("node/edge-1"));
        let (own, other) = match peer.starts_with("node/") {
            true => (&separate.nodes, &separate.clients),
            false => (&separate.clients, &separate.nodes),
        };
        accepted(separate.showing(own, peer), separate.peer("node/edge-1"));
        let false_client = separate.showing(other, peer);
        refused(false_client, separate.peer("node/edge-1"), Side::Accepting, "unknown CA");
    }
    accepted(separate.peer("agent/warehouse"), separate.showing(&separate.nodes, "node/edge-1"));
    let false_node = separate.showing(&separate.clients, "node/edge-1");
    refused(separate.peer("agent/warehouse"), false_node, Side::Dialling, "unknown CA");
    let false_node = separate.showing(&separate.clients, "node/edge-1");
    refused(separate.peer("caller/ops"), false_node, Side::Dialling, "unknown CA");
}

#[test]
fn one_bundle_of_both_cas_accepts_a_node_of_either() {
    let SeparateCas { clients, nodes } = SeparateCas::new();
    let bundle = format!("{}{}", clients.pem(), nodes.pem());
    let peer = |ca: &Ca, peer| {
        Peer::of(&load(&signed(ca, &profile(ca, peer)), &bundle, None).expect("loaded"))
    };
    for ca in [&clients, &nodes] {
        accepted(peer(&clients, "agent/warehouse"), peer(ca, "node/edge-1"));
    }
}

#[test]
fn a_leaf_that_the_cas_of_its_role_did_not_sign_does_not_load() {
    let separate = SeparateCas::new();
    for peer in ["agent/warehouse", "caller/ops", "node/edge-1"] {
        let leaf = |ca: &Ca| signed(ca, &profile(ca, peer));
        let is_node = peer.starts_with("node/");
        let (own, other, bundle) = match is_node {
            true => (&separate.nodes, &separate.clients, "nodes' CA"),
            false => (&separate.clients, &separate.nodes, "the CA text"),
        };
        assert!(separate.load(&leaf(own), None).is_ok());
        let message = separate.load(&leaf(other), None).expect_err("refused").to_string();
        assert!(message.contains(bundle) && message.contains("swapped"), "{message}");
    }
    let leaf = signed(&separate.clients, &profile(&separate.clients, "agent/warehouse"));
    let with = |node_ca: &str| {
        let message = Credentials::from_pem(&CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: separate.clients.pem().as_bytes(),
            node_ca: Some(node_ca.as_bytes()),
            ..CredentialPem::default()
        });
        message.map_err(|error| error.to_string())
    };
    assert!(with("").expect_err("refused").contains("the text of the nodes' CA"));
    assert!(with(&leaf.cert).expect_err("refused").contains("not a CA"));
    let both = format!("{}{}", separate.clients.pem(), separate.nodes.pem());
    assert!(with(&both).is_ok(), "one CA may stand in both, while they are taken apart");
}

/// A node's own leaf may be good for the accepting side alone: other tools make such ones.
#[test]
fn a_nodes_leaf_for_servers_only_loads() {
    let separate = SeparateCas::new();
    let mut only = profile(&separate.nodes, "node/edge-1");
    only.usages = vec![Usage::ServerAuth];
    assert!(separate.load(&signed(&separate.nodes, &only), None).is_ok());
}

#[test]
fn lists_of_both_cas_are_checked_and_a_ca_without_a_list_admits_no_peer() {
    let (separate, now) = (SeparateCas::new(), SystemTime::now());
    let list = |ca: &Ca, serials: &[&str]| {
        let entry = |serial: &&str| RevokedSerial { serial: (*serial).into(), since: now };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        ca.crl(&entries, 1, now, now + DAY).expect("signed")
    };
    let agent = signed(&separate.clients, &profile(&separate.clients, "agent/warehouse"));
    let node = signed(&separate.nodes, &profile(&separate.nodes, "node/edge-1"));
    let checking =
        |leaf: &LeafPem, lists: &str| Peer::of(&separate.load(leaf, Some(lists)).expect("loaded"));
    let (clean_clients, clean_nodes) = (list(&separate.clients, &[]), list(&separate.nodes, &[]));
    let both = format!("{clean_clients}{clean_nodes}");
    accepted(checking(&agent, &both), checking(&node, &both));
    let without_agent = format!("{clean_nodes}{}", list(&separate.clients, &[&agent.serial]));
    refused(checking(&agent, &both), checking(&node, &without_agent), Side::Accepting, "revoked");
    let without_node = format!("{clean_clients}{}", list(&separate.nodes, &[&node.serial]));
    refused(checking(&agent, &without_node), checking(&node, &both), Side::Dialling, "revoked");
    for (agents_lists, nodes_lists, by) in
        [(&both, &clean_nodes, Side::Accepting), (&clean_clients, &both, Side::Dialling)]
    {
        let met = meet(checking(&agent, agents_lists), checking(&node, nodes_lists));
        let refusal = met.err().expect("a refusal");
        assert_eq!(refusal.by, by);
        assert!(refusal.ours.reason.contains("no revocation list here covers"), "{refusal:?}");
    }
}
