//! The control stream of a link: its frames, the heartbeat, and the frames of a graceful close.

use super::{
    close_sequence::CloseSequence,
    endpoint,
    fault::LinkFault,
    peer_address::{LinkMove, PeerAddress},
    pulse::Pulse,
    stream::{Frame, FrameReader, ReadFault},
    windows::StreamWindows,
};
use crate::{
    lazy_timeout::{or_pending, ready_by},
    limits::{self, CONTROL_BYTES_MAX, CONTROL_RESERVE_BYTES, Limits},
    wire::{Control, Kind, Window},
};
use bytes::{Buf, BytesMut};
use quinn::SendStream;
use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};

/// The first stream of a link. Its holder keeps the link up by a loop of [`ControlStream::next`].
pub(crate) struct ControlStream {
    sender: ControlSender,
    close: Option<CloseSequence>,
    reader: FrameReader,
    ticks: Option<Interval>,
    /// Time between the first PING and the second; none after the first.
    second_ping_after: Option<Duration>,
    pulse: Arc<Pulse>,
    windows: Option<Arc<StreamWindows>>,
    peer: Option<PeerAddress>,
    silence_max: Duration,
}

/// Sends frames, and keeps those that are not yet with the transport.
struct ControlSender {
    send: SendStream,
    /// Kept whole when a caller stops waiting.
    unsent: BytesMut,
    reserve: Option<Reserve>,
    wait_max: Duration,
}

/// An event of a link for the side that has accepted it.
pub(crate) enum LinkNews {
    Frame(Control),
    Moved(LinkMove),
}

/// What happens on a link, except for its heartbeat.
enum ControlEvent {
    Frame(Control),
    Moved(LinkMove),
    PingIsDue,
    PingIsWanted,
    Grants(Vec<Window>),
    /// The next frame of the graceful close.
    Close(Control),
}

/// Longest time that the peer may take no control frames.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Above every call, so that a full send buffer does not hold the heartbeat back.
const PRIORITY: i32 = i32::MAX;

impl ControlStream {
    /// Wraps the first stream. Heartbeats start with [`ControlStream::start_heartbeat`].
    pub(super) fn new(send: SendStream, recv: quinn::RecvStream) -> Self {
        drop(send.set_priority(PRIORITY));
        Self {
            sender: ControlSender {
                send,
                unsent: BytesMut::new(),
                reserve: None,
                wait_max: WRITE_WAIT_MAX,
            },
            close: None,
            reader: FrameReader::new(recv, CONTROL_BYTES_MAX, None),
            ticks: None,
            second_ping_after: None,
            pulse: Arc::default(),
            windows: None,
            peer: None,
            silence_max: WRITE_WAIT_MAX,
        }
    }

    pub(super) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    pub(super) fn windows(&self) -> Option<Arc<StreamWindows>> {
        self.windows.clone()
    }

    /// Sends the grants of these windows, and applies those of the peer, from now on.
    pub(super) fn grant(&mut self, windows: Option<Arc<StreamWindows>>) {
        self.windows = windows;
    }

    /// Reserves room in the send buffer for control frames, for when calls have filled it.
    pub(super) fn reserve(&mut self, connection: quinn::Connection, limits: &Limits) {
        self.sender.reserve =
            Some(Reserve { connection, call_window: endpoint::call_window(limits) });
    }

    /// From now on [`ControlStream::next_news`] returns the moves of the peer too.
    pub(super) fn watch(&mut self, peer: PeerAddress) {
        self.peer = Some(peer);
    }

    /// Starts the heartbeat: the link is lost after `silence_max` of silence. The accepting side
    /// only answers.
    pub(super) fn start_heartbeat(&mut self, silence_max: Duration) {
        self.pulse.note_received();
        self.silence_max = silence_max;
        self.sender.wait_max = silence_max.min(WRITE_WAIT_MAX);
    }

