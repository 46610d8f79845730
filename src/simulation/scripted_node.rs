//! Tests of an agent against a node that confirms its registration wrongly.

use super::*;
use crate::{
    limits::Limits,
    link::{ControlStream, Link, LinkListener},
    wire::{Control, PROTOCOL_VERSION, Register, Registered, Welcome},
};

/// A node of which a test writes every control frame.
struct ScriptedNode {
    listener: LinkListener,
    limits: Arc<Limits>,
}

impl ScriptedNode {
    fn bind(world: &World) -> Self {
        let limits = Arc::new(Limits::default());
        let address = "192.0.2.1:4433".parse().expect("an address");
        let (net, credentials) = (world.net.shared(), credentials("node/edge"));
        let listener = LinkListener::bind(&net, address, &credentials, &limits, None);
        Self { listener: listener.expect("a listener"), limits }
    }

    /// Accepts the next link up to the first REGISTER.
    async fn next_registering(&self) -> (Link, ControlStream) {
        let incoming = self.listener.next_incoming().await.expect("a connection");
        let greeted = incoming.greet().await.unwrap_or_else(|refused| panic!("{}", refused.fault));
        let (link, mut control) = greeted.into_link(4, &self.limits);
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
            node: "edge".into(),
            admission: 1,
            calls_in_flight_max: 4,
            message_bytes_max: self.limits.message_bytes_max as u64,
            view_version: 0,
        };
        control.send(&Control::Welcome(welcome)).await.expect("sent");
        let first = next_register(&mut control).await;
        assert_eq!((first.generation, first.services.len()), (1, 1));
        (link, control)
    }
}

async fn next_register(control: &mut ControlStream) -> Register {
    loop {
        if let Control::Register(frame) = control.next().await.expect("a frame") {
            return frame;
        }
    }
}

async fn confirm(control: &mut ControlStream, generation: u64) {
    control.send(&Control::Registered(Registered { generation })).await.expect("sent");
}

#[tokio::test(start_paused = true)]
async fn an_agent_ends_a_link_whose_node_confirms_another_registration() {
    let world = World::new();
    let node = ScriptedNode::bind(&world);
    let agent = world.agent("shop").start().expect("an agent");
    for generation in [0, 2] {
        let (link, mut control) = node.next_registering().await;
        confirm(&mut control, generation).await;
        tokio::time::timeout(SECOND, link.closed()).await.expect("the agent ends it");
        assert!(agent.nodes().is_empty(), "registered by generation {generation}");
    }
    let (_link, mut control) = node.next_registering().await;
    confirm(&mut control, 1).await;
    agent.registered(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_waits_until_its_own_unregistration_is_confirmed() {
    let world = World::new();
    let node = ScriptedNode::bind(&world);
    let agent = world.agent("shop").start().expect("an agent");
    let (_link, mut control) = node.next_registering().await;
    confirm(&mut control, 1).await;
    agent.registered(1).await;
    let closing = spawn(agent.shutdown());
    let second = next_register(&mut control).await;
    assert_eq!((second.generation, second.services.len()), (2, 0));
    confirm(&mut control, 1).await;
    let drained = async { while !matches!(control.next().await, Ok(Control::Drain(_))) {} };
    let early = tokio::time::timeout(SECOND / 2, drained).await;
    assert!(early.is_err(), "it took an old confirmation for the one it waits for");
    confirm(&mut control, 2).await;
    let drained = async { while !matches!(control.next().await, Ok(Control::Drain(_))) {} };
    tokio::time::timeout(SECOND / 2, drained).await.expect("DRAIN");
    drop(closing);
}
