//! Reads request bodies within limits of size, time and memory.

use super::response::Refusal;
use crate::{
    httpd::RequestBody,
    limits::{HTTP_STEP, HTTP_STEP_BYTES_MIN, MEMORY_COUNTED_BYTES_MIN},
    memory::{Exhausted, HeldBytes, MemoryAccount},
    status::{Code, Outcome, Status},
};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::StatusCode;
use std::fmt::Display;
use tokio::time::{Instant, timeout_at};

/// Refuses a body for which there is no memory: its call was not executed.
fn no_room(why: Exhausted) -> Refusal {
    why.into_status(Outcome::NotExecuted).into()
}

/// A body that is not read yet. The server discards the rest of it once the response is sent.
#[derive(Clone)]
pub(super) struct Unread(RequestBody);

impl Unread {
    pub(super) const fn new(body: RequestBody) -> Self {
        Self(body)
    }

    /// Least size in bytes, as the head of the request states it.
    pub(super) fn bytes_min(&self) -> usize {
        usize::try_from(self.0.size_hint().lower()).unwrap_or(usize::MAX)
    }

    pub(super) async fn read(
        &self,
        bytes_max: usize,
        memory: &MemoryAccount,
    ) -> Result<(Bytes, HeldBytes), Refusal> {
        let mut held = memory.take(0).map_err(no_room)?;
        let whole = read(self.0.clone(), bytes_max, |bytes| hold(&mut held, bytes)).await?;
        Ok((whole, held))
    }
}

fn hold(held: &mut HeldBytes, bytes: usize) -> Result<(), Exhausted> {
    if bytes < MEMORY_COUNTED_BYTES_MIN {
        return Ok(());
    }
    held.grow(bytes.saturating_sub(held.bytes()))
}

/// Reads a body to its end. Calls `hold` with the total bytes before it takes more: first the
/// declared length, then what has arrived. Fails if the body is too large or slow, is reset, or
/// exceeds the memory share.
pub(super) async fn read<B>(
    mut body: B,
    bytes_max: usize,
    mut hold: impl FnMut(usize) -> Result<(), Exhausted>,
) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes, Error: Display> + Unpin,
{
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let (mut step_ends, mut step_bytes) = (Instant::now() + HTTP_STEP, 0);
    if declared > bytes_max {
        return Err(too_large(bytes_max));
    }
    hold(declared).map_err(no_room)?;
    // Allocated at once: a growing buffer is copied, and up to three times as large.
    let mut whole = BytesMut::with_capacity(declared);
    loop {
        let frame = match timeout_at(step_ends, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(fault))) => {
                let text = format!("the body broke off: {fault}");
                return Err(Refusal::invalid(text));
            }
            Err(_elapsed) if step_bytes >= HTTP_STEP_BYTES_MIN => {
                (step_ends, step_bytes) = (Instant::now() + HTTP_STEP, 0);
                continue;
            }
            Err(_elapsed) => return Err(too_slow()),
        };
        let Ok(data) = frame.into_data() else { continue };
        step_bytes += data.len();
        if whole.len() + data.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        hold(whole.len() + data.len()).map_err(no_room)?;
        whole.extend_from_slice(&data);
        if Instant::now() >= step_ends {
            if step_bytes < HTTP_STEP_BYTES_MIN {
                return Err(too_slow());
            }
            (step_ends, step_bytes) = (Instant::now() + HTTP_STEP, 0);
        }
    }
}

fn too_large(bytes_max: usize) -> Refusal {
    let text = format!("the body is over the limit of {bytes_max} bytes (message_bytes_max)");
    Status::not_executed(Code::ResourceExhausted, text).into()
}

fn too_slow() -> Refusal {
    let text = "the body came too slowly (less than 1 KiB/s)";
    Refusal::with(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, text).closing()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MessageMemory;
    use http_body_util::Full;
    use http_body_util::channel::Channel;

    fn is_exhausted(fault: &Refusal, limit: &str) -> bool {
        let status = &fault.status;
        status.code() == Code::ResourceExhausted && status.message().contains(limit)
    }

    #[tokio::test]
    async fn a_body_at_the_limit_is_read_and_one_byte_more_is_not() {
        let whole = |bytes: usize| Full::new(Bytes::from(vec![7; bytes]));
        assert_eq!(read(whole(100), 100, |_| Ok(())).await.expect("whole").len(), 100);
        let fault = read(whole(101), 100, |_| Ok(())).await.expect_err("over it");
        assert!(is_exhausted(&fault, "message_bytes_max"));
    }

    /// Reads a body that arrives in pieces of this size, one per second. Returns result and time.
    async fn trickle(piece: usize, pieces: usize) -> (Result<usize, Code>, u64) {
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        let began = Instant::now();
        let send = async move {
            for _ in 0..pieces {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                if sender.send_data(Bytes::from(vec![7; piece])).await.is_err() {
                    return;
                }
            }
        };
        let (read, ()) = tokio::join!(
            async {
                let read = read(body, 1 << 20, |_| Ok(())).await;
                (
                    read.map(|body| body.len()).map_err(|fault| fault.status.code()),
                    began.elapsed().as_secs(),
                )
            },
            send
        );
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_cut_off_after_ten_seconds_and_a_slow_one_is_read() {
        assert_eq!(trickle(1, 60).await, (Err(Code::DeadlineExceeded), 10));
        let (read, seconds) = trickle(2 * HTTP_STEP_BYTES_MIN / 10, 60).await;
        assert_eq!((read, seconds), (Ok(12 * HTTP_STEP_BYTES_MIN), 60));
    }

    #[tokio::test]
    async fn a_body_over_the_share_of_its_caller_is_refused_before_it_is_read() {
        let limits = crate::limits::Limits { memory_max: Some(4 * 65_536), ..Default::default() };
        let memory = MessageMemory::new(&limits);
        let account = memory.account(&"caller/ops".parse().expect("a name"));
        let read_whole = async |bytes: usize| {
            let mut held = account.take(0).map_err(no_room)?;
            let body = Full::new(Bytes::from(vec![7; bytes]));
            let whole = read(body, 1 << 20, |bytes| hold(&mut held, bytes)).await?;
            Ok::<_, Refusal>(held.around(whole))
        };
        let first = read_whole(65_536).await.expect("the share");
        let fault = read_whole(4_096).await.expect_err("over it");
        assert!(is_exhausted(&fault, "memory_max"));
        assert_eq!(fault.status.outcome(), Outcome::NotExecuted);
        drop(first);
        assert!(read_whole(65_536).await.is_ok(), "given back");
        assert!(read_whole(65_537).await.is_err());
    }

    #[tokio::test]
    async fn a_body_in_chunks_is_counted_as_it_comes() {
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
        let mut seen = Vec::new();
        let send = async move {
            for _ in 0..3 {
                sender.send_data(Bytes::from(vec![7; 5_000])).await.expect("room");
            }
        };
        let read = async {
            read(body, 1 << 20, |bytes| {
                seen.push(bytes);
                if bytes > 10_000 { Err(Exhausted::All(10_000)) } else { Ok(()) }
            })
            .await
        };
        let (read, ()) = tokio::join!(read, send);
        assert_eq!(read.expect_err("no memory").status.code(), Code::ResourceExhausted);
        assert_eq!(seen, [0, 5_000, 10_000, 15_000]);
    }
}
