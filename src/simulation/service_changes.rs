//! Tests of agents that change what they host, over a network that loses packets.

use super::*;
use crate::{
    agent::{AgentUpdate, ServiceSet},
    policy::HostRule,
};
use std::future::ready;

fn answering(service: &str) -> Service {
    Service::new(service).method("Is", |(): (), _: Context| ready(Ok(())))
}

#[tokio::test(start_paused = true)]
async fn calls_that_a_node_had_sent_reach_a_service_that_is_removed() {
    let world = World::new();
    let rule = HostRule::parse("shop.*", "Late").expect("a rule");
    let node = world.node().policy(NodePolicy::allow_all().host(rule)).start().await;
    let node = node.expect("a node");
    let set = |has_late: bool| {
        let set = ServiceSet::new().serve(answering("Other"));
        if has_late { set.serve(answering("Late")) } else { set }
    };
    let [steady, agent] = ["shop.a", "shop.b"]
        .map(|name| world.agent(name).services(set(true)).start().expect("an agent"));
    steady.registered(1).await;
    agent.registered(1).await;
    world.net.lose(16);
    let changing = spawn(async move {
        for round in 0..10 {
            let services = Some(set(round % 2 == 1));
            let update = AgentUpdate { services, ..AgentUpdate::default() };
            agent.apply(update).await.expect("an update");
            agent.services_registered().await;
        }
        agent
    });
    let (caller, mut calls) = (node.any(), JoinSet::new());
    while !changing.is_finished() {
        for _ in 0..4 {
            let call = caller.call::<()>("Late/Is", &()).timeout(MINUTE);
            calls.spawn(async move { call.await });
        }
        tokio::time::sleep(SECOND / 10_000).await;
    }
    let failed = calls.join_all().await.into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(failed, []);
    drop((steady, changing.ended().await));
}
