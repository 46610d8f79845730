//! The audit logs of node and agent: links, rejected links and every call; text from a peer never
//! breaks a line.

mod peer_text;

use crate::world::{
    Presented, Stage, World, attached, check_status, dial_raw, quic_client, soon, spawn, until,
};
use dialback::{
    Agent, AgentPolicy, Audit, Callee, Caller, Code, Context, Inbound, Limits, Node, NodePolicy,
    Outbound, Outcome, Status,
    certs::LeafPem,
    policy::{AgentRule, AllowRule, DenyRule, Origin},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use std::{
    future::IntoFuture,
    io::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

dialback::contract! {
    /// Streams in both directions.
    service Pipe {
        fn watch(count: u32) -> stream u32;
        fn endless() -> stream u32;
        fn double(values: stream u32) -> stream u32;
    }
}

struct Host;

impl Pipe for Host {
    async fn watch(
        &self,
        count: u32,
        mut replies: Outbound<u32>,
        _: &Context,
    ) -> Result<(), Status> {
        for tick in 0..count {
            replies.send(&tick).await?;
        }
        if count == 0 { Err(Status::new(Code::OutOfRange, "none")) } else { Ok(()) }
    }

    async fn endless(&self, mut replies: Outbound<u32>, _: &Context) -> Result<(), Status> {
        for tick in 0.. {
            replies.send(&tick).await?;
        }
        Ok(())
    }

    async fn double(
        &self,
        mut values: Inbound<u32>,
        mut replies: Outbound<u32>,
        _: &Context,
    ) -> Result<(), Status> {
        while let Some(value) = values.next().await {
            replies.send(&(2 * value?)).await?;
        }
        Ok(())
    }
}

/// An audit log in memory, for assertions.
#[derive(Clone, Default)]
pub(crate) struct AuditLog(Arc<watch::Sender<Vec<u8>>>);

impl Write for AuditLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|all| all.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AuditLog {
    pub(crate) fn audit(&self) -> Audit {
        Audit::to(self.clone()).expect("a thread")
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).expect("text")
    }

    /// All complete lines of one event; each is an object.
    pub(crate) fn lines(&self, event: &str) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Waits for a line of this event that has these values.
    #[track_caller]
    pub(crate) fn wait_for(
        &self,
        event: &str,
        values: &[(&str, &str)],
    ) -> impl Future<Output = Value> + use<> {
        let (audit_log, event) = (self.clone(), event.to_owned());
        let values: Vec<_> =
            values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let fits =
            move |line: &Value| values.iter().all(|(key, value)| line[key] == value.as_str());
        let mut written = self.0.subscribe();
        soon(&format!("a line {event}"), async move {
            loop {
                written.mark_unchanged();
                if let Some(line) = audit_log.lines(&event).into_iter().find(|line| fits(line)) {
                    return line;
                }
                written.changed().await.expect("the lock is held");
            }
        })
    }
}

/// A node and the agent `warehouse`, each with its own audit log.
struct AuditSetup {
    world: World,
    node: Node,
    agent: Agent,
    stage: Stage,
    of_node: AuditLog,
    of_agent: AuditLog,
    leafs: [LeafPem; 2],
}

struct Plan {
    node: NodePolicy,
    agent: AgentPolicy,
    has_calls: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let (node, agent) = (NodePolicy::allow_all(), AgentPolicy::default());
        Self { node, agent, has_calls: true }
    }
}

/// Credentials of a leaf whose serial number the test knows.
fn known(world: &World, leaf: &LeafPem) -> dialback::Credentials {
    let pem = dialback::CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: world.ca().pem().as_bytes(),
        crl: None,
        ..dialback::CredentialPem::default()
    };
    dialback::Credentials::from_pem(&pem).expect("credentials")
}

fn serial(leaf: &LeafPem) -> String {
    let facts = dialback::CertificateInfo::all_from_pem(leaf.cert.as_bytes()).expect("a leaf");
    facts[0].serial.clone()
}

