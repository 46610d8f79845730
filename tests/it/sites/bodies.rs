//! Bodies and trailers in both directions.

use super::{SiteSetup, answering};
use crate::{
    forward::upstream::{HttpUpstream, ServerAction, chunk, reply},
    http::client::Http,
    world::soon,
};

#[tokio::test]
async fn bodies_with_a_length_and_in_chunks_arrive_whole() {
    let (upstream, setup) = answering(reply("200 OK", &[], "x".repeat(300_000))).await;
    let body = "y".repeat(200_000);
    let head =
        format!("POST /a HTTP/1.1\r\nhost: open.test\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = setup.raw([head.as_bytes(), body.as_bytes()].concat()).await;
    assert_eq!((answer.status, answer.body.len()), (200, 300_000));
    let chunks = [chunk(b"hello "), chunk(b"world"), chunk(b"")].concat();
    let head = "GET /b HTTP/1.1\r\nhost: open.test\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = setup.raw([head.as_bytes(), &chunks].concat()).await;
    assert_eq!(answer.status, 200);
    let seen = upstream.seen();
    assert_eq!((seen[0].header("content-length"), seen[0].body.len()), (Some("200000"), 200_000));
    let text = String::from_utf8_lossy(&seen[1].body);
    let parts: Vec<_> = text.split("\r\n").collect();
    assert_eq!(seen[1].header("transfer-encoding"), Some("chunked"));
    assert!(parts.contains(&"hello ") && parts.contains(&"world"), "{text:?}");
}

#[tokio::test]
async fn pieces_of_a_response_arrive_as_they_are_sent_and_trailers_at_its_end() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    let bytes = [head.as_bytes(), &chunk(b"one"), b"0\r\nx-sum: 3\r\n\r\n"].concat();
    let (_upstream, setup) = answering(bytes).await;
    let mut http = Http::connect(setup.at()).await;
    http.send("GET / HTTP/1.1\r\nhost: open.test\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
    let mut text = String::new();
    let mut buffer = [0; 1];
    while !text.ends_with("x-sum: 3\r\n\r\n") {
        assert!(soon("bytes", http.read(&mut buffer)).await, "{text}");
        text.push(char::from(buffer[0]));
    }
    assert!(text.contains("3\r\none\r\n"), "{text}");
}

#[tokio::test]
async fn an_early_response_is_passed_on_while_the_request_is_still_coming() {
    let early = HttpUpstream::start(|_| ServerAction::Answers(Vec::new())).await;
    drop(early);
    let (_upstream, setup) = answering(reply("413 Too Large", &[], "no")).await;
    let mut http = Http::connect(setup.at()).await;
    http.send("POST / HTTP/1.1\r\nhost: web.test\r\ncontent-length: 1000000\r\n\r\nx").await;
    // Refused for its credential, before the rest of the body has come.
    let answer = soon("a response", http.reply()).await.expect("a response");
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_download_that_nobody_reads_holds_the_upstream_back() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let piece = chunk(&vec![7; 60_000]);
    let upstream =
        HttpUpstream::start(move |_| ServerAction::Pours(head.clone(), piece.clone())).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let mut http = Http::connect(setup.at()).await;
    http.send("GET / HTTP/1.1\r\nhost: open.test\r\n\r\n").await;
    soon("the head", http.head()).await.expect("a head");
    let written = stable(|| upstream.written()).await;
    assert!(written < 64 << 20, "{written} bytes were taken of what nobody reads");
    drop(http);
    upstream.disconnected(1).await;
}

/// Waits until a number does not grow any more.
async fn stable(mut number: impl FnMut() -> usize) -> usize {
    let mut last = number();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let now = number();
        if now == last {
            return now;
        }
        last = now;
    }
}
