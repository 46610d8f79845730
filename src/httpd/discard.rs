//! Discards the rest of a request after an early response, for a limited time. Closing a connection
//! with unread bytes resets it, and a client that is still sending would lose the response.

use crate::limits::{
    HTTP_DISCARD_STEP, HTTP_DISCARD_STEP_BYTES_MIN, HTTP_DISCARD_WAIT_MAX, HTTP_PIECE_BYTES_MAX,
};
use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

/// Time to discard bytes: while they arrive, up to a maximum.
#[derive(Debug)]
struct Grace {
    until: Instant,
    step_until: Instant,
    step_bytes: usize,
}

impl Grace {
    fn new(now: Instant) -> Self {
        Self {
            until: now + HTTP_DISCARD_WAIT_MAX,
            step_until: now + HTTP_DISCARD_STEP,
            step_bytes: 0,
        }
    }

    /// Waits for one read, `None` at the end. Returns `true` while discarding continues.
    async fn step(&mut self, read: impl Future<Output = Option<usize>>) -> bool {
        match timeout_at(self.until.min(self.step_until), read).await {
            Ok(None) => false,
            Ok(Some(bytes)) => self.continues(bytes, Instant::now()),
            Err(_elapsed) => self.continues(0, Instant::now()),
        }
    }

    fn continues(&mut self, bytes: usize, now: Instant) -> bool {
        self.step_bytes += bytes;
        if now >= self.step_until {
            if self.step_bytes < HTTP_DISCARD_STEP_BYTES_MIN {
                return false;
            }
            (self.step_until, self.step_bytes) = (now + HTTP_DISCARD_STEP, 0);
        }
        now < self.until
    }
}

/// Reads and discards the rest of a body. HTTP/2 gives the client room to send meanwhile; a body
/// that is dropped before its end resets its stream with NO_ERROR (RFC 9113 section 8.1).
pub(super) async fn body<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut grace = Grace::new(Instant::now());
    let bytes_of = |frame: Frame<Bytes>| frame.data_ref().map_or(0, Bytes::len);
    while grace.step(async { Some(bytes_of(body.frame().await?.ok()?)) }).await {}
}

/// Reads and discards from a connection whose sending side is closed, until the client closes.
pub(super) async fn connection<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut buffer = vec![0; HTTP_PIECE_BYTES_MAX];
    let mut grace = Grace::new(Instant::now());
    while grace.step(async { stream.read(&mut buffer).await.ok().filter(|n| *n > 0) }).await {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::channel::Channel;
    use std::time::Duration;
    use tokio::io::{AsyncWriteExt, duplex};

    /// Time for which a body is discarded that arrives in pieces of this size every 100 ms, and
    /// ends after this number.
    async fn discarded(piece: usize, pieces: usize) -> Duration {
        let (mut sender, rest) = Channel::<Bytes, std::io::Error>::new(1);
        let began = Instant::now();
        let send = async move {
            for _ in 0..pieces {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if sender.send_data(Bytes::from(vec![7; piece])).await.is_err() {
                    return;
                }
            }
        };
        let ((), took) = tokio::join!(send, async {
            body(rest).await;
            began.elapsed()
        });
        took
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_discarded_to_its_end_and_for_ten_seconds_at_most() {
        let second = Duration::from_secs(1);
        let enough = HTTP_DISCARD_STEP_BYTES_MIN.div_ceil(9);
        assert_eq!(discarded(enough, 50).await, 5 * second);
        assert_eq!(discarded(1 << 20, 1_000).await, HTTP_DISCARD_WAIT_MAX);
        assert_eq!(discarded(enough, 1_000).await, HTTP_DISCARD_WAIT_MAX);
        assert_eq!(discarded(1, 1_000).await, HTTP_DISCARD_STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_connection_is_read_until_the_client_closes_too_or_is_silent() {
        let (mut near, mut far) = duplex(64);
        let began = Instant::now();
        let send = async move {
            for _ in 0..30 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                far.write_all(&[7; 200]).await.expect("it is read");
            }
        };
        tokio::join!(send, connection(&mut near));
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        let (mut near, _far) = duplex(64);
        let began = Instant::now();
        connection(&mut near).await;
        assert_eq!(began.elapsed(), HTTP_DISCARD_STEP);
    }
}
