//! Encoded messages of one direction of a streaming call, and their end.

use crate::{
    metadata::Metadata,
    observe::CallRecord,
    status::{Code, Outcome, Status},
    trace::Span,
};
use bytes::Bytes;
use std::{
    any::Any,
    fmt,
    pin::pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Next event of a stream of messages.
#[derive(Debug)]
pub(crate) enum Next {
    /// Pairs that travel before the messages.
    Head(Metadata),
    Message(Bytes),
    /// All messages have arrived, followed by these pairs.
    End(Metadata),
    Failed(Status),
}

/// Source of the messages of a stream. Polled by one task, and not after `End` or `Failed`.
pub(crate) trait Source: Send {
    /// The next message, or the end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next>;

    /// Drives the other direction of the call, or a running handler, while no message is polled.
    /// Ready when the stream has failed: waiting for the reader of a message in hand can stop.
    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let _ = cx;
        Poll::Pending
    }
}

/// Encoded messages of one direction of a streaming call. Dropping it resets the stream; unread
/// messages hold back the sender.
pub struct Messages(Box<MessagesState>);

/// Boxed: unary requests and replies are moved often, and do not carry its size.
struct MessagesState {
    /// Behind a lock only to make requests `Sync`; it is never contended.
    source: Mutex<Option<Box<dyn Source>>>,
    ready: Option<Next>,
    metadata: Metadata,
    trailing: Metadata,
    /// Dropped when the stream has ended, after its source.
    guards: Vec<Box<dyn Any + Send + Sync>>,
    /// Audit record to complete at the end, and the bytes so far.
    note: Option<(Box<CallRecord>, u64)>,
    /// Spans that end with the stream, the innermost first.
    spans: Vec<Span>,
}

impl Messages {
    pub(crate) fn new(source: impl Source + 'static) -> Self {
        Self(Box::new(MessagesState {
            source: Mutex::new(Some(Box::new(source))),
            ready: None,
            metadata: Metadata::default(),
            trailing: Metadata::default(),
            guards: Vec::new(),
            note: None,
            spans: Vec::new(),
        }))
    }

    /// Creates a stream that a program feeds; at most `capacity` messages wait between the ends.
    pub fn channel(capacity: usize) -> (MessageSender, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (MessageSender(sender), Self::new(Channel(receiver)))
    }

    /// Puts another source around the one that it has.
    pub(crate) fn wrap<S: Source + 'static>(&mut self, wrap: impl FnOnce(Box<dyn Source>) -> S) {
        let source = self.0.source.get_mut().unwrap_or_else(PoisonError::into_inner);
        *source = source.take().map(|inner| Box::new(wrap(inner)) as Box<dyn Source>);
    }

    /// Puts an event that was already received in front of the stream.
    pub(crate) fn starting_with(mut self, next: Next) -> Self {
        self.0.ready = Some(next);
        self
    }

    /// Sets the metadata that was received before the stream.
    pub(crate) fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Holds a guard until the stream has ended or is dropped, after its source.
    pub(crate) fn hold(&mut self, guard: impl Any + Send + Sync) {
        self.0.guards.push(Box::new(guard));
    }

    /// Completes an audit record when the stream ends.
    pub(crate) fn note(&mut self, note: Box<CallRecord>) {
        self.0.note = Some((note, 0));
    }

    /// Adds the status of the HTTP response that these messages are to the span of the record.
    #[cfg(feature = "gateway")]
    pub(crate) fn http_status(&mut self, status: u16) {
        if let Some((note, _)) = &mut self.0.note {
            note.http_status(status);
        }
    }

    /// Ends a span when the stream ends.
    pub(crate) fn trace(&mut self, span: Span) {
        self.0.spans.push(span);
    }

    /// The next message, encoded; `None` once all have come.
    ///
    /// # Errors
    /// The stream was reset; no message follows. May be dropped and called again.
    pub async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            return match self.next_event().await {
                Next::Head(_) => continue,
                Next::Message(message) => Some(Ok(message)),
                Next::End(_) => None,
                Next::Failed(status) => Some(Err(status)),
            };
        }
    }

    /// The pairs that travelled before the messages. They are here with the first message.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// The pairs that travelled after the messages, once all have come.
    pub fn trailing(&self) -> &Metadata {
        &self.0.trailing
    }

    /// The next event, including the end.
    pub(crate) async fn next_event(&mut self) -> Next {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The same, polled. After the end, every poll returns the end.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let next = match self.0.ready.take() {
            Some(next) => next,
            None => match self.source() {
                Some(source) => std::task::ready!(source.poll_next(cx)),
                None => return Poll::Ready(Next::End(Metadata::default())),
            },
        };
        match &next {
            Next::Head(metadata) => self.0.metadata = metadata.clone(),
            Next::Message(message) => {
                if let Some((_, bytes)) = &mut self.0.note {
                    *bytes += message.len() as u64;
                }
            }
            Next::End(trailing) => {
                self.0.trailing = trailing.clone();
                self.close();
                self.note_end((Code::Ok, Outcome::Ok), "");
            }
            Next::Failed(status) => {
                self.close();
                self.note_end((status.code(), status.outcome()), status.message());
            }
        }
        Poll::Ready(next)
    }

    fn note_end(&mut self, result: (Code, Outcome), reason: &str) {
        self.0.spans.drain(..).for_each(|span| span.ended(result, reason));
        if let Some((note, bytes)) = self.0.note.take() {
            note.ended(result, reason, [None, Some(bytes)]);
        }
    }

    /// Drives the rest of the call while the messages wait. Ready as [`Source::poll_background`].
    pub(crate) fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        match self.source() {
            Some(source) => source.poll_background(cx),
            None => Poll::Pending,
        }
    }

    fn source(&mut self) -> Option<&mut Box<dyn Source>> {
        self.0.source.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut()
    }

    fn close(&mut self) {
        *self.0.source.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.guards.clear();
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("metadata", &self.0.metadata).finish_non_exhaustive()
    }
}

