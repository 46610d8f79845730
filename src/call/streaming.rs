//! Results of awaiting a streaming call.

use super::{
    Reply, ReplyFuture,
    body::Body,
    callee::Call,
    codec::decode_reply,
    ends::{Inbound, Outbound, Side},
    messages::{MessageSender, Messages, Next, with_background},
    shapes::{Bidirectional, ClientStream, ServerStream, Shape},
};
#[cfg(feature = "gateway")]
use crate::drain::Tasks;
use crate::{
    limits::STREAM_MESSAGES_AHEAD,
    metadata::Metadata,
    status::{Code, Status},
};
use serde::de::DeserializeOwned;
use std::{
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    task::{self, Poll},
};

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

impl<R: 'static> IntoFuture for Call<R, ServerStream> {
    type Output = Result<Inbound<R>, Status>;
    type IntoFuture = Boxed<Inbound<R>>;

    fn into_future(self) -> Self::IntoFuture {
        let reply = self.begin(None);
        Box::pin(async move { Ok(Inbound::new(reply?.await?.into_messages()?, Side::Initiator)) })
    }
}

impl<R: 'static, T: 'static> IntoFuture for Call<R, ClientStream<T>> {
    type Output = Result<(Outbound<T>, Answer<R>), Status>;
    type IntoFuture = std::future::Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let begun = begin(self).map(|(out, replies)| (out, Answer::new(replies)));
        std::future::ready(begun)
    }
}

impl<R: 'static, T: 'static> IntoFuture for Call<R, Bidirectional<T>> {
    type Output = Result<(Outbound<T>, Inbound<R>), Status>;
    type IntoFuture = std::future::Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let begun = begin(self).map(|(out, replies)| (out, Inbound::new(replies, Side::Initiator)));
        std::future::ready(begun)
    }
}

/// Starts a call with a streamed request: a task moves its messages, whichever end is awaited.
fn begin<R, S: Shape, T>(call: Call<R, S>) -> Result<(Outbound<T>, Messages), Status> {
    let (requests, messages) = Messages::channel(STREAM_MESSAGES_AHEAD);
    let (sender, replies) = Messages::channel(STREAM_MESSAGES_AHEAD);
    let tasks = call.tasks();
    let reply = call.begin(Some(messages))?;
    tasks.spawn_until_stopped(drive(reply, sender));
    Ok((Outbound::new(requests), replies))
}

/// Moves the messages of a call until it has ended, or its replies are dropped.
async fn drive(reply: ReplyFuture, replies: MessageSender) {
    let reply = tokio::select! {
        reply = reply => reply,
        () = replies.closed() => return,
    };
    let Reply { body, metadata, trailing } = match reply {
        Ok(reply) => reply,
        Err(status) => return drop(replies.fail(status).await),
    };
    if replies.give(Next::Head(metadata)).await.is_err() {
        return;
    }
    match body {
        Body::Message(message) => {
            if replies.send(message).await.is_ok() {
                drop(replies.give(Next::End(trailing)).await);
            }
        }
        Body::Messages(messages) => copy(messages, &replies).await,
        // Only a unary call is answered with one.
        Body::Parts(_) => {}
    }
}

/// Lets a task move these messages: the other direction continues while nobody reads them.
#[cfg(feature = "gateway")]
pub(crate) fn driven(messages: Messages, tasks: &Tasks) -> Messages {
    let (sender, driven) = Messages::channel(STREAM_MESSAGES_AHEAD);
    tasks.spawn_until_stopped(async move { copy(messages, &sender).await });
    driven
}

async fn copy(mut messages: Messages, replies: &MessageSender) {
    loop {
        let next = tokio::select! {
            next = messages.next_event() => next,
            () = replies.closed() => return,
        };
        let is_last = matches!(next, Next::End(_) | Next::Failed(_));
        match with_background(&mut messages, replies.give(next)).await {
            Ok(Ok(())) if !is_last => {}
            _ => return,
        }
    }
}

/// The one reply of a call whose request is a stream: a future. Dropping it cancels the call.
#[must_use = "the reply, or why there is none, comes when it is awaited"]
pub struct Answer<R> {
    replies: Messages,
    message: Option<bytes::Bytes>,
    _reply: PhantomData<fn() -> R>,
}

impl<R> Answer<R> {
    const fn new(replies: Messages) -> Self {
        Self { replies, message: None, _reply: PhantomData }
    }

    /// Awaits the encoded reply, with its metadata.
    ///
    /// # Errors
    /// The failure, with code and outcome.
    pub async fn raw(mut self) -> Result<Reply, Status> {
        let (message, trailing) = std::future::poll_fn(|cx| self.poll_reply(cx)).await?;
        let metadata = self.replies.metadata().clone();
        Ok(Reply { body: Body::Message(message), metadata, trailing })
    }

    fn poll_reply(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Result<(bytes::Bytes, Metadata), Status>> {
        loop {
            match std::task::ready!(self.replies.poll_event(cx)) {
                Next::Head(_) => {}
                Next::Message(message) => self.message = Some(message),
                Next::End(trailing) => {
                    let message = self
                        .message
                        .take()
                        .ok_or_else(|| Status::unknown(Code::Internal, "the reply has no message"));
                    return Poll::Ready(message.map(|message| (message, trailing)));
                }
                Next::Failed(status) => return Poll::Ready(Err(status)),
            }
        }
    }
}

impl<R: DeserializeOwned> Future for Answer<R> {
    type Output = Result<R, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.poll_reply(cx).map(|reply| decode_reply(&reply?.0))
    }
}

impl<R> fmt::Debug for Answer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}
