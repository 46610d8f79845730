//! Keeps one link up: dials, waits longer and longer after failures, replaces the link without a
//! gap, and dials a successor while the peer drains it. Roles plug in by [`KeeperHooks`].

#[cfg(test)]
mod fakes;
mod hooks;
mod redial;
mod replacement;
mod retiring;
#[cfg(test)]
mod tests;

pub(crate) use hooks::{ActiveLink, EndReason, KeeperHooks, KeeperSignals, KeptLink, Retry};

use super::fault::LinkFault;
use redial::Redial;
use replacement::replacement;
use retiring::{DrainingLink, RetiringLinks, RetiringSlot};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// Keeps a role linked to one address, without giving up, until the role stops and has no link.
pub(crate) async fn keep<H: KeeperHooks>(hooks: H) {
    let reconnect = hooks.signals().reconnect.subscribe();
    let replace = hooks.signals().replace.subscribe();
    let (redial, draining) = (Redial::default(), DrainingLink(None));
    Keeper { hooks, redial, draining, reconnect, replace }.run().await;
}

struct Keeper<H: KeeperHooks> {
    hooks: H,
    redial: Redial,
    draining: DrainingLink<<H::Active as ActiveLink>::Link>,
    reconnect: watch::Receiver<()>,
    replace: watch::Receiver<()>,
}

impl<H: KeeperHooks> Keeper<H> {
    async fn run(mut self) {
        let mut stop = self.hooks.stop();
        loop {
            self.reconnect.mark_unchanged();
            // Before the dial: for what is applied during it, the link is made once more.
            self.replace.mark_unchanged();
            let dialled = tokio::select! {
                biased;
                () = stop.notified() => return,
                dialled = self.hooks.dial(None) => dialled,
                () = self.draining.ended() => {
                    self.redial.succeeded();
                    continue;
                }
            };
            // Not cancelled from here on: the peer may use the link.
            let established = match dialled {
                Ok(dialled) => self.hooks.establish(dialled).await,
                Err(fault) => Err(fault),
            };
            // The active link has a listener of its own by now.
            stop.done();
            let was_linked = established.is_ok();
            let fault = match established {
                Ok(active) => match self.use_link(active).await {
                    Some(fault) => fault,
                    None => return,
                },
                Err(fault) => fault,
            };
            if !was_linked && fault.is_refusal() {
                self.hooks.refused(&fault);
            }
            stop = self.hooks.stop();
            if self.hooks.is_stopped() {
                return;
            }
            let wait = self.failed(&fault, was_linked);
            tokio::select! {
                () = stop.notified() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.draining.ended() => self.redial.succeeded(),
                changed = self.reconnect.changed() => if changed.is_ok() { self.redial.succeeded() },
            }
        }
    }

    /// Returns how long to wait before the next dial. Logs the reason if it is new.
    fn failed(&mut self, fault: &LinkFault, was_linked: bool) -> Duration {
        let wait = self.redial.failed(fault, Instant::now(), self.hooks.chance());
        if wait.should_log {
            let address = self.hooks.address();
            self.hooks.log_retry(&Retry { address, fault, wait: wait.duration });
        }
        // A peer that still drains takes no new link; this is not logged.
        if was_linked || !self.draining.is_open() {
            self.hooks.down(fault);
        }
        wait.duration
    }

    /// Uses a link and those that replace it. Returns when the link has ended, or when its peer
    /// drains it and a successor must be dialled meanwhile; `None` if it is not wanted any more. A
    /// second draining link right after the first is not a restart; it is kept instead.
    async fn use_link(&mut self, mut active: H::Active) -> Option<LinkFault> {
        self.hooks.publish(&mut active);
        self.redial.linked(Instant::now());
        let mut retiring = RetiringLinks::new();
        let end = loop {
            match self.next_link(&mut active, &mut retiring).await {
                Ok((next, slot)) => {
                    let before = self.replace_by(&mut active, next);
                    retiring.add(before.link().clone());
                    self.hooks.tasks().spawn_until_stopped(async move {
                        before.drain_and_close().await;
                        drop(slot);
                    });
                }
                Err(end) => break end,
            }
        };
        let fault = match end {
            EndReason::Ended(fault) => return Some(fault),
            EndReason::Draining(fault) => fault,
            EndReason::Unwanted => {
                self.hooks.tasks().spawn_until_stopped(active.drain_and_close());
                return None;
            }
        };
        self.hooks.down(&fault);
        if self.draining.is_open() {
            // Boxed: a link that ends in the usual way need not carry room for it.
            return Some(Box::pin(active.maintain_to_end()).await);
        }
        self.draining.0 = Some(active.link().clone());
        self.hooks.tasks().spawn_until_stopped(async move {
            let fault = active.maintain_to_end().await;
            active.log_drained(&fault);
        });
        Some(fault)
    }

    /// Publishes the next link in place of the active one, and returns the latter.
    fn replace_by(&self, active: &mut H::Active, mut next: H::Active) -> H::Active {
        active.link().replace();
        self.hooks.publish(&mut next);
        std::mem::replace(active, next)
    }

    /// Makes another link once one is wanted. Fails when the active one has ended or is drained.
    async fn next_link(
        &mut self,
        active: &mut H::Active,
        retiring: &mut RetiringLinks<<H::Active as ActiveLink>::Link>,
    ) -> Result<(H::Active, RetiringSlot), EndReason> {
        let link = active.link().clone();
        let needs_newer = tokio::select! {
            biased;
            end = active.maintain() => return Err(end),
            changed = self.replace.changed() => changed.is_err(),
            () = link.near_expiry() => true,
        };
        let slot = tokio::select! {
            biased;
            end = active.maintain() => return Err(end),
            slot = retiring.slot(self.hooks.drain_max()) => slot,
        };
        self.replace.mark_unchanged();
        let newer_than = needs_newer.then(|| link.valid_until());
        let next = replacement(&self.hooks, active, newer_than).await?;
        Ok((next, slot))
    }
}
