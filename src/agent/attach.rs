//! One node, for as long as the agent runs: dial, register, stay, and come back.

use super::{Attached, Shared, reception::AgentReception};
use crate::{
    limits::HELLO_WAIT_MAX,
    link::{ControlStream, Link, LinkFault, Redial},
    name::{Name, NodeAddress},
    serve::take_calls,
    tls::random_bytes,
    wire::{Control, Register},
};
use std::sync::Arc;
use tokio::time::Instant;

/// Keeps the agent attached to one address. Never gives up.
pub(super) async fn hold(shared: Arc<Shared>, address: NodeAddress) {
    let mut redial = Redial::default();
    while !shared.calls.is_draining() {
        let fault = attach(&shared, &address, &mut redial).await;
        if shared.calls.is_draining() {
            return;
        }
        let chance = f64::from(u32::from_be_bytes(random_bytes())) / f64::from(u32::MAX);
        let wait = redial.failed(&fault, Instant::now(), chance);
        if wait.is_worth_saying {
            let what = if fault.is_refusal() { "refused" } else { "not linked" };
            tracing::warn!(
                "{what}: node {address}: {fault}; trying again, the next time in {:.1} s",
                wait.duration.as_secs_f64()
            );
        }
        tokio::time::sleep(wait.duration).await;
    }
}

/// Dials once and stays until the link has ended, and says why.
async fn attach(shared: &Arc<Shared>, address: &NodeAddress, redial: &mut Redial) -> LinkFault {
    let (link, control, _welcome) = match shared.dialler.dial(address).await {
        Ok(linked) => linked,
        Err(fault) => return fault,
    };
    let node = link.peer().name.clone();
    let reception = Arc::new(AgentReception::new(shared.clone(), link.clone()));
    shared.links.spawn_until_stopped(take_calls(
        link.clone(),
        reception,
        shared.limits.clone(),
        shared.calls.clone(),
    ));
    let mut attachment =
        Attachment { shared, link, node, address, generation: 1, is_registered: false };
    let fault = attachment.stay(control, redial).await;
    // Whatever ended it, the node is to know; if the node ended it, this does nothing.
    attachment.link.end(fault)
}

/// One link to one node. Dropping it takes it from the list of those that can be used.
struct Attachment<'a> {
    shared: &'a Shared,
    link: Link,
    node: Name,
    address: &'a NodeAddress,
    generation: u64,
    is_registered: bool,
}

impl Attachment<'_> {
    async fn stay(&mut self, mut control: ControlStream, redial: &mut Redial) -> LinkFault {
        let services = self.shared.services.infos().to_vec();
        let register = Control::Register(Register { generation: self.generation, services });
        if let Err(fault) = control.send(&register).await {
            return fault;
        }
        match tokio::time::timeout(HELLO_WAIT_MAX, self.registered(&mut control)).await {
            Ok(Ok(())) => redial.succeeded(),
            Ok(Err(fault)) => return fault,
            Err(_elapsed) => {
                return LinkFault::Silent("the node did not confirm the registration in time");
            }
        }
        loop {
            match control.next().await {
                Ok(Control::Registered(_)) => {}
                Ok(_) => {
                    return LinkFault::Broken("a control frame that only an agent sends".into());
                }
                Err(fault) => return fault,
            }
        }
    }

    /// The agent is registered when the node has said so, not when it has asked.
    async fn registered(&mut self, control: &mut ControlStream) -> Result<(), LinkFault> {
        match control.next().await? {
            Control::Registered(words) if words.generation == self.generation => {}
            _ => return Err(LinkFault::Broken("the node did not confirm the registration".into())),
        }
        self.is_registered = true;
        let attached = Attached { node: self.node.clone(), link: self.link.clone() };
        self.shared.attached.send_modify(|all| all.push(attached));
        tracing::info!(
            "registered as {} with node {} at {} ({})",
            self.shared.peer.name,
            self.node,
            self.address,
            self.link.remote_address()
        );
        Ok(())
    }
}

impl Drop for Attachment<'_> {
    fn drop(&mut self) {
        if self.is_registered {
            self.shared
                .attached
                .send_modify(|all| all.retain(|attached| attached.link.id() != self.link.id()));
        }
    }
}
