//! A link without a network, and the log of what happens to it.

use crate::{
    drain::SignalListener,
    link::{
        fault::LinkFault,
        keeper::hooks::{ActiveLink, EndReason, KeptLink},
    },
    name::PeerName,
    wire::CloseCode,
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::sync::{Notify, watch};

/// A log of what happened, one line each.
#[derive(Clone, Default)]
pub(in crate::link::keeper) struct EventLog(Arc<Mutex<Vec<String>>>);

impl EventLog {
    pub(super) fn push(&self, line: impl Into<String>) {
        self.0.lock().expect("a log").push(line.into());
    }

    /// Takes what happened since the last call.
    pub(in crate::link::keeper) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("a log"))
    }
}

/// A link that its test controls.
#[derive(Clone)]
pub(in crate::link::keeper) struct FakeLink(Arc<FakeLinkState>);

struct FakeLinkState {
    number: usize,
    peer: PeerName,
    log: EventLog,
    ended: watch::Sender<Option<LinkFault>>,
    drained: Notify,
    expires: Notify,
    calls_finished: Notify,
}

impl FakeLink {
    pub(in crate::link::keeper) fn new(number: usize, log: &EventLog) -> Self {
        Self(Arc::new(FakeLinkState {
            number,
            peer: "node/edge".parse().expect("a peer"),
            log: log.clone(),
            ended: watch::Sender::new(None),
            drained: Notify::new(),
            expires: Notify::new(),
            calls_finished: Notify::new(),
        }))
    }

    pub(super) fn log(&self, what: &str) {
        self.0.log.push(format!("{what} {}", self.0.number));
    }

    /// Ends the link.
    pub(in crate::link::keeper) fn lose(&self, fault: LinkFault) {
        self.0.ended.send_if_modified(|ended| {
            let is_first = ended.is_none();
            ended.get_or_insert(fault);
            is_first
        });
    }

    /// The peer drains the link.
    pub(in crate::link::keeper) fn drain(&self) {
        self.0.drained.notify_one();
    }

    /// The peer's certificate comes near its end.
    pub(in crate::link::keeper) fn expire_soon(&self) {
        self.0.expires.notify_one();
    }

    /// The calls on the link finish.
    pub(in crate::link::keeper) fn finish_calls(&self) {
        self.0.calls_finished.notify_one();
    }

    /// When the certificate of a fake peer ends.
    pub(in crate::link::keeper) fn expiry() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000)
    }
}

impl KeptLink for FakeLink {
    fn peer(&self) -> &PeerName {
        &self.0.peer
    }

    fn is_closed(&self) -> bool {
        self.0.ended.borrow().is_some()
    }

    async fn closed(&self) {
        drop(self.0.ended.subscribe().wait_for(Option::is_some).await);
    }

    fn close(&self, code: CloseCode, text: &str) {
        self.lose(LinkFault::Closed { code, text: text.into(), by_peer: false });
    }

    fn replace(&self) {
        self.log("replace");
    }

    fn valid_until(&self) -> SystemTime {
        Self::expiry()
    }

    async fn near_expiry(&self) {
        self.0.expires.notified().await;
    }
}

/// The link in use. It logs its end.
pub(in crate::link::keeper) struct FakeActive {
    pub(super) link: FakeLink,
    pub(super) unwanted: SignalListener,
}

impl ActiveLink for FakeActive {
    type Link = FakeLink;

    fn link(&self) -> &FakeLink {
        &self.link
    }

    async fn maintain(&mut self) -> EndReason {
        let (state, unwanted) = (&self.link.0, &mut self.unwanted);
        let mut ended = state.ended.subscribe();
        tokio::select! {
            biased;
            ended = ended.wait_for(Option::is_some) => {
                EndReason::Ended(ended.ok().and_then(|fault| fault.clone()).expect("a fault"))
            }
            () = state.drained.notified() => EndReason::Draining(LinkFault::draining("maintenance")),
            () = unwanted.notified() => {
                unwanted.done();
                EndReason::Unwanted
            }
        }
    }

    async fn drain_and_close(mut self) {
        let link = self.link.clone();
        tokio::select! {
            _fault = self.maintain_to_end() => {}
            () = link.0.calls_finished.notified() => {}
        }
    }

    fn log_drained(&self, _: &LinkFault) {
        self.link.log("drained");
    }
}

impl Drop for FakeActive {
    fn drop(&mut self) {
        self.link.close(CloseCode::Goodbye, "");
        self.link.log("closed");
    }
}
