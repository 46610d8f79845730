//! The link of a caller to its node, kept up by a keeper.

use super::state::{CallerState, LinkState};
use crate::{
    drain::Tasks,
    link::{
        ActiveLink, CloseSequence, ControlStream, EndReason, KeeperHooks, KeeperSignals, Link,
        LinkFault, REPLACED, Retry,
    },
    name::NodeAddress,
    wire::{CloseCode, Control},
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub(super) struct CallerHooks(pub(super) Arc<CallerState>);

impl KeeperHooks for CallerHooks {
    type Dialled = ActiveCallerLink;
    type Active = ActiveCallerLink;

    fn address(&self) -> &NodeAddress {
        &self.0.address
    }

    fn signals(&self) -> &KeeperSignals {
        &self.0.keeper
    }

    fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    fn chance(&self) -> f64 {
        self.0.dialler.net().chance()
    }

    fn drain_max(&self) -> Duration {
        self.0.limits.drain_max
    }

    async fn dial(&self, newer_than: Option<SystemTime>) -> Result<ActiveCallerLink, LinkFault> {
        let (link, control, _welcome) = self.0.dialler.dial(&self.0.address, newer_than).await?;
        Ok(ActiveCallerLink::new(link, control))
    }

    /// A caller registers nothing: no peer uses its link before it does.
    async fn establish(&self, active: ActiveCallerLink) -> Result<ActiveCallerLink, LinkFault> {
        Ok(active)
    }

    fn publish(&self, active: &mut ActiveCallerLink) {
        self.0.link.send_replace(LinkState::Up(active.link.clone()));
    }

    fn down(&self, fault: &LinkFault) {
        self.0.link.send_replace(LinkState::Down(Some(fault.clone())));
    }

    fn log_retry(&self, retry: &Retry<'_>) {
        let Retry { address, fault: reason, .. } = retry;
        tracing::debug!(%address, %reason, retry_s = retry.seconds(), "{retry}");
    }
}

/// A link that is kept up. Dropping it closes it.
pub(super) struct ActiveCallerLink {
    link: Link,
    control: ControlStream,
}

impl ActiveCallerLink {
    fn new(link: Link, mut control: ControlStream) -> Self {
        control.close_by(CloseSequence::passive(link.clone()));
        Self { link, control }
    }
}

impl ActiveLink for ActiveCallerLink {
    type Link = Link;

    fn link(&self) -> &Link {
        &self.link
    }

    async fn maintain(&mut self) -> EndReason {
        loop {
            let fault = match self.control.next().await {
                Ok(Control::Drain(drain)) if !self.link.is_closed() => {
                    return EndReason::Draining(LinkFault::draining(&drain.reason));
                }
                Ok(Control::Drain(drain)) => {
                    return EndReason::Ended(LinkFault::draining(&drain.reason));
                }
                // Without a DRAIN before it. New calls wait for the next link; this one ends when
                // the last reply is here.
                Ok(Control::Goodbye(_)) => continue,
                Ok(_) => LinkFault::Broken("a control frame that a caller has no use for".into()),
                Err(fault) => fault,
            };
            return EndReason::Ended(self.link.end(fault));
        }
    }

    /// Closes the link when this side waits for no reply on it.
    async fn drain_and_close(mut self) {
        let link = self.link.clone();
        tokio::select! {
            () = link.quiet() => {}
            _fault = self.maintain_to_end() => {}
        }
    }
}

impl Drop for ActiveCallerLink {
    fn drop(&mut self) {
        let text = if self.link.is_replaced() { REPLACED } else { "the caller has ended" };
        self.link.close(CloseCode::Goodbye, text);
    }
}
