//! Handles requests that were read on a link after this process was suspended (SIGSTOP, a suspended
//! machine): their deadline may have passed.
//!
//! After a suspend the guard sends a PING on the link. The PONG arrives after everything that the
//! peer sent before it, such as the reset of a call. Requests that arrived before it lose the
//! length of the suspend from their time.

pub(crate) use crate::net::Entered;

use crate::{
    limits::SUSPEND_TICK,
    link::Link,
    net::Suspend,
    status::{Code, Status},
};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::{sync::Notify, time::Instant};

/// Guards the start of requests on one link.
pub(crate) struct SuspendGuard {
    link: Link,
    side: &'static str,
    /// Number of suspends before the last PONG that was awaited.
    cleared: AtomicU64,
    /// Held while a PONG is awaited; requests that arrive meanwhile share it.
    turn: tokio::sync::Mutex<()>,
    /// Notified when a request has seen a suspend after which no PONG was awaited.
    is_owed: Notify,
}

impl SuspendGuard {
    /// A guard of a new link, which earlier suspends do not affect. `side` is the role of this
    /// process: agent or node.
    pub(crate) fn new(link: Link, side: &'static str) -> Self {
        let cleared = AtomicU64::new(link.net().suspend().paused());
        Self { link, side, cleared, turn: tokio::sync::Mutex::default(), is_owed: Notify::new() }
    }

    fn suspend(&self) -> &Suspend {
        self.link.net().suspend()
    }

    /// Awaits the PONGs that requests need, until the link ends. A request with too little time for
    /// a PONG is refused; without this task all later requests would be refused too if none has
    /// more time than the suspend took.
    pub(crate) async fn watch(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.link.closed() => return,
                () = self.is_owed.notified() => {}
            }
            // It fails only when the link ends.
            if self.clear(self.suspend().paused()).await.is_err() {
                return;
            }
        }
    }

    /// Registers a request. Must be called as soon as it is read.
    pub(crate) fn enter(&self) -> Entered {
        self.suspend().entered_after(self.cleared.load(Ordering::Acquire))
    }

    /// Admits a request right before its handler starts, and returns the deadline that it really
    /// has. Fails, not executed, if that has passed or the link is lost.
    pub(crate) async fn pass(
        &self,
        entered: Entered,
        deadline: Instant,
    ) -> Result<Instant, Status> {
        let paused = self.suspend().paused();
        if !entered.is_owed() && paused == self.cleared.load(Ordering::Acquire) {
            return Ok(deadline);
        }
        // Boxed: few calls see a suspend, and the others should not carry room for it.
        Box::pin(async {
            self.is_owed.notify_one();
            let too_late = || too_late(self.side);
            let left = self.suspend().deadline(entered, deadline).ok_or_else(too_late)?;
            match tokio::time::timeout_at(left, self.clear(paused)).await {
                Ok(Ok(())) => self.suspend().deadline(entered, deadline).ok_or_else(too_late),
                Ok(Err(status)) => Err(status),
                Err(_elapsed) => Err(too_late()),
            }
        })
        .await
    }

    /// Waits for a PONG to a PING that was sent after these suspends, unless one has arrived.
    async fn clear(&self, paused: u64) -> Result<(), Status> {
        let _turn = self.turn.lock().await;
        if self.cleared.load(Ordering::Acquire) >= paused {
            return Ok(());
        }
        self.link
            .ping()
            .await
            .map_err(|fault| Status::not_executed(Code::Unavailable, fault.to_string()))?;
        // The PONG may be read before the tasks of earlier streams have run: they get a moment.
        tokio::time::sleep(SUSPEND_TICK).await;
        self.cleared.store(paused, Ordering::Release);
        Ok(())
    }
}

/// Status of a request whose deadline passed while this side was suspended.
pub(crate) fn too_late(side: &str) -> Status {
    let text = format!("the deadline passed while the {side} was suspended");
    Status::not_executed(Code::DeadlineExceeded, text)
}

#[cfg(all(test, feature = "certs"))]
mod tests {
    use super::*;
    use crate::link::ends::Ends;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_request_loses_a_suspend_that_was_cleared_after_it_came() {
        let [(link, mut control), (_peer, mut its_control)] = Ends::new().linked().await;
        let (guard, pause) = (SuspendGuard::new(link.clone(), "agent"), Duration::from_secs(3));
        link.net().suspend().add_pause(pause);
        let (early, deadline) = (guard.enter(), Instant::now() + 10 * pause);
        tokio::select! {
            cleared = guard.clear(guard.suspend().paused()) => cleared.expect("a PONG"),
            _ = control.next() => unreachable!(),
            _ = its_control.next() => unreachable!(),
        }
        assert_eq!(guard.pass(early, deadline).await, Ok(deadline - pause));
        assert_eq!(guard.pass(guard.enter(), deadline).await, Ok(deadline), "it came later");
    }
}
