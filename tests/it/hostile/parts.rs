//! Large messages that a node passes on while they come: callers that stop in the middle, agents
//! that refuse or are lost meanwhile.

use super::{Ledger, limits, linked, node, raw_agent};
use crate::{
    raw_peer::{
        Cbor, Head, Issuer, RawLink, RawStream, Settings, StreamEnd, end, header, kind, message,
        ping, soon,
    },
    world::until,
};
use dialback::{
    Agent, Code, Node, NodePolicy, Outcome, StreamCode,
    policy::{AllowRule, HostRule},
};

/// MESSAGE of a text that is passed on in parts, and END.
fn large() -> Vec<u8> {
    [message(&"x".repeat(190_000)), end()].concat()
}

const HALF: usize = 95_000;

/// A node, its agents of these names, and a caller.
struct Setup {
    node: Node,
    agents: Vec<Agent>,
    ledger: Ledger,
    caller: RawLink,
    _control: RawStream,
}

impl Setup {
    async fn new(names: &[&str]) -> Self {
        let (issuer, ledger) = (Issuer::new(), Ledger::default());
        let node = node(&issuer, &Ledger::default()).await;
        let agents = names.iter().map(|name| {
            Agent::builder(issuer.credentials(&format!("agent/{name}")))
                .node(node.local_addr().to_string())
                .limits(limits())
                .serve(ledger.service())
                .start()
                .expect("an agent")
        });
        let agents: Vec<_> = agents.collect();
        for agent in &agents {
            soon("registration", agent.registered(1)).await;
        }
        let (caller, _control) = linked(&issuer, &node, "caller/ops").await;
        Self { node, agents, ledger, caller, _control }
    }

    /// A call of which half of the message was sent.
    async fn half_sent(&self, head: Head) -> RawStream {
        let mut call = self.caller.open().await;
        call.send(&[head.frame(), large()[..HALF].to_vec()].concat()).await;
        call
    }

    /// Calls that occupy the agent of this number.
    fn in_flight(&self, at: usize) -> u64 {
        self.node.agents()[at].calls_in_flight
    }

    async fn check_answered(&self, mut call: RawStream) {
        call.send(&large()[HALF..]).await;
        call.finish();
        let reply = soon("the answer", call.reply()).await;
        let bytes = reply.message.map(|message| message.len());
        assert_eq!((reply.code, bytes), (0, Some(190_005)), "{}", reply.text);
        assert_eq!(self.ledger.count(), 1);
    }
}

fn to_agent() -> Head {
    Head::agent("Echo/Echo", "a")
}

