//! Connections that change to another protocol.

use super::SiteSetup;
use crate::{
    forward::upstream::{HttpUpstream, reply},
    http::client::Http,
    world::{Background, soon, spawn},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: open.test\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";

/// A server that changes the protocol with this header and says these bytes. Then it serves the
/// connection.
async fn upgrading<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    header: &str,
    first: &[u8],
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (String, Background<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n{header}\r\n\r\n"
    );
    let answer = [answer.as_bytes(), first].concat();
    let serving = spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        stream.write_all(&answer).await.expect("written");
        serve(stream).await
    });
    (url, serving)
}

/// A server that says `hi`, and returns every byte until the half-close.
async fn echo() -> (String, Background<()>) {
    upgrading("x-of: upstream", b"hi", |mut stream| async move {
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.expect("an echo");
        write.shutdown().await.expect("half-closed");
    })
    .await
}

#[tokio::test]
async fn bytes_pass_both_ways_after_the_upgrade() {
    let (url, _serving) = echo().await;
    let setup = SiteSetup::to(&url).await;
    let mut http = Http::connect(setup.at()).await;
    // Bytes that come with the request are part of the other protocol.
    http.send(format!("{UPGRADE}early")).await;
    let head = soon("the head", http.head()).await.expect("a head");
    assert_eq!((head.status, head.header("upgrade")), (101, Some("websocket")));
    assert_eq!(head.header("x-of"), Some("upstream"));
    let mut greeting = [0; 7];
    assert!(soon("bytes", http.read(&mut greeting)).await);
    assert_eq!(&greeting, b"hiearly");
    let large = vec![7; 300_000];
    let mut back = vec![0; large.len()];
    let (is_sent, is_read) = soon("the echo", async {
        // Both directions at once: neither end holds all of it.
        let sending = large.chunks(1_000).collect::<Vec<_>>();
        let mut is_sent = true;
        let mut is_read = true;
        for (sent, back) in sending.into_iter().zip(back.chunks_mut(1_000)) {
            is_sent &= http.send(sent).await;
            is_read &= http.read(back).await;
        }
        (is_sent, is_read)
    })
    .await;
    assert!(is_sent && is_read && back == large);
}

#[tokio::test]
async fn the_client_of_an_idle_websocket_gets_pings_whose_pongs_end_at_the_gateway() {
    let greeting = b"\x81\x02hi";
    let (url, received) = upgrading("sec-websocket-accept: x", greeting, |mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("the half-close");
        all
    })
    .await;
    let setup = SiteSetup::to(&url).await;
    let mut http = Http::connect(setup.at()).await;
    http.send(UPGRADE).await;
    let head = soon("the head", http.head()).await.expect("a head");
    assert_eq!((head.status, head.header("sec-websocket-accept")), (101, Some("x")));
    let mut frames = [0; 14];
    assert!(soon("a greeting and a ping", http.read(&mut frames)).await);
    assert_eq!(&frames, b"\x81\x02hi\x89\x08dialback");
    let (pong, text) = (b"\x8a\x88\0\0\0\0dialback", b"\x81\x82\0\0\0\0yo");
    http.send([&pong[..], text].concat()).await;
    drop(http);
    assert_eq!(soon("the client's bytes", received).await, text);
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_refuses_is_an_ordinary_response() {
    let upstream = HttpUpstream::answering(reply("403 Forbidden", &[], "no")).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let mut http = Http::connect(setup.at()).await;
    for _ in 0..2 {
        http.send(UPGRADE).await;
        let answer = soon("a response", http.reply()).await.expect("a response");
        assert_eq!((answer.status, answer.text()), (403, "no"));
    }
}