impl AuditSetup {
    async fn with(plan: Plan) -> Self {
        let (world, stage) = (World::new(), Stage::default());
        let [of_node, of_agent] = [AuditLog::default(), AuditLog::default()];
        let leafs = ["node/edge-1", "agent/warehouse"].map(|peer| world.leaf(peer));
        let limits = Limits { caller_links_max: 2, ..Limits::default() };
        let node = Node::builder(known(&world, &leafs[0])).listen("127.0.0.1:0").limits(limits);
        let node = node.policy(plan.node).serve(stage.service());
        let node = node.audit(of_node.audit().with_calls(plan.has_calls)).start().await;
        let node = node.expect("a node");
        let agent = Agent::builder(known(&world, &leafs[1])).node(node.local_addr().to_string());
        let agent = agent.policy(plan.agent).serve(stage.service()).serve(Host.into_service());
        let agent = attached(agent.audit(of_agent.audit().with_calls(plan.has_calls))).await;
        Self { world, node, agent, stage, of_node, of_agent, leafs }
    }

    async fn caller(&self, name: &str) -> Caller {
        self.world.caller(name, self.node.local_addr()).connect().await.expect("a caller")
    }

    fn own(&self) -> Callee {
        let handle = self.node.agent("warehouse").handle().expect("a name");
        AsRef::<Callee>::as_ref(&handle).clone()
    }
}

