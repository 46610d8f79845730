//! The control stream of a link: its frames, the heartbeat that travels with them, and the words of
//! those who leave.

use super::{
    LinkFault, endpoint,
    leave::{Leave, LeaveStep},
    migration::PeerAddress,
    stream::{CallStream, FrameReader, ReadFault},
};
use crate::{
    limits::{self, CONTROL_BYTES_MAX, CONTROL_RESERVE_BYTES, Limits},
    wire::{Control, Kind, Ping},
};
use bytes::{Buf, BytesMut};
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

/// Who keeps the link alive. The dialling side asks, because the NAT binding is on its side; the
/// accepting side only listens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Heartbeat {
    /// Sends a PING this often.
    Asks(Duration),
    /// Expects PINGs.
    Listens,
}

/// The long-lived first stream of a link. Whoever holds it keeps the link up by calling
/// [`ControlStream::next`] in a loop.
pub(crate) struct ControlStream {
    send: SendStream,
    /// What was said and is not yet with the transport: whoever stops waiting for that cuts no
    /// frame.
    unsent: BytesMut,
    leave: Option<Leave>,
    reader: FrameReader,
    ticks: Option<Interval>,
    pulse: Arc<Pulse>,
    peer: Option<PeerAddress>,
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
            unsent: BytesMut::new(),
            leave: None,
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
    pub(super) fn watch(&mut self, peer: PeerAddress) {
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

    /// From now on the words of leaving are said and heard here.
    pub(crate) fn start_leaving_by(&mut self, leave: Leave) {
        self.leave = Some(leave);
    }

    /// Sends a frame. Dropped before its end, the frame is sent with the next one, or by
    /// [`ControlStream::next`].
    pub(crate) async fn send(&mut self, control: &Control) -> Result<(), LinkFault> {
        self.say(control)?;
        self.flush().await
    }

    fn say(&mut self, control: &Control) -> Result<(), LinkFault> {
        let bytes = control.encode().map_err(|fault| LinkFault::Broken(fault.to_string()))?;
        self.unsent.extend_from_slice(&bytes);
        Ok(())
    }

    /// Hands all that was said to the transport.
    async fn flush(&mut self) -> Result<(), LinkFault> {
        while !self.unsent.is_empty() {
            let wait_max = self.silence_max.min(Duration::from_secs(60));
            let written = {
                let writing = pin!(self.send.write(&self.unsent));
                tokio::time::timeout(wait_max, in_reserve(writing, self.reserve.as_ref())).await
            };
            match written {
                Ok(Ok(written)) => self.unsent.advance(written),
                Ok(Err(quinn::WriteError::ConnectionLost(error))) => {
                    return Err(LinkFault::lost(&error));
                }
                Ok(Err(error)) => {
                    return Err(LinkFault::Broken(format!("the control stream: {error}")));
                }
                Err(_elapsed) => {
                    return Err(LinkFault::Silent("the peer takes no control frames"));
                }
            }
        }
        if let Some(leave) = &mut self.leave {
            leave.handed_over();
        }
        Ok(())
    }

    /// The peer's first frame, whatever it is: before the first words there is no heartbeat to keep
    /// going.
    pub(super) async fn first(&mut self) -> Result<Control, LinkFault> {
        read(self.reader.next().await)
    }

    /// Returns the next frame that is not part of the heartbeat, which is kept going meanwhile, nor
    /// of leaving, except for a DRAIN of the peer and a GOODBYE without a DRAIN before it. An error
    /// ends the link.
    ///
    /// May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Result<Control, LinkFault> {
        loop {
            self.flush().await?;
            match self.step().await? {
                Step::Frame(Control::Ping(ping)) => self.say(&Control::Pong(ping))?,
                Step::Frame(Control::Pong(pong)) => self.pulse.heard(&pong),
                Step::Frame(Control::Reserved) => {}
                Step::Frame(control) => {
                    if let Some(control) = self.heed(control) {
                        return Ok(control);
                    }
                }
                Step::Tick => {
                    let ping = self.pulse.next();
                    self.say(&Control::Ping(ping))?;
                }
                Step::Leave(step) => self.leave(step)?,
            }
        }
    }

    /// Takes a frame's part in leaving; gives what its owner has to know.
    fn heed(&mut self, control: Control) -> Option<Control> {
        match (&control, &mut self.leave) {
            (Control::Drain(words), Some(leave)) => leave.peer_drains(words),
            (Control::Goodbye(words), Some(leave)) => {
                let is_news = leave.peer_says_goodbye(words);
                return is_news.then_some(control);
            }
            _ => {}
        }
        Some(control)
    }

    fn leave(&mut self, step: LeaveStep) -> Result<(), LinkFault> {
        let Some(leave) = &mut self.leave else { return Ok(()) };
        let words = match step {
            LeaveStep::SayDrain => Control::Drain(leave.drain()),
            LeaveStep::SayGoodbye => Control::Goodbye(leave.goodbye()),
            LeaveStep::Close(fault) => return Err(fault),
        };
        self.say(&words)
    }

    /// What happens next.
    async fn step(&mut self) -> Result<Step, LinkFault> {
        let silent_at = self.pulse.heard_at().checked_add(self.silence_max);
        tokio::select! {
            biased;
            frame = self.reader.next() => {
                self.heard();
                read(frame).map(Step::Frame)
            }
            () = tick(self.ticks.as_mut()) => Ok(Step::Tick),
            () = self.pulse.wanted.notified() => Ok(Step::Tick),
            () = sleep_until(silent_at) => Err(LinkFault::Silent("no heartbeat came")),
            step = leave_step(self.leave.as_mut()) => Ok(Step::Leave(step)),
        }
    }
}

/// The room in the send buffer that calls leave free.
struct Reserve {
    connection: quinn::Connection,
    call_window: u64,
}

/// Polls a write and, where calls have filled the send buffer, again with the reserve opened. It is
/// open for that one poll, because quinn gives room to whoever asks first.
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

enum Step {
    Frame(Control),
    /// It is time for a PING.
    Tick,
    Leave(LeaveStep),
}

async fn leave_step(leave: Option<&mut Leave>) -> LeaveStep {
    match leave {
        Some(leave) => leave.next().await,
        None => std::future::pending().await,
    }
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
        Err(ReadFault::Exhausted(why)) => Err(LinkFault::Broken(why.to_string())),
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
