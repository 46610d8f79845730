//! The echo on raw quinn: a bidirectional stream per call, opened by the accepting side, as
//! dialback does.

use super::{Echo, world};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// The side that opens streams.
#[derive(Clone)]
pub(crate) struct RawEcho {
    connection: quinn::Connection,
    _endpoints: Arc<(quinn::Endpoint, quinn::Endpoint)>,
}

/// The settings of `link/endpoint.rs` for 1,024 calls in flight.
fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams((world::CALLS_IN_FLIGHT + 32).into())
        .max_concurrent_uni_streams(0u8.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window((256u32 * 1024).into())
        .receive_window((1024 * 1024 + 256 * 1024 * world::CALLS_IN_FLIGHT).into())
        .max_idle_timeout(quinn::IdleTimeout::try_from(Duration::from_secs(15)).ok());
    Arc::new(transport)
}

impl RawEcho {
    /// Both ends, linked over loopback with mutual TLS; the dialling one answers, on its own
    /// runtime.
    pub(crate) async fn start(responder: &Handle) -> Self {
        let ca = world::Authority::new();
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(
            QuicServerConfig::try_from(ca.accepting()).expect("TLS for QUIC"),
        ));
        server.transport_config(transport());
        let listener =
            quinn::Endpoint::server(server, (Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let mut client = quinn::ClientConfig::new(Arc::new(
            QuicClientConfig::try_from(ca.dialling()).expect("TLS for QUIC"),
        ));
        client.transport_config(transport());
        let entered = responder.enter();
        let dialler = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        let dial = dialler
            .connect_with(client, listener.local_addr().expect("an address"), "localhost")
            .expect("a dial");
        drop(entered);
        let accept = async { listener.accept().await.expect("a peer").await.expect("a handshake") };
        let (dialled, accepted) = tokio::join!(dial, accept);
        let dialled = dialled.expect("a handshake");
        responder.spawn(async move {
            while let Ok((send, recv)) = dialled.accept_bi().await {
                tokio::spawn(answer(send, recv));
            }
        });
        Self { connection: accepted, _endpoints: Arc::new((listener, dialler)) }
    }
}

async fn answer(mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    let message = recv.read_to_end(4 << 20).await.expect("a message");
    send.write_all(&message).await.expect("a reply");
    send.finish().expect("an end");
}

impl Echo for RawEcho {
    async fn echo(&self, message: &serde_bytes::ByteBuf) {
        let (mut send, mut recv) = self.connection.open_bi().await.expect("a stream");
        send.write_all(message).await.expect("a request");
        send.finish().expect("an end");
        let reply = recv.read_to_end(4 << 20).await.expect("a reply");
        assert_eq!(reply.len(), message.len());
    }
}
