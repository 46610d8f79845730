//! Relays the bytes of a connection that has left HTTP, as messages of its call.

use crate::{
    call::{MessageSender, Messages, Next, with_background},
    limits::TCP_READ_BYTES_MAX,
    metadata::Metadata,
    status::{Code, Status},
};
use bytes::{Bytes, BytesMut};
use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

/// Which end of the call a relay is: the two mark the end of their bytes in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayEnd {
    /// Its bytes end with the request.
    Initiator,
    /// Its bytes end with an empty message, and the reply when both directions have ended.
    Responder,
}

/// Relays the two halves of a connection until both directions have ended, or one is lost.
/// Dropping the future drops both.
///
/// # Errors
/// Why it ended early: the connection, the other end of the call, or no byte for `idle_max`.
pub(crate) async fn relay(
    end: RelayEnd,
    (mut read, mut write): (impl AsyncRead + Send + Unpin, impl AsyncWrite + Send + Unpin),
    mut incoming: Messages,
    outgoing: MessageSender,
    idle_max: Option<Duration>,
) -> Result<(), Status> {
    let last_moved = LastMoved::new();
    let both = async {
        let inwards = write_all(end, &mut incoming, &mut write, &last_moved);
        let outwards = read_all(end, &mut read, &outgoing, &last_moved);
        match end {
            // The reply ends when both directions have ended, or tells why they have not.
            RelayEnd::Initiator => tokio::select! {
                ended = inwards => ended,
                Err(status) = outwards => Err(status),
            },
            RelayEnd::Responder => {
                tokio::try_join!(inwards, outwards)?;
                outgoing.give(Next::End(Metadata::default())).await
            }
        }
    };
    tokio::select! {
        ended = both => ended,
        status = last_moved.idle(idle_max) => Err(status),
    }
}

/// Writes the messages to the connection.
async fn write_all(
    end: RelayEnd,
    incoming: &mut Messages,
    write: &mut (impl AsyncWrite + Unpin),
    last_moved: &LastMoved,
) -> Result<(), Status> {
    loop {
        match incoming.next_event().await {
            Next::Head(_) => {}
            Next::Message(bytes) if bytes.is_empty() && end == RelayEnd::Initiator => {
                write.shutdown().await.map_err(|fault| broken(&fault))?;
            }
            Next::Message(bytes) => {
                let written = with_background(incoming, write.write_all(&bytes)).await?;
                written.map_err(|fault| broken(&fault))?;
                last_moved.set();
            }
            Next::End(_) if end == RelayEnd::Responder => {
                return write.shutdown().await.map_err(|fault| broken(&fault));
            }
            Next::End(_) => return Ok(()),
            Next::Failed(status) => return Err(status),
        }
    }
}

/// Sends the bytes of the connection. As initiator it ends only with an error.
async fn read_all(
    end: RelayEnd,
    read: &mut (impl AsyncRead + Unpin),
    outgoing: &MessageSender,
    last_moved: &LastMoved,
) -> Result<(), Status> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(TCP_READ_BYTES_MAX);
        let mut room = (&mut *read).take(TCP_READ_BYTES_MAX as u64);
        let bytes = tokio::select! {
            bytes = room.read_buf(&mut buffer) => bytes.map_err(|fault| broken(&fault))?,
            () = outgoing.closed() => return not_taken(end).await,
        };
        last_moved.set();
        let sent = match (bytes, end) {
            (0, RelayEnd::Initiator) => outgoing.give(Next::End(Metadata::default())).await,
            (0, RelayEnd::Responder) => return outgoing.send(Bytes::new()).await,
            _ => outgoing.send(buffer.split().freeze()).await,
        };
        if sent.is_err() || bytes == 0 {
            return not_taken(end).await;
        }
    }
}

/// The other end of the call takes no more. At the initiator the reply says what that means.
async fn not_taken(end: RelayEnd) -> Result<(), Status> {
    match end {
        RelayEnd::Initiator => std::future::pending().await,
        RelayEnd::Responder => Err(Status::unknown(Code::Cancelled, "the call was cancelled")),
    }
}

