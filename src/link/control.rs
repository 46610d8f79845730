//! The control stream of a link: its frames, and the heartbeat that travels with them.

use super::{
    LinkFault, endpoint,
    roam::Whereabouts,
    stream::{CallStream, FrameReader, ReadFault},
};
use crate::{
    limits::{self, CONTROL_BYTES_MAX, CONTROL_RESERVE_BYTES, Limits},
    wire::{Control, Kind, Ping},
};
use quinn::SendStream;
use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, Interval, MissedTickBehavior},
};

/// Who keeps the link alive. The dialling side asks, because the NAT binding is on its side; the accepting side only listens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heartbeat {
    /// Sends a PING this often.
    Asks(Duration),
    /// Expects PINGs.
    Listens,
}

/// The long-lived first stream of a link. Whoever holds it keeps the link up by calling [`ControlStream::next`] in a loop.
pub(crate) struct ControlStream {
    send: SendStream,
    reader: FrameReader,
    ticks: Option<Interval>,
    pulse: Arc<Pulse>,
    peer: Option<Whereabouts>,
    reserve: Option<Reserve>,
    silence_max: Duration,
}

/// The heartbeat as others may follow it, and ask for one more beat.
pub(super) struct Pulse {
    /// When the last frame of the peer came.
    heard_at: Mutex<Instant>,
    /// PINGs sent; the number of the last one.
    sent: AtomicU64,
    /// The highest number that came back in a PONG.
    answered: watch::Sender<u64>,
    wanted: Notify,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            heard_at: Mutex::new(Instant::now()),
            sent: AtomicU64::new(0),
            answered: watch::Sender::default(),
            wanted: Notify::new(),
        }
    }
}

