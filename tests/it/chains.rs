//! A certificate is valid no longer than the intermediates that verify it: at load, in warnings,
//! and on every kind of link.

use crate::world::{Pki, logged, soon, until};
use dialback::{
    Agent, AgentEvent, Caller, CloseCode, ConfigUpdate, CredentialFiles, Credentials,
    CredentialsError, Events, LinkFault, Node, NodeEvent, NodePolicy,
    certs::LeafPem,
    enroll::{Renewal, Renewed},
};
use std::time::{Duration, SystemTime};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates have a resolution of whole seconds.
fn in_seconds(seconds: u64) -> SystemTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs() + seconds)
}

fn ago(time: Duration) -> SystemTime {
    SystemTime::now() - time
}

async fn node_of(credentials: Credentials) -> Node {
    let node = Node::builder(credentials).listen("127.0.0.1:0").policy(NodePolicy::allow_all());
    node.start().await.expect("a node")
}

async fn agent_of(credentials: Credentials, node: &Node) -> Agent {
    let agent = Agent::builder(credentials).node(node.local_addr().to_string());
    let agent = agent.start().expect("an agent");
    soon("the agent registers", agent.registered(1)).await;
    agent
}

fn trusting<P>(credentials: Credentials) -> ConfigUpdate<P> {
    ConfigUpdate { credentials: Some(credentials), ..ConfigUpdate::default() }
}

/// The reason for which an agent's link was closed.
async fn lost(events: &mut Events<NodeEvent>, name: &str) -> (CloseCode, String) {
    let reason = soon("the agent is lost", async {
        loop {
            match events.next().await.expect("the node runs") {
                NodeEvent::Lost { agent, reason } if agent.as_str() == name => return reason,
                _ => {}
            }
        }
    });
    closed(reason.await)
}

fn closed(reason: LinkFault) -> (CloseCode, String) {
    match reason {
        LinkFault::Closed { code, text, .. } => (code, text),
        other => panic!("not closed with a code: {other}"),
    }
}

/// The expiry of a leaf with these certificates behind it, and the intermediate that decides it.
fn end(
    pki: &Pki,
    leaf_ends: SystemTime,
    others: &[&str],
    ca: &str,
) -> (SystemTime, Option<String>) {
    let mut profile = pki.profile("agent/a");
    profile.not_after = leaf_ends;
    let loaded = Pki::load(&pki.leaf(&profile, others), ca).expect("loaded");
    let ends = &loaded.validity().ends;
    (ends.at(), ends.intermediate().map(str::to_owned))
}

#[test]
fn a_chain_expires_with_the_first_certificate_that_verifies_it_and_others_do_not_count() {
    let pki = Pki::new();
    let (soon, later, leaf) = (in_seconds(60), in_seconds(600), in_seconds(3_600));
    let middle = |until| pki.intermediate(ago(9 * DAY), until);
    let issuing = |at| (at, Some("CN=Issuing".to_owned()));
    let root = pki.root_pem.as_str();
    let ended = middle(ago(DAY));
    let (of_namesake, of_other) = (pki.unrelated("Issuing", soon), pki.unrelated("Other", soon));
    for (others, expected) in [
        (&[pki.good.as_str()][..], (leaf, None)),
        (&[&middle(leaf)], (leaf, None)),
        (&[&middle(soon)], issuing(soon)),
        // Of two certificates of one intermediate the longer-lived one counts, in any position.
        (&[&middle(soon), &pki.good], (leaf, None)),
        (&[&pki.good, &middle(soon)], (leaf, None)),
        (&[&middle(soon), &middle(later)], issuing(later)),
        (&[&ended, &middle(later)], issuing(later)),
        // A certificate that signed nothing in the chain does not count, whatever its name.
        (&[&ended, &pki.good, &of_namesake, &of_other, root], (leaf, None)),
        (&[&of_namesake, &of_other, &middle(later)], issuing(later)),
    ] {
        assert_eq!(end(&pki, leaf, others, root), expected, "{} behind the leaf", others.len());
    }
}

#[test]
fn the_expiry_of_a_trusted_ca_does_not_count() {
    let (leaf, soon) = (in_seconds(3_600), in_seconds(60));
    let pki = Pki::rooted(ago(9 * DAY), soon);
    assert_eq!(end(&pki, leaf, &[&pki.good, &pki.root_pem], &pki.root_pem), (leaf, None));
    // An intermediate that is itself trusted is such a CA.
    let middle = pki.intermediate(ago(9 * DAY), soon);
    assert_eq!(end(&pki, leaf, &[&middle], &middle), (leaf, None));
}

