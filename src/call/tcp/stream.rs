//! Byte stream at the initiator side of a forwarded TCP connection, with half-close and reset.

use crate::{
    call::{
        Call, Reply, ReplyFuture, Tcp,
        messages::{MessageSender, Messages, Next, with_background},
    },
    limits::{STREAM_MESSAGES_AHEAD, TCP_OPEN_WAIT_MAX, TCP_READ_BYTES_MAX},
    metadata::Metadata,
    status::{Code, Status},
};
use bytes::{Buf, Bytes};
use std::{
    fmt,
    future::{Future, IntoFuture},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::PollSender;

impl IntoFuture for Call<(), Tcp> {
    type Output = Result<ByteStream, Status>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(open(self))
    }
}

/// Requests a connection, and waits until it is established.
async fn open(call: Call<(), Tcp>) -> Result<ByteStream, Status> {
    let waits_for_agent = call.waits();
    let (requests, messages) = Messages::channel(STREAM_MESSAGES_AHEAD);
    let (sender, replies) = Messages::channel(STREAM_MESSAGES_AHEAD);
    // Starts the handler at the other end: the upstream may be the one that speaks first.
    requests.send(Bytes::new()).await?;
    let requests = requests.into_inner();
    let unsent = Unsent(requests.downgrade());
    let (failure, is_over) = (watch::Sender::new(None), Arc::new(AtomicBool::new(false)));
    let mut stream = ByteStream {
        outgoing: Outgoing(PollSender::new(requests)),
        replies,
        ready: Bytes::new(),
        has_ended: [false; 2],
        failure: failure.subscribe(),
        is_over: is_over.clone(),
    };
    let tasks = call.tasks();
    let reply = call.begin(Some(messages))?;
    let open_by = (!waits_for_agent).then(|| Instant::now() + TCP_OPEN_WAIT_MAX);
    let reply = async move { in_time(reply, open_by, unsent).await };
    tasks.spawn_until_stopped(drive(reply, sender, failure, is_over));
    let opened = stream.opened();
    match open_by {
        None => opened.await?,
        // The agent has replied, without the message that the upstream is connected.
        Some(by) => tokio::time::timeout_at(by + OPENED_GRACE, opened)
            .await
            .map_err(|_elapsed| Status::unknown(Code::DeadlineExceeded, TOO_SLOW))??,
    }
    Ok(stream)
}

const TOO_SLOW: &str = "the connection was not there in time: the agent or its upstream hangs";

/// Lets `drive`, which knows whether anything was sent, report the timeout before the opener.
const OPENED_GRACE: Duration = Duration::from_secs(1);

/// First message of a request while it is queued: nothing was sent then.
struct Unsent(mpsc::WeakSender<Next>);

impl Unsent {
    fn is_unsent(&self) -> bool {
        self.0.upgrade().is_none_or(|requests| requests.capacity() < requests.max_capacity())
    }
}

/// Awaits the reply until a time. Drops the call after it, so that an unsent request is never sent.
async fn in_time(
    mut reply: ReplyFuture,
    open_by: Option<Instant>,
    unsent: Unsent,
) -> Result<Reply, Status> {
    let Some(open_by) = open_by else { return reply.await };
    if let Ok(reply) = tokio::time::timeout_at(open_by, &mut reply).await {
        return reply;
    }
    if unsent.is_unsent() {
        let text = format!("there was no link to the node for {TCP_OPEN_WAIT_MAX:?}");
        return Err(Status::not_executed(Code::Unavailable, text));
    }
    Err(Status::unknown(Code::DeadlineExceeded, TOO_SLOW))
}

/// Moves the bytes of a connection both ways, until it has ended or the stream is dropped.
async fn drive(
    reply: impl Future<Output = Result<Reply, Status>>,
    replies: MessageSender,
    failure: watch::Sender<Option<Status>>,
    is_over: Arc<AtomicBool>,
) {
    let reply = tokio::select! {
        reply = reply => reply,
        () = replies.closed() => return,
    };
    let mut messages = match reply.and_then(Reply::into_messages) {
        Ok(messages) => messages,
        Err(status) => return drop(replies.fail(status).await),
    };
    let mut is_held = true;
    loop {
        let next = tokio::select! {
            next = messages.next_event() => next,
            () = replies.closed(), if is_held => {
                if !is_over.load(Ordering::Acquire) {
                    return;
                }
                // All bytes are on their way, and the last of them may still be here.
                is_held = false;
                continue;
            }
        };
        let is_last = matches!(next, Next::End(_) | Next::Failed(_));
        if let Next::Failed(status) = &next {
            failure.send_replace(Some(status.clone()));
        }
        match with_background(&mut messages, replies.give(next)).await {
            Ok(given) if (given.is_ok() || !is_held) && !is_last => {}
            Err(status) => return drop(failure.send_replace(Some(status))),
            Ok(_) => return,
        }
    }
}