fn broken(fault: &io::Error) -> Status {
    Status::new(Code::Aborted, format!("the connection was reset: {fault}"))
}

/// Time when a byte moved last.
struct LastMoved(Mutex<Instant>);

impl LastMoved {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    fn set(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when no byte has moved for this time.
    async fn idle(&self, idle_max: Option<Duration>) -> Status {
        let Some(idle_max) = idle_max else { return std::future::pending().await };
        loop {
            let last = self.get();
            tokio::time::sleep_until(last + idle_max).await;
            if self.get() == last {
                let text = format!("no byte moved in either direction for {idle_max:?} (idle)");
                return Status::unknown(Code::DeadlineExceeded, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex, split};

    const MINUTE: Duration = Duration::from_secs(60);

    /// Two relays joined by messages both ways, as a link joins them, and the far ends of their
    /// connections.
    fn joined() -> (DuplexStream, DuplexStream, impl Future<Output = [Result<(), Status>; 2]>) {
        let ((client, near), (far, upstream)) = (duplex(1_024), duplex(1_024));
        let (requests, requested) = Messages::channel(4);
        let (replies, replied) = Messages::channel(4);
        let initiator = relay(RelayEnd::Initiator, split(near), replied, requests, Some(MINUTE));
        let responder = async move {
            let ended =
                relay(RelayEnd::Responder, split(far), requested, replies.clone(), Some(MINUTE))
                    .await;
            if let Err(status) = &ended {
                drop(replies.fail(status.clone()).await);
            }
            ended
        };
        let both = async { tokio::join!(initiator, responder).into() };
        (client, upstream, both)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_and_each_direction_ends_by_itself() {
        let (client, mut upstream, relays) = joined();
        let (mut client_read, mut client_write) = split(client);
        let client = async {
            client_write.write_all(b"ping").await.expect("written");
            client_write.shutdown().await.expect("half-closed");
            let mut all = Vec::new();
            client_read.read_to_end(&mut all).await.expect("the end");
            all
        };
        let upstream = async {
            let mut all = Vec::new();
            upstream.read_to_end(&mut all).await.expect("the half-close");
            upstream.write_all(&[7; 200_000]).await.expect("written");
            upstream.shutdown().await.expect("half-closed");
            all
        };
        let (ended, got, asked) = tokio::join!(relays, client, upstream);
        assert_eq!(ended, [Ok(()), Ok(())]);
        assert_eq!((asked.as_slice(), got.len()), (&b"ping"[..], 200_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_byte_ends_at_both_ends() {
        let (_client, _upstream, relays) = joined();
        let began = Instant::now();
        let ended = relays.await;
        assert_eq!(began.elapsed(), MINUTE);
        assert!(
            ended.iter().all(|end| matches!(end,
            Err(status) if status.code() == Code::DeadlineExceeded)),
            "{ended:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_in_either_direction_starts_the_idle_time_again() {
        let (mut client, mut upstream, relays) = joined();
        let began = Instant::now();
        let talk = async {
            tokio::time::sleep(MINUTE / 2).await;
            client.write_all(b"x").await.expect("written");
            tokio::time::sleep(MINUTE / 2).await;
            upstream.write_all(b"y").await.expect("written");
            (client, upstream)
        };
        let (ended, _ends) = tokio::join!(relays, talk);
        assert_eq!(began.elapsed(), MINUTE * 2);
        assert!(ended[0].is_err() && ended[1].is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_ends_the_relay_at_the_responder() {
        let (_client, far) = duplex(64);
        let (_requests, requested) = Messages::channel(1);
        let (replies, replied) = Messages::channel(1);
        drop(replied);
        let ended = relay(RelayEnd::Responder, split(far), requested, replies, Some(MINUTE)).await;
        assert_eq!(ended.expect_err("cancelled").code(), Code::Cancelled);
    }
}