#[test]
fn without_its_ca_the_own_chain_is_found_by_its_signatures() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (soon, leaf) = (in_seconds(60), in_seconds(3_600));
    let middle = pki.intermediate(ago(9 * DAY), soon);
    let issuing = (soon, Some("CN=Issuing".to_owned()));
    assert_eq!(end(&pki, leaf, &[&middle], &other.root_pem), issuing);
    assert_eq!(end(&pki, leaf, &[&middle, &pki.good], &other.root_pem), (leaf, None));
    let unrelated = pki.unrelated("Issuing", soon);
    assert_eq!(end(&pki, leaf, &[&unrelated], &other.root_pem), (leaf, None));
    // It has expired, but peers may still trust it: not a reason to refuse to start.
    let ended = pki.intermediate(ago(9 * DAY), ago(DAY));
    assert_eq!(end(&pki, leaf, &[&ended], &other.root_pem).1, Some("CN=Issuing".into()));
}

#[test]
fn an_intermediate_that_has_expired_or_is_not_valid_yet_is_named_when_its_file_is_loaded() {
    let pki = Pki::new();
    let load = |others: &[&str]| {
        Pki::load(&pki.leaf(&pki.profile("agent/a"), others), &pki.root_pem).map(drop)
    };
    let ended = pki.intermediate(ago(9 * DAY), ago(2 * SECOND));
    let error = load(&[&ended]).expect_err("refused");
    assert!(matches!(&error, CredentialsError::IntermediateExpired { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("CN=Issuing") && error.contains("has expired"), "{error}");
    let early = pki.intermediate(in_seconds(600), in_seconds(6_000));
    let error = load(&[&early]).expect_err("refused");
    assert!(matches!(&error, CredentialsError::NotValidYet { .. }), "{error}");
    assert!(error.to_string().contains("CN=Issuing"), "{error}");
    for others in [&[&pki.good, ended.as_str()][..], &[&ended, &pki.good], &[&early, &pki.good]] {
        load(others).expect("the valid one counts");
    }
}

#[tokio::test]
async fn a_renewal_is_due_before_the_first_certificate_of_the_chain_ends() {
    let pki = Pki::new();
    let ends = in_seconds(24 * 3_600);
    let middle = pki.intermediate(ago(9 * DAY), ends);
    let dir = tempfile::tempdir().expect("a directory");
    let mut profile = pki.profile("agent/a");
    profile.not_before = SystemTime::now();
    for (others, is_before) in [(&middle, true), (&pki.good, false)] {
        let leaf = pki.leaf(&profile, &[others]);
        for (name, text) in
            [("agent-a.pem", &leaf.cert), ("agent-a.key", &*leaf.key), ("ca.pem", &pki.root_pem)]
        {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        #[cfg(unix)]
        std::fs::set_permissions(
            dir.path().join("agent-a.key"),
            std::os::unix::fs::PermissionsExt::from_mode(0o600),
        )
        .expect("changed");
        let files = CredentialFiles::in_dir(dir.path(), "agent-a");
        // Nothing listens there, and no renewal is requested before it is due.
        let kept = Renewal::new("127.0.0.1:1".parse().expect("an address"), files).once().await;
        let Ok(Renewed::Kept { due, .. }) = kept else { panic!("{kept:?}") };
        assert_eq!(due < ends, is_before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_agents_and_callers_end_with_their_intermediate_and_others_remain() {
    let pki = Pki::new();
    let node = node_of(pki.credentials("node/edge-1", &[&pki.good])).await;
    let mut events = node.events();
    let _good = agent_of(pki.credentials("agent/good", &[&pki.good]), &node).await;
    let brief = pki.intermediate(ago(9 * DAY), in_seconds(3));
    let spare = agent_of(pki.credentials("agent/spare", &[&brief, &pki.good]), &node).await;
    let _brief = agent_of(pki.credentials("agent/brief", &[&brief]), &node).await;
    let caller = Caller::builder(pki.credentials("caller/brief", &[&brief]));
    let _caller = caller.node(node.local_addr().to_string()).connect().await.expect("a caller");
    let (code, text) = lost(&mut events, "brief").await;
    assert_eq!(code, CloseCode::Expired);
    assert!(text.contains("CN=Issuing"), "{text}");
    logged(&["closed the link of caller/brief", "CN=Issuing", "expired"]).await;
    // Our own side logged it first.
    logged(&["in the chain of the certificate of agent/brief", "CN=Issuing", "ends in"]).await;
    assert_eq!(node.agents().iter().filter(|agent| agent.attached).count(), 2);
    assert_eq!(spare.nodes().len(), 1);
    logged(&["rejected the certificate that names agent/brief", "CN=Issuing", "has expired"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_a_caller_close_the_link_to_a_node_whose_intermediate_expires() {
    let pki = Pki::new();
    let brief = pki.intermediate(ago(9 * DAY), in_seconds(4));
    let node = node_of(pki.credentials("node/brief", &[&brief])).await;
    let agent = agent_of(pki.credentials("agent/a", &[&pki.good]), &node).await;
    let caller = Caller::builder(pki.credentials("caller/c", &[&pki.good]));
    let caller = caller.node(node.local_addr().to_string()).connect().await.expect("a caller");
    let mut events = agent.events();
    let reason = soon("the node is lost", async {
        loop {
            if let AgentEvent::Lost { reason, .. } = events.next().await.expect("it runs") {
                return reason;
            }
        }
    });
    assert_eq!(closed(reason.await).0, CloseCode::Expired);
    // The next handshake names it; the TLS alert does not.
    logged(&["rejected the certificate that names node/brief", "CN=Issuing", "has expired"]).await;
    // The caller checks its links on its own schedule, within a second of the agent.
    let refusal = soon("the caller has no link", async {
        loop {
            match caller.agents().await {
                Ok(_) => tokio::task::yield_now().await,
                Err(refusal) => return refusal.to_string(),
            }
        }
    });
    let refusal = refusal.await;
    assert!(refusal.contains("expired"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_new_link_is_made_before_the_nodes_intermediate_expires() {
    let pki = Pki::new();
    let brief = pki.intermediate(ago(9 * DAY), in_seconds(20));
    let leaf = pki.leaf(&pki.profile("node/edge-1"), &[]);
    let with = |other: &str| {
        let leaf = LeafPem { cert: leaf.cert.clone() + other, ..leaf.clone() };
        Pki::load(&leaf, &pki.root_pem).expect("credentials")
    };
    let node = node_of(with(&brief)).await;
    let at = node.local_addr().to_string();
    let agent = agent_of(pki.credentials("agent/a", &[&pki.good]), &node).await;
    // The leaf lasts for 90 days: a newer chain is looked for because of the intermediate.
    logged(&[&at, "it shows no newer one"]).await;
    let mut events = agent.events();
    node.apply(trusting(with(&pki.good))).await.expect("applied");
    let registered = soon("it registers again", events.next()).await.expect("an event");
    assert!(matches!(registered, AgentEvent::Registered { .. }), "{registered:?}");
    until("the old link is closed", || agent.retiring_links() == 0).await;
    let after = in_seconds(20) + SECOND;
    until("the intermediate has ended", || SystemTime::now() > after).await;
    assert_eq!(agent.nodes().len(), 1);
    let next = tokio::time::timeout(Duration::ZERO, events.next()).await;
    assert!(next.is_err(), "it dialled repeatedly: {next:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_other_cas_a_link_ends_with_the_intermediates_they_need() {
    let pki = Pki::new();
    let ends = in_seconds(4);
    let brief = pki.intermediate(ago(9 * DAY), ends);
    let node_leaf = pki.leaf(&pki.profile("node/edge-1"), &[&pki.good]);
    let trusted = |ca: &str| trusting(Pki::load(&node_leaf, ca).expect("credentials"));
    let node = node_of(Pki::load(&node_leaf, &pki.root_pem).expect("credentials")).await;
    let mut events = node.events();
    let _agent = agent_of(pki.credentials("agent/brief", &[&brief]), &node).await;
    // An intermediate that is itself trusted does not end the link.
    node.apply(trusted(&(pki.root_pem.clone() + &pki.good))).await.expect("applied");
    until("the intermediate has ended", || SystemTime::now() > ends + 2 * SECOND).await;
    while let Ok(event) = tokio::time::timeout(Duration::ZERO, events.next()).await {
        assert!(!matches!(event, Some(NodeEvent::Lost { .. })), "the agent had to dial again");
    }
    assert!(node.agents()[0].attached);
    // Under the root alone it does.
    assert_eq!(node.apply(trusted(&pki.root_pem)).await.expect("applied").closed, 1);
    assert_eq!(lost(&mut events, "brief").await.0, CloseCode::Expired);
}
