//! Handlers made of typed functions: decode the request, run the function, encode its replies.

use super::{
    DynHandler, ReplyFuture,
    codec::{decode_request, encode_reply},
    ends::{Inbound, Outbound, Side},
    message::{CancelGuard, Context, Reply, Request},
    messages::{Body, Messages, Next, Source},
    shapes::{Bidirectional, ClientStream, ServerStream, Unary},
};
use crate::{
    limits::STREAM_MESSAGES_AHEAD,
    metadata::Metadata,
    status::{Code, Status},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    future::Future,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

/// The stream of a request. One message in hand is a stream of one.
fn inbound<T>(body: Body) -> Inbound<T> {
    let messages = match body {
        Body::Messages(messages) => messages,
        Body::Message(message) => Messages::new(Once).starting_with(Next::Message(message)),
    };
    Inbound::new(messages, Side::Responder)
}

/// The end of a stream whose only message was given before.
struct Once;

impl Source for Once {
    fn poll_next(&mut self, _: &mut task::Context<'_>) -> Poll<Next> {
        Poll::Ready(Next::End(Metadata::default()))
    }
}

/// A reply of one message, with what the handler wants to travel around it.
fn one_reply<R: Serialize>(result: Result<R, Status>, context: &Context) -> Result<Reply, Status> {
    let body = Body::Message(encode_reply(&result.map_err(Status::into_app_error)?)?);
    let pairs = context.reply_pairs();
    Ok(Reply { body, metadata: pairs.metadata, trailing: pairs.trailing })
}

/// A handler made of a function: of the kind `K`, from requests `T` to replies `R`.
///
/// Whatever error the function returns is the handler's own answer (outcome `app_error`), even a
/// status that it got from elsewhere.
pub(crate) struct TypedMethod<K, F, T, R> {
    function: F,
    _types: PhantomData<fn(T) -> (K, R)>,
}

impl<K, F, T, R> TypedMethod<K, F, T, R> {
    /// Wraps a function or closure.
    pub(crate) const fn new(function: F) -> Self {
        Self { function, _types: PhantomData }
    }
}

impl<F, T, R, Fut> DynHandler for TypedMethod<Unary, F, T, R>
where
    F: Fn(T, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move {
            let (context, body, guard) = Context::split(request);
            let value = decode_request(body)?;
            let result = (self.function)(value, context.clone()).await;
            guard.disarm();
            one_reply(result, &context)
        })
    }
}

impl<F, T, R, Fut> DynHandler for TypedMethod<ClientStream<T>, F, T, R>
where
    F: Fn(Inbound<T>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move {
            let (context, body, guard) = Context::split(request);
            let result = (self.function)(inbound(body), context.clone()).await;
            guard.disarm();
            one_reply(result, &context)
        })
    }
}

impl<F, T, R, Fut> DynHandler for TypedMethod<ServerStream, F, T, R>
where
    F: Fn(T, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move {
            let (context, body, guard) = Context::split(request);
            let value = decode_request(body)?;
            RunningHandler::start(context, guard, |replies, ctx| {
                (self.function)(value, replies, ctx)
            })
            .await
        })
    }
}

impl<F, T, R, Fut> DynHandler for TypedMethod<Bidirectional<T>, F, T, R>
where
    F: Fn(Inbound<T>, Outbound<R>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
    T: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move {
            let (context, body, guard) = Context::split(request);
            let requests = inbound(body);
            RunningHandler::start(context, guard, |replies, ctx| {
                (self.function)(requests, replies, ctx)
            })
            .await
        })
    }
}

/// Future of a handler.
type Work = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A running handler with a stream of replies: polling the replies drives it, and dropping them
/// drops it.
struct RunningHandler {
    /// `None` once it has returned.
    work: Option<Work>,
    guard: Option<CancelGuard>,
    /// Result of the handler, as it is sent.
    result: Result<(), Status>,
    /// Replies that were sent and not yet received.
    replies: Messages,
    context: Context,
}

impl RunningHandler {
    /// Starts the handler and waits for its first reply: the metadata that travels before the
    /// replies is known only then.
    fn start<R, Fut: Future<Output = Result<(), Status>> + Send + 'static>(
        context: Context,
        guard: CancelGuard,
        work: impl FnOnce(Outbound<R>, Context) -> Fut,
    ) -> impl Future<Output = Result<Reply, Status>> + Send {
        let (sender, replies) = Messages::channel(STREAM_MESSAGES_AHEAD);
        let work: Work = Box::pin(work(Outbound::new(sender), context.clone()));
        let mut working = Self {
            work: Some(work),
            guard: Some(guard),
            result: Ok(()),
            replies,
            context: context.clone(),
        };
        async move {
            let first = std::future::poll_fn(|cx| working.poll_next(cx)).await;
            if let Next::Failed(status) = first {
                return Err(status);
            }
            let messages = Messages::new(working).starting_with(first);
            Ok(Reply { metadata: context.reply_pairs().metadata, ..Reply::stream(messages) })
        }
    }

    fn poll_work(&mut self, cx: &mut task::Context<'_>) {
        let Some(work) = &mut self.work else { return };
        // Here, so that what it has sent before it panicked still arrives before the failure.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        let result = match polled {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(result)) => result.map_err(Status::into_app_error),
            Err(_panic) => Err(Status::unknown(Code::Internal, "the handler panicked")),
        };
        self.result = result;
        if let Some(guard) = self.guard.take() {
            guard.disarm();
        }
        self.work = None;
    }
}

impl Source for RunningHandler {
    fn poll_next(&mut self, cx: &mut task::Context<'_>) -> Poll<Next> {
        self.poll_work(cx);
        match self.replies.poll_event(cx) {
            Poll::Ready(Next::Message(message)) => return Poll::Ready(Next::Message(message)),
            // A handler that has finished or dropped its way out may still be at work.
            Poll::Ready(_) | Poll::Pending => {}
        }
        if self.work.is_some() {
            return Poll::Pending;
        }
        Poll::Ready(match std::mem::replace(&mut self.result, Ok(())) {
            Ok(()) => Next::End(self.context.reply_pairs().trailing),
            Err(status) => Next::Failed(status),
        })
    }

    fn poll_background(&mut self, cx: &mut task::Context<'_>) -> Poll<Status> {
        self.poll_work(cx);
        Poll::Pending
    }
}