fn refused(code: Code) -> (u64, u64) {
    (code.number().into(), Outcome::NotExecuted.number().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_occupies_its_agent_while_its_message_comes_and_no_handler_runs_after_a_reset() {
    let setup = Setup::new(&["a"]).await;
    let mut call = setup.half_sent(to_agent()).await;
    until("it is passed on", || setup.in_flight(0) == 1).await;
    call.reset(4);
    until("its permit is returned", || setup.in_flight(0) == 0).await;
    assert_eq!(setup.ledger.count(), 0);
    let call = setup.half_sent(to_agent()).await;
    setup.check_answered(call).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_slowly_frees_its_agent_and_runs_once_when_it_is_whole() {
    let setup = Setup::new(&["a"]).await;
    let call = setup.half_sent(to_agent()).await;
    until("it is passed on", || setup.in_flight(0) == 1).await;
    until("it is stored instead", || setup.in_flight(0) == 0).await;
    assert_eq!(setup.ledger.count(), 0);
    setup.check_answered(call).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_agent_arrives_while_the_message_comes() {
    let setup = Setup::new(&["a"]).await;
    for (head, code) in [
        (Head::agent("Echo/None", "a"), Code::Unimplemented),
        (Head::agent("Echo/Echo", "absent"), Code::Unavailable),
    ] {
        let mut call = setup.half_sent(head).await;
        let reply = soon("the answer", call.reply()).await;
        assert_eq!((reply.code, reply.outcome), refused(code), "{}", reply.text);
        assert_eq!(call.stop_code().await, Some(StreamCode::Refused.number()));
    }
    assert_eq!(setup.ledger.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_agent_is_lost_is_sent_whole_to_another() {
    let mut setup = Setup::new(&["a", "b"]).await;
    let call = setup.half_sent(Head::here("Echo/Echo").with(1, Cbor::Uint(2))).await;
    until("it is passed on", || setup.in_flight(0) + setup.in_flight(1) == 1).await;
    let busy = usize::from(setup.in_flight(1) == 1);
    drop(setup.agents.remove(busy));
    // The rest of the message on the lost link would make the outcome unknown.
    // Lost agents stay listed.
    let attached = || setup.node.agents().iter().filter(|agent| agent.attached).count();
    until("the node knows of the loss", || attached() == 1).await;
    setup.check_answered(call).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_only_agent_is_lost_is_not_executed() {
    let mut setup = Setup::new(&["a"]).await;
    let mut call = setup.half_sent(to_agent()).await;
    until("it is passed on", || setup.in_flight(0) == 1).await;
    setup.agents.clear();
    let reply = soon("the answer", call.reply()).await;
    assert_eq!((reply.code, reply.outcome), refused(Code::Unavailable), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_of_an_idempotent_call_is_kept_and_asked_again_if_its_agent_is_lost() {
    let (issuer, ledger) = (Issuer::new(), Ledger::default());
    let mut allow = AllowRule::parse("ops", "*", "*/*").expect("a rule");
    allow.idempotent = true;
    let host = HostRule::parse("*", "Echo").expect("a rule");
    let node = Node::builder(issuer.credentials("node/edge-1")).listen("127.0.0.1:0");
    let node = node.policy(NodePolicy::default().allow(allow).host(host)).start().await;
    let node = node.expect("a node");
    let (first, mut control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    let (caller, _its_control) = linked(&issuer, &node, "caller/ops").await;
    let mut call = caller.open().await;
    let head = Head::here("Echo/Echo").with(1, Cbor::Uint(2)).frame();
    call.send(&[head, message("x"), end()].concat()).await;
    call.finish();
    let mut answering = soon("the call", first.accept()).await;
    answering.all().await;
    let second = super::agent(&issuer, &node.local_addr().to_string(), &ledger);
    soon("registration", second.registered(1)).await;
    // As little as the transport sends at once: the close would wait for the rest.
    answering.send(&[header(kind::MESSAGE, 190_000), vec![7; 4_096]].concat()).await;
    // Closing discards what was not sent.
    control.send(&ping(1)).await;
    control.expect(kind::PONG).await;
    first.connection.close(0x40u32.into(), b"");
    let reply = soon("the answer", call.reply()).await;
    assert_eq!((reply.code, reply.message), (0, Some(b"\x61x".to_vec())));
    assert_eq!(ledger.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_is_passed_on_while_it_comes_and_reset_if_its_agent_is_lost() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let (agent, _control) = raw_agent(&issuer, &node, Settings::default(), 16).await;
    let (caller, _its_control) = linked(&issuer, &node, "caller/ops").await;
    let mut call = caller.open().await;
    let head = Head::agent("Echo/Echo", "raw").frame();
    call.send(&[head, message("x"), end()].concat()).await;
    call.finish();
    let mut answering = soon("the call", agent.accept()).await;
    answering.all().await;
    answering.send(&[header(kind::MESSAGE, 190_000), vec![7; HALF]].concat()).await;
    // The header, whose length takes four bytes, and all but a part of less than 16 KiB.
    let begun = call.bytes(5 + HALF - 16 * 1024).await;
    assert_eq!(begun[0], kind::MESSAGE);
    agent.connection.close(0x40u32.into(), b"");
    let ended = soon("the end", async {
        let mut read = [0; 1024];
        loop {
            match call.recv.read(&mut read).await {
                Ok(Some(_)) => {}
                Ok(None) => return StreamEnd::Fin,
                Err(quinn::ReadError::Reset(code)) => return StreamEnd::Reset(code.into_inner()),
                Err(_) => return StreamEnd::Lost,
            }
        }
    });
    assert_eq!(ended.await, StreamEnd::Reset(StreamCode::Lost.number()));
}
