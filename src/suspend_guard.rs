//! A pause of this process (SIGSTOP, a suspended machine) and what it means for requests on a link
//! that were read after it: they may be over.
//!
//! After a pause the link is asked for a PONG, behind which all has come that the peer had to say,
//! as that it gave a call up; and what came before it loses the gap from its time.

pub(crate) use crate::net::Entered;

use crate::{
    limits::SUSPEND_TICK,
    link::Link,
    net::Suspend,
    status::{Code, Status},
};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::{sync::Notify, time::Instant};

/// Guards the starts of what comes over one link.
pub(crate) struct SuspendGuard {
    link: Link,
    side: &'static str,
    /// The pauses before the last PONG that was waited for.
    cleared: AtomicU64,
    /// Held while waiting for a PONG; those who come meanwhile have it too.
    turn: tokio::sync::Mutex<()>,
    /// Told when a request has met a pause that no PONG was waited for.
    is_owed: Notify,
}

impl SuspendGuard {
    /// Pauses before now do not concern a new link. `side` is what this process is: agent or node.
    pub(crate) fn new(link: Link, side: &'static str) -> Self {
        let cleared = AtomicU64::new(link.net().suspend().paused());
        Self { link, side, cleared, turn: tokio::sync::Mutex::default(), is_owed: Notify::new() }
    }

    fn suspend(&self) -> &Suspend {
        self.link.net().suspend()
    }

    /// Waits for the PONGs that requests are owed, until the link ends. A request whose own time
    /// does not suffice for that is refused, and without this so would be all that come after it,
    /// for ever, if none has more time than the pause took.
    pub(crate) async fn mind(&self) {
        loop {
            tokio::select! {
                biased;
                () = self.link.closed() => return,
                () = self.is_owed.notified() => {}
            }
            // It fails with the link, and then that is over.
            if self.clear(self.suspend().paused()).await.is_err() {
                return;
            }
        }
    }

    /// Notes a request. To be called as soon as there is one.
    pub(crate) fn enter(&self) -> Entered {
        self.suspend().entered_after(self.cleared.load(Ordering::Acquire))
    }

    /// The last thing before its handler starts. Gives the deadline that the request really has.
    ///
    /// # Errors
    /// It has passed, or the link is lost: not executed.
    pub(crate) async fn pass(
        &self,
        entered: Entered,
        deadline: Instant,
    ) -> Result<Instant, Status> {
        let paused = self.suspend().paused();
        if !entered.is_owed() && paused == self.cleared.load(Ordering::Acquire) {
            return Ok(deadline);
        }
        // Boxed: hardly a call meets a pause, and none need carry room for it.
        Box::pin(self.pass_after(paused, entered, deadline)).await
    }

    async fn pass_after(
        &self,
        paused: u64,
        entered: Entered,
        deadline: Instant,
    ) -> Result<Instant, Status> {
        self.is_owed.notify_one();
        let too_late = || too_late(self.side);
        let left = self.suspend().deadline(entered, deadline).ok_or_else(too_late)?;
        match tokio::time::timeout_at(left, self.clear(paused)).await {
            Ok(Ok(())) => self.suspend().deadline(entered, deadline).ok_or_else(too_late),
            Ok(Err(status)) => Err(status),
            Err(_elapsed) => Err(too_late()),
        }
    }

    /// Waits for a PONG to a PING that was sent after these pauses, unless one has come.
    async fn clear(&self, paused: u64) -> Result<(), Status> {
        let _turn = self.turn.lock().await;
        if self.cleared.load(Ordering::Acquire) >= paused {
            return Ok(());
        }
        self.link
            .ping()
            .await
            .map_err(|fault| Status::not_executed(Code::Unavailable, fault.to_string()))?;
        // The PONG may be read before the tasks of streams that came ahead of it have run: they are
        // given a moment.
        tokio::time::sleep(SUSPEND_TICK).await;
        self.cleared.store(paused, Ordering::Release);
        Ok(())
    }
}

/// The refusal of a request whose deadline passed in a pause of this side.
pub(crate) fn too_late(side: &str) -> Status {
    let text = format!("the deadline passed while the {side} stood still");
    Status::not_executed(Code::DeadlineExceeded, text)
}
