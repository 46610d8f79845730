//! The echo on raw quinn: a bidirectional stream for each call, opened by the side that accepted
//! the connection, as dialback does.

use crate::{
    load::{self, Echo},
    pki,
};
use anyhow::Context;
use quinn::{
    AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use std::{
    future::Future,
    io,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

const MESSAGE_BYTES_MAX: usize = 4 << 20;
const CALLS_IN_FLIGHT: u32 = 1024;
const BUFFER_BYTES: usize = 4 << 20;

/// The side that opens streams.
#[derive(Clone)]
struct RawEcho(quinn::Connection);

impl Echo for RawEcho {
    async fn echo(&self, message: &[u8]) {
        let (mut send, mut recv) = self.0.open_bi().await.expect("a stream");
        send.write_all(message).await.expect("a request");
        send.finish().expect("an end");
        let reply = recv.read_to_end(MESSAGE_BYTES_MAX).await.expect("a reply");
        assert_eq!(reply.len(), message.len());
    }
}

/// Accepts one connection and makes calls on it.
pub async fn call(batches: bool) -> anyhow::Result<()> {
    let tls = pki::load("node-edge")?.accepting_config(b"raw")?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(transport());
    let listener = endpoint(Some(config), &pki::host(), batches)?;
    println!("at {}", listener.local_addr()?);
    let connection = listener.accept().await.context("closed")?.await?;
    load::serve(RawEcho(connection)).await
}

/// Dials and answers.
pub async fn answer(to: SocketAddr, batches: bool) -> anyhow::Result<()> {
    let tls = pki::load("agent-a")?.dialling_config(b"raw")?;
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport());
    let connection =
        endpoint(None, "0.0.0.0", batches)?.connect_with(config, to, "localhost")?.await?;
    println!("ready");
    tokio::spawn(async move {
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(echo(send, recv));
        }
    });
    load::until_closed().await
}

async fn echo(mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    let message = recv.read_to_end(MESSAGE_BYTES_MAX).await.expect("a message");
    send.write_all(&message).await.expect("a reply");
    send.finish().expect("an end");
}

/// The settings of dialback's links for 1,024 calls in flight.
fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams((CALLS_IN_FLIGHT + 32).into())
        .max_concurrent_uni_streams(0u8.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window((256u32 * 1024).into())
        .receive_window((1024 * 1024 + 256 * 1024 * CALLS_IN_FLIGHT).into())
        // The other ways have their turns meanwhile.
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .max_idle_timeout(quinn::IdleTimeout::try_from(Duration::from_secs(15)).ok());
    Arc::new(transport)
}

fn endpoint(
    server: Option<quinn::ServerConfig>,
    host: &str,
    batches: bool,
) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind((host, 0))?;
    let runtime: Arc<dyn Runtime> =
        if batches { Arc::new(Batching::default()) } else { Arc::new(TokioRuntime) };
    if batches {
        let buffers = socket2::SockRef::from(&socket);
        buffers.set_recv_buffer_size(BUFFER_BYTES)?;
        buffers.set_send_buffer_size(BUFFER_BYTES)?;
    }
    Endpoint::new(EndpointConfig::default(), server, socket, runtime)
}

/// A runtime whose connection drivers let the tasks that are ready write first.
#[derive(Debug, Default)]
struct Batching {
    has_endpoint: AtomicBool,
}

impl Runtime for Batching {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, mut driver: Pin<Box<dyn Future<Output = ()> + Send>>) {
        if !self.has_endpoint.swap(true, Ordering::Relaxed) {
            return TokioRuntime.spawn(driver);
        }
        let mut waits = false;
        TokioRuntime.spawn(Box::pin(std::future::poll_fn(move |context| {
            waits = !waits;
            if waits {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            driver.as_mut().poll(context)
        })));
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }
}
