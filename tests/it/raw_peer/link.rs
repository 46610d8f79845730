//! Bare connections and streams, with a timeout for every wait.

use super::{Cbor, kind};
use dialback::{ALPN, Credentials};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream,
    ServerConfig, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

/// Longer than any limit of the library that a test waits for.
const WAIT_MAX: Duration = Duration::from_secs(25);

/// Waits for a state that must be reached.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(output) => output,
        Err(_elapsed) => panic!("this did not happen within {WAIT_MAX:?}: {what}"),
    }
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// The limits that the raw side grants and requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) alpn: &'static [u8],
    pub(crate) streams: u32,
    /// The bytes that the other side may send on a stream before they are read.
    pub(crate) stream_window: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpn: ALPN, streams: 100, stream_window: 1 << 20 }
    }
}

impl Settings {
    fn transport(self) -> Arc<TransportConfig> {
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(self.streams.into())
            .stream_receive_window(self.stream_window.into());
        Arc::new(transport)
    }
}

/// A connection without any frame sent yet.
pub(crate) struct RawLink {
    pub(crate) connection: Connection,
    _endpoint: Endpoint,
}

impl RawLink {
    /// Dials with a certificate.
    pub(crate) async fn dial(at: SocketAddr, credentials: &Credentials) -> Self {
        Self::dial_with(at, credentials, Settings::default()).await.expect("a handshake")
    }

    pub(crate) async fn dial_with(
        at: SocketAddr,
        credentials: &Credentials,
        settings: Settings,
    ) -> Result<Self, ConnectionError> {
        Self::dial_tls(at, credentials.dialling_config(settings.alpn).expect("TLS"), settings).await
    }

    pub(crate) async fn dial_tls(
        at: SocketAddr,
        tls: rustls::ClientConfig,
        settings: Settings,
    ) -> Result<Self, ConnectionError> {
        let tls = QuicClientConfig::try_from(tls).expect("a suite for QUIC");
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(settings.transport());
        let endpoint = Endpoint::client(loopback()).expect("a socket");
        let at = SocketAddr::new([127, 0, 0, 1].into(), at.port());
        let connecting = endpoint.connect_with(config, at, "127.0.0.1").expect("an address");
        let connection = soon("a handshake", connecting).await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    pub(crate) async fn open(&self) -> RawStream {
        let (send, recv) =
            soon("stream credit", self.connection.open_bi()).await.expect("a stream");
        RawStream::new(send, recv)
    }

    pub(crate) async fn accept(&self) -> RawStream {
        let (send, recv) =
            soon("a stream of the peer", self.connection.accept_bi()).await.expect("a stream");
        RawStream::new(send, recv)
    }

    /// Waits for the peer's application close: its code and reason.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match soon("the peer's close", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => (
                close.error_code.into_inner(),
                String::from_utf8(close.reason.to_vec()).expect("the reason is UTF-8"),
            ),
            other => panic!("the link ended differently: {other:?}"),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

/// A raw node: accepts connections.
pub(crate) struct RawListener(Endpoint);

impl RawListener {
    pub(crate) fn bind(credentials: &Credentials, settings: Settings) -> Self {
        let tls = credentials.accepting_config(settings.alpn).expect("TLS");
        let tls = QuicServerConfig::try_from(tls).expect("a suite for QUIC");
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(settings.transport());
        Self(Endpoint::server(config, loopback()).expect("a socket"))
    }

    /// The address it listens on, as text.
    pub(crate) fn address(&self) -> String {
        self.0.local_addr().expect("an address").to_string()
    }

    pub(crate) async fn accept(&self) -> RawLink {
        let incoming = soon("a dialling peer", self.0.accept()).await.expect("open");
        let connection = soon("a handshake", incoming.into_future()).await.expect("a handshake");
        RawLink { connection, _endpoint: self.0.clone() }
    }
}

/// The end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Fin,
    Reset(u64),
    Lost,
}

/// A stream and its received bytes.
pub(crate) struct RawStream {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    received: Vec<u8>,
}

