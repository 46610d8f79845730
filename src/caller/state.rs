//! Shared state of a caller: its current link, and the requirements of its calls.

use crate::{
    drain::Tasks,
    limits::Limits,
    link::{Dialler, KeeperSignals, Link, LinkFault},
    name::{CallIds, NodeAddress, PeerName},
    status::{Code, Status},
    trace::Tracer,
    wire::CloseCode,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// The present link of a caller.
#[derive(Clone)]
pub(super) enum LinkState {
    /// Dialling; why the last attempt failed, if there was one.
    Down(Option<LinkFault>),
    Up(Link),
}

pub(super) struct CallerState {
    pub(super) peer: PeerName,
    /// One run of this caller, by which the node recognises its next link, also after a renewal.
    pub(super) instance: [u8; 16],
    pub(super) address: NodeAddress,
    pub(super) dialler: Dialler,
    pub(super) limits: Arc<Limits>,
    pub(super) call_ids: Arc<CallIds>,
    pub(super) link: watch::Sender<LinkState>,
    /// Its `stop` is not used: a caller that ends closes its link.
    pub(super) keeper: KeeperSignals,
    pub(super) tasks: Tasks,
    pub(super) tracer: Tracer,
}

/// Sends the calls of a caller, and closes it when the last one is dropped. Held by every clone of
/// a caller and by its callees; the task that keeps the link holds none.
pub(super) struct CloseOnDrop(pub(super) Arc<CallerState>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl CallerState {
    /// Closes the link and ends all tasks.
    pub(super) fn close(&self) {
        self.tasks.stop();
        if let LinkState::Up(link) = &*self.link.borrow() {
            link.close(CloseCode::Goodbye, "the caller has ended");
        }
    }

    /// Waits for the first link, at most `timeout`; not after a refusal or an unreachable address.
    pub(super) async fn first_link(&self, timeout: Duration) -> Result<(), LinkFault> {
        let mut link = self.link.subscribe();
        let settled = link.wait_for(|link| match link {
            LinkState::Up(_) => true,
            LinkState::Down(fault) => {
                fault.as_ref().is_some_and(|fault| fault.is_refusal() || fault.is_unreachable())
            }
        });
        let settled = tokio::time::timeout(timeout, settled)
            .await
            .ok()
            .and_then(Result::ok)
            .map(|link| link.clone());
        match settled.unwrap_or_else(|| self.link.borrow().clone()) {
            LinkState::Up(_) => Ok(()),
            LinkState::Down(Some(fault)) => Err(fault),
            LinkState::Down(None) => Err(LinkFault::NoAnswer { address: self.address.clone() }),
        }
    }

    /// Returns the link, now or by the deadline. A refusal ends the wait, which would not help.
    pub(super) async fn link_by(&self, deadline: Instant) -> Result<Link, Status> {
        if let LinkState::Up(link) = &*self.link.borrow()
            && is_usable(link)
        {
            return Ok(link.clone());
        }
        let mut link = self.link.subscribe();
        let settled = link.wait_for(|link| match link {
            LinkState::Up(link) => is_usable(link),
            LinkState::Down(fault) => fault.as_ref().is_some_and(LinkFault::is_refusal),
        });
        let settled = tokio::select! {
            () = self.tasks.stopped() => {
                return Err(Status::not_executed(Code::Unavailable, "this caller was closed"));
            }
            settled = tokio::time::timeout_at(deadline, settled) => settled,
        };
        match settled {
            Ok(Ok(link)) => match &*link {
                LinkState::Up(link) => Ok(link.clone()),
                LinkState::Down(fault) => Err(no_link(fault.as_ref())),
            },
            _ => match &*self.link.borrow() {
                LinkState::Down(fault) => Err(no_link(fault.as_ref())),
                LinkState::Up(_) => Err(no_link(None)),
            },
        }
    }
}

fn is_usable(link: &Link) -> bool {
    !link.is_closed() && !link.is_peer_draining() && !link.is_replaced()
}

/// The status of a call without a link.
pub(super) fn no_link(fault: Option<&LinkFault>) -> Status {
    let code = match fault {
        Some(fault) if fault.is_about_identity() => Code::Unauthenticated,
        Some(LinkFault::Closed { code: CloseCode::ExcessiveLoad, .. }) => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    let text = fault.map_or_else(|| "there is no link to the node".into(), ToString::to_string);
    Status::not_executed(code, text)
}
