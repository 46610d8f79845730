//! Forwards behind a real agent and node: rules, routing, permits, the audit log, and replacement
//! at run time.

use super::upstream::{HttpUpstream, ServerAction, json};
use crate::{
    audit::AuditLog,
    world::{World, attached, check_status, soon, spawn},
};
use dialback::{
    AgentPolicy, AgentUpdate, Caller, Code, Context, Forward, Limits, Node, NodePolicy, Outcome,
    Service, ServiceSet, StartError,
    policy::{AgentRule, HostRule},
};
use std::time::Duration;

async fn world() -> (World, Node, Caller) {
    let world = World::new();
    let host = HostRule::parse("*", "HelloService").expect("a rule");
    let node = world.node().policy(NodePolicy::allow_all().host(host)).start().await;
    let node = node.expect("a node");
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
    (world, node, caller)
}

#[tokio::test]
async fn a_forwarded_service_is_called_by_agent_and_by_service_and_is_listed() {
    let (world, node, caller) = world().await;
    let upstream = HttpUpstream::answering(json("\"hello:x\"")).await;
    let agent = world.agent("warehouse", node.local_addr());
    let _agent = attached(agent.serve(upstream.forward().service("HelloService"))).await;
    for callee in [caller.agent("warehouse").expect("a name"), caller.any()] {
        let answered = callee.call::<String>("HelloService/Hello", "x").await;
        assert_eq!(answered.as_deref(), Ok("hello:x"));
    }
    let seen = &upstream.seen()[0];
    assert_eq!(seen.header("dialback-caller"), Some("caller/ops"));
    assert_eq!(seen.header("dialback-node"), Some("edge-1"));
    let listed = caller.services("warehouse").await.expect("a list");
    let lines: Vec<_> =
        listed[0].methods.iter().map(|m| format!("{} {}", m.name, m.kind)).collect();
    assert_eq!(lines, ["* unary", "* server_stream"]);
}

