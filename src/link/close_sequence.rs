//! The graceful close of a link. The closing side sends DRAIN, finishes its taken calls, and sends
//! GOODBYE; the other side, the last to receive, closes the link when it waits for no reply.

use super::{connection::Link, fault::LinkFault};
use crate::{
    drain::SignalListener,
    lazy_timeout::or_pending,
    wire::{CloseCode, Control, Drain, Goodbye},
};
use std::time::Duration;

/// The reason of a side that closes a link and stays linked by another one.
pub(crate) const REPLACED: &str = "another link has taken its place";

pub(crate) struct CloseSequence {
    link: Link,
    /// Calls are not taken any more. Done when DRAIN was handed to the transport.
    drain: SignalListener,
    /// Nothing is left to do. Done when the link is dropped.
    goodbye: SignalListener,
    /// The time is over and something is left.
    abort: SignalListener,
    code: CloseCode,
    text: &'static str,
    time: Duration,
    stage: CloseStage,
    /// The peer's reason, once it has sent GOODBYE.
    peer_finished: Option<LinkFault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CloseStage {
    Open,
    Draining,
    Finished,
}

impl CloseSequence {
    /// A sequence for a side that answers no calls: it only follows the peer's DRAIN and GOODBYE.
    pub(crate) fn passive(link: Link) -> Self {
        Self::new(link, Default::default(), CloseCode::Goodbye, "")
    }

    /// Sends DRAIN on the first signal and GOODBYE on the second, with this code and text; on the
    /// third it closes the link with DRAINED.
    pub(crate) fn new(
        link: Link,
        [drain, goodbye, abort]: [SignalListener; 3],
        code: CloseCode,
        text: &'static str,
    ) -> Self {
        let (time, stage) = (Duration::ZERO, CloseStage::Open);
        Self { link, drain, goodbye, abort, code, text, time, stage, peer_finished: None }
    }

    /// Sets how long the peer's calls have to finish. It is sent to the peer.
    pub(crate) fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Returns the next frame to send. Fails when the link is to be closed: the peer has finished
    /// and all its replies have arrived, or the time of this side is over. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Control, LinkFault> {
        let (drain, goodbye, link) = (&mut self.drain, &mut self.goodbye, &self.link);
        let finished = self.peer_finished.as_ref().map(async |fault: &LinkFault| {
            link.quiet().await;
            fault.clone()
        });
        tokio::select! {
            biased;
            () = drain.notified(), if self.stage == CloseStage::Open => {
                Ok(Control::Drain(self.drain()))
            }
            () = goodbye.notified(), if self.stage < CloseStage::Finished => {
                Ok(Control::Goodbye(self.goodbye()))
            }
            () = self.abort.notified() => Err(LinkFault::Closed {
                code: CloseCode::Drained,
                text: self.text.into(),
                by_peer: false,
            }),
            fault = or_pending(finished) => Err(fault),
        }
    }

    /// Stops taking the peer's streams, and returns the DRAIN frame.
    pub(super) fn drain(&mut self) -> Drain {
        self.stage = CloseStage::Draining;
        // A replaced link stays up for as long as calls are on it.
        let (reason, time) = match self.link.is_replaced() {
            true => (REPLACED, Duration::MAX),
            false => (self.text, self.time),
        };
        Drain {
            reason: reason.into(),
            time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            last_stream: self.link.stop_taking(),
        }
    }

    pub(super) fn goodbye(&mut self) -> Goodbye {
        self.stage = CloseStage::Finished;
        let text = if self.link.is_replaced() { REPLACED } else { self.text };
        Goodbye { code: self.code.number(), text: text.into() }
    }

    pub(super) fn handed_over(&mut self) {
        if self.stage > CloseStage::Open {
            self.drain.done();
        }
    }

    pub(super) fn peer_drains(&self, frame: &Drain) {
        self.link.note_drain(frame.last_stream);
    }

    /// Records the peer's GOODBYE: no calls, no replies. Returns true if no DRAIN came before it.
    pub(super) fn peer_says_goodbye(&mut self, frame: &Goodbye) -> bool {
        let is_news = !self.link.is_peer_draining();
        // Without a DRAIN before it, any call that was not answered may have been taken.
        self.link.note_drain(u64::MAX);
        self.peer_finished = Some(LinkFault::closed_by_peer(frame.code, frame.text.as_bytes()));
        is_news
    }
}
