//! Clients that are slow, ambiguous or too many: each is closed within 15 s, and others are not
//! affected.

use super::{GatewaySetup, Http, h2};
use crate::world::{Background, soon, spawn, until};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Builder, sync::oneshot};

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const CLOSED_WITHIN: Duration = Duration::from_secs(15);

/// An honest client that calls all the while, and another one at an idle gateway, which measures
/// the speed of the machine.
struct Honest {
    is_done: EndOnDrop,
    slowest: Background<Duration>,
    slowest_elsewhere: oneshot::Receiver<Duration>,
}

/// Ends the clients, also when the test fails.
struct EndOnDrop(Arc<AtomicBool>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Honest {
    fn start(at: SocketAddr) -> Self {
        let is_done = Arc::<AtomicBool>::default();
        let slowest = spawn(slowest_call(at, is_done.clone()));
        let slowest_elsewhere = slowest_call_elsewhere(is_done.clone());
        Self { is_done: EndOnDrop(is_done), slowest, slowest_elsewhere }
    }

    /// No call was slow, apart from the delay of the machine.
    async fn was_served(self) {
        let Self { is_done, slowest, slowest_elsewhere } = self;
        drop(is_done);
        let slowest = soon("the honest client ends", slowest).await;
        let elsewhere = soon("the other one ends", slowest_elsewhere).await.expect("a time");
        assert!(
            slowest < elsewhere + Duration::from_secs(3),
            "a call of another client took {slowest:?}, and {elsewhere:?} at another gateway"
        );
    }
}

/// Calls until it is stopped, each time on a new connection and on a kept one. Returns the duration
/// of the slowest calls.
async fn slowest_call(at: SocketAddr, is_done: Arc<AtomicBool>) -> Duration {
    let (mut slowest, mut calls) = (Duration::ZERO, 0);
    let mut kept = Http::connect(at).await;
    while !is_done.load(Ordering::SeqCst) || calls < 10 {
        let began = Instant::now();
        let once = Http::once(at, "POST", NOTE, &JSON, b"\"honest\"").await;
        kept.request("POST", NOTE, &JSON, b"\"honest\"").await;
        let same = kept.reply().await.expect("the connection stays");
        assert_eq!((once.status, same.status), (200, 200));
        slowest = slowest.max(began.elapsed());
        calls += 1;
        // A rate, not a wait: 50 requests a second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    slowest
}

/// The same at another gateway, on its own runtime: it shares only the machine.
fn slowest_call_elsewhere(is_done: Arc<AtomicBool>) -> oneshot::Receiver<Duration> {
    let (done, slowest) = oneshot::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let setup = GatewaySetup::anonymous().await;
            done.send(slowest_call(setup.at(), is_done).await).ok();
        });
    });
    slowest
}

/// Sends a byte a second until the other side has closed; returns the time that took, and the
/// answer.
async fn send_slowly(
    at: SocketAddr,
    first: String,
    byte: &'static [u8],
) -> (Duration, Option<u16>) {
    let (mut http, began) = (Http::connect(at).await, Instant::now());
    http.send(first).await;
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            reply = http.head() => return (began.elapsed(), reply.map(|reply| reply.status)),
            _ = every.tick() => {}
        }
        http.send(byte).await;
    }
}

