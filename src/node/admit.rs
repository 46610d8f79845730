//! Admits authenticated peers as agents or callers of this node, or refuses them with a reason.

use super::{
    admitted::AgentSession,
    ingress::LinkIngress,
    registry::CallerLink,
    state::{AgentLink, NodeState},
};
use crate::{
    call::Permits,
    drain::Signal,
    handshake_limiter::{self, HandshakePermit, Incoming},
    limits::{HELLO_WAIT_MAX, Limits},
    link::{ControlStream, Greeted, IncomingLink, Link, LinkFault, LinkNews, NotGreeted},
    name::{Name, Role},
    observe::Event,
    serve::take_calls,
    wire::{CloseCode, Control, PROTOCOL_VERSION, Welcome},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::time::Instant;

/// Greets an unauthenticated client and, if it is admitted, maintains its link until the link ends.
/// Not an async function, which would keep the connection beside the greeting.
pub(super) fn admit(
    shared: Arc<NodeState>,
    incoming: IncomingLink,
    permit: HandshakePermit,
) -> impl Future<Output = ()> + Send {
    let from = incoming.remote_address();
    // Boxed, as its result: a link that is up keeps neither.
    let greeting = Box::pin(greet(shared.clone(), incoming, permit));
    async move {
        let Some(greeted) = greeting.await else { return };
        let peer = greeted.identity.peer_name().clone();
        let ended = match peer.role {
            Role::Agent => agent(&shared, greeted, &peer.name).await,
            Role::Caller => caller(&shared, greeted, &peer.name).await,
            Role::Node => {
                let text = "the role node does not dial nodes in this version of dialback";
                return refuse(&shared, greeted, CloseCode::Unauthorized, text);
            }
        };
        if let Err(fault) = ended {
            tracing::debug!("the link of {peer} at {from} ended: {fault}");
        }
    }
}

/// Greets an unauthenticated client, and reports it if that fails.
async fn greet(
    shared: Arc<NodeState>,
    incoming: IncomingLink,
    permit: HandshakePermit,
) -> Option<Box<Greeted>> {
    let from = incoming.remote_address();
    let greeted = tokio::select! {
        biased;
        greeted = incoming.greet() => greeted,
        () = permit.revoked() => Err(LinkFault::Silent(handshake_limiter::REVOKED).into()),
    };
    match greeted {
        Ok(greeted) => Some(greeted),
        Err(not_greeted) => {
            report_refused(&shared, from, &not_greeted);
            None
        }
    }
}

/// Reports a refused client. It decides how often that happens, so the log lines are limited.
fn report_refused(shared: &NodeState, from: SocketAddr, not_greeted: &NotGreeted) {
    let NotGreeted { identity, claim, fault } = not_greeted;
    if let (Some(identity), LinkFault::Closed { code: CloseCode::Goodbye, by_peer: true, .. }) =
        (identity, fault)
    {
        // An authenticated peer that only wanted our certificate, or that changed its mind.
        return tracing::debug!("{} at {from} went away: {fault}", identity.peer_name());
    }
    let (peer, claim) = (identity.as_ref(), claim.as_ref());
    shared.observer.report(Event::HandshakeRefused { address: from, peer, claim, reason: fault });
}

fn refuse(shared: &NodeState, greeted: Box<Greeted>, code: CloseCode, text: &str) {
    let (peer, address) = (&greeted.identity, greeted.remote_address());
    shared.observer.report(Event::LinkRefused { peer, address, reason: text });
    greeted.refuse(code, text);
}

fn welcome(shared: &NodeState, admission: u64, calls_max: usize, limits: &Limits) -> Welcome {
    Welcome {
        protocol: PROTOCOL_VERSION,
        node: shared.name.to_string(),
        admission,
        calls_in_flight_max: u32::try_from(calls_max).unwrap_or(u32::MAX),
        message_bytes_max: limits.message_bytes_max as u64,
        view_version: 0,
    }
}

/// Starts to accept calls on a link.
fn serve(shared: &Arc<NodeState>, link: &Link, calls_max: usize, limits: &Arc<Limits>) {
    let ingress =
        Arc::new(LinkIngress::new(shared.clone(), link.clone(), calls_max, limits.clone()));
    let taking = take_calls(link.clone(), ingress.clone(), limits.clone(), shared.calls.clone());
    // One task for both, because a node has thousands of links.
    shared.links.spawn_until_stopped(async move {
        tokio::join!(taking, ingress.guard.watch());
    });
}

async fn caller(
    shared: &Arc<NodeState>,
    greeted: Box<Greeted>,
    name: &Name,
) -> Result<(), LinkFault> {
    let limits = shared.limits.get();
    let (links_max, admission) = (limits.caller_links_max, shared.registry().admit());
    let (instance, evicted) = (*greeted.hello.instance, Arc::<Signal>::default());
    let link_entry = CallerLink { admission, instance, evicted: evicted.clone() };
    if !shared.registry().add_caller_link(name, link_entry, links_max) {
        let text = format!("caller {name} has its limit of {links_max} links (caller_links_max)");
        refuse(shared, greeted, CloseCode::ExcessiveLoad, &text);
        return Ok(());
    }
    let _counted = CallerGuard { shared, name, admission };
    let calls_max = limits.caller_calls_in_flight_max;
    let welcome = welcome(shared, admission, calls_max, &limits);
    let (link, mut control) = greeted.into_link(calls_max, &limits);
    // Before the WELCOME: the caller may close its retiring link at once, which is reported then.
    shared.link_up(&link);
    let fault = match control.send(&Control::Welcome(welcome)).await {
        Ok(()) => {
            serve(shared, &link, calls_max, &limits);
            maintain_caller_link(shared, &link, &mut control, &evicted).await
        }
        Err(fault) => fault,
    };
    Err(shared.link_down(&link, fault))
}

async fn maintain_caller_link(
    shared: &Arc<NodeState>,
    link: &Link,
    control: &mut ControlStream,
    evicted: &Signal,
) -> LinkFault {
    control.close_by(shared.close_sequence(link));
    let handle = |frame| match frame {
        Control::Drain(_) | Control::Goodbye(_) => Ok(None),
        Control::Register(_) => Err(LinkFault::Broken("a caller registers nothing".into())),
        _ => Err(unexpected_frame()),
    };
    let mut evicted = evicted.listen();
    tokio::select! {
        fault = maintain((shared, link), control, None, handle) => fault,
        () = evicted.notified() => evicted_link_fault(shared, link),
    }
}

/// Reports and returns the fault of a link that a later link of the same instance has evicted.
fn evicted_link_fault(shared: &NodeState, link: &Link) -> LinkFault {
    let (peer, address) = (link.peer(), link.remote_address());
    let limit = "caller_links_max";
    shared.observer.report(Event::LinkEvicted { peer, address, limit });
    let text = "too many links of one instance".into();
    LinkFault::Closed { code: CloseCode::Drained, text, by_peer: false }
}

/// Removes a caller's link from the registry on drop.
struct CallerGuard<'a> {
    shared: &'a NodeState,
    name: &'a Name,
    admission: u64,
}

