//! Migration: a peer changes its address, and the link and its calls survive.

use crate::world::{
    Background, Baseline, Relay, Stage, World, attached, logged, soon, spawn, until,
};
use dialback::{AgentEvent, Arrivals, Events, Limits, LinkPath, Node, NodeEvent, PathChangeCause};
use std::{
    future::IntoFuture,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::UdpSocket, sync::mpsc};

/// No new link was made: the next arrival is an agent that is started now.
async fn expect_no_new_link(world: &World, node: &Node, arrivals: &mut Arrivals) {
    let _next = attached(world.agent("next", node.local_addr())).await;
    let next = soon("the next one arrives", arrivals.next()).await.expect("the node runs");
    assert_eq!(next.name().as_str(), "next");
}

/// The next move that the node reports, of this peer: the addresses before and after.
async fn next_move(events: &mut Events<NodeEvent>, of: &str) -> [String; 2] {
    let moved = async {
        loop {
            let event = events.next().await.expect("the node runs");
            if let NodeEvent::Moved { peer, old, new, old_path, new_path } = event {
                assert_eq!((peer.to_string().as_str(), old_path), (of, new_path));
                return [old, new].map(|address| address.to_string());
            }
        }
    };
    soon("the node reports a move", moved).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_a_new_socket_keeps_its_link_and_its_calls() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let mut arrivals = node.arrivals();
    let agent = attached(world.agent("nomad", node.local_addr()).serve(stage.service())).await;
    let handle = soon("it arrives", arrivals.next()).await.expect("the node runs");
    let mut events = node.events();
    let address = || node.agents()[0].address.clone().expect("attached");
    for round in 0..3 {
        let id = format!("{round}");
        let in_flight = spawn(handle.call::<String>("Stage/Hold", &id).into_future());
        stage.started(&id).await;
        let before = address();
        agent.rebind().expect("a socket");
        until("the node sees another address", || address() != before).await;
        logged(&["agent/nomad moved from ", &before, &address(), "on the same link"]).await;
        assert_eq!(next_move(&mut events, "agent/nomad").await, [before, address()]);
        stage.open();
        assert_eq!(soon("the call ends", in_flight).await.as_ref(), Ok(&id));
        stage.close();
    }
    expect_no_new_link(&world, &node, &mut arrivals).await;
    assert_eq!(stage.all_runs(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_takes_new_sockets_leaves_no_task_behind() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let agent = attached(world.agent("nomad", node.local_addr()).serve(stage.service())).await;
    let handle = node.agent("nomad").handle().expect("a name");
    let note = || handle.call::<String>("Stage/Note", "n").into_future();
    assert!(soon("a call ends", note()).await.is_ok());
    let baseline = Baseline::measure();
    for _ in 0..5 {
        let address = || node.agents()[0].address.clone().expect("attached");
        let before = address();
        agent.rebind().expect("a socket");
        until("the node sees another address", || address() != before).await;
        assert!(soon("a call ends", note()).await.is_ok());
    }
    baseline.wait_until_restored(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_a_new_socket_keeps_its_link_and_its_calls() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let _agent = attached(world.agent("warehouse", node.local_addr()).serve(stage.service())).await;
    let caller = world.caller("nomad", node.local_addr()).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let in_flight = spawn(callee.call::<String>("Stage/Hold", "a").into_future());
    stage.started("a").await;
    let mut events = node.events();
    caller.rebind().expect("a socket");
    logged(&["caller/nomad moved from ", "on the same link"]).await;
    let [old, new] = next_move(&mut events, "caller/nomad").await;
    assert_ne!(old, new);
    stage.open();
    assert_eq!(soon("the call ends", in_flight).await.as_deref(), Ok("a"));
    assert_eq!(callee.call::<String>("Stage/Note", "b").await.as_deref(), Ok("b"));
}

/// Row F10 of the faults: the port that the node sees changes at this interval, under fifty calls a
/// second.
async fn calls_over_a_port_that_changes(changes: usize, every: Duration) {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let mut arrivals = node.arrivals();
    let path = Relay::to(node.local_addr()).await;
    let _agent = attached(world.agent("nomad", path.address()).serve(stage.service())).await;
    let handle = soon("it arrives", arrivals.next()).await.expect("the node runs");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let per_change = usize::try_from(every.as_millis() / 20).expect("a number");
    let mut calls = Vec::new();
    for n in 0..changes * per_change {
        ticks.tick().await;
        calls.push(spawn(handle.call::<String>("Stage/Note", &format!("{n}")).into_future()));
        if n % per_change == per_change / 2 {
            path.rebind().await;
        }
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(soon("a call ends", call).await, Ok(format!("{n}")));
    }
    expect_no_new_link(&world, &node, &mut arrivals).await;
    assert_eq!(stage.all_runs(), changes * per_change);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_continue_while_the_agents_port_changes() {
    calls_over_a_port_that_changes(4, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make test-long"]
async fn calls_continue_for_a_minute_while_the_agents_port_changes_every_five_seconds() {
    calls_over_a_port_that_changes(12, Duration::from_secs(5)).await;
}

/// A path that carries nothing for its first client once `forget` is set: a NAT that has lost that
/// binding, or a socket that cannot send.
struct ForgetfulPath {
    address: SocketAddr,
    forget: mpsc::Sender<()>,
    _task: Background<()>,
}

impl ForgetfulPath {
    async fn to(node: SocketAddr) -> Self {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let (near, far) = (bind().await.expect("a socket"), bind().await.expect("a socket"));
        let address = near.local_addr().expect("an address");
        let (forget, mut received) = mpsc::channel(1);
        let task = spawn(async move {
            let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
            let (mut dialler, mut forgotten): (Option<SocketAddr>, Option<SocketAddr>) =
                (None, None);
            loop {
                tokio::select! {
                    Some(()) = received.recv() => forgotten = dialler.take(),
                    Ok((bytes, from)) = near.recv_from(&mut up) => {
                        if Some(from) != forgotten {
                            dialler = Some(from);
                            drop(far.send_to(&up[..bytes], node).await);
                        }
                    }
                    Ok((bytes, _)) = far.recv_from(&mut down) => {
                        if let Some(dialler) = dialler {
                            drop(near.send_to(&down[..bytes], dialler).await);
                        }
                    }
                }
            }
        });
        Self { address, forget, _task: task }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_socket_becomes_unresponsive_migrates_before_its_link_is_lost() {
    let (world, stage) = (World::new(), Stage::default());
    // The link does not time out within this test.
    let patient = Limits {
        heartbeat_every: Duration::from_secs(1),
        heartbeat_lost: Duration::from_secs(300),
        idle_max: Duration::from_secs(300),
        ..Limits::default()
    };
    let node = world.node().limits(patient.clone()).start().await.expect("a node");
    let mut arrivals = node.arrivals();
    let path = ForgetfulPath::to(node.local_addr()).await;
    let agent = world.agent("nomad", path.address).limits(patient).serve(stage.service());
    let agent = attached(agent).await;
    let mut events = agent.events();
    let handle = soon("it arrives", arrivals.next()).await.expect("the node runs");
    let in_flight = spawn(handle.call::<String>("Stage/Hold", "a").into_future());
    stage.started("a").await;
    path.forget.send(()).await.expect("a path");
    stage.open();
    assert_eq!(soon("the call ends", in_flight).await.as_deref(), Ok("a"));
    let after = handle.call::<String>("Stage/Note", "b").into_future();
    assert_eq!(soon("a later call ends", after).await.as_deref(), Ok("b"));
    let event = soon("the agent reports it", events.next()).await.expect("the agent runs");
    let AgentEvent::PathChanged { old, new, cause, .. } = event else { panic!("{event:?}") };
    assert_eq!([old, new], [LinkPath::Udp; 2]);
    assert_eq!(cause, PathChangeCause::NodesSilent);
    expect_no_new_link(&world, &node, &mut arrivals).await;
}
