//! Answers that are ready before a request is complete: the client gets them although it is still
//! sending.

use super::{GatewaySetup, Http, TOKEN, h2, verify_token};
use crate::world::soon;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";
/// More than the system buffers for a client before it is read.
const LARGE: usize = 24 << 20;

/// Sends a complete request and only then reads, as simple clients do. Returns the status and
/// whether the connection stays open.
async fn sent(http: &mut Http<TcpStream>, path: &str, lines: &str) -> (u16, bool) {
    let body = vec![b'a'; LARGE];
    let (head, body) = if lines.contains("chunked") {
        let length = format!("{:x}\r\n", body.len());
        (String::new(), [length.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat())
    } else {
        (format!("content-length: {}\r\n", body.len()), body)
    };
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{head}{lines}\r\n");
    let is_sent = soon("it is sent", async { http.send(head).await && http.send(body).await });
    assert!(is_sent.await, "the connection was reset before all was sent: {path} {lines:?}");
    let reply = soon("an answer", http.reply()).await.expect("an answer");
    (reply.status, reply.header("connection") != Some("close"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_still_sending_gets_its_answer() {
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tokens(verify_token)).await;
    let known = format!("authorization: Bearer {TOKEN}\r\n");
    let json = format!("{known}content-type: application/json\r\n");
    let chunked = "transfer-encoding: chunked\r\n";
    let expects = "expect: 100-continue\r\n";
    for (path, lines, status, stays) in [
        (NOTE, String::new(), 401, true),
        (NOTE, chunked.into(), 401, false),
        (NOTE, expects.into(), 401, false),
        ("/nowhere", known.clone(), 404, true),
        ("/nowhere", format!("{known}{chunked}"), 404, false),
        ("/v1/agents", known.clone(), 405, true),
        (NOTE, format!("{known}content-type: text/plain\r\n"), 415, true),
        (NOTE, format!("{json}origin: https://evil.example\r\n"), 403, true),
        // It is over message_bytes_max.
        (NOTE, json.clone(), 429, true),
        (NOTE, format!("{json}{chunked}"), 429, false),
        (NOTE, format!("{json}{expects}"), 429, false),
        // The library refuses it, or the head is refused.
        (NOTE, format!("{json}a b: c\r\n"), 400, false),
        (NOTE, format!("{json}host: localhost\r\n"), 400, false),
    ] {
        let mut http = Http::connect(setup.at()).await;
        let found = sent(&mut http, path, &lines).await;
        assert_eq!(found, (status, stays), "{path} {lines:?}");
        if stays {
            // Only the body was discarded.
            let headers = [
                ("content-type", "application/json"),
                ("authorization", &format!("Bearer {TOKEN}")),
            ];
            http.request("POST", NOTE, &headers, b"\"next\"").await;
            let next = soon("an answer", http.reply()).await.expect("the connection stays");
            assert_eq!((next.status, next.text()), (200, "\"next\""), "after {path} {lines:?}");
        } else {
            soon("the connection is closed", http.closed()).await;
        }
    }
    assert_eq!(setup.stage.all_runs(), 6, "none of the large ones was called");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_guesses_tokens_with_large_bodies_gets_its_answers() {
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tokens(verify_token)).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let mut http = Http::connect(setup.at()).await;
        statuses.push(sent(&mut http, NOTE, "authorization: Bearer wrong\r\n").await.0);
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429, 429]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_expects_100_continue_is_answered_at_once() {
    let setup = GatewaySetup::anonymous().await;
    let (began, mut http) = (Instant::now(), Http::connect(setup.at()).await);
    let head = |path| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        )
    };
    http.send(head("/nowhere")).await;
    let reply = soon("an answer", http.reply()).await.expect("an answer");
    assert_eq!((reply.status, reply.header("connection")), (404, Some("close")));
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    // A body that will be read is requested with 100 Continue.
    let mut http = Http::connect(setup.at()).await;
    http.send(head(NOTE)).await;
    assert_eq!(soon("100 Continue arrives", http.head()).await.expect("a head").status, 100);
    http.send("\"x\"").await;
    let reply = soon("an answer", http.reply()).await.expect("an answer");
    assert_eq!((reply.status, reply.header("connection")), (200, Some("keep-alive")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_slowly_after_its_answer_is_closed() {
    let setup = GatewaySetup::anonymous().await;
    for lines in ["content-length: 1000000", "transfer-encoding: chunked"] {
        let mut http = Http::connect(setup.at()).await;
        http.send(format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n")).await;
        let began = Instant::now();
        let reply = soon("an answer", http.reply()).await.expect("an answer");
        assert_eq!(reply.status, 404);
        let byte: &[u8] = if lines.contains("chunked") { b"1\r\na\r\n" } else { b"a" };
        let mut every = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                () = http.closed() => break,
                _ = every.tick() => {}
            }
            http.send(byte).await;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    }
}

/// The flow-control window of an HTTP/2 client on stream 1, and the received answer.
struct Upload {
    http: Http<TcpStream>,
    stream: usize,
    connection: usize,
    answered: Option<u16>,
    reset: Option<u32>,
}

impl Upload {
    /// Begins a request that is refused before its body has arrived.
    async fn begin(setup: &GatewaySetup) -> Self {
        let mut http = Http::connect(setup.at()).await;
        http.send(h2::preface()).await;
        http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &h2::head("/nowhere"))).await;
        Self { http, stream: 65_535, connection: 65_535, answered: None, reset: None }
    }

    /// Handles the next frame.
    async fn take(&mut self) {
        let frame = soon("a frame", h2::next(&mut self.http)).await.expect("the connection stays");
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        match (frame.kind, frame.stream) {
            (h2::WINDOW_UPDATE, 0) => self.connection += number(&frame.payload) as usize,
            (h2::WINDOW_UPDATE, 1) => self.stream += number(&frame.payload) as usize,
            (h2::HEADERS, 1) => {
                self.answered = Some(if frame.payload[0] == 0x8d { 404 } else { 0 })
            }
            (h2::RST_STREAM, 1) => self.reset = Some(frame.code()),
            (h2::GOAWAY, _) => panic!("the connection ends: {frame:?}"),
            _ => {}
        }
    }

    /// Sends this many bytes as the window allows.
    async fn send(&mut self, mut bytes: usize) {
        let piece = vec![b'a'; 16_384];
        while bytes > 0 {
            let step = bytes.min(self.stream).min(self.connection).min(piece.len());
            if step == 0 {
                self.take().await;
                assert_eq!(self.reset, None, "with {bytes} bytes to go");
                continue;
            }
            assert!(self.http.send(h2::frame(h2::DATA, 0, 1, &piece[..step])).await);
            (self.stream, self.connection) = (self.stream - step, self.connection - step);
            bytes -= step;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_a_refused_body_is_read_to_its_end() {
    let setup = GatewaySetup::anonymous().await;
    let mut upload = Upload::begin(&setup).await;
    upload.send(4 << 20).await;
    upload.http.send(h2::frame(h2::DATA, h2::END_STREAM, 1, b"")).await;
    while upload.answered.is_none() {
        upload.take().await;
    }
    assert_eq!((upload.answered, upload.reset), (Some(404), None));
    let mut http = upload.http;
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"next\"")).await;
    let next = soon("an answer", h2::answered(&mut http, 3)).await;
    assert_eq!(next, h2::Answered::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2_a_body_that_does_not_end_is_reset_without_an_error_after_the_answer() {
    let setup = GatewaySetup::anonymous().await;
    let mut upload = Upload::begin(&setup).await;
    upload.send(1 << 20).await;
    let began = Instant::now();
    while upload.reset.is_none() {
        upload.take().await;
    }
    assert_eq!((upload.answered, upload.reset), (Some(404), Some(0)));
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keep_alive_answer_states_its_timeout() {
    let setup = GatewaySetup::anonymous().await;
    let keep_alive = async |version: &str, lines: &str| {
        let mut http = Http::connect(setup.at()).await;
        let head = "host: localhost\r\ncontent-type: application/json\r\n";
        let (length, body) = match lines.contains("chunked") {
            true => ("", "3\r\n\"x\"\r\n0\r\n\r\n"),
            false => ("content-length: 3\r\n", "\"x\""),
        };
        http.send(format!("POST {NOTE} {version}\r\n{head}{length}{lines}\r\n{body}")).await;
        let reply = soon("an answer", http.reply()).await.expect("an answer");
        assert_eq!(reply.status, 200, "{version} {lines:?}");
        let keep_alive = reply.header("keep-alive").map(str::to_owned);
        let is_closed = reply.header("connection") != Some("keep-alive");
        if is_closed {
            soon("the connection is closed", http.closed()).await;
            return keep_alive;
        }
        let began = Instant::now();
        soon("the connection is closed", http.closed()).await;
        let seconds =
            keep_alive.as_deref().and_then(|keep_alive| keep_alive.strip_prefix("timeout="));
        let timeout = Duration::from_secs(seconds.expect("a time").parse().expect("seconds"));
        assert!(began.elapsed() > timeout, "it was closed after {:?}", began.elapsed());
        keep_alive
    };
    let timeout = Some("timeout=6".to_owned());
    let (one, other) = tokio::join!(
        keep_alive("HTTP/1.1", ""),
        keep_alive("HTTP/1.0", "connection: keep-alive\r\n")
    );
    assert_eq!((one, other), (timeout.clone(), timeout));
    for (version, lines) in [
        ("HTTP/1.1", "connection: close\r\n"),
        ("HTTP/1.1", "transfer-encoding: chunked\r\n"),
        ("HTTP/1.0", ""),
    ] {
        assert_eq!(keep_alive(version, lines).await, None, "{version} {lines:?}");
    }
}