impl Drop for CallerGuard<'_> {
    fn drop(&mut self) {
        self.shared.registry().remove_caller_link(self.name, self.admission);
    }
}

async fn agent(
    shared: &Arc<NodeState>,
    greeted: Box<Greeted>,
    name: &Name,
) -> Result<(), LinkFault> {
    let admission = shared.registry().admit();
    let hello = &greeted.hello;
    let (instance, software) = (*hello.instance, hello.software.clone());
    let answers_max = usize::try_from(hello.calls_in_flight_max).unwrap_or(usize::MAX);
    let limits = shared.limits.get();
    let initiated_max = limits.calls_in_flight_max.min(answers_max.max(1));
    let calls_max = limits.agent_asks_in_flight_max;
    let welcome = welcome(shared, admission, calls_max, &limits);
    let (link, mut control) = greeted.into_link(calls_max, &limits);
    control.send(&Control::Welcome(welcome)).await.map_err(|fault| link.reason(fault))?;
    shared.link_up(&link);
    serve(shared, &link, calls_max, &limits);
    control.close_by(shared.close_sequence(&link));
    let permits = Permits::counted(initiated_max, limits.queue_max, shared.observer.counts());
    let maintained = link.clone();
    let agent = AgentLink { link, permits, services: Vec::new(), software, limits };
    let (is_registered, reason) = (false, None);
    let mut admitted =
        AgentSession { shared, name, admission, instance, agent, is_registered, reason };
    let register_by = Instant::now() + HELLO_WAIT_MAX;
    let link = (&**shared, &maintained);
    let fault = maintain(link, &mut control, Some(register_by), |frame| match frame {
        Control::Register(words) => admitted.register(words).map(Some),
        Control::Drain(words) => {
            admitted.drain(&words.reason);
            Ok(None)
        }
        // A GOODBYE without a DRAIN before it. The link ends once the last reply has arrived.
        Control::Goodbye(words) => {
            admitted.drain(&words.text);
            Ok(None)
        }
        _ => Err(unexpected_frame()),
    });
    let fault = fault.await;
    Err(admitted.end(fault))
}

fn unexpected_frame() -> LinkFault {
    LinkFault::Broken("a control frame that only a node sends".into())
}

/// Maintains a link until it ends: heartbeat, control frames, and reports of its moves. A peer that
/// must register has until `register_by`; otherwise its link would be held for nothing.
async fn maintain(
    (shared, link): (&NodeState, &Link),
    control: &mut ControlStream,
    mut register_by: Option<Instant>,
    mut handle: impl FnMut(Control) -> Result<Option<Control>, LinkFault>,
) -> LinkFault {
    loop {
        let next = match register_by {
            Some(by) => tokio::time::timeout_at(by, control.next_news())
                .await
                .unwrap_or(Err(LinkFault::Silent("no REGISTER came in time"))),
            None => control.next_news().await,
        };
        let handled = match next {
            Ok(LinkNews::Frame(frame)) => handle(frame),
            Ok(LinkNews::Moved(moved)) => {
                shared.link_moved(link, moved);
                Ok(None)
            }
            Err(fault) => Err(fault),
        };
        let sent = match handled {
            Ok(Some(answer)) => {
                register_by = None;
                control.send(&answer).await
            }
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = sent {
            return fault;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size_of_future<A, B, C, F>(_: &impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_link_holds_at_most_four_kibibytes() {
        let bytes = size_of_future(&admit);
        assert!(bytes <= 4 * 1024, "{bytes} bytes");
    }
}
