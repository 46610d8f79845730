//! HTTP/2 frames without progress: a connection that sends them endlessly is ended, and busy
//! clients are not.

use super::{GatewaySetup, Http, h2};
use crate::world::soon;
use dialback::limits::HTTP2_FRAMES_UNASKED_MAX;
use tokio::net::TcpStream;

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";
/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection on which stream 1 was answered and stream 3 has begun a body.
async fn connected(setup: &GatewaySetup) -> Http<TcpStream> {
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    call(&mut http, 1).await;
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    http
}

async fn call(http: &mut Http<TcpStream>, stream: u32) {
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, stream, &h2::head(NOTE))).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, stream, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(http, stream)).await;
    assert_eq!(answered, h2::Answered::Status(200));
}

/// These frames one at a time: a few are accepted, an endless number is not.
async fn check(name: &str, frame: Vec<u8>) {
    check_after(HTTP2_FRAMES_UNASKED_MAX / 2, name, frame).await;
}

async fn check_after(few: usize, name: &str, frame: Vec<u8>) {
    let setup = GatewaySetup::anonymous().await;
    let mut http = connected(&setup).await;
    http.send(frame.repeat(few)).await;
    call(&mut http, 5).await;
    // The budget refills over time; this is sent faster.
    http.send(frame.repeat(HTTP2_FRAMES_UNASKED_MAX * 5)).await;
    let ended = soon("the connection is ended", async {
        while let Some(frame) = h2::next(&mut http).await {
            if frame.kind == h2::GOAWAY {
                return Some(frame.code());
            }
        }
        None
    });
    // With more in flight than was read, the GOAWAY may be lost.
    let code = ended.await;
    assert!(matches!(code, None | Some(ENHANCE_YOUR_CALM)), "{name}: {code:?}");
    soon("the connection is closed", http.closed()).await;
    // Other connections continue, and the client may reconnect.
    call(&mut connected(&setup).await, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_without_end_end_their_connection() {
    check("PING", h2::frame(h2::PING, 0, 0, &[7; 8])).await;
    check("PING ACK", h2::frame(h2::PING, 1, 0, &[7; 8])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_without_end_end_their_connection() {
    check("SETTINGS", h2::frame(h2::SETTINGS, 0, 0, &[])).await;
    check("SETTINGS, one set", h2::frame(h2::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn window_updates_without_end_end_their_connection() {
    check("WINDOW_UPDATE", h2::frame(h2::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
    check("WINDOW_UPDATE of a stream", h2::frame(h2::WINDOW_UPDATE, 0, 3, &[0, 0, 0, 1])).await;
    check("WINDOW_UPDATE of an old stream", h2::frame(h2::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn priorities_resets_and_unknown_frames_without_end_end_their_connection() {
    check("PRIORITY", h2::frame(h2::PRIORITY, 0, 1, &[0, 0, 0, 0, 7])).await;
    check("RST_STREAM", h2::frame(h2::RST_STREAM, 0, 1, &[0, 0, 0, 8])).await;
    check("unknown", h2::frame(0xfa, 0, 0, &[])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_data_without_end_ends_its_connection() {
    // The library accepts a hundred of them.
    check_after(100, "DATA", h2::frame(h2::DATA, 0, 3, &[])).await;
    check_after(100, "DATA, all padding", h2::frame(h2::DATA, h2::PADDED, 3, &[3, 0, 0, 0])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_frame_over_the_limit_gets_goaway_with_a_reason() {
    let setup = GatewaySetup::anonymous().await;
    let mut http = connected(&setup).await;
    // Each is answered before the next is sent, so that nothing is in flight when the connection is
    // closed.
    let code = soon("it is rejected", async {
        loop {
            http.send(h2::frame(h2::PING, 0, 0, &[7; 8])).await;
            let frame = loop {
                let frame = h2::next(&mut http).await?;
                if matches!(frame.kind, h2::PING | h2::GOAWAY) {
                    break frame;
                }
            };
            if frame.kind == h2::GOAWAY {
                return Some(frame.code());
            }
        }
    });
    assert_eq!(code.await, Some(ENHANCE_YOUR_CALM));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_many_small_frames_is_read() {
    let setup = GatewaySetup::anonymous().await;
    let mut http = connected(&setup).await;
    // The library accepts about two thousand unread ones.
    let pieces = HTTP2_FRAMES_UNASKED_MAX * 3 / 2;
    http.send(h2::frame(h2::DATA, 0, 3, b"\"")).await;
    http.send(h2::frame(h2::DATA, 0, 3, b"abcdefghij").repeat(pieces)).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"")).await;
    let answered = soon("an answer", h2::answered(&mut http, 3)).await;
    assert_eq!(answered, h2::Answered::Status(200));
    assert_eq!(setup.stage.runs(&"abcdefghij".repeat(pieces)), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_completes_with_a_window_update_per_chunk() {
    let setup = GatewaySetup::anonymous().await;
    let mut http = Http::connect(setup.at()).await;
    http.send(h2::preface()).await;
    let mut head = h2::head("/v1/agents/warehouse/Ticks/Count");
    head.extend(h2::pair("accept", "text/event-stream"));
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &head)).await;
    let ticks = HTTP2_FRAMES_UNASKED_MAX * 3;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 1, ticks.to_string().as_bytes())).await;
    let mut answer = Vec::new();
    loop {
        let frame = soon("a frame", h2::next(&mut http)).await.expect("the connection stays");
        if frame.kind == h2::DATA {
            let bytes = u32::try_from(frame.payload.len()).expect("short").to_be_bytes();
            if bytes != [0; 4] {
                http.send(h2::frame(h2::WINDOW_UPDATE, 0, 0, &bytes)).await;
                http.send(h2::frame(h2::WINDOW_UPDATE, 0, 1, &bytes)).await;
            }
            answer.extend(frame.payload);
            if frame.flags & h2::END_STREAM != 0 {
                break;
            }
        }
    }
    let text = String::from_utf8(answer).expect("text");
    assert!(text.contains(&format!("data: {}\n", ticks - 1)) && text.contains("event: end"));
}
