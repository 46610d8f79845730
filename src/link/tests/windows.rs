//! Tests of the windows of streams: what a stalled reader holds back, and what a fast one gets.

use super::{Ends, MESSAGE_BYTES_MAX, ServedLink, opening, soon};
use crate::{
    lazy_timeout::poll_once,
    limits::{
        LINK_AHEAD_BYTES_MAX, LINK_GROWTH_BYTES_MAX, STALL_WAIT_MAX, STREAM_WINDOW_BYTES,
        STREAM_WINDOW_BYTES_MAX,
    },
    link::CallStream,
    net::memory::MemoryNet,
    wire::{Batch, Chunks},
};
use bytes::Bytes;
use std::{
    pin::{Pin, pin},
    time::Duration,
};
use tokio::{task::JoinSet, time::Instant};

const MESSAGE_BYTES: usize = 1 << 20;
const CALLS_MAX: usize = 64;
const ROUND_TRIP: Duration = Duration::from_millis(40);

/// A link over a path of 40 ms.
struct LongLink(ServedLink);

impl LongLink {
    async fn new() -> Self {
        let net = MemoryNet::new(1);
        net.set_delay(ROUND_TRIP / 2);
        let ends = Ends { calls_max: CALLS_MAX, ..Ends::on(&net) };
        Self(ServedLink::new(&ends).await)
    }

    /// The same, on which one stream has used up what all together may send ahead of grants.
    async fn used() -> (Self, [CallStream; 2]) {
        let link = Self::new().await;
        let mut streams = link.stream().await;
        streams[0].sender.begin_message(MESSAGE_BYTES);
        let sent = send_ahead(&mut streams[0]).await;
        let most = STREAM_WINDOW_BYTES as usize + LINK_AHEAD_BYTES_MAX as usize;
        assert!((most - 100..=most).contains(&sent), "{sent} bytes ahead");
        (link, streams)
    }

    /// A stream that the peer has taken.
    async fn stream(&self) -> [CallStream; 2] {
        let mut from = soon(opening(&self.0.dialled)).await.expect("a stream");
        from.sender.write(&mut message(1)).await.expect("it is sent");
        let mut to = soon(self.0.accepted.accept(MESSAGE_BYTES_MAX)).await.expect("a stream");
        assert!(to.reader.next().await.expect("a frame").is_some());
        [from, to]
    }
}

fn message(bytes: usize) -> Chunks {
    let mut batch = Batch::default();
    batch.push(Bytes::from(vec![7; bytes]));
    batch.into_chunks()
}

/// Lets everything happen that happens within a minute.
async fn settle(sending: Pin<&mut impl Future>) {
    let ended = tokio::time::timeout(Duration::from_secs(60), sending).await;
    assert!(ended.is_err(), "it does not wait for its reader");
}

/// Sends until the stream waits for its reader. Returns the bytes that were sent.
async fn send_ahead(stream: &mut CallStream) -> usize {
    let (mut sent, mut chunks) = (0, message(1));
    let sending = async {
        loop {
            chunks = message(MESSAGE_BYTES);
            sent += chunks.bytes_left();
            stream.sender.write(&mut chunks).await.expect("it is sent");
        }
    };
    settle(pin!(sending)).await;
    sent - chunks.bytes_left()
}

#[tokio::test(start_paused = true)]
async fn streams_share_what_they_may_send_ahead_of_grants() {
    let (link, used) = LongLink::used().await;
    let [mut from, _to] = link.stream().await;
    let sent = send_ahead(&mut from).await;
    assert!((250_000..=STREAM_WINDOW_BYTES as usize).contains(&sent), "{sent} bytes ahead");
    drop(used);
    let [mut from, _to] = link.stream().await;
    from.sender.begin_message(MESSAGE_BYTES);
    let sent = send_ahead(&mut from).await;
    assert!(sent > LINK_AHEAD_BYTES_MAX as usize, "{sent} bytes ahead");
}

/// The answering side of a new stream sends a message of 1 MiB, and is done with it.
async fn reply(link: &LongLink) -> CallStream {
    let [from, mut to] = link.stream().await;
    to.sender.begin_message(MESSAGE_BYTES);
    soon(to.sender.write(&mut message(MESSAGE_BYTES))).await.expect("it is sent");
    to.sender.finish();
    from
}

