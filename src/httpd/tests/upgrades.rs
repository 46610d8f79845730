//! Tests of connections that leave HTTP.

use super::{ROOM, RawClient, TestBody, TestServer, response};
use crate::httpd::{
    answers::{Peer, UpgradedStream},
    request_body::RequestBody,
};
use hyper::{
    Request, Response, StatusCode,
    header::{self, HeaderValue},
};
use std::{
    future::Future,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, oneshot},
    time::{Duration, Instant},
};

const HOUR: Duration = Duration::from_secs(3_600);
const UPGRADE: &str = "GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";

fn switching() -> Response<TestBody> {
    let mut response = response("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("x"));
    response
}

/// A server that answers `/up` with an upgrade, and other requests with their path.
fn server<F>(run: fn(UpgradedStream) -> F) -> TestServer
where
    F: Future<Output = ()> + Send + 'static,
{
    TestServer::new(move |request: Request<RequestBody>, peer: Arc<Peer>| async move {
        match request.uri().path() {
            "/up" => {
                peer.upgrade(run);
                switching()
            }
            "/a" => response("answer of a"),
            _ => response("answer of others"),
        }
    })
}

/// Sends back what comes, in capitals, and a last line after the end of the client.
async fn shout((mut stream, first): UpgradedStream) {
    let mut bytes = first;
    loop {
        stream.write_all(&bytes.to_ascii_uppercase()).await.expect("room");
        bytes.clear();
        if stream.read_buf(&mut bytes).await.expect("bytes") == 0 {
            break;
        }
    }
    stream.write_all(b"the end").await.expect("the client still reads");
    stream.shutdown().await.expect("an end");
    let after = stream.read_buf(&mut bytes).await;
    assert!(matches!(after, Ok(0)), "the client had ended");
}

async fn upgrade_a_third_request<S>(mut client: RawClient<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.send("GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
    client.until("answer of a").await;
    // The second and the third in one write, with bytes that are not HTTP behind.
    let second = "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nxyz";
    client.send(&format!("{second}{UPGRADE}early\n\n bytes;")).await;
    client.until("answer of others").await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.contains("keep-alive"), "{head}");
    assert_eq!(client.until(";").await, "EARLY\n\n BYTES;");
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.until("\r\n\r\n").await, "GET / HTTP/1.1\r\n\r\n");
    client.stream.shutdown().await.expect("a half-close");
    assert_eq!(client.rest().await, "the end");
}

#[tokio::test]
async fn a_later_request_upgrades_and_the_bytes_behind_its_head_are_kept() {
    upgrade_a_third_request(server(shout).connect_tcp().await).await;
    #[cfg(all(feature = "gateway", feature = "certs"))]
    upgrade_a_third_request(server(shout).connect_tls().await).await;
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_may_be_idle_and_stall_for_hours() {
    let server = server(|(mut stream, _)| async move {
        assert_eq!(stream.read_u8().await.expect("a byte"), b'x');
        stream.write_all(&[7; 64]).await.expect("the client reads at last");
    });
    let mut client = server.connect(16);
    let request = async |client: &mut RawClient<_>| {
        client.send(UPGRADE).await;
        client.head().await
    };
    assert!(request(&mut client).await.starts_with("HTTP/1.1 101 "));
    let began = Instant::now();
    tokio::time::sleep(HOUR).await;
    client.send("x").await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(client.rest().await.len(), 64);
    assert!(began.elapsed() >= 2 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_without_its_answer_is_dropped_and_keeps_nothing_alive() {
    for is_answered in [true, false] {
        let (held, is_dropped) = oneshot::channel::<()>();
        let (held, asked) = (Mutex::new(Some(held)), Arc::new(Notify::new()));
        let was_asked = asked.clone();
        let server = TestServer::new(move |_, peer: Arc<Peer>| {
            let (held, owner) = (held.lock().expect("whole").take(), peer.clone());
            peer.upgrade(move |_| async move { unreachable!("{held:?} {}", owner.address) });
            asked.notify_one();
            async move {
                match is_answered {
                    true => response("no upgrade"),
                    false => std::future::pending().await,
                }
            }
        });
        let mut client = server.connect(ROOM);
        client.send(UPGRADE).await;
        was_asked.notified().await;
        if is_answered {
            client.until("no upgrade").await;
        } else {
            server.tasks.stop();
        }
        assert!(is_dropped.await.is_err(), "answered: {is_answered}");
    }
}