async fn check_slow_sender(first: &str, byte: &'static [u8], status: Option<u16>) {
    let setup = GatewaySetup::anonymous().await;
    let honest = Honest::start(setup.at());
    let slow: Vec<_> =
        (0..32).map(|_| spawn(send_slowly(setup.at(), first.to_owned(), byte))).collect();
    for one in slow {
        let (took, answered) = soon("a slow client is closed", one).await;
        assert!(took < CLOSED_WITHIN, "it took {took:?}");
        assert_eq!(answered, status, "of {first:?}");
    }
    honest.was_served().await;
    assert_eq!(setup.stage.runs("slow"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_sent_at_a_byte_a_second_time_out() {
    check_slow_sender("POST / HTTP/1.1\r\nx", b"x", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_and_half_prefaces_time_out() {
    check_slow_sender("", b"", None).await;
    check_slow_sender("PRI", b"", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_sent_at_a_byte_a_second_time_out_and_are_never_called() {
    let head = format!(
        "POST {NOTE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\r\n\"slow\""
    );
    check_slow_sender(&head, b" ", Some(408)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_heads_that_never_end_time_out() {
    let setup = GatewaySetup::anonymous().await;
    let honest = Honest::start(setup.at());
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    http.send(h2::frame(h2::HEADERS, 0, 1, &h2::head(NOTE)[..8])).await;
    let began = Instant::now();
    soon("it is closed", http.closed()).await;
    assert!(began.elapsed() < CLOSED_WITHIN, "it took {:?}", began.elapsed());
    honest.was_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_clients_that_stall_or_read_no_answer_time_out() {
    let setup = GatewaySetup::anonymous().await;
    let honest = Honest::start(setup.at());
    let began = Instant::now();
    let mut half = Http::connect(setup.at()).await;
    half.send(&h2::preface()[..12]).await;
    let mut silent = Http::connect(setup.at()).await;
    silent.send(h2::preface()).await;
    // A window of zero: the answer cannot be sent.
    let mut not_reading = Http::connect(setup.at()).await;
    not_reading.send(h2::preface()).await;
    not_reading.send(h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    for (stream, method) in [(1, "Stage/Note"), (3, "Ticks/Endless")] {
        let mut head = h2::head(&format!("/v1/agents/warehouse/{method}"));
        let body = if stream == 3 { &b"1000"[..] } else { b"\"deaf\"" };
        if stream == 3 {
            head.extend(h2::pair("accept", "text/event-stream"));
        }
        not_reading.send(h2::frame(h2::HEADERS, h2::END_HEADERS, stream, &head)).await;
        not_reading.send(h2::frame(h2::DATA, h2::END_STREAM, stream, body)).await;
    }
    setup.stage.started("deaf").await;
    for (name, mut http) in [("half", half), ("silent", silent), ("deaf", not_reading)] {
        soon(name, http.closed()).await;
        assert!(began.elapsed() < CLOSED_WITHIN, "{name} took {:?}", began.elapsed());
    }
    until("the handler is stopped", || setup.ticks.running() == 0).await;
    honest.was_served().await;
}

/// Reads this many bytes every tenth of a second for longer than a client may stall. Returns
/// whether the other side continues.
async fn reads_slowly(http: &mut Http, bytes: usize) -> bool {
    let (mut every, began) = (tokio::time::interval(Duration::from_millis(100)), Instant::now());
    let mut some = vec![0; bytes];
    while began.elapsed() < CLOSED_WITHIN {
        every.tick().await;
        if !http.read(&mut some).await {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_slowly_but_steadily_is_not_closed() {
    let setup = GatewaySetup::anonymous().await;
    let path = "/v1/agents/warehouse/Ticks/Endless";
    let headers = [("accept", "text/event-stream"), ("content-type", "application/json")];
    let [mut slow, mut slower] = [Http::connect(setup.at()).await, Http::connect(setup.at()).await];
    for http in [&mut slow, &mut slower] {
        http.request("POST", path, &headers, b"10000").await;
    }
    let go_on = tokio::join!(reads_slowly(&mut slow, 4_000), reads_slowly(&mut slower, 3_000));
    assert_eq!((go_on, setup.ticks.running()), ((true, true), 2));
    drop((slow, slower));
    until("the handlers are stopped", || setup.ticks.running() == 0).await;
}

/// The stream that the other side resets next. PINGs are answered meanwhile, and no window is
/// opened.
async fn reset(http: &mut Http) -> u32 {
    loop {
        let mut head = [0; 9];
        assert!(http.read(&mut head).await, "the connection was closed");
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        assert!(http.read(&mut payload).await, "the connection was closed");
        match (kind, flags) {
            (h2::RST_STREAM, _) => return u32::from_be_bytes(stream),
            (h2::PING, 0) => drop(http.send(h2::frame(h2::PING, 1, 0, &payload)).await),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_answer_is_reset_and_others_on_its_connection_continue() {
    let setup = GatewaySetup::anonymous().await;
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    // A small window for each stream, and a large one for the connection.
    http.send(h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0x10, 0])).await;
    for (stream, method, body) in [(1, "Ticks/Silent", &b"null"[..]), (3, "Ticks/Endless", b"1000")]
    {
        let mut head = h2::head(&format!("/v1/agents/warehouse/{method}"));
        head.extend(h2::pair("accept", "text/event-stream"));
        http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, stream, &head)).await;
        http.send(h2::frame(h2::DATA, h2::END_STREAM, stream, body)).await;
    }
    until("both run", || setup.ticks.running() == 2).await;
    assert_eq!(soon("one answer is reset", reset(&mut http)).await, 3);
    until("its handler is stopped", || setup.ticks.running() < 2).await;
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 5, &h2::head(NOTE))).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 5, b"\"later\"")).await;
    setup.stage.started("later").await;
    assert_eq!(setup.ticks.running(), 1, "the silent one has done nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_ambiguous_length_is_refused_and_a_smuggled_call_does_not_run() {
    let setup = GatewaySetup::anonymous().await;
    let inner = format!(
        "POST {NOTE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n\"smuggled\""
    );
    let outer = |lines: &str, body: &str| {
        format!(
            "POST {NOTE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}\r\n{body}{inner}"
        )
    };
    for (lines, body) in [
        ("content-length: 6\r\ntransfer-encoding: chunked\r\n", "6\r\n\"five\"\r\n0\r\n\r\n"),
        ("transfer-encoding: chunked\r\ncontent-length: 6\r\n", "6\r\n\"five\"\r\n0\r\n\r\n"),
        ("content-length: 6\r\ncontent-length: 6\r\n", "\"five\""),
        ("content-length: 6\r\ncontent-length: 60\r\n", "\"five\""),
        ("content-length: 6, 6\r\n", "\"five\""),
        ("content-length: +6\r\n", "\"five\""),
        ("transfer-encoding: xchunked\r\n", "6\r\n\"five\"\r\n0\r\n\r\n"),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "6\r\n\"five\"\r\n0\r\n\r\n",
        ),
        ("transfer-encoding : chunked\r\n", "6\r\n\"five\"\r\n0\r\n\r\n"),
    ] {
        let mut http = Http::connect(setup.at()).await;
        http.send(outer(lines, body)).await;
        let reply = soon("an answer", http.reply()).await.expect("an answer");
        assert_eq!(reply.status, 400, "{lines:?}: {reply:?}");
        soon("the connection is closed", http.closed()).await;
    }
    assert_eq!(setup.stage.all_runs(), 0);
    // A chunked body alone is valid; nothing after it is answered.
    let mut http = Http::connect(setup.at()).await;
    http.send(outer("transfer-encoding: chunked\r\n", "6\r\n\"five\"\r\n0\r\n\r\n")).await;
    let reply = soon("an answer", http.reply()).await.expect("an answer");
    assert_eq!(
        (reply.status, reply.text(), reply.header("connection")),
        (200, "\"five\"", Some("close"))
    );
    soon("the connection is closed", http.closed()).await;
    assert_eq!((setup.stage.runs("five"), setup.stage.runs("smuggled")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let setup = GatewaySetup::anonymous().await;
    let headers = |count: usize, bytes: usize| {
        let lines = (0..count).map(|n| format!("x-{n}: {}\r\n", "x".repeat(bytes)));
        let lines: String = lines.collect();
        format!(
            "POST {NOTE} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 3\r\n{lines}\r\n\"x\""
        )
    };
    for (count, bytes, status) in [(100, 100, 200), (1, 40_000, 431), (200, 1, 431)] {
        let mut http = Http::connect(setup.at()).await;
        http.send(headers(count, bytes)).await;
        let reply = soon("an answer", http.reply()).await.expect("an answer");
        assert_eq!(reply.status, status, "{count} headers of {bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_their_connection_and_start_few_handlers() {
    let setup = GatewaySetup::anonymous().await;
    let honest = Honest::start(setup.at());
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    let mut bytes = Vec::new();
    for n in 0..5_000 {
        let stream = 2 * n + 1;
        bytes.extend(h2::frame(
            h2::HEADERS,
            h2::END_HEADERS,
            stream,
            &h2::head("/v1/agents/warehouse/Stage/Hold"),
        ));
        bytes.extend(h2::frame(h2::DATA, h2::END_STREAM, stream, b"\"reset\""));
        bytes.extend(h2::frame(h2::RST_STREAM, 0, stream, &8u32.to_be_bytes()));
    }
    let sends = async {
        for chunk in bytes.chunks(16 * 1_024) {
            if !http.send(chunk).await {
                return;
            }
        }
    };
    soon("it is sent, or refused", sends).await;
    soon("the connection is ended", http.closed()).await;
    honest.was_served().await;
    let runs = setup.stage.runs("reset");
    assert!(runs <= 250, "{runs} handlers were started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_continuations_ends_its_connection() {
    let setup = GatewaySetup::anonymous().await;
    let honest = Honest::start(setup.at());
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    http.send(h2::frame(h2::HEADERS, 0, 1, &h2::head(NOTE))).await;
    let more = h2::frame(h2::CONTINUATION, 0, 1, &h2::pair("x", &"x".repeat(100)));
    let flood = async {
        for _ in 0..100_000 {
            if !http.send(&more).await {
                return true;
            }
        }
        false
    };
    assert!(soon("the flood ends", flood).await, "100,000 frames were accepted");
    honest.was_served().await;
}