impl RawStream {
    fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, received: Vec::new() }
    }

    /// Sends bytes. A peer that stops reading is not a fault.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        match soon("room to send", self.send.write_all(bytes)).await {
            Ok(()) | Err(quinn::WriteError::Stopped(_) | quinn::WriteError::ConnectionLost(_)) => {}
            Err(other) => panic!("cannot send: {other}"),
        }
    }

    pub(crate) fn finish(&mut self) {
        drop(self.send.finish());
    }

    pub(crate) fn reset(&mut self, code: u32) {
        self.send.reset(VarInt::from_u32(code)).expect("an open stream");
    }

    /// The next frame, or the end of the stream.
    pub(crate) async fn frame(&mut self) -> Result<(u8, Vec<u8>), StreamEnd> {
        loop {
            if let Some((kind, payload, bytes)) = parse_frame(&self.received) {
                self.received.drain(..bytes);
                return Ok((kind, payload));
            }
            let chunk = soon("a frame", self.recv.read_chunk(usize::MAX, true)).await;
            match chunk {
                Ok(Some(chunk)) => self.received.extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    assert!(
                        self.received.is_empty(),
                        "a frame was truncated: {:02x?}",
                        self.received
                    );
                    return Err(StreamEnd::Fin);
                }
                Err(ReadError::Reset(code)) => return Err(StreamEnd::Reset(code.into_inner())),
                Err(_) => return Err(StreamEnd::Lost),
            }
        }
    }

    /// The payload of the next frame, which must be of this kind.
    pub(crate) async fn expect(&mut self, kind: u8) -> Vec<u8> {
        match self.frame().await {
            Ok((have, payload)) if have == kind => payload,
            other => panic!("wanted a frame of kind {kind:#x}, got {other:02x?}"),
        }
    }

    /// Exactly this many raw bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        assert!(self.received.is_empty());
        let mut bytes = vec![0; count];
        soon("bytes", self.recv.read_exact(&mut bytes)).await.expect("bytes");
        bytes
    }

    /// Raw bytes to the end of the stream.
    pub(crate) async fn all(&mut self) -> Vec<u8> {
        assert!(self.received.is_empty());
        soon("the end of a stream", self.recv.read_to_end(1 << 20)).await.expect("bytes")
    }

    /// The reply: its message if there is one, and code, outcome and text of its status. It must
    /// end with FIN.
    pub(crate) async fn reply(&mut self) -> RawReply {
        let mut message = None;
        loop {
            match self.frame().await {
                Ok((kind::HEAD, _)) => {}
                Ok((kind::MESSAGE, payload)) => message = Some(payload),
                Ok((kind::STATUS, payload)) => {
                    assert_eq!(self.frame().await, Err(StreamEnd::Fin), "after STATUS");
                    let status = Cbor::decode(&payload);
                    let number = |key| status.key(key).expect("a required key").as_uint();
                    return RawReply {
                        message,
                        code: number(0),
                        outcome: number(1),
                        text: status.key(2).map(|text| text.as_text().into()).unwrap_or_default(),
                    };
                }
                other => panic!("no reply: {other:02x?}"),
            }
        }
    }

    /// The code with which the peer stopped our sending.
    pub(crate) async fn stop_code(&mut self) -> Option<u64> {
        let stopped = soon("STOP_SENDING", self.send.stopped()).await;
        stopped.expect("the link is up").map(VarInt::into_inner)
    }
}

/// A received reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawReply {
    pub(crate) message: Option<Vec<u8>>,
    pub(crate) code: u64,
    pub(crate) outcome: u64,
    pub(crate) text: String,
}

/// Parses one frame: kind, payload, bytes consumed.
fn parse_frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (kind, rest) = bytes.split_first()?;
    let width = 1usize << (rest.first()? >> 6);
    let length = rest.get(..width)?;
    let length = length[1..]
        .iter()
        .fold(usize::from(length[0] & 0x3f), |sum, byte| sum << 8 | usize::from(*byte));
    let payload = rest.get(width..width + length)?;
    Some((*kind, payload.to_vec(), 1 + width + length))
}