#[tokio::test]
async fn a_call_to_any_agent_is_retried_on_another_where_an_upstream_is_down() {
    let (world, node, caller) = world().await;
    let upstream = HttpUpstream::answering(json("1")).await;
    let down = Forward::to("http://127.0.0.1:1").expect("a URL").service("HelloService");
    let _up = attached(
        world.agent("up", node.local_addr()).serve(upstream.forward().service("HelloService")),
    )
    .await;
    let _down = attached(world.agent("down", node.local_addr()).serve(down)).await;
    // Fewer than the node may retry at once.
    for _ in 0..8 {
        assert_eq!(caller.any().call::<u64>("HelloService/Hello", "x").await, Ok(1));
    }
    let failed = caller.agent("down").expect("a name").call::<u64>("HelloService/Hello", "x").await;
    check_status(failed, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(upstream.seen().len(), 8);
}

#[tokio::test]
async fn a_forwarded_call_is_in_the_audit_log_of_its_agent() {
    let (world, node, caller) = world().await;
    let upstream = HttpUpstream::answering(json("1")).await;
    let audit_log = AuditLog::default();
    let agent = world.agent("warehouse", node.local_addr());
    let agent = agent.audit(audit_log.audit().with_calls(true));
    let _agent = attached(agent.serve(upstream.forward().service("HelloService"))).await;
    let callee = caller.agent("warehouse").expect("a name");
    assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
    audit_log.wait_for("call", &[("method", "HelloService/Hello"), ("outcome", "ok")]).await;
}

#[tokio::test]
async fn the_agents_own_rules_apply_to_forwarded_calls() {
    let (world, node, caller) = world().await;
    let upstream = HttpUpstream::answering(json("1")).await;
    let rule = AgentRule::parse("edge-1", "ops", "HelloService/Hello").expect("a rule");
    let agent = world.agent("warehouse", node.local_addr());
    let agent = agent.policy(AgentPolicy { allow: vec![rule] });
    let _agent = attached(agent.serve(upstream.forward().service("HelloService"))).await;
    let callee = caller.agent("warehouse").expect("a name");
    assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
    let refused = callee.call::<u64>("HelloService/Other", "x").await;
    check_status(refused, Code::PermissionDenied, Outcome::NotExecuted);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_hanging_upstream_holds_its_permit_until_the_call_ends() {
    let (world, node, caller) = world().await;
    let upstream = HttpUpstream::start(|seen| match seen.text() {
        "1" => ServerAction::Hangs(vec![]),
        _ => ServerAction::Answers(json("2")),
    })
    .await;
    let limits = Limits { calls_in_flight_max: 1, queue_max: 1, ..Limits::default() };
    let agent = world.agent("warehouse", node.local_addr()).limits(limits);
    let _agent = attached(agent.serve(upstream.forward().service("HelloService"))).await;
    let callee = caller.agent("warehouse").expect("a name");
    let first = spawn(callee.call::<u64>("HelloService/Hello", &1).into_future());
    upstream
        .until("the first upstream gets the request", |audit_log| audit_log.seen.len() == 1)
        .await;
    let full = callee.call::<u64>("HelloService/Hello", &2).await;
    check_status(full, Code::ResourceExhausted, Outcome::NotExecuted);
    first.cancel().await;
    upstream.disconnected(1).await;
    let next = callee.call::<u64>("HelloService/Hello", &2).wait(true);
    assert_eq!(soon("the permit is returned", next.into_future()).await, Ok(2));
}

#[tokio::test]
async fn a_stream_through_a_node_closes_the_upstream_when_dropped_or_at_the_deadline() {
    use super::upstream::{chunk, envelope, stream_head};
    let (world, node, caller) = world().await;
    let begun = [
        stream_head("application/connect+json"),
        chunk(&envelope(0, br#"{"i":1}"#)),
        chunk(&envelope(0, br#"{"i":2}"#)),
    ];
    let begun = begun.concat();
    let upstream = HttpUpstream::start(move |_| ServerAction::Hangs(begun.clone())).await;
    let agent = world.agent("warehouse", node.local_addr());
    let _agent = attached(agent.serve(upstream.forward().service("HelloService"))).await;
    let callee = caller.agent("warehouse").expect("a name");
    let call = callee.server_stream::<_, serde_json::Value>("HelloService/Count", &2);
    let mut replies = call.await.expect("a stream");
    for i in 1..=2 {
        assert_eq!(replies.next().await, Some(Ok(serde_json::json!({"i": i}))));
    }
    drop(replies);
    upstream.disconnected(1).await;
    let call = callee.server_stream::<_, serde_json::Value>("HelloService/Count", &2);
    let mut late = call.timeout(Duration::from_millis(500)).await.expect("a stream");
    let failed = soon("the deadline", async {
        loop {
            if let Some(Err(status)) = late.next().await {
                return status;
            }
        }
    });
    check_status(Err::<(), _>(failed.await), Code::DeadlineExceeded, Outcome::Unknown);
    upstream.disconnected(2).await;
}

#[tokio::test]
async fn a_replaced_upstream_gets_the_next_call_and_the_old_one_finishes_its_own() {
    let (world, node, caller) = world().await;
    let (old, new) = (
        HttpUpstream::start(|_| ServerAction::Hangs(vec![])).await,
        HttpUpstream::answering(json("2")).await,
    );
    let service = |upstream: &HttpUpstream| upstream.forward().service("HelloService");
    let agent = world.agent("warehouse", node.local_addr()).serve(service(&old));
    let agent = attached(agent).await;
    let callee = caller.agent("warehouse").expect("a name");
    let first = callee.call::<u64>("HelloService/Hello", "x").timeout(Duration::from_secs(60));
    let first = spawn(first.into_future());
    old.until("the first upstream gets the request", |audit_log| audit_log.seen.len() == 1).await;
    let services = Some(ServiceSet::new().serve(service(&new)));
    agent.apply(AgentUpdate { services, ..AgentUpdate::default() }).await.expect("it applies");
    assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(2));
    assert!(!first.is_finished(), "the call in flight was aborted");
    assert_eq!((old.seen().len(), new.seen().len()), (1, 1));
    first.cancel().await;
    old.disconnected(1).await;
}

#[tokio::test]
async fn a_service_that_is_both_forwarded_and_hosted_is_refused_at_start() {
    let world = World::new();
    let agent = || world.agent("warehouse", "127.0.0.1:1".parse().expect("an address"));
    let coded = Service::new("HelloService").method("Hello", |(): (), _: Context| async { Ok(1) });
    let forward = || Forward::to("http://127.0.0.1:1").expect("a URL").service("HelloService");
    let refused = agent().serve(coded).serve(forward()).start().expect_err("twice");
    assert!(matches!(refused, StartError::Service(_)), "{refused}");
    assert!(refused.to_string().contains("HelloService is hosted twice"), "{refused}");
    assert!(agent().serve(forward()).start().is_ok());
}