/// A TCP connection through an agent. Made by [`Callee::tcp`](crate::call::Callee::tcp).
///
/// `AsyncWrite::shutdown` is the half-close: it ends this side's direction and leaves the other
/// open. Reading returns 0 bytes after the end of the upstream, and an error of the kind
/// `ConnectionReset` that contains the [`Status`] after a reset. A write returns once the bytes are
/// queued, as with a socket; a slow upstream delays it.
///
/// Dropped before both directions have ended, it resets the connection: the upstream gets an error
/// and no clean end. Costs up to eight chunks of up to 64 KiB, and a task.
pub struct ByteStream {
    outgoing: Outgoing,
    replies: Messages,
    /// Received bytes that were not read.
    ready: Bytes,
    /// This side's direction, and the other's.
    has_ended: [bool; 2],
    /// Reason of the reset, if it was reset.
    failure: watch::Receiver<Option<Status>>,
    /// Both directions have ended, and dropping this breaks nothing off.
    is_over: Arc<AtomicBool>,
}

impl ByteStream {
    /// Waits for the first message of the responder: its upstream is connected.
    async fn opened(&mut self) -> Result<(), Status> {
        loop {
            match self.replies.next_event().await {
                Next::Head(_) => {}
                Next::Message(bytes) if bytes.is_empty() => return Ok(()),
                Next::Failed(status) => return Err(status),
                Next::Message(_) | Next::End(_) => {
                    let text = "the other side did not say first that its upstream is connected";
                    return Err(Status::unknown(Code::Internal, text));
                }
            }
        }
    }

    /// Completes with the reason of a reset, also without reads; never after a clean end.
    pub fn failure(&self) -> impl Future<Output = Status> + Send + 'static {
        let mut failure = self.failure.clone();
        async move {
            let status = failure.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
            match status {
                Some(status) => status,
                None => std::future::pending().await,
            }
        }
    }

    pub(super) fn parts(&mut self) -> (&mut Outgoing, &mut Messages) {
        (&mut self.outgoing, &mut self.replies)
    }

    fn ended(&mut self, direction: usize) {
        self.has_ended[direction] = true;
        if self.has_ended == [true; 2] {
            self.is_over.store(true, Ordering::Release);
        }
    }

    /// Waits for received bytes; none after the end of the peer.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ready.is_empty() && !self.has_ended[1] {
            match ready!(self.replies.poll_event(cx)) {
                Next::Head(_) => {}
                Next::Message(bytes) if bytes.is_empty() => self.ended(1),
                Next::Message(bytes) => self.ready = bytes,
                Next::End(_) => {
                    let text =
                        "the forwarded connection ended without saying that its last byte has come";
                    return Poll::Ready(Err(reset(Status::unknown(Code::Internal, text))));
                }
                Next::Failed(status) => {
                    let known = self.failure.borrow().clone();
                    return Poll::Ready(Err(reset(known.unwrap_or(status))));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended[0] {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = ready!(self.outgoing.poll_room(cx));
        Poll::Ready(room.map_err(|Gone| {
            let status = self.failure.borrow().clone();
            let text = "the other side takes no more bytes";
            reset(status.unwrap_or_else(|| Status::unknown(Code::Cancelled, text)))
        }))
    }
}

fn reset(status: Status) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, status)
}

/// The call has ended, and takes no more.
#[derive(Debug)]
pub(super) struct Gone;

pub(super) struct Outgoing(PollSender<Next>);

impl Outgoing {
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.0.poll_reserve(cx).map_err(|_closed| Gone)
    }

    /// To be called when there is room.
    pub(super) fn send(&mut self, bytes: Bytes) {
        drop(self.0.send_item(Next::Message(bytes)));
    }

    /// The same, for the last time.
    pub(super) fn finish(&mut self) {
        drop(self.0.send_item(Next::End(Metadata::default())));
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        let fits = self.ready.len().min(buffer.remaining());
        buffer.put_slice(&self.ready[..fits]);
        self.ready.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_room(cx))?;
        let taken = &data[..data.len().min(TCP_READ_BYTES_MAX)];
        self.outgoing.send(Bytes::copy_from_slice(taken));
        Poll::Ready(Ok(taken.len()))
    }

    /// Nothing is buffered here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended[0] {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_room(cx))?;
        self.outgoing.finish();
        self.ended(0);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStream").field("has_ended", &self.has_ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Outcome;

    #[tokio::test(start_paused = true)]
    async fn open_timeout_is_not_executed_only_if_nothing_was_sent() {
        let (requests, mut taken) = mpsc::channel(STREAM_MESSAGES_AHEAD);
        requests.send(Next::Message(Bytes::new())).await.expect("room");
        let late = |requests: &mpsc::Sender<Next>| {
            let never: ReplyFuture = Box::pin(std::future::pending());
            let by = Instant::now() + TCP_OPEN_WAIT_MAX;
            in_time(never, Some(by), Unsent(requests.downgrade()))
        };
        let status = late(&requests).await.expect_err("late");
        assert_eq!((status.code(), status.outcome()), (Code::Unavailable, Outcome::NotExecuted));
        assert!(taken.recv().await.is_some());
        let status = late(&requests).await.expect_err("late");
        assert_eq!((status.code(), status.outcome()), (Code::DeadlineExceeded, Outcome::Unknown));
    }
}