    /// Sends PING at an interval from now on. The dialling side does, because the NAT binding is on
    /// its side. `chance`, from 0 to 1, is the part of the interval between the first two PINGs:
    /// links that are made at once, as after a restart of their node, do not send later ones at
    /// once.
    pub(super) fn start_pings(&mut self, every: Duration, chance: f64) {
        let every = every.max(limits::HEARTBEAT_MIN);
        let mut ticks = tokio::time::interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.ticks = Some(ticks);
        self.second_ping_after = Some(every.mul_f64(chance));
    }

    /// Sends and heeds DRAIN and GOODBYE from now on.
    pub(crate) fn close_by(&mut self, sequence: CloseSequence) {
        self.close = Some(sequence);
    }

    /// Sends a frame; if dropped, the frame goes with the next one or by [`ControlStream::next`].
    pub(crate) async fn send(&mut self, control: &Control) -> Result<(), LinkFault> {
        self.sender.queue(control)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), LinkFault> {
        self.sender.flush().await?;
        if let Some(sequence) = &mut self.close {
            sequence.handed_over();
        }
        Ok(())
    }

    /// Reads the peer's first frame. There is no heartbeat before it.
    pub(super) async fn first(&mut self) -> Result<Control, LinkFault> {
        read(self.reader.next().await)
    }

    /// As [`ControlStream::next_news`], without the moves of the peer.
    pub(crate) async fn next(&mut self) -> Result<Control, LinkFault> {
        loop {
            if let LinkNews::Frame(control) = self.next_news().await? {
                return Ok(control);
            }
        }
    }

    /// Returns the next frame that is not part of the heartbeat, which is kept going meanwhile, nor
    /// of a graceful close, except for a DRAIN of the peer and a GOODBYE without a DRAIN before it;
    /// or the next move of the peer. An error ends the link. Cancel safe.
    pub(crate) async fn next_news(&mut self) -> Result<LinkNews, LinkFault> {
        loop {
            self.flush().await?;
            match self.event().await? {
                ControlEvent::Frame(control) => {
                    if let Some(control) = self.heed(control)? {
                        return Ok(LinkNews::Frame(control));
                    }
                }
                ControlEvent::Moved(moved) => return Ok(LinkNews::Moved(moved)),
                ControlEvent::PingIsDue => self.tick()?,
                ControlEvent::PingIsWanted => self.queue_ping()?,
                ControlEvent::Grants(grants) => {
                    for window in grants {
                        self.sender.queue(&Control::Window(window))?;
                    }
                }
                ControlEvent::Close(frame) => self.sender.queue(&frame)?,
            }
        }
    }

    /// Returns the next event. Until then it answers the heartbeat and applies grants, which does
    /// not begin the other waits again: a node has thousands of links on which nothing else
    /// happens. Cancel safe.
    async fn event(&mut self) -> Result<ControlEvent, LinkFault> {
        let Self { sender, close, reader, ticks, pulse, windows, peer, silence_max, .. } = self;
        let windows = windows.as_deref();
        let mut others = pin!(async {
            tokio::select! {
                biased;
                _ = or_pending(ticks.as_mut().map(Interval::tick)) => Ok(ControlEvent::PingIsDue),
                () = pulse.wanted() => Ok(ControlEvent::PingIsWanted),
                grants = or_pending(windows.map(StreamWindows::unsent)) => {
                    Ok(ControlEvent::Grants(grants))
                }
                frame = or_pending(close.as_mut().map(CloseSequence::next)) => {
                    frame.map(ControlEvent::Close)
                }
            }
        });
        let mut silence = pin!(sleep_until(pulse.received_at() + *silence_max));
        loop {
            if let Some(moved) = peer.as_mut().and_then(PeerAddress::take_move) {
                return Ok(ControlEvent::Moved(moved));
            }
            tokio::select! {
                biased;
                frame = reader.next() => {
                    pulse.note_received();
                    silence.as_mut().reset(pulse.received_at() + *silence_max);
                    if let Some(peer) = peer {
                        peer.look();
                    }
                    match read(frame)? {
                        Control::Ping(ping) => sender.queue(&Control::Pong(ping))?,
                        Control::Pong(pong) => pulse.answered(&pong),
                        Control::Window(window) => {
                            if let Some(windows) = windows {
                                windows.granted(&window);
                            }
                        }
                        control => return Ok(ControlEvent::Frame(control)),
                    }
                    sender.flush().await?;
                }
                event = &mut others => return event,
                () = &mut silence => return Err(LinkFault::Silent("no heartbeat came")),
            }
        }
    }

