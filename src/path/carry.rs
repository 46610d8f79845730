//! Carries datagrams through one WebSocket, both ways, until it ends.

use super::{
    inbox::{InboxSender, TunnelMessage},
    message::MESSAGE_BYTES_MAX,
    queue::SendQueue,
};
use crate::limits::TUNNEL_SILENCE_MAX;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use std::net::{IpAddr, SocketAddr};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

/// The end of a tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelEnd {
    #[error("the other side closed it")]
    Closed,
    #[error("nothing came for too long")]
    Silent,
    #[error("the other side sent text")]
    Text,
    #[error("{0}")]
    Failed(#[from] Error),
    #[error("this side closed it")]
    Done,
}

pub(super) fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MESSAGE_BYTES_MAX)
}

/// Writes what is queued and delivers what comes, as from `from` and sent to `to`, until the stream
/// or the queue ends. A stream on which nothing comes is asked, and ends without an answer.
pub(super) async fn carry<S>(
    socket: WebSocketStream<S>,
    queue: &SendQueue,
    delivery: &InboxSender,
    (from, to): (SocketAddr, Option<IpAddr>),
) -> TunnelEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, stream) = socket.split();
    let ask = Notify::new();
    // Both go on at once: two sides that only wrote would wait for each other.
    tokio::select! {
        ended = write(sink, queue, &ask) => ended.err().map_or(TunnelEnd::Done, TunnelEnd::Failed),
        ended = read(stream, (delivery, from, to), &ask) => ended,
    }
}

async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    queue: &SendQueue,
    ask: &Notify,
) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let message = tokio::select! {
            biased;
            () = ask.notified() => Message::Ping(Bytes::new()),
            message = queue.next() => match message {
                Some(message) => Message::Binary(message),
                None => return sink.close().await,
            },
        };
        sink.send(message).await?;
    }
}

async fn read<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    (delivery, from, to): (&InboxSender, SocketAddr, Option<IpAddr>),
    ask: &Notify,
) -> TunnelEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut is_asked = false;
    loop {
        match timeout(TUNNEL_SILENCE_MAX, stream.next()).await {
            Err(_elapsed) if is_asked => return TunnelEnd::Silent,
            Err(_elapsed) => {
                is_asked = true;
                ask.notify_one();
                continue;
            }
            Ok(None | Some(Ok(Message::Close(_)))) => return TunnelEnd::Closed,
            Ok(Some(Err(error))) => return error.into(),
            Ok(Some(Ok(Message::Text(_)))) => return TunnelEnd::Text,
            Ok(Some(Ok(Message::Binary(message)))) => {
                // Its receiver lives as long as the socket.
                drop(delivery.send(TunnelMessage { message, from, to }).await);
            }
            // The library answers PING.
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)))) => {}
        }
        is_asked = false;
    }
}
