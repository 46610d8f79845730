//! Leaving a link in good order. A side that leaves says DRAIN, finishes what it has taken, and
//! says GOODBYE; the other side, which is the last to receive, closes the link when it waits for no
//! reply any more.

use super::{Link, LinkFault};
use crate::{
    drain::SignalListener,
    wire::{CloseCode, Drain, Goodbye},
};
use std::time::Duration;

/// Why a link is left whose owner stays.
pub(crate) const REPLACED: &str = "another link has taken its place";

/// How the owner of one link will leave it, and how far it or its peer has come.
pub(crate) struct Leave {
    link: Link,
    /// Heard when calls are to be taken no more; done when DRAIN was handed over.
    drain: SignalListener,
    /// Heard when nothing is left to do; gone with the link.
    goodbye: SignalListener,
    /// Heard when the time is over and something is left.
    cut: SignalListener,
    code: CloseCode,
    text: &'static str,
    time: Duration,
    stage: Stage,
    /// The peer has finished, and this is why.
    peer_finished: Option<LinkFault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Here,
    Draining,
    Finished,
}

/// What is to be done about it now.
pub(super) enum LeaveStep {
    SayDrain,
    SayGoodbye,
    /// The peer has finished and all its replies are here, or our time is over.
    Close(LinkFault),
}

impl Leave {
    /// An owner that never says these words: it just closes the link, because nobody waits for an
    /// answer of its.
    pub(crate) fn unsaid(link: Link) -> Self {
        Self::on(link, Default::default(), CloseCode::Goodbye, "")
    }

    /// Says DRAIN on the first word and GOODBYE on the second, with this code and text; on the
    /// third it closes the link with DRAINED.
    pub(crate) fn on(
        link: Link,
        [drain, goodbye, cut]: [SignalListener; 3],
        code: CloseCode,
        text: &'static str,
    ) -> Self {
        let (time, stage) = (Duration::ZERO, Stage::Here);
        Self { link, drain, goodbye, cut, code, text, time, stage, peer_finished: None }
    }

    /// Tells the peer how long its calls have to finish.
    pub(crate) fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// What is to be done next. May be dropped and called again.
    pub(super) async fn next(&mut self) -> LeaveStep {
        let (drain, goodbye, link) = (&mut self.drain, &mut self.goodbye, &self.link);
        tokio::select! {
            biased;
            () = drain.notified(), if self.stage == Stage::Here => LeaveStep::SayDrain,
            () = goodbye.notified(), if self.stage < Stage::Finished => LeaveStep::SayGoodbye,
            () = self.cut.notified() => LeaveStep::Close(LinkFault::Closed {
                code: CloseCode::Drained,
                text: self.text.into(),
                by_peer: false,
            }),
            fault = finished(link, self.peer_finished.as_ref()) => LeaveStep::Close(fault),
        }
    }

    /// From here on the peer's streams are not taken; these are the words that say so.
    pub(super) fn drain(&mut self) -> Drain {
        self.stage = Stage::Draining;
        // A former link goes on for as long as calls are on it.
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

    /// The last words.
    pub(super) fn goodbye(&mut self) -> Goodbye {
        self.stage = Stage::Finished;
        let text = if self.link.is_replaced() { REPLACED } else { self.text };
        Goodbye { code: self.code.number(), text: text.into() }
    }

    /// All that was said is with the transport.
    pub(super) fn handed_over(&mut self) {
        if self.stage > Stage::Here {
            self.drain.done();
        }
    }

    /// The peer is leaving.
    pub(super) fn peer_drains(&self, words: &Drain) {
        self.link.note_drain(words.last_stream);
    }

    /// Notes that the peer has finished: it takes no calls and answers none. Returns whether the
    /// peer had not said before, with DRAIN, that it is leaving.
    pub(super) fn peer_says_goodbye(&mut self, words: &Goodbye) -> bool {
        let is_news = !self.link.is_peer_leaving();
        // Without a DRAIN before it, any call that was not answered may have been taken.
        self.link.note_drain(u64::MAX);
        self.peer_finished = Some(LinkFault::closed_by_peer(words.code, words.text.as_bytes()));
        is_news
    }
}

async fn finished(link: &Link, fault: Option<&LinkFault>) -> LinkFault {
    match fault {
        Some(fault) => {
            link.quiet().await;
            fault.clone()
        }
        None => std::future::pending().await,
    }
}