fn warehouse(caller: &Caller) -> Callee {
    caller.agent("warehouse").expect("a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_records_the_old_and_the_new_address_of_a_link_that_moves() {
    let setup = AuditSetup::with(Plan::default()).await;
    let serial = serial(&setup.leafs[1]);
    let of_agent = [("by", "node/edge-1"), ("peer", "agent/warehouse"), ("serial", &serial)];
    let mut last = setup.of_node.wait_for("link_up", &of_agent).await;
    for count in 1..=3 {
        setup.agent.rebind().expect("a socket");
        until("it is recorded", || setup.of_node.lines("link_moved").len() == count).await;
        let moved = setup.of_node.lines("link_moved").pop().expect("a line");
        assert!(of_agent.iter().all(|(key, value)| moved[key] == *value), "{moved}");
        assert_eq!((&moved["old_address"], &moved["old_path"]), (&last["address"], &last["path"]));
        assert_eq!(moved["address"], setup.node.agents()[0].address.clone().expect("attached"));
        assert!(moved["address"] != moved["old_address"] && moved["path"] == "udp", "{moved}");
        last = moved;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_audited_on_both_sides_with_serial_number_and_end_reason() {
    let setup = AuditSetup::with(Plan::default()).await;
    let [node_leaf, agent_leaf] = [0, 1].map(|n| serial(&setup.leafs[n]));
    let of_node = [("by", "node/edge-1"), ("peer", "agent/warehouse"), ("serial", &agent_leaf)];
    let of_agent = [("by", "agent/warehouse"), ("peer", "node/edge-1"), ("serial", &node_leaf)];
    let up = setup.of_node.wait_for("link_up", &of_node).await;
    assert_eq!(up["path"], "udp");
    assert!(up["address"].as_str().expect("text").starts_with("127.0.0.1:"), "{up}");
    let at = setup.node.local_addr().to_string();
    assert_eq!(setup.of_agent.wait_for("link_up", &of_agent).await["address"], at.as_str());
    let caller = setup.caller("ops").await;
    setup.of_node.wait_for("link_up", &[("peer", "caller/ops")]).await;
    caller.close().await;
    let down = setup.of_node.wait_for("link_down", &[("peer", "caller/ops")]).await;
    assert!(down["reason"].as_str().expect("text").contains("GOODBYE"), "{down}");
    let AuditSetup { node, agent, of_node: node_log, of_agent: agent_log, .. } = setup;
    agent.shutdown().await;
    let down = node_log.wait_for("link_down", &of_node).await;
    assert!(down["reason"].as_str().expect("text").contains("the agent stops"), "{down}");
    assert!(down["duration_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{down}");
    agent_log.wait_for("link_down", &of_agent).await;
    node.shutdown().await;
    for audit_log in [node_log, agent_log] {
        assert_eq!(audit_log.lines("link_up").len(), audit_log.lines("link_down").len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_links_are_audited_with_what_is_known_of_the_peer() {
    let setup = AuditSetup::with(Plan::default()).await;
    let (at, good) = (setup.node.local_addr(), setup.world.credentials("caller/ops"));
    // A client of another CA: nothing about it is proved.
    let unknown_leaf = World::new().leaf("caller/ops");
    let number = serial(&unknown_leaf);
    drop(
        dial_raw(quic_client(&good, Presented::Leaf(unknown_leaf)), at)
            .await
            .err()
            .expect("refused"),
    );
    let line = setup.of_node.wait_for("link_refused", &[]).await;
    assert_eq!((&line["peer"], &line["serial"]), (&Value::Null, &Value::Null), "{line}");
    assert!(line["address"].as_str().expect("text").starts_with("127.0.0.1:"), "{line}");
    assert!(line["reason"].as_str().expect("text").contains("unknown CA"), "{line}");
    assert_eq!(
        (&line["claimed_peer"], &line["claimed_serial"]),
        (&"caller/ops".into(), &number.into())
    );
    // A node that dials, and a caller with one link too many.
    let leaf = setup.world.leaf("node/edge-2");
    let number = serial(&leaf);
    drop(dial_raw(quic_client(&good, Presented::Leaf(leaf)), at).await.err().expect("refused"));
    let expected = [("peer", "node/edge-2"), ("serial", number.as_str())];
    let line = setup.of_node.wait_for("link_refused", &expected).await;
    assert!(line["reason"].as_str().expect("text").contains("nodes"), "{line}");
    let _two = [setup.caller("ops").await, setup.caller("ops").await];
    let leaf = setup.world.leaf("caller/ops");
    drop(dial_raw(quic_client(&good, Presented::Leaf(leaf)), at).await.err().expect("refused"));
    let line = setup.of_node.wait_for("link_refused", &[("peer", "caller/ops")]).await;
    assert!(line["reason"].as_str().expect("text").contains("limit of 2 links"), "{line}");
    // On the agent: a node that it does not trust.
    let (other, audit_log) = (World::new(), AuditLog::default());
    let agent = other.agent("warehouse", at).audit(audit_log.audit()).start().expect("an agent");
    let line = audit_log.wait_for("link_refused", &[("address", &at.to_string())]).await;
    assert!(line["reason"].as_str().expect("text").contains("CA"), "{line}");
    agent.shutdown().await;
}

/// A leaf of this world's CA or of another, with these names and this remaining lifetime.
fn leaf_with(signer: &World, uris: &[&str], is_over: bool) -> LeafPem {
    let now = SystemTime::now();
    let peer = "agent/warehouse".parse().expect("a peer name");
    let mut profile = dialback::certs::LeafProfile::new("dialback.local", &peer, &[], now);
    profile.uris = uris.iter().map(ToString::to_string).collect();
    if is_over {
        profile.not_after = now - Duration::from_secs(60);
    }
    signer.ca().leaf(&profile).expect("a leaf")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_tls_rejects_is_audited_with_the_name_that_its_certificate_claims() {
    let (world, other, audit_log) = (World::new(), World::new(), AuditLog::default());
    let revoked = world.leaf("agent/revoked");
    let credentials =
        world.presenting(&world.leaf("node/edge-1"), Some(&world.crl(&[&serial(&revoked)])));
    let node = Node::builder(credentials).listen("127.0.0.1:0").audit(audit_log.audit());
    let node = node.start().await.expect("a node");
    let ours = "spiffe://dialback.local/agent/late";
    let foreign = "spiffe://elsewhere.test/agent/warehouse";
    for (leaf, claimed, reason) in [
        (revoked, "agent/revoked", "revoked"),
        (leaf_with(&world, &[ours], true), "agent/late", "expired"),
        (other.leaf("caller/unknown"), "caller/unknown", "unknown CA"),
        // Logged in full where it is not one of our names: `agent/warehouse` of another trust
        // domain is a different peer.
        (leaf_with(&world, &[foreign], false), foreign, "trust domain"),
        (
            leaf_with(&world, &["spiffe://dialback.local/boss/x"], false),
            "spiffe://dialback.local/boss/x",
            "boss",
        ),
        (leaf_with(&world, &[], false), "CN=dialback agent warehouse", "no URI name"),
    ] {
        let number = serial(&leaf);
        let tls = quic_client(&world.credentials("caller/ops"), Presented::Leaf(leaf));
        drop(dial_raw(tls, node.local_addr()).await.err().expect("refused"));
        let line = audit_log.wait_for("link_refused", &[("claimed_serial", &number)]).await;
        assert_eq!(line["claimed_peer"], claimed, "{line}");
        assert_eq!((&line["peer"], &line["serial"]), (&Value::Null, &Value::Null), "{line}");
        assert!(line["address"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:")), "{line}");
        assert!(line["reason"].as_str().is_some_and(|text| text.contains(reason)), "{line}");
    }
    // A client without a certificate claims nothing.
    let tls = quic_client(&world.credentials("caller/ops"), Presented::Nothing);
    drop(dial_raw(tls, node.local_addr()).await.err().expect("refused"));
    until("the seventh line is written", || audit_log.lines("link_refused").len() == 7).await;
    let lines = audit_log.lines("link_refused");
    let nobody = lines.iter().filter(|line| line.get("claimed_peer").is_none());
    assert_eq!(nobody.count(), 1, "{lines:?}");
}

/// A client that presents a certificate but has another key.
fn with_another_key(world: &World, leaf: &LeafPem) -> rustls::ClientConfig {
    let mut config = quic_client(&world.credentials("caller/ops"), Presented::Nothing);
    let cert = CertificateDer::from_pem_slice(leaf.cert.as_bytes()).expect("a certificate");
    let key = world.leaf("caller/thief").key;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let key = config.crypto_provider().key_provider.load_private_key(key).expect("a key");
    let shown = rustls::sign::CertifiedKey::new(vec![cert], key);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_certificate_without_its_key_is_audited_as_a_claim_not_as_a_peer() {
    let (world, audit_log) = (World::new(), AuditLog::default());
    let node = world.node().audit(audit_log.audit()).start().await.expect("a node");
    let leaf = world.leaf("caller/victim");
    let tls = with_another_key(&world, &leaf);
    drop(dial_raw(tls, node.local_addr()).await.err().expect("refused"));
    let line = audit_log.wait_for("link_refused", &[("claimed_peer", "caller/victim")]).await;
    assert_eq!(line["claimed_serial"], serial(&leaf).as_str(), "{line}");
    assert_eq!((&line["peer"], &line["serial"]), (&Value::Null, &Value::Null), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_name_cannot_break_its_line_and_is_truncated() {
    let (world, other, audit_log) = (World::new(), World::new(), AuditLog::default());
    let node = world.node().audit(audit_log.audit()).start().await.expect("a node");
    let injected = "spiffe://dialback.local/agent/a\n{\"event\":\"link_up\",\"by\":\"node/edge-1\"}\u{1b}[2J\"\\";
    let long = format!("spiffe://dialback.local/agent/{}", "a".repeat(1_500));
    for name in [injected, &long] {
        let leaf = leaf_with(&other, &[name], false);
        let number = serial(&leaf);
        let tls = quic_client(&world.credentials("caller/ops"), Presented::Leaf(leaf));
        drop(dial_raw(tls, node.local_addr()).await.err().expect("refused"));
        let line = audit_log.wait_for("link_refused", &[("claimed_serial", &number)]).await;
        let wanted: String = name.chars().take(300).collect();
        assert_eq!(line["claimed_peer"], wanted.as_str());
    }
    assert_eq!(audit_log.lines("link_up").len(), 0, "a forged line");
    assert!(audit_log.text().lines().all(|line| !line.contains(char::is_control)));
}

/// Dials from an address of this machine with a certificate of another CA and is rejected.
#[cfg(target_os = "linux")]
async fn refused_from(address: [u8; 4], tls: &rustls::ClientConfig, at: std::net::SocketAddr) {
    let quic = quinn::crypto::rustls::QuicClientConfig::try_from(tls.clone()).expect("TLS");
    let endpoint = quinn::Endpoint::client((address, 0).into()).expect("a socket");
    let config = quinn::ClientConfig::new(Arc::new(quic));
    let connecting = endpoint.connect_with(config, at, "localhost").expect("dialled");
    match soon("the handshake ends", connecting).await {
        // The dialler's handshake completes before the other side has verified it.
        Ok(connection) => drop(soon("the link ends", connection.closed()).await),
        Err(_refused) => {}
    }
}

// Only Linux has all of 127.0.0.0/8 on its loopback interface.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_rejected_repeatedly_writes_twenty_lines_and_then_a_count() {
    let (world, audit_log) = (World::new(), AuditLog::default());
    let node = world.node().audit(audit_log.audit()).start().await.expect("a node");
    let unknown_leaf = Presented::Leaf(World::new().leaf("caller/ops"));
    let (tls, at) =
        (quic_client(&world.credentials("caller/ops"), unknown_leaf), node.local_addr());
    for _ in 0..25 {
        refused_from([127, 7, 0, 1], &tls, at).await;
    }
    let left_out = || -> u64 {
        let lines = audit_log.lines("link_refused");
        lines.iter().map(|line| line["left_out"].as_u64().expect("a number")).sum()
    };
    // Another address has its own lines. A rejection is written shortly after the peer has received
    // it.
    soon("suppressed lines are counted", async {
        while left_out() < 5 {
            refused_from([127, 7, 0, 2], &tls, at).await;
        }
    })
    .await;
    assert_eq!(left_out(), 5);
    let lines = audit_log.lines("link_refused");
    assert!(lines.iter().all(|line| line["claimed_peer"] == "caller/ops"), "{lines:?}");
    let is_of_first =
        |line: &&Value| line["address"].as_str().is_some_and(|at| at.starts_with("127.7.0.1:"));
    assert_eq!(lines.iter().filter(is_of_first).count(), 20, "{lines:?}");
    assert_eq!(crate::world::lines_with("refused link from 127.7.0.1:").len(), 20);
    let logged = crate::world::lines_with("refused link from 127.7.0.2:");
    assert!(
        logged.iter().any(|line| line.ends_with("similar lines suppressed before)")),
        "{logged:?}"
    );
}

fn allow(line: u32, caller: &str, method: &str) -> AllowRule {
    let mut rule = AllowRule::parse(caller, "**", method).expect("a rule");
    rule.origin = Origin::at("node.toml", line);
    rule
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_are_audited_with_the_rule_or_its_absence_even_where_calls_are_not() {
    let mut rated = allow(9, "slow", "*/*");
    rated.rate = "1/h".parse().ok();
    let mut deny = DenyRule::parse("intern", "**", "*/*").expect("a rule");
    deny.origin = Origin::at("node.toml", 5);
    let node = NodePolicy::default().allow(allow(1, "ops", "Stage/*")).allow(rated).deny(deny);
    let mut rule = AgentRule::parse("edge-*", "slow", "*/*").expect("a rule");
    rule.origin = Origin::at("agent.toml", 3);
    let plan = Plan { node, agent: AgentPolicy::default().allow(rule), has_calls: false };
    let setup = AuditSetup::with(plan).await;
    let refused = |caller: &'static str, code, reason: &'static str| {
        let (audit_log, callee) = (setup.of_node.clone(), setup.caller(caller));
        async move {
            let called = warehouse(&callee.await).call::<String>("Stage/Note", caller).await;
            check_status(called, code, Outcome::NotExecuted);
            let line = audit_log
                .wait_for("call_refused", &[("caller", &format!("caller/{caller}"))])
                .await;
            assert!(line["reason"].as_str().expect("text").contains(reason), "{line}");
            assert_eq!(line["code"], code.as_str());
            assert_eq!(
                (&line["agent"], &line["method"]),
                (&"agent/warehouse".into(), &"Stage/Note".into())
            );
        }
    };
    refused("intern", Code::PermissionDenied, "denied by the [[deny]] rule at node.toml:5").await;
    refused("nobody", Code::PermissionDenied, "denied: no [[allow]] rule covers it").await;
    assert!(warehouse(&setup.caller("slow").await).call::<String>("Stage/Note", "a").await.is_ok());
    refused("slow", Code::ResourceExhausted, "(rate) is used up").await;
    // The agent's own policy has no rule for this caller, which the node allows.
    let ops = warehouse(&setup.caller("ops").await).call::<String>("Stage/Note", "ops").await;
    check_status(ops, Code::PermissionDenied, Outcome::NotExecuted);
    let line = setup.of_agent.wait_for("call_refused", &[("caller", "caller/ops")]).await;
    assert_eq!((&line["via"], &line["by"]), (&"node/edge-1".into(), &"agent/warehouse".into()));
    assert!(line["reason"].as_str().expect("text").contains("no [[allow]] rule of the agent"));
    // A call to any agent names none.
    let any = setup.caller("nobody").await;
    let refused = any.any().call::<String>("Stage/Note", "x").await;
    check_status(refused, Code::PermissionDenied, Outcome::NotExecuted);
    until("it was audited", || {
        setup.of_node.lines("call_refused").iter().any(|l| l["agent"].is_null())
    })
    .await;
    assert_eq!(setup.of_node.lines("call"), [] as [Value; 0], "calls are not audited by default");
}

/// The only line about a call of this method with this code, on either side.
async fn of_call(audit_log: &AuditLog, method: &str, code: &str) -> Value {
    audit_log.wait_for("call", &[("method", method), ("code", code)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_audited_once_on_each_side_with_its_outcome() {
    let setup = AuditSetup::with(Plan::default()).await;
    let caller = setup.caller("ops").await;
    let ops = warehouse(&caller);
    assert!(ops.call::<String>("Stage/Note", "abc").await.is_ok());
    let [on_node, on_agent] = [
        of_call(&setup.of_node, "Stage/Note", "OK").await,
        of_call(&setup.of_agent, "Stage/Note", "OK").await,
    ];
    for line in [&on_node, &on_agent] {
        assert_eq!(line["caller"], "caller/ops");
        assert_eq!(line["agent"], "agent/warehouse");
        assert_eq!((&line["kind"], &line["outcome"]), (&"unary".into(), &"ok".into()));
        // A text of three bytes takes four in CBOR.
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&4.into(), &4.into()), "{line}");
        assert_eq!(line["attempt"], 1);
        assert!(line["duration_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{line}");
    }
    assert_eq!(on_node["call_id"], on_agent["call_id"]);
    assert_eq!(on_agent["via"], "node/edge-1");
    check_status(ops.call::<()>("Stage/Fail", "x").await, Code::NotFound, Outcome::AppError);
    assert_eq!(of_call(&setup.of_agent, "Stage/Fail", "NOT_FOUND").await["outcome"], "app_error");
    check_status(ops.call::<()>("Stage/Panic", "x").await, Code::Internal, Outcome::Unknown);
    assert_eq!(of_call(&setup.of_agent, "Stage/Panic", "INTERNAL").await["outcome"], "unknown");
    // A reply that is too large is not a success, whatever its handler returns.
    setup.stage.open();
    let huge = ops.call::<serde_bytes::ByteBuf>("Stage/Huge", &("huge", 5 << 20)).await;
    check_status(huge, Code::Internal, Outcome::Unknown);
    setup.stage.close();
    assert_eq!(of_call(&setup.of_agent, "Stage/Huge", "INTERNAL").await["outcome"], "unknown");
    check_status(ops.call::<()>("No/Such", "x").await, Code::Unimplemented, Outcome::NotExecuted);
    assert_eq!(
        of_call(&setup.of_node, "No/Such", "UNIMPLEMENTED").await["outcome"],
        "not_executed"
    );
    // Dropped, and past its deadline.
    let held = spawn(ops.call::<String>("Stage/Hold", "held").into_future());
    setup.stage.started("held").await;
    held.cancel().await;
    for audit_log in [&setup.of_node, &setup.of_agent] {
        assert_eq!(of_call(audit_log, "Stage/Hold", "CANCELLED").await["outcome"], "unknown");
    }
    let late = ops.call::<String>("Stage/Linger", "late").timeout(Duration::from_millis(200)).await;
    check_status(late, Code::DeadlineExceeded, Outcome::Unknown);
    let lates =
        || setup.of_agent.lines("call").into_iter().filter(|l| l["method"] == "Stage/Linger");
    until("the late call was audited", || lates().count() == 1).await;
    for audit_log in [&setup.of_node, &setup.of_agent] {
        let mut ids: Vec<_> =
            audit_log.lines("call").iter().map(|l| l["call_id"].to_string()).collect();
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "a call was audited twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_the_node_itself_and_to_any_agent_name_the_callee() {
    let policy = NodePolicy::allow_all();
    let setup = AuditSetup::with(Plan { node: policy, ..Plan::default() }).await;
    assert!(setup.own().call::<String>("Stage/Note", "own").await.is_ok());
    let line = setup.of_node.wait_for("call", &[("caller", "node/edge-1")]).await;
    assert_eq!(
        (&line["agent"], &line["code"]),
        (&"agent/warehouse".into(), &"OK".into()),
        "{line}"
    );
    assert!(setup.node.any().call::<String>("Stage/Fail", "x").await.is_err());
    let line = of_call(&setup.of_node, "Stage/Fail", "NOT_FOUND").await;
    assert_eq!(line["agent"], "agent/warehouse", "{line}");
    let caller = setup.caller("ops").await;
    assert!(caller.any().call::<String>("Stage/Note", "any").await.is_ok());
    let line = setup.of_node.wait_for("call", &[("caller", "caller/ops")]).await;
    assert_eq!(line["agent"], "agent/warehouse", "{line}");
    assert!(caller.node().call::<String>("Stage/Note", "here").await.is_ok());
    setup.of_node.wait_for("call", &[("caller", "caller/ops"), ("agent", "node/edge-1")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_audited_when_they_have_ended() {
    let setup = AuditSetup::with(Plan::default()).await;
    let caller = setup.caller("ops").await;
    for (way, callee) in [("caller/ops", warehouse(&caller)), ("node/edge-1", setup.own())] {
        let pipe = PipeCaller::new(&callee);
        let (of_node, by) = (&setup.of_node, [("caller", way)]);
        let mut stream = pipe.watch(10).await.expect("a stream");
        while let Some(tick) = stream.next().await {
            tick.expect("a tick");
        }
        let line =
            of_node.wait_for("call", &[by[0], ("method", "Pipe/Watch"), ("code", "OK")]).await;
        assert_eq!(
            (&line["kind"], &line["bytes_out"]),
            (&"server_stream".into(), &10.into()),
            "{line}"
        );
        let failed = match pipe.watch(0).await {
            Ok(mut stream) => stream.next().await.is_some_and(|end| end.is_err()),
            Err(_before_the_first) => true,
        };
        assert!(failed, "it succeeded");
        let failed = [by[0], ("method", "Pipe/Watch"), ("code", "OUT_OF_RANGE")];
        assert_eq!(of_node.wait_for("call", &failed).await["outcome"], "app_error");
        let mut stream = pipe.endless().await.expect("a stream");
        assert!(stream.next().await.is_some_and(|tick| tick.is_ok()));
        let endless = |line: &Value| line["method"] == "Pipe/Endless" && line["caller"] == way;
        assert!(!of_node.lines("call").iter().any(endless), "it has not ended");
        drop(stream);
        of_node.wait_for("call", &[by[0], ("method", "Pipe/Endless"), ("code", "CANCELLED")]).await;
    }
    let on_agent =
        setup.of_agent.wait_for("call", &[("method", "Pipe/Watch"), ("code", "OK")]).await;
    assert_eq!((&on_agent["bytes_in"], &on_agent["bytes_out"]), (&1.into(), &10.into()));
    // Both directions are counted.
    let pipe = warehouse(&caller);
    let (mut values, mut duplicated) = PipeCaller::new(&pipe).double().await.expect("a stream");
    for value in 0..5 {
        values.send(&value).await.expect("taken");
    }
    values.finish().await.expect("taken");
    while let Some(value) = duplicated.next().await {
        value.expect("a value");
    }
    for audit_log in [&setup.of_node, &setup.of_agent] {
        let line = of_call(audit_log, "Pipe/Double", "OK").await;
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&5.into(), &5.into()), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_may_share_one_audit_log() {
    let (world, audit_log) = (World::new(), AuditLog::default());
    let audit = audit_log.audit();
    let [one, two] = ["edge-1", "edge-2"].map(|name| world.node_named(name).audit(audit.clone()));
    let [one, two] = [one.start().await, two.start().await].map(|node| node.expect("a node"));
    for (node, by) in [(&one, "node/edge-1"), (&two, "node/edge-2")] {
        let _caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
        audit_log.wait_for("link_up", &[("by", by), ("peer", "caller/ops")]).await;
    }
}

/// A sink that blocks forever costs lines but no calls.
struct Stuck;

impl Write for Stuck {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        loop {
            std::thread::park();
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_continue_when_the_audit_log_cannot_be_written() {
    let (world, stage) = (World::new(), Stage::default());
    let audit = Audit::to(Stuck).expect("a thread").with_calls(true);
    let node = world.node().audit(audit.clone()).start().await.expect("a node");
    let agent = world.agent("warehouse", node.local_addr()).serve(stage.service());
    let _agent = attached(agent).await;
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    for n in 0..100 {
        assert!(warehouse(&caller).call::<String>("Stage/Note", &format!("{n}")).await.is_ok());
    }
    assert!(!audit.flush(Duration::ZERO));
}
