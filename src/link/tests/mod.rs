//! Tests of links between the two ends of a connection, without a node, an agent or a caller.

#[cfg(feature = "tunnel")]
mod addresses;
mod close;
mod datagrams;
mod windows;

use super::{
    CallStream, ControlStream, Link, LinkFault, OpenFault, ReadFault,
    ends::{Ends, HELLO, MESSAGE_BYTES_MAX, credentials, new_ca, soon},
};
use crate::{
    certs::Ca,
    lazy_timeout::poll_once,
    tls::Credentials,
    wire::{Batch, CloseCode, StreamCode},
};
use bytes::Bytes;
use std::{
    future::Future,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

/// Both ends of a link, with their control streams served.
struct ServedLink {
    dialled: Link,
    accepted: Link,
    _controls: JoinSet<()>,
}

impl ServedLink {
    async fn new(ends: &Ends) -> Self {
        Self::of(ends.linked().await)
    }

    /// Serves these ends, the dialled one first.
    fn of([(dialled, control), (accepted, its_control)]: [(Link, ControlStream); 2]) -> Self {
        let mut controls = JoinSet::new();
        for mut control in [control, its_control] {
            controls.spawn(async move { while control.next().await.is_ok() {} });
        }
        Self { dialled, accepted, _controls: controls }
    }
}

fn opening(link: &Link) -> Pin<Box<impl Future<Output = Result<CallStream, OpenFault>> + use<'_>>> {
    let until = || Instant::now() + Duration::from_secs(600);
    Box::pin(link.open(until, MESSAGE_BYTES_MAX))
}

/// Opens all streams that the peer grants.
async fn all_streams(link: &Link) -> Vec<CallStream> {
    let mut streams = Vec::new();
    while let Poll::Ready(stream) = poll_once(opening(link).as_mut()).await {
        streams.push(stream.expect("a stream"));
    }
    streams
}

// Not on paused time: it polls without a pause, and time would not advance.
#[tokio::test]
async fn streams_are_granted_in_the_order_of_waiting() {
    let ends = Ends::new();
    let [(link, _control), (peer, _its_control)] = ends.linked().await;
    let _held = all_streams(&link).await;
    let mut waiting = [opening(&link), opening(&link), opening(&link)];
    for opening in &mut waiting {
        assert!(poll_once(opening.as_mut()).await.is_pending(), "a stream was left");
    }
    peer.0.connection.set_max_concurrent_bi_streams(1_000u32.into());
    for first in 0..waiting.len() {
        let served = async {
            loop {
                // The newest is polled first and the one whose turn it is last.
                let late = poll_once(opening(&link).as_mut()).await;
                assert!(late.is_pending(), "a newcomer overtook waiter {first}");
                for later in (first + 1..waiting.len()).rev() {
                    let overtook = poll_once(waiting[later].as_mut()).await;
                    assert!(overtook.is_pending(), "waiter {later} overtook waiter {first}");
                }
                match poll_once(waiting[first].as_mut()).await {
                    Poll::Ready(stream) => return stream,
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        };
        soon(served).await.expect("a stream");
    }
    soon(opening(&link)).await.expect("a stream for a newcomer, once nobody waits");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_link_opens_no_stream_and_keeps_those_it_has() {
    let ends = Ends::new();
    let [(link, _control), (peer, _its_control)] = ends.linked().await;
    let mut before = soon(opening(&link)).await.expect("a stream");
    link.replace();
    let after = poll_once(opening(&link).as_mut()).await;
    assert!(matches!(after, Poll::Ready(Err(OpenFault::Replaced))));
    assert!(poll_once(pin!(link.quiet())).await.is_pending(), "a reply is awaited");
    before.sender.finish();
    assert!(soon(peer.accept(MESSAGE_BYTES_MAX)).await.is_some(), "it broke the stream off");
    drop(before);
    soon(link.quiet()).await;
    assert!(!link.is_closed() && !peer.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_comes_while_its_link_ends_is_refused() {
    let ends = Ends::new();
    let [(link, _control), (peer, _its_control)] = ends.linked().await;
    // The end is recorded before the close is sent.
    let mut stream = soon(opening(&link)).await.expect("a stream");
    stream.sender.finish();
    peer.0.ended.set(LinkFault::Silent("it ends")).expect("it has not ended");
    assert!(soon(peer.accept(MESSAGE_BYTES_MAX)).await.is_none());
    let read = soon(stream.reader.next()).await;
    assert!(matches!(read, Err(ReadFault::Reset(Some(StreamCode::Refused)))), "{read:?}");
}

/// Sends messages of 64 KiB, and waits until they are acknowledged.
async fn send(from: &Link, to: &Link, messages: usize) {
    let sent = async {
        let mut stream = opening(from).await.expect("a stream");
        for _ in 0..messages {
            let mut batch = Batch::default();
            batch.push(Bytes::from(vec![7; 1 << 16]));
            stream.sender.write(&mut batch.into_chunks()).await.expect("it is sent");
        }
        stream.sender.finish();
        stream.sender.delivered().await;
    };
    let received = async {
        let mut stream = to.accept(MESSAGE_BYTES_MAX).await.expect("a stream");
        let mut count = 0;
        while stream.reader.next().await.expect("a frame").is_some() {
            count += 1;
        }
        assert_eq!(count, messages);
    };
    soon(async { tokio::join!(sent, received) }).await;
}

/// Credentials of the same peer and whether a link to a peer under `ca` outlives them.
fn replacements(ca: &Ca, peer: &str) -> [(Credentials, bool); 2] {
    [(credentials(ca, peer), true), (credentials(&new_ca(), peer), false)]
}

/// Returns true if a link was closed because the CA of its peer is no longer trusted, or not at
/// all.
#[track_caller]
fn check_outlives(link: &Link, outlives: bool) {
    let distrusts = |fault: &LinkFault| {
        matches!(fault, LinkFault::Closed { code: CloseCode::TrustChanged, by_peer: false, .. })
    };
    let ended = link.0.ended.get();
    assert_eq!(ended.is_none(), outlives, "{ended:?}");
    assert!(ended.is_none_or(distrusts), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_accepted_while_credentials_are_replaced_is_verified_with_the_new_ones() {
    let ends = Ends::new();
    for (next, outlives) in replacements(&ends.ca, "node/edge-1") {
        let accepted = async {
            let greeted = ends.greeted().await;
            ends.listener.replace(&next, &ends.limits).expect("replaced");
            assert_eq!(ends.listener.trust().verify_all().await, 0, "there is no link yet");
            ends.welcomed(greeted).await
        };
        let address = ends.address();
        let dialled = ends.dialler.dial(&address, None);
        let (_dialled, (link, _control)) = soon(async { tokio::join!(dialled, accepted) }).await;
        check_outlives(&link, outlives);
        // The next round is not to close this one.
        link.close(CloseCode::Goodbye, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_dialled_while_credentials_are_replaced_is_verified_with_the_new_ones() {
    let ends = Ends::new();
    for (next, outlives) in replacements(&ends.ca, "agent/a") {
        let accepted = async {
            // The dial waits for WELCOME.
            let greeted = ends.greeted().await;
            ends.dialler.replace(&next, HELLO, ends.limits.clone()).expect("replaced");
            assert_eq!(ends.dialler.trust().verify_all().await, 0, "there is no link yet");
            ends.welcomed(greeted).await
        };
        let both = async { tokio::join!(ends.dialled(), accepted) };
        let ((link, _control), _accepted) = soon(both).await;
        check_outlives(&link, outlives);
        link.close(CloseCode::Goodbye, "");
    }
}
