//! Tests of TLS handshakes in memory: the peers that each side accepts and refuses, always in
//! pairs.

mod chains;
#[cfg(all(test, feature = "gateway"))]
mod host_certificates;
mod separate_cas;

use super::explain::Explanation;
use super::{
    CertificateInfo, CredentialPem, Credentials, CredentialsError, Identity, RejectedBy,
    RevokedSerial, crypto, explain,
};
use crate::{
    certs::{Ca, LeafPem, LeafProfile, Usage},
    name::{PeerName, Role},
};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, ProtocolVersion, ServerConfig,
    ServerConnection,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

const ALPN: &[u8] = b"dialback/1";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn ca() -> Ca {
    Ca::generate("dialback.local", SystemTime::now()).expect("a CA")
}

/// A good leaf of a peer; nodes are called localhost.
fn profile(ca: &Ca, peer: &str) -> LeafProfile {
    let peer: PeerName = peer.parse().expect("a peer");
    let hosts: &[&str] = if peer.role == Role::Node { &["localhost", "127.0.0.1"] } else { &[] };
    LeafProfile::new(ca.trust_domain(), &peer, hosts, SystemTime::now())
}

fn signed(ca: &Ca, profile: &LeafProfile) -> LeafPem {
    ca.leaf(profile).expect("signed")
}

fn load(leaf: &LeafPem, ca: &str, crl: Option<&str>) -> Result<Credentials, CredentialsError> {
    Credentials::from_pem(&CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.as_bytes(),
        crl: crl.map(str::as_bytes),
        ..CredentialPem::default()
    })
}

fn credentials(ca: &Ca, peer: &str) -> Credentials {
    load(&signed(ca, &profile(ca, peer)), ca.pem(), None).expect("loaded")
}

/// A peer that shows any `leaf`: `Credentials` would refuse to load some of them.
struct Peer {
    client: ClientConfig,
    server: ServerConfig,
}

impl Peer {
    fn of(credentials: &Credentials) -> Self {
        let client = credentials.dialling_config(ALPN).expect("a config");
        let server = credentials.accepting_config(ALPN).expect("a config");
        Self { client, server }
    }

