//! Make-before-break: another link is made while the active one stays in use, after a change of the
//! own credentials or limits, or because the peer's certificate is near expiry.

use super::{
    hooks::{ActiveLink, EndReason, KeeperHooks, Retry},
    redial::Redial,
};
use crate::link::fault::LinkFault;
use std::{pin::pin, time::SystemTime};
use tokio::time::Instant;

/// Dials until there is another link, or until the active one ends or is drained. Dropping it drops
/// a dial, and whatever else it has begun.
pub(super) async fn replacement<H: KeeperHooks>(
    hooks: &H,
    active: &mut H::Active,
    newer_than: Option<SystemTime>,
) -> Result<H::Active, EndReason> {
    let mut redial = Redial::default();
    let mut reconnect = hooks.signals().reconnect.subscribe();
    loop {
        let dialled = tokio::select! {
            biased;
            end = active.maintain() => return Err(end),
            dialled = dial(hooks, newer_than) => dialled,
        };
        let fault = match dialled {
            Ok(dialled) => match establish(hooks, active, dialled).await {
                (Ok(next), _) => return Ok(next),
                (Err(_), Some(end)) => return Err(end),
                (Err(fault), None) => fault,
            },
            Err(fault) => fault,
        };
        let wait = redial.failed(&fault, Instant::now(), hooks.chance());
        if wait.should_log {
            let retry = Retry { address: hooks.address(), fault: &fault, wait: wait.duration };
            let Retry { address, fault: reason, .. } = retry;
            let retry_s = retry.seconds();
            tracing::warn!(
                %address,
                %reason,
                retry_s,
                "no newer link to node {address} yet, the active one stays: {reason}; retrying in {retry_s:.1} s"
            );
        }
        tokio::select! {
            biased;
            end = active.maintain() => return Err(end),
            () = tokio::time::sleep(wait.duration) => {}
            changed = reconnect.changed() => if changed.is_ok() { redial.succeeded() },
        }
    }
}

/// Dials once, and never returns once the role stops.
async fn dial<H: KeeperHooks>(
    hooks: &H,
    newer_than: Option<SystemTime>,
) -> Result<H::Dialled, LinkFault> {
    let mut stop = hooks.stop();
    tokio::select! {
        biased;
        () = stop.notified() => {}
        dialled = hooks.dial(newer_than) => return dialled,
    }
    stop.done();
    std::future::pending().await
}

/// Establishes a link to the end. Also returns why the active link ended meanwhile, if it did.
async fn establish<H: KeeperHooks>(
    hooks: &H,
    active: &mut H::Active,
    dialled: H::Dialled,
) -> (Result<H::Active, LinkFault>, Option<EndReason>) {
    let (mut establishing, mut ended) = (pin!(hooks.establish(dialled)), None);
    loop {
        tokio::select! {
            biased;
            end = active.maintain(), if ended.is_none() => ended = Some(end),
            established = &mut establishing => return (established, ended),
        }
    }
}