    fn tick(&mut self) -> Result<(), LinkFault> {
        if let (Some(ticks), Some(after)) = (&mut self.ticks, self.second_ping_after.take()) {
            ticks.reset_after(after);
        }
        self.queue_ping()
    }

    fn queue_ping(&mut self) -> Result<(), LinkFault> {
        let ping = self.pulse.next();
        self.sender.queue(&Control::Ping(ping))
    }

    /// Applies a frame to the graceful close, or returns it for the owner.
    fn heed(&mut self, control: Control) -> Result<Option<Control>, LinkFault> {
        match (control, &mut self.close) {
            (Control::Reserved, _) => {}
            (Control::Drain(frame), Some(sequence)) => {
                sequence.peer_drains(&frame);
                return Ok(Some(Control::Drain(frame)));
            }
            (Control::Goodbye(frame), Some(sequence)) => {
                let is_news = sequence.peer_says_goodbye(&frame);
                return Ok(is_news.then_some(Control::Goodbye(frame)));
            }
            (control, _) => return Ok(Some(control)),
        }
        Ok(None)
    }
}

impl ControlSender {
    fn queue(&mut self, control: &Control) -> Result<(), LinkFault> {
        let bytes = control.encode().map_err(|fault| LinkFault::Broken(fault.to_string()))?;
        self.unsent.extend_from_slice(&bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkFault> {
        while !self.unsent.is_empty() {
            let written = {
                let writing = pin!(self.send.write(&self.unsent));
                let writing = pin!(in_reserve(writing, self.reserve.as_ref()));
                ready_by(|| Instant::now() + self.wait_max, writing).await
            };
            match written {
                Ok(Ok(written)) => self.unsent.advance(written),
                Ok(Err(quinn::WriteError::ConnectionLost(error))) => {
                    return Err(LinkFault::lost(error));
                }
                Ok(Err(error)) => {
                    return Err(LinkFault::Broken(format!("the control stream: {error}")));
                }
                Err(_elapsed) => {
                    return Err(LinkFault::Silent("the peer takes no control frames"));
                }
            }
        }
        Ok(())
    }
}

/// Room in the send buffer that calls do not use.
struct Reserve {
    connection: quinn::Connection,
    call_window: u64,
}

/// Polls a write and, where calls have filled the send buffer, again with the reserve opened. It is
/// open for that one poll, because quinn gives room to the first request.
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

fn read(frame: Result<Option<Frame>, ReadFault>) -> Result<Control, LinkFault> {
    match frame {
        Ok(Some(frame)) if frame.kind != Kind::Message => {
            Control::decode(frame.kind, &frame.payload)
                .map_err(|fault| LinkFault::Broken(fault.to_string()))
        }
        Ok(Some(_)) => Err(LinkFault::Broken("a message on the control stream".into())),
        Err(ReadFault::Lost(fault)) => Err(fault),
        Err(ReadFault::Wire(fault)) => Err(LinkFault::Broken(fault.to_string())),
        Err(ReadFault::Exhausted(why)) => Err(LinkFault::Broken(why.to_string())),
        Ok(None) | Err(ReadFault::Reset(_) | ReadFault::Truncated) => {
            Err(LinkFault::Broken("the control stream ended".into()))
        }
    }
}
