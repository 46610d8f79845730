//! Logs of both sides about a rejected certificate; a rejected peer is never registered.

use crate::world::{
    Presented, RawNode, World, attached, dial_raw_from, logged, quic_client, raw_endpoint, until,
};
use dialback::{Agent, Caller, ConnectError, certs::LeafProfile};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// A leaf valid from and until these offsets in seconds, which may lie in the past.
fn with_validity(profile: LeafProfile, from: i64, until: i64) -> LeafProfile {
    let moment = |hours: i64| match u32::try_from(hours) {
        Ok(ahead) => SystemTime::now() + HOUR * ahead,
        Err(_) => SystemTime::now() - HOUR * u32::try_from(-hours).expect("hours"),
    };
    LeafProfile { not_before: moment(from), not_after: moment(until), ..profile }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_log_has_name_serial_and_reason_of_a_rejected_peer() {
    let (world, other_ca) = (World::new(), World::new());
    let (good, revoked) = (world.leaf("agent/log-good"), world.leaf("agent/log-revoked"));
    let credentials =
        world.presenting(&world.leaf("node/edge-1"), Some(&world.crl(&[&revoked.serial])));
    let node = dialback::Node::builder(credentials).listen("127.0.0.1:0").start().await;
    let node = node.expect("a node");
    let sign = |profile: LeafProfile| world.ca().leaf(&profile).expect("a leaf");
    let mut foreign = world.profile("agent/log-domain");
    foreign.uris = vec!["spiffe://other.local/agent/log-domain".into()];
    let cases = [
        (other_ca.leaf("agent/log-ca"), "log-ca", "UnknownIssuer", "unknown CA"),
        (
            sign(with_validity(world.profile("agent/log-old"), -9, -1)),
            "log-old",
            "expired",
            "expired",
        ),
        (
            sign(with_validity(world.profile("agent/log-early"), 1, 9)),
            "log-early",
            "not valid yet",
            "not valid yet",
        ),
        (revoked, "log-revoked", "revoked", "revoked"),
        (sign(foreign), "log-domain", "trust domain", "trust domain"),
    ];
    let any = world.credentials("agent/any");
    for (leaf, name, why, error) in cases {
        let serial = leaf.serial.clone();
        let endpoint = raw_endpoint();
        let port = endpoint.local_addr().expect("an address").port().to_string();
        let config = quic_client(&any, Presented::Leaf(leaf));
        assert!(dial_raw_from(endpoint, config, node.local_addr()).await.is_err(), "{name}");
        let line = logged(&["rejected the certificate that names", name]).await;
        assert!(line.contains(&serial) && line.contains(why), "{line}");
        logged(&["refused link from", &port, error]).await;
    }
    let config = quic_client(&any, Presented::Leaf(good));
    assert!(dial_raw_from(raw_endpoint(), config, node.local_addr()).await.is_ok());
    assert_eq!(node.agents(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_certificate_is_revoked_or_expired_logs_it_and_backs_off() {
    let world = World::new();
    let revoked = world.leaf("agent/away-revoked");
    let crl = world.crl(&[&revoked.serial]);
    let credentials = world.presenting(&world.leaf("node/edge-1"), Some(&crl));
    let node = dialback::Node::builder(credentials).listen("127.0.0.1:0").start().await;
    let node = node.expect("a node");
    let at = node.local_addr().to_string();
    // It is valid when loaded; the agent starts after it has expired, like an agent that ran that
    // long.
    let mut short = world.profile("agent/away-old");
    short.not_after = SystemTime::now() + Duration::from_secs(2);
    let short = world.presenting(&world.ca().leaf(&short).expect("a leaf"), None);
    let end = short.identity().not_after();
    let revoked_agent =
        Agent::builder(world.presenting(&revoked, None)).node(&at).start().expect("an agent");
    let revoked_line = logged(&["refused: node", &at, "revoked"]).await;
    until("the certificate's time is over", || SystemTime::now() > end + Duration::from_secs(1))
        .await;
    let old = Agent::builder(short).node(&at).start().expect("an agent");
    let old_line = logged(&["refused: node", &at, "expired"]).await;
    for (line, remedy) in [(revoked_line, "new certificate"), (old_line, "check the peer's clock")]
    {
        assert!(line.contains(remedy) && line.contains("retrying in 1"), "{line}");
    }
    assert_eq!((revoked_agent.nodes(), old.nodes(), node.agents()), (vec![], vec![], vec![]));
    let good = attached(world.agent("away-good", node.local_addr())).await;
    assert_eq!((good.nodes().len(), node.agents().len()), (1, 1));
    assert_eq!((revoked_agent.nodes(), old.nodes()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_soon_redials_a_node_whose_certificate_is_not_valid_yet() {
    let world = World::new();
    let early =
        world.ca().leaf(&with_validity(world.profile("node/edge-1"), 1, 900)).expect("a leaf");
    let raw = RawNode::presenting(&world.credentials("node/any"), &early);
    let at = raw.address().to_string();
    let _agent = world.agent("early", raw.address()).start().expect("an agent");
    let line = logged(&["refused: node", &at, "not valid yet"]).await;
    for part in ["the clock here may be behind", "retrying in 1"] {
        assert!(line.contains(part), "{line}");
    }
    let refused = world.caller("ops", raw.address()).connect().await;
    let fault = match refused {
        Err(ConnectError::Link(fault)) => fault,
        other => panic!("{other:?}"),
    };
    assert!(fault.is_not_valid_yet() && fault.is_refusal(), "{fault}");
    // Waiting for the clock does not help an expired certificate.
    let old =
        world.ca().leaf(&with_validity(world.profile("node/edge-1"), -9, -1)).expect("a leaf");
    let raw = RawNode::presenting(&world.credentials("node/any"), &old);
    match world.caller("ops", raw.address()).connect().await {
        Err(ConnectError::Link(fault)) => assert!(!fault.is_not_valid_yet(), "{fault}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_off_by_an_hour_or_a_day_is_named_by_the_verifying_side() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    // A verifier that finds the certificate not yet valid has a slow clock; one that finds it
    // expired has a fast clock.
    for (from, until) in [(1, 900), (24, 900), (-900, -1), (-900, -24)] {
        let leaf = |peer: &str| {
            world.ca().leaf(&with_validity(world.profile(peer), from, until)).expect("a leaf")
        };
        let endpoint = raw_endpoint();
        let port = endpoint.local_addr().expect("an address").port().to_string();
        let config =
            quic_client(&world.credentials("agent/any"), Presented::Leaf(leaf("agent/any")));
        let refused = dial_raw_from(endpoint, config, node.local_addr()).await.err();
        assert!(refused.is_some(), "the node accepted a leaf of hours {from} to {until}");
        logged(&["refused link from", &port, "clock"]).await;
        let raw = RawNode::presenting(&world.credentials("node/any"), &leaf("node/any"));
        let caller = world.caller("ops", raw.address()).connect().await;
        let error = caller.expect_err("refused").to_string();
        assert!(error.contains("clock") && !raw.was_accepted().await, "{error}");
        let error = dialback::Credentials::from_pem(&dialback::CredentialPem {
            cert: leaf("caller/ops").cert.as_bytes(),
            key: b"",
            ca: world.ca().pem().as_bytes(),
            ..Default::default()
        });
        let error = error.expect_err("refused").to_string();
        assert!(error.contains("clock"), "{error}");
    }
    let good = world.ca().leaf(&with_validity(world.profile("caller/ops"), -1, 1)).expect("a leaf");
    let good = Caller::builder(world.presenting(&good, None)).node(node.local_addr().to_string());
    assert!(good.connect().await.is_ok());
}