impl Pulse {
    /// When the last frame of the peer came.
    pub(super) fn heard_at(&self) -> Instant {
        *self.heard_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a PING sent soon, without waiting for anything.
    pub(super) fn want_ping(&self) {
        self.wanted.notify_one();
    }

    /// Ends when a PING that is sent from now on was answered. Never ends if the link is lost.
    pub(super) async fn fresh(&self) {
        let next = self.sent.load(Ordering::Acquire) + 1;
        let mut answered = self.answered.subscribe();
        self.want_ping();
        // The sender is at hand, so it ends only when it is true.
        drop(answered.wait_for(|number| *number >= next).await);
    }

    fn next(&self) -> Ping {
        Ping { number: self.sent.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// A PONG to what was never asked says nothing.
    fn heard(&self, pong: &Ping) {
        if pong.number <= self.sent.load(Ordering::Acquire) {
            self.answered.send_if_modified(|highest| {
                let is_news = pong.number > *highest;
                *highest = pong.number.max(*highest);
                is_news
            });
        }
    }
}

/// Above every call, so that a full send buffer does not hold the heartbeat back.
const PRIORITY: i32 = i32::MAX;

impl ControlStream {
    /// Wraps the first stream. Heartbeats start with [`ControlStream::start_heartbeat`].
    pub(super) fn new(send: SendStream, recv: quinn::RecvStream) -> Self {
        drop(send.set_priority(PRIORITY));
        Self {
            send,
            reader: CallStream::reader_of(recv, CONTROL_BYTES_MAX),
            ticks: None,
            pulse: Arc::default(),
            peer: None,
            reserve: None,
            silence_max: Duration::MAX,
        }
    }

    /// The heartbeat, for the link.
    pub(super) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    /// From now on control frames have room in the send buffer also when calls have filled it.
    pub(super) fn reserve(&mut self, connection: quinn::Connection, limits: &Limits) {
        self.reserve = Some(Reserve { connection, call_window: endpoint::call_window(limits) });
    }

    /// From now on it is said when the peer has moved.
    pub(super) fn watch(&mut self, peer: Whereabouts) {
        self.peer = Some(peer);
    }

    fn heard(&mut self) {
        *self.pulse.heard_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if let Some(peer) = &mut self.peer {
            peer.look();
        }
    }

    /// From now on the link is lost when nothing was heard for `silence_max`.
    pub(super) fn start_heartbeat(&mut self, heartbeat: Heartbeat, silence_max: Duration) {
        self.heard();
        self.silence_max = silence_max;
        self.ticks = match heartbeat {
            Heartbeat::Asks(every) => {
                let every = every.max(limits::HEARTBEAT_MIN);
                let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                Some(ticks)
            }
            Heartbeat::Listens => None,
        };
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, control: &Control) -> Result<(), LinkFault> {
        let bytes = control.encode().map_err(|fault| LinkFault::Broken(fault.to_string()))?;
        let writing = pin!(self.send.write_all(&bytes));
        let written = tokio::time::timeout(
            self.silence_max.min(Duration::from_secs(60)),
            in_reserve(writing, self.reserve.as_ref()),
        );
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(quinn::WriteError::ConnectionLost(error))) => Err(LinkFault::lost(&error)),
            Ok(Err(error)) => Err(LinkFault::Broken(format!("the control stream: {error}"))),
            Err(_elapsed) => Err(LinkFault::Silent("the peer takes no control frames")),
        }
    }

    /// The peer's first frame, whatever it is: before the first words there is no heartbeat to keep going.
    pub(super) async fn first(&mut self) -> Result<Control, LinkFault> {
        read(self.reader.next().await)
    }

    /// The next frame that is not part of the heartbeat, which is kept going meanwhile. An error ends the link.
    ///
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Control, LinkFault> {
        loop {
            match self.step().await? {
                Some(Control::Ping(ping)) => self.send(&Control::Pong(ping)).await?,
                Some(Control::Pong(pong)) => self.pulse.heard(&pong),
                Some(Control::Reserved) => {}
                Some(control) => return Ok(control),
                None => {
                    let ping = self.pulse.next();
                    self.send(&Control::Ping(ping)).await?;
                }
            }
        }
    }

    /// A frame, or `None` when it is time for a PING.
    async fn step(&mut self) -> Result<Option<Control>, LinkFault> {
        let silent_at = self.pulse.heard_at().checked_add(self.silence_max);
        tokio::select! {
            biased;
            frame = self.reader.next() => {
                self.heard();
                read(frame).map(Some)
            }
            () = tick(self.ticks.as_mut()) => Ok(None),
            () = self.pulse.wanted.notified() => Ok(None),
            () = sleep_until(silent_at) => Err(LinkFault::Silent("no heartbeat came")),
        }
    }
}

/// The room in the send buffer that calls leave free.
struct Reserve {
    connection: quinn::Connection,
    call_window: u64,
}

/// Polls a write and, where calls have filled the send buffer, again with the reserve opened. It is open for that one poll, because quinn
/// gives room to whoever asks first.
async fn in_reserve<F: Future>(mut write: Pin<&mut F>, reserve: Option<&Reserve>) -> F::Output {
    std::future::poll_fn(|cx| {
        let first = write.as_mut().poll(cx);
        let (Poll::Pending, Some(reserve)) = (&first, reserve) else { return first };
        let Reserve { connection, call_window } = reserve;
        connection.set_send_window(call_window + CONTROL_RESERVE_BYTES);
        let second = write.as_mut().poll(cx);
        connection.set_send_window(*call_window);
        second
    })
    .await
}

fn read(frame: Result<Option<super::stream::Frame>, ReadFault>) -> Result<Control, LinkFault> {
    match frame {
        Ok(Some(frame)) if frame.kind != Kind::Message => {
            Control::decode(frame.kind, &frame.payload)
                .map_err(|fault| LinkFault::Broken(fault.to_string()))
        }
        Ok(Some(_)) => Err(LinkFault::Broken("a message on the control stream".into())),
        Err(ReadFault::Lost(fault)) => Err(fault),
        Err(ReadFault::Wire(fault)) => Err(LinkFault::Broken(fault.to_string())),
        Ok(None) | Err(ReadFault::Reset(_) | ReadFault::Cut) => {
            Err(LinkFault::Broken("the control stream ended".into()))
        }
    }
}

async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