    fn showing(ca: &Ca, leaf: &LeafPem) -> Self {
        let mut peer = Self::of(&credentials(ca, "node/any"));
        let cert = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).expect("a key");
        let own = CertifiedKey::from_der(vec![cert], key, &crypto::provider()).expect("a pair");
        let shown = Arc::new(SingleCertAndKey::from(own));
        peer.client.client_auth_cert_resolver = shown.clone();
        peer.server.cert_resolver = shown;
        peer
    }

    fn odd(ca: &Ca, peer: &str, change: impl FnOnce(&mut LeafProfile)) -> Self {
        let mut profile = profile(ca, peer);
        change(&mut profile);
        Self::showing(ca, &signed(ca, &profile))
    }

    fn agent(ca: &Ca) -> Self {
        Self::of(&credentials(ca, "agent/warehouse"))
    }

    fn node(ca: &Ca) -> Self {
        Self::of(&credentials(ca, "node/edge-1"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Dialling,
    Accepting,
}

/// The side that rejected, and the explanations of both. The other side receives only the alert.
#[derive(Debug)]
struct Refusal {
    by: Side,
    ours: Explanation,
    theirs: Explanation,
}

struct Met {
    dialling: Connection,
    accepting: Connection,
}

fn meet(agent: Peer, node: Peer) -> Result<Met, Refusal> {
    meet_at("localhost", agent, node)
}

fn meet_at(host: &'static str, agent: Peer, node: Peer) -> Result<Met, Refusal> {
    let host = host.try_into().expect("a host");
    let dialling = ClientConnection::new(agent.client.into(), host).expect("a connection");
    let accepting = ServerConnection::new(node.server.into()).expect("a connection");
    let mut met = Met { dialling: dialling.into(), accepting: accepting.into() };
    for _ in 0..8 {
        hand_over(&mut met.dialling, &mut met.accepting)
            .map_err(|error| refusal(Side::Accepting, &error, &mut met))?;
        hand_over(&mut met.accepting, &mut met.dialling)
            .map_err(|error| refusal(Side::Dialling, &error, &mut met))?;
    }
    assert!(!met.dialling.is_handshaking() && !met.accepting.is_handshaking());
    Ok(met)
}

fn hand_over(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
    let mut bytes = vec![];
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("written to memory");
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("read from memory");
        to.process_new_packets()?;
    }
    Ok(())
}

fn refusal(by: Side, error: &Error, met: &mut Met) -> Refusal {
    let message = match by {
        Side::Accepting => hand_over(&mut met.accepting, &mut met.dialling),
        Side::Dialling => hand_over(&mut met.dialling, &mut met.accepting),
    };
    let Err(Error::AlertReceived(alert)) = message else {
        panic!("{error} was not told: {message:?}")
    };
    let alert = u8::from(alert);
    let ours = explain(RejectedBy::Us, alert, &error.to_string());
    let theirs = explain(RejectedBy::Peer, alert, "");
    Refusal { by, ours, theirs }
}

#[track_caller]
fn accepted(agent: Peer, node: Peer) -> Met {
    meet(agent, node).unwrap_or_else(|refusal| panic!("refused: {refusal:?}"))
}

/// Checks the side that refuses, the class identity, and that both explanations contain the text.
#[track_caller]
fn refused(agent: Peer, node: Peer, by: Side, word: &str) -> Refusal {
    let refusal = meet(agent, node).err().expect("a refusal");
    assert_eq!(refusal.by, by, "{refusal:?}");
    assert!(refusal.ours.is_identity && refusal.theirs.is_identity, "{refusal:?}");
    for explanation in [&refusal.ours, &refusal.theirs] {
        let texts = [&explanation.reason, explanation.remedy];
        assert!(texts.concat().contains(word), "{explanation:?} does not say {word:?}");
    }
    refusal
}

#[test]
fn agents_callers_and_nodes_are_accepted_and_identified_by_their_leafs() {
    let ca = ca();
    for peer in ["agent/warehouse", "caller/ops", "node/edge-2"] {
        let met = accepted(Peer::of(&credentials(&ca, peer)), Peer::node(&ca));
        let chain = met.accepting.peer_certificates().expect("a chain");
        let identity = Identity::from_verified_chain(chain, "dialback.local").expect("a peer");
        assert_eq!(identity.peer_name().to_string(), peer);
        assert!(Identity::from_verified_chain(chain, "acme.example").is_err());
        assert_eq!(met.accepting.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(met.dialling.alpn_protocol(), Some(ALPN));
    }
}

#[test]
fn a_peer_without_a_certificate_is_refused() {
    let ca = ca();
    let mut bare = Peer::agent(&ca);
    bare.client.client_auth_cert_resolver = Arc::new(Nothing);
    refused(bare, Peer::node(&ca), Side::Accepting, "no certificate was shown");
    accepted(Peer::agent(&ca), Peer::node(&ca));
}

#[derive(Debug)]
struct Nothing;

impl rustls::client::ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn a_leaf_of_another_ca_is_refused_on_both_sides() {
    let [ca, other] = [ca(), ca()];
    let foreign_leaf = || signed(&other, &profile(&other, "agent/warehouse"));
    refused(Peer::showing(&ca, &foreign_leaf()), Peer::node(&ca), Side::Accepting, "unknown CA");
    let false_node = signed(&other, &profile(&other, "node/edge-1"));
    refused(Peer::agent(&ca), Peer::showing(&ca, &false_node), Side::Dialling, "unknown CA");
    accepted(Peer::agent(&ca), Peer::node(&ca));
}

#[test]
fn a_bundle_of_two_cas_accepts_leafs_of_both() {
    let (old, new) = (ca(), ca());
    let bundle = format!("{}{}", old.pem(), new.pem());
    for signer in [&old, &new] {
        let node = signed(&old, &profile(&old, "node/edge-1"));
        let agent = signed(signer, &profile(signer, "agent/warehouse"));
        let node = Peer::of(&load(&node, &bundle, None).expect("loaded"));
        accepted(Peer::of(&load(&agent, &bundle, None).expect("loaded")), node);
    }
}

#[test]
fn an_expired_leaf_is_refused_on_both_sides() {
    let ca = ca();
    let expired = |peer| {
        Peer::odd(&ca, peer, |leaf| {
            leaf.not_before -= 9 * DAY;
            leaf.not_after = SystemTime::now() - DAY;
        })
    };
    refused(expired("agent/warehouse"), Peer::node(&ca), Side::Accepting, "expired");
    refused(Peer::agent(&ca), expired("node/edge-1"), Side::Dialling, "expired");
    accepted(Peer::odd(&ca, "agent/warehouse", |_| ()), Peer::odd(&ca, "node/edge-1", |_| ()));
}

#[test]
fn a_leaf_that_is_not_valid_yet_is_refused_and_the_clock_is_named() {
    let ca = ca();
    let early = |peer| Peer::odd(&ca, peer, |leaf| leaf.not_before = SystemTime::now() + DAY);
    let refusal = refused(early("agent/warehouse"), Peer::node(&ca), Side::Accepting, "clock");
    assert!(refusal.ours.reason.contains("not valid yet"), "{refusal:?}");
    refused(Peer::agent(&ca), early("node/edge-1"), Side::Dialling, "clock");
}

#[test]
fn a_revoked_leaf_is_refused_on_both_sides_and_others_are_not() {
    let ca = ca();
    let (agent, node) = (profile(&ca, "agent/warehouse"), profile(&ca, "node/edge-1"));
    let (agent, node) = (signed(&ca, &agent), signed(&ca, &node));
    let (good, now) = (credentials(&ca, "agent/other"), SystemTime::now());
    let revoking = |serials: &[&str]| {
        let entry = |serial: &&str| RevokedSerial { serial: (*serial).into(), since: now };
        let entries: Vec<_> = serials.iter().map(entry).collect();
        ca.crl(&entries, 2, now, now + DAY).expect("signed")
    };
    let checking =
        |leaf: &LeafPem, list: &str| Peer::of(&load(leaf, ca.pem(), Some(list)).expect("loaded"));
    let list = revoking(&[&agent.serial, &node.serial]);
    refused(Peer::showing(&ca, &agent), checking(&node, &list), Side::Accepting, "revoked");
    refused(checking(&agent, &list), Peer::showing(&ca, &node), Side::Dialling, "revoked");
    accepted(Peer::of(&good), checking(&node, &list));
    accepted(checking(&agent, &revoking(&[])), checking(&node, &revoking(&[])));
}

#[test]
fn an_expired_revocation_list_loads_and_admits_no_peer() {
    let (ca, now) = (ca(), SystemTime::now());
    let node = signed(&ca, &profile(&ca, "node/edge-1"));
    let list = |until| ca.crl(&[], 1, now - 9 * DAY, until).expect("signed");
    let checking = |list: &str| load(&node, ca.pem(), Some(list)).expect("loaded");
    let old = checking(&list(now - DAY));
    let refusal = meet(Peer::agent(&ca), Peer::of(&old)).err().expect("a refusal");
    assert!(refusal.ours.reason.contains("our revocation list has expired"), "{refusal:?}");
    assert!(refusal.ours.is_identity && refusal.by == Side::Accepting);
    assert!(old.crl_next_update().is_some_and(|until| until < now));
    accepted(Peer::agent(&ca), Peer::of(&checking(&list(now + DAY))));
}

#[test]
fn a_peer_of_a_ca_without_a_list_is_refused_on_both_sides() {
    let ([ca, other], now) = ([ca(), ca()], SystemTime::now());
    let both = ca.pem().to_owned() + other.pem();
    let list = other.crl(&[], 1, now, now + DAY).expect("signed");
    let checking =
        |peer| load(&signed(&ca, &profile(&ca, peer)), &both, Some(&list)).expect("loaded");
    let (node, agent) = (checking("node/edge-1"), checking("agent/warehouse"));
    let refusal = meet(Peer::agent(&ca), Peer::of(&node)).err().expect("a refusal");
    assert!(refusal.ours.reason.contains("no revocation list here covers"), "{refusal:?}");
    let refusal = meet(Peer::of(&agent), Peer::node(&ca)).err().expect("a refusal");
    assert_eq!(refusal.by, Side::Dialling);
    assert!(refusal.ours.reason.contains("no revocation list here covers"), "{refusal:?}");
    let covered = signed(&other, &profile(&other, "agent/warehouse"));
    let covered = load(&covered, &both, Some(&list)).expect("loaded");
    accepted(Peer::of(&covered), Peer::of(&node_of(&other, &both, &list)));
}

fn node_of(ca: &Ca, cas: &str, list: &str) -> Credentials {
    load(&signed(ca, &profile(ca, "node/edge-1")), cas, Some(list)).expect("loaded")
}

#[test]
fn the_newer_of_two_lists_of_one_ca_counts_in_any_order() {
    let (ca, now) = (ca(), SystemTime::now());
    let (agent, node) = (profile(&ca, "agent/warehouse"), profile(&ca, "node/edge-1"));
    let (agent, node) = (signed(&ca, &agent), signed(&ca, &node));
    let revoked = [RevokedSerial { serial: agent.serial.clone(), since: now }];
    let older = ca.crl(&[], 1, now, now + DAY).expect("signed");
    let newer = ca.crl(&revoked, 2, now, now + DAY).expect("signed");
    for lists in [format!("{older}{newer}"), format!("{newer}{older}")] {
        let node = Peer::of(&load(&node, ca.pem(), Some(&lists)).expect("loaded"));
        refused(Peer::showing(&ca, &agent), node, Side::Accepting, "revoked");
    }
}

#[test]
fn a_peer_of_another_trust_domain_is_refused_on_both_sides() {
    let ca = ca();
    let of_acme = |peer: &'static str| {
        Peer::odd(&ca, peer, |leaf| leaf.uris = vec![format!("spiffe://acme.example/{peer}")])
    };
    refused(of_acme("agent/warehouse"), Peer::node(&ca), Side::Accepting, "trust domain");
    refused(Peer::agent(&ca), of_acme("node/edge-1"), Side::Dialling, "trust domain");
}

#[test]
fn an_agent_or_caller_is_never_accepted_as_a_node() {
    let ca = ca();
    for peer in ["agent/warehouse", "caller/ops"] {
        // As issued: neither the usage nor the host of a node.
        refused(Peer::agent(&ca), Peer::odd(&ca, peer, |_| ()), Side::Dialling, "role");
        // With all that a node has, but for the role.
        let dressed_up = Peer::odd(&ca, peer, |leaf| {
            leaf.hosts = vec!["localhost".into()];
            leaf.usages = vec![Usage::ServerAuth, Usage::ClientAuth];
        });
        let refusal = refused(Peer::agent(&ca), dressed_up, Side::Dialling, "role");
        assert!(refusal.ours.reason.contains(peer), "{refusal:?}");
        // Without any usage, which would pass for all of them.
        let unlimited = Peer::odd(&ca, peer, |leaf| {
            leaf.hosts = vec!["localhost".into()];
            leaf.usages = vec![];
        });
        refused(Peer::agent(&ca), unlimited, Side::Dialling, "role");
    }
    accepted(Peer::agent(&ca), Peer::odd(&ca, "node/edge-1", |_| ()));
}

#[test]
fn a_leaf_with_two_names_none_or_a_malformed_one_is_refused() {
    let ca = ca();
    let good = "spiffe://dialback.local/agent/warehouse";
    let named = |uris: &[&str]| {
        let uris = uris.iter().map(ToString::to_string).collect();
        Peer::odd(&ca, "agent/warehouse", |leaf| leaf.uris = uris)
    };
    for uris in [
        &[][..],
        &[good, "spiffe://dialback.local/agent/other"],
        &[good, good],
        &[good, "https://example.com"],
        &["spiffe://dialback.local/agent/Warehouse"],
        &["spiffe://dialback.local/agent/../warehouse"],
    ] {
        refused(named(uris), Peer::node(&ca), Side::Accepting, "name");
    }
    accepted(named(&[good]), Peer::node(&ca));
}

#[test]
fn a_node_is_accepted_only_under_the_hosts_of_its_leaf() {
    let ca = ca();
    for host in ["localhost", "127.0.0.1"] {
        assert!(meet_at(host, Peer::agent(&ca), Peer::node(&ca)).is_ok(), "{host}");
    }
    for host in ["example.com", "127.0.0.2"] {
        let refusal = meet_at(host, Peer::agent(&ca), Peer::node(&ca)).err().expect("a refusal");
        assert_eq!(refusal.by, Side::Dialling);
        assert!(refusal.ours.reason.contains("not valid for the host"), "{refusal:?}");
        assert!(refusal.ours.is_identity && refusal.theirs.is_identity);
    }
}

#[test]
fn a_protocol_mismatch_is_not_an_identity_error() {
    let ca = ca();
    let mut older = Peer::agent(&ca);
    older.client.alpn_protocols = vec![b"dialback/0".to_vec()];
    let refusal = meet(older, Peer::node(&ca)).err().expect("a refusal");
    for explanation in [refusal.ours, refusal.theirs] {
        assert!(!explanation.is_identity, "{explanation:?}");
        assert!(explanation.reason.contains("no common protocol version"), "{explanation:?}");
    }
}

#[test]
fn sessions_are_not_resumed_and_no_early_data_is_sent() {
    let ca = ca();
    let Peer { client, server } = Peer::node(&ca);
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert!(!client.enable_early_data);
    let (client, server) = (Arc::new(client), Arc::new(server));
    for _ in 0..2 {
        let dialling = Peer { client: (*client).clone(), server: (*server).clone() };
        let accepting = Peer { client: (*client).clone(), server: (*server).clone() };
        let met = accepted(dialling, accepting);
        assert_eq!(met.dialling.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn the_key_exchange_is_hybrid_and_can_be_switched_to_classical() {
    let ca = ca();
    let group = |post_quantum| {
        let agent = credentials(&ca, "agent/warehouse").with_post_quantum(post_quantum);
        let met = accepted(Peer::of(&agent), Peer::node(&ca));
        met.dialling.negotiated_key_exchange_group().map(|group| group.name())
    };
    assert_eq!(group(true), Some(rustls::NamedGroup::X25519MLKEM768));
    assert_eq!(group(false), Some(rustls::NamedGroup::X25519));
}

#[test]
fn local_faults_are_found_before_a_handshake() {
    let ([ca, other], now) = ([ca(), ca()], SystemTime::now());
    let good = profile(&ca, "agent/warehouse");
    let leaf = signed(&ca, &good);
    let fault = |leaf: &LeafPem, trusted: &str, crl: Option<&str>| {
        load(leaf, trusted, crl).expect_err("refused").to_string()
    };
    let with = |change: fn(&mut LeafProfile)| {
        let mut profile = good.clone();
        change(&mut profile);
        signed(&ca, &profile)
    };
    let expired = with(|leaf| {
        leaf.not_before = SystemTime::now() - 9 * DAY;
        leaf.not_after = SystemTime::now() - DAY;
    });
    let early = with(|leaf| leaf.not_before = SystemTime::now() + DAY);
    let mixed = LeafPem { key: signed(&ca, &good).key, ..leaf.clone() };
    let swapped = LeafPem { cert: leaf.key.to_string(), ..leaf.clone() };
    let empty = LeafPem { cert: String::new(), ..leaf.clone() };
    let list = ca.crl(&[], 1, now, now + DAY).expect("signed");
    for (message, words) in [
        (fault(&expired, ca.pem(), None), ["expired", "clock"]),
        (fault(&early, ca.pem(), None), ["not valid yet", "clock"]),
        (fault(&mixed, ca.pem(), None), ["not the key", "created together"]),
        (fault(&swapped, ca.pem(), None), ["holds no certificate", "private key"]),
        (fault(&empty, ca.pem(), None), ["holds no certificate", "empty"]),
        (fault(&leaf, &leaf.cert, None), ["not a CA", "ca.pem"]),
        (fault(&leaf, "", None), ["CA text", "empty"]),
        (fault(&leaf, ca.pem(), Some("")), ["revocation list", "empty"]),
        (fault(&leaf, ca.pem(), Some(ca.pem())), ["revocation list", "certificate"]),
        (fault(&leaf, ca.pem(), Some(&list[..list.len() / 2])), ["revocation list", "damaged"]),
    ] {
        assert!(
            words.iter().all(|word| message.contains(word)),
            "{message} lacks one of {words:?}"
        );
    }
    let loaded = load(&leaf, &format!("{}{}{0}", ca.pem(), other.pem()), Some(&list));
    let loaded = loaded.expect("a CA that stands twice is one CA");
    assert_eq!(loaded.peer_name().to_string(), "agent/warehouse");
    assert!(loaded.expect_role(Role::Agent).is_ok());
    let message = loaded.expect_role(Role::Node).expect_err("refused").to_string();
    assert!(message.contains("role") && message.contains("agent/warehouse"), "{message}");
    assert!(!format!("{loaded:?}").contains("PRIVATE"));
}

#[test]
fn certificate_info_has_names_dates_and_usages() {
    let ca = ca();
    let leaf = signed(&ca, &profile(&ca, "node/edge-1"));
    let shown = CertificateInfo::all_from_pem(leaf.cert.as_bytes()).expect("read")[0].to_string();
    for part in [&leaf.serial, "spiffe://dialback.local/node/edge-1", "localhost", "127.0.0.1"] {
        assert!(shown.contains(part), "{shown} lacks {part}");
    }
}