/// Sending end of [`Messages::channel`]. Dropping it before it has finished resets the stream.
#[derive(Debug, Clone)]
pub struct MessageSender(mpsc::Sender<Next>);

impl MessageSender {
    /// Waits until there is room, and adds a message.
    ///
    /// # Errors
    /// The other end takes no more.
    pub async fn send(&self, message: Bytes) -> Result<(), Status> {
        self.give(Next::Message(message)).await
    }

    /// Says that all messages were sent.
    ///
    /// # Errors
    /// The other end takes no more.
    pub async fn finish(self) -> Result<(), Status> {
        self.give(Next::End(Metadata::default())).await
    }

    /// Breaks the stream off with a failure.
    ///
    /// # Errors
    /// The other end takes no more.
    pub async fn fail(self, status: Status) -> Result<(), Status> {
        self.give(Next::Failed(status)).await
    }

    /// Ends when the other end takes no more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    pub(super) fn into_inner(self) -> mpsc::Sender<Next> {
        self.0
    }

    pub(crate) async fn give(&self, next: Next) -> Result<(), Status> {
        self.0.send(next).await.map_err(|_| {
            Status::unknown(
                Code::Cancelled,
                "the other side takes no more messages; how the call ended says why",
            )
        })
    }
}

struct Channel(mpsc::Receiver<Next>);

impl Source for Channel {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        self.0.poll_recv(cx).map(|next| {
            next.unwrap_or_else(|| {
                let text = "the sending end was dropped before it had finished";
                Next::Failed(Status::unknown(Code::Cancelled, text))
            })
        })
    }
}

/// Awaits the work while it drives that of the messages; leaves it when the messages are cut off.
pub(crate) async fn with_background<F: Future>(
    messages: &mut Messages,
    work: F,
) -> Result<F::Output, Status> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => messages.poll_background(cx).map(Err),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn messages_come_in_order_and_then_their_end() {
        let (sender, mut messages) = Messages::channel(4);
        sender.send(Bytes::from_static(b"1")).await.expect("room");
        sender.send(Bytes::from_static(b"2")).await.expect("room");
        sender.finish().await.expect("room");
        assert_eq!(messages.next().await, Some(Ok(Bytes::from_static(b"1"))));
        assert_eq!(messages.next().await, Some(Ok(Bytes::from_static(b"2"))));
        assert_eq!(messages.next().await, None);
        assert_eq!(messages.next().await, None, "the end stays the end");
    }

    #[tokio::test]
    async fn a_sender_that_is_dropped_early_breaks_the_stream_off() {
        let (sender, mut messages) = Messages::channel(1);
        drop(sender);
        let broken = messages.next().await.expect("a failure").expect_err("a failure");
        assert_eq!(broken.code(), Code::Cancelled);
    }

    #[tokio::test]
    async fn a_full_channel_holds_its_sender_back_and_a_dropped_one_refuses_it() {
        let (sender, messages) = Messages::channel(1);
        sender.send(Bytes::new()).await.expect("room");
        let waiting = pin!(sender.send(Bytes::new()));
        assert!(crate::lazy_timeout::poll_once(waiting).await.is_pending(), "it was not held back");
        drop(messages);
        assert!(sender.send(Bytes::new()).await.is_err());
    }

    #[tokio::test]
    async fn the_end_of_a_stream_releases_what_it_holds() {
        let (sender, mut messages) = Messages::channel(1);
        let guard = Arc::new(());
        messages.hold(guard.clone());
        sender.finish().await.expect("room");
        assert_eq!(Arc::strong_count(&guard), 2);
        assert_eq!(messages.next().await, None);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