#[tokio::test(start_paused = true)]
async fn replies_that_nobody_reads_count_as_sent_ahead_after_their_senders_are_gone() {
    let link = LongLink::new().await;
    let mut unread = Vec::new();
    for _ in 0..LINK_AHEAD_BYTES_MAX / MESSAGE_BYTES as u64 + 1 {
        unread.push(reply(&link).await);
    }
    let [_from, mut to] = link.stream().await;
    to.sender.begin_message(MESSAGE_BYTES);
    let mut chunks = message(MESSAGE_BYTES);
    settle(pin!(to.sender.write(&mut chunks))).await;
    // One is read, and another is given up.
    let mut read = unread.pop().expect("a reply");
    assert!(soon(read.reader.next()).await.expect("a frame").is_some());
    assert!(soon(read.reader.next()).await.expect("the end").is_none());
    drop((read, unread.pop()));
    for _ in 0..2 {
        soon(link.0.dialled.ping()).await.expect("a PONG, after the WINDOW frames");
    }
    unread.push(reply(&link).await);
    assert_eq!(unread.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_for_a_reader_that_has_stalled() {
    let (link, _used) = LongLink::used().await;
    let [mut from, mut to] = link.stream().await;
    let mut chunks = message(MESSAGE_BYTES);
    settle(pin!(from.sender.write(&mut chunks))).await;
    let sent = MESSAGE_BYTES - chunks.bytes_left();
    assert!((250_000..=STREAM_WINDOW_BYTES as usize).contains(&sent), "{sent} bytes ahead");
    // The rest follows once it is read.
    let read = async { to.reader.next().await.expect("a frame") };
    let (written, frame) = soon(async { tokio::join!(from.sender.write(&mut chunks), read) }).await;
    written.expect("it is sent");
    assert_eq!(frame.expect("a message").payload.len(), MESSAGE_BYTES);
}

/// A relay sends the start of a long message before the rest has come to it.
#[tokio::test(start_paused = true)]
async fn a_message_whose_start_was_read_at_once_gets_its_window_later() {
    let (link, _used) = LongLink::used().await;
    let [mut from, mut to] = link.stream().await;
    from.sender.begin_message(MESSAGE_BYTES);
    let mut chunks = message(MESSAGE_BYTES);
    for _ in 0..30 {
        let piece = chunks.front(1 << 10);
        chunks.advance(piece.len());
        from.sender.write(&mut Chunks::one(piece)).await.expect("it is sent");
    }
    settle(pin!(std::future::pending::<()>())).await;
    assert!(poll_once(pin!(to.reader.next())).await.is_pending());
    soon(link.0.dialled.ping()).await.expect("a PONG, after any WINDOW");
    let read = async { to.reader.next().await.expect("a frame") };
    let (written, frame) = soon(async { tokio::join!(from.sender.write(&mut chunks), read) }).await;
    written.expect("it is sent");
    assert_eq!(frame.expect("a message").payload.len(), MESSAGE_BYTES);
}

#[tokio::test(start_paused = true)]
async fn readers_that_stall_hold_back_neither_the_heartbeat_nor_another_stream() {
    let (link, _used) = LongLink::used().await;
    let mut stalled = Vec::new();
    for _ in 1..CALLS_MAX {
        stalled.push(link.stream().await);
    }
    let [mut from, mut to] = link.stream().await;
    let mut sending = JoinSet::new();
    let mut readers = Vec::new();
    for [mut from, to] in stalled {
        from.sender.begin_message(MESSAGE_BYTES);
        readers.push(to);
        sending.spawn(async move { drop(from.sender.write(&mut message(MESSAGE_BYTES)).await) });
    }
    settle(pin!(sending.join_next())).await;
    soon(link.0.dialled.ping()).await.expect("a PONG");
    // More than the connection's window has room for besides.
    let begun = Instant::now();
    for _ in 0..20 {
        let read = async { to.reader.next().await.expect("a frame") };
        let mut chunks = message(MESSAGE_BYTES);
        let written = from.sender.write(&mut chunks);
        let passed = soon(async { tokio::join!(written, read) }).await;
        assert!(passed.0.is_ok() && passed.1.is_some());
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Reads from the stream at 2 KiB/s for minutes. Returns the longest time that its sender waited.
async fn longest_wait_for_a_slow_reader([from, to]: &mut [CallStream; 2]) -> Duration {
    let mut longest = Duration::ZERO;
    let sent = async {
        loop {
            let begun = Instant::now();
            from.sender.write(&mut message(1 << 10)).await.expect("it is sent");
            longest = longest.max(begun.elapsed());
        }
    };
    let read = async {
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(to.reader.next().await.expect("a frame").is_some());
        }
    };
    tokio::select! {
        () = sent => {}
        () = read => {}
    }
    longest
}

#[tokio::test(start_paused = true)]
async fn a_sender_sees_within_seconds_that_a_slow_reader_reads() {
    let (link, _used) = LongLink::used().await;
    let mut stream = link.stream().await;
    let longest = longest_wait_for_a_slow_reader(&mut stream).await;
    assert!(longest < STALL_WAIT_MAX, "{longest:?}");
    // The same once its window has grown to the largest.
    let link = LongLink::new().await;
    let [mut from, mut to] = link.stream().await;
    let sent = async {
        for _ in 0..400 {
            from.sender.write(&mut message(1 << 16)).await.expect("it is sent");
        }
    };
    let read = async {
        for _ in 0..400 {
            assert!(to.reader.next().await.expect("a frame").is_some());
        }
    };
    soon(async { tokio::join!(sent, read) }).await;
    let longest = longest_wait_for_a_slow_reader(&mut [from, to]).await;
    assert!(longest < STALL_WAIT_MAX, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_a_mebibyte_does_not_wait_for_a_grant_once_the_path_is_known() {
    let link = LongLink::new().await;
    for round in 0..10 {
        let [mut from, mut to] = link.stream().await;
        let begun = Instant::now();
        from.sender.begin_message(MESSAGE_BYTES);
        let mut chunks = message(MESSAGE_BYTES);
        let read = async { to.reader.next().await.expect("a frame") };
        let passed = soon(async { tokio::join!(from.sender.write(&mut chunks), read) }).await;
        assert!(passed.0.is_ok() && passed.1.is_some());
        // Half a round trip, and as much as the pacer takes for a whole window.
        let is_late = begun.elapsed() > ROUND_TRIP * 3 / 2;
        assert!(round < 9 || !is_late, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_messages_fills_a_long_path_and_its_end_gives_the_room_back() {
    let link = LongLink::new().await;
    // More streams than have room to grow at once, one after the other.
    for _ in 0..2 + LINK_GROWTH_BYTES_MAX / u64::from(STREAM_WINDOW_BYTES_MAX) {
        let [mut from, mut to] = link.stream().await;
        let (mut begun, total) = (Instant::now(), 400);
        let sent = async {
            for _ in 0..total {
                from.sender.write(&mut message(1 << 16)).await.expect("it is sent");
            }
        };
        let read = async {
            for count in 0..total {
                if count == total / 2 {
                    begun = Instant::now();
                }
                assert!(to.reader.next().await.expect("a frame").is_some());
            }
        };
        soon(async { tokio::join!(sent, read) }).await;
        // 12 MiB in this time are far more than 256 KiB in each round trip.
        assert!(begun.elapsed() < 20 * ROUND_TRIP, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_for_room_learns_that_the_peer_wants_no_more() {
    let (link, _used) = LongLink::used().await;
    let [mut from, to] = link.stream().await;
    let mut chunks = message(MESSAGE_BYTES);
    settle(pin!(from.sender.write(&mut chunks))).await;
    drop(to);
    assert!(soon(from.sender.write(&mut chunks)).await.is_err());
    let [mut from, _to] = link.stream().await;
    settle(pin!(from.sender.write(&mut chunks))).await;
    link.0.accepted.close(crate::wire::CloseCode::Goodbye, "");
    assert!(soon(from.sender.write(&mut chunks)).await.is_err());
}
