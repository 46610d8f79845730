//! Tests of the graceful close of a link.

use super::{Ends, Link, opening, soon};
use crate::{
    drain::Signal,
    lazy_timeout::poll_once,
    link::{
        ControlStream, LinkFault, ReadFault,
        close_sequence::{CloseSequence, REPLACED},
    },
    wire::{CloseCode, Control, Drain, Goodbye, StreamCode},
};
use std::{pin::pin, task::Poll, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
const DRAIN_MAX: Duration = Duration::from_secs(25);
const TEXT: &str = "maintenance";

/// The signals of a side that leaves.
#[derive(Default)]
struct CloseSignals {
    drain: Signal,
    goodbye: Signal,
    abort: Signal,
}

impl CloseSignals {
    fn sequence(&self, link: &Link) -> CloseSequence {
        let signals = [self.drain.listen(), self.goodbye.listen(), self.abort.listen()];
        CloseSequence::new(link.clone(), signals, CloseCode::Drained, TEXT).within(DRAIN_MAX)
    }
}

/// A link, its peer's end, and the graceful close of the former. Both control streams are kept.
struct Closing {
    link: Link,
    peer: Link,
    signals: CloseSignals,
    sequence: CloseSequence,
    _controls: [ControlStream; 2],
}

impl Closing {
    async fn new() -> Self {
        let [(peer, its_control), (link, control)] = Ends::new().linked().await;
        let signals = CloseSignals::default();
        let sequence = signals.sequence(&link);
        Self { link, peer, signals, sequence, _controls: [control, its_control] }
    }

    /// The next step, if there is one now.
    async fn step(&mut self) -> Option<Result<Control, LinkFault>> {
        match poll_once(pin!(self.sequence.next())).await {
            Poll::Ready(step) => Some(step),
            Poll::Pending => None,
        }
    }
}

fn drain_of_peer(last_stream: u64) -> Drain {
    Drain { reason: "the peer".into(), time_ms: 0, last_stream }
}

fn goodbye_of_peer() -> Goodbye {
    Goodbye { code: CloseCode::Goodbye.number(), text: "done".into() }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_without_a_signal() {
    let mut closing = Closing::new().await;
    assert!(closing.step().await.is_none());
    assert!(tokio::time::timeout(60 * SECOND, closing.sequence.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn drain_is_sent_once_with_reason_and_time() {
    let mut closing = Closing::new().await;
    closing.signals.drain.notify();
    let Some(Ok(Control::Drain(frame))) = closing.step().await else { panic!("no DRAIN") };
    assert_eq!((&frame.reason[..], frame.time_ms), (TEXT, 25_000));
    assert!(closing.step().await.is_none(), "it was sent already");
}

#[tokio::test(start_paused = true)]
async fn drain_is_done_only_after_it_was_handed_over() {
    let mut closing = Closing::new().await;
    closing.signals.drain.notify();
    // A frame from before.
    closing.sequence.handed_over();
    assert!(!closing.signals.drain.done(SECOND).await);
    closing.sequence.drain();
    assert!(!closing.signals.drain.done(SECOND).await);
    closing.sequence.handed_over();
    assert!(closing.signals.drain.done(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_sent_after_drain_if_both_are_signalled() {
    let mut closing = Closing::new().await;
    closing.signals.goodbye.notify();
    closing.signals.drain.notify();
    assert!(matches!(closing.step().await, Some(Ok(Control::Drain(_)))));
    let Some(Ok(Control::Goodbye(frame))) = closing.step().await else { panic!("no GOODBYE") };
    assert_eq!((frame.code, &frame.text[..]), (CloseCode::Drained.number(), TEXT));
    assert!(closing.step().await.is_none(), "it was sent already");
}

#[tokio::test(start_paused = true)]
async fn no_drain_is_sent_after_goodbye() {
    let mut closing = Closing::new().await;
    closing.signals.goodbye.notify();
    assert!(matches!(closing.step().await, Some(Ok(Control::Goodbye(_)))));
    closing.signals.drain.notify();
    assert!(closing.step().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn goodbye_is_done_only_when_the_link_is_dropped() {
    let mut closing = Closing::new().await;
    closing.signals.goodbye.notify();
    closing.sequence.goodbye();
    closing.sequence.handed_over();
    assert!(!closing.signals.goodbye.done(SECOND).await);
    let Closing { signals, sequence, .. } = closing;
    drop(sequence);
    assert!(signals.goodbye.done(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn an_abort_closes_the_link_with_drained_at_any_stage() {
    for is_draining in [false, true] {
        let mut closing = Closing::new().await;
        if is_draining {
            closing.signals.drain.notify();
            closing.sequence.drain();
        }
        closing.signals.abort.notify();
        let step = closing.step().await;
        let Some(Err(LinkFault::Closed { code, text, by_peer })) = step else {
            panic!("{step:?}");
        };
        assert_eq!((code, &text[..], by_peer), (CloseCode::Drained, TEXT, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replaced_link_sends_its_reason_and_sets_no_deadline_for_its_calls() {
    let mut closing = Closing::new().await;
    closing.link.replace();
    let drain = closing.sequence.drain();
    assert_eq!((&drain.reason[..], drain.time_ms), (REPLACED, u64::MAX));
    assert_eq!(closing.sequence.goodbye().text, REPLACED);
}

#[tokio::test(start_paused = true)]
async fn drain_names_the_last_stream_that_was_taken_and_refuses_later_ones() {
    let mut closing = Closing::new().await;
    let mut taken = soon(opening(&closing.peer)).await.expect("a stream");
    taken.sender.finish();
    let stream = soon(closing.link.accept(1_000)).await.expect("a stream");
    let frame = closing.sequence.drain();
    assert_eq!(frame.last_stream, taken.reader.stream_id());
    let mut late = soon(opening(&closing.peer)).await.expect("a stream");
    late.sender.finish();
    let accepted = tokio::time::timeout(SECOND, closing.link.accept(1_000)).await;
    assert!(accepted.is_err(), "it took a stream after DRAIN");
    let refused = soon(late.reader.next()).await;
    assert!(matches!(refused, Err(ReadFault::Reset(Some(StreamCode::Draining)))), "{refused:?}");
    closing.peer.note_drain(frame.last_stream);
    assert!(closing.peer.is_past_drain(late.reader.stream_id()));
    assert!(!closing.peer.is_past_drain(taken.reader.stream_id()));
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn the_lower_last_stream_of_two_drains_counts() {
    let closing = Closing::new().await;
    assert!(!closing.link.is_peer_draining() && !closing.link.is_past_drain(1 << 60));
    closing.sequence.peer_drains(&drain_of_peer(40));
    closing.sequence.peer_drains(&drain_of_peer(80));
    assert!(closing.link.is_peer_draining());
    assert!(closing.link.is_past_drain(44) && !closing.link.is_past_drain(40));
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_reported_unless_a_drain_preceded_it() {
    let mut closing = Closing::new().await;
    assert!(closing.sequence.peer_says_goodbye(&goodbye_of_peer()));
    assert!(!closing.link.is_past_drain(1 << 60), "any call may have been taken");
    let mut closing = Closing::new().await;
    closing.sequence.peer_drains(&drain_of_peer(0));
    assert!(!closing.sequence.peer_says_goodbye(&goodbye_of_peer()));
    assert!(closing.link.is_past_drain(4), "DRAIN counts");
}

#[tokio::test(start_paused = true)]
async fn the_last_receiver_closes_only_after_its_replies_arrived() {
    let [(link, _control), _peer] = Ends::new().linked().await;
    let mut sequence = CloseSequence::passive(link.clone());
    let stream = soon(opening(&link)).await.expect("a stream");
    sequence.peer_says_goodbye(&goodbye_of_peer());
    assert!(poll_once(pin!(sequence.next())).await.is_pending(), "a reply is awaited");
    drop(stream);
    let step = soon(sequence.next()).await;
    let Err(LinkFault::Closed { code, by_peer, .. }) = step else {
        panic!("{step:?}");
    };
    assert_eq!((code, by_peer), (CloseCode::Goodbye, true));
}

#[tokio::test(start_paused = true)]
async fn a_passive_side_follows_the_peer_to_the_end() {
    let ends = Ends::new();
    let [(dialled, mut passive), (accepted, mut active)] = ends.linked().await;
    let signals = CloseSignals::default();
    active.close_by(signals.sequence(&accepted));
    passive.close_by(CloseSequence::passive(dialled.clone()));
    signals.drain.notify();
    let drained = async {
        tokio::select! {
            frame = passive.next() => frame,
            frame = active.next() => panic!("{frame:?}"),
        }
    };
    let frame = soon(drained).await;
    let Ok(Control::Drain(drain)) = frame else { panic!("{frame:?}") };
    assert_eq!(drain.reason, TEXT);
    assert!(dialled.is_peer_draining() && signals.drain.done(SECOND).await);
    signals.goodbye.notify();
    let closed = async {
        tokio::select! {
            fault = passive.next() => fault,
            fault = active.next() => panic!("{fault:?}"),
        }
    };
    let fault = soon(closed).await.expect_err("the end");
    let is_drained =
        matches!(fault, LinkFault::Closed { code: CloseCode::Drained, by_peer: true, .. });
    assert!(is_drained, "{fault:?}");
    dialled.end(fault);
    soon(accepted.closed()).await;
}
