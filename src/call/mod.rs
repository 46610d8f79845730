//! Calls: one request and its reply on one stream, and the [`Handler`] that answers it.

mod responder;
mod initiator;
mod batch;
mod body;
mod fan_out;
mod callee;
mod codec;
mod contract;
mod ends;
mod exchange;
mod head;
mod message;
mod message_timer;
mod panics;
mod messages;
mod part_source;
mod parts;
mod permits;
mod reply_parts;
mod request_body;
mod request_faults;
mod request_source;
mod retry;
mod shapes;
mod spans;
mod stall;
mod streaming;
mod initiator_stream;
mod tcp;
#[cfg(all(test, feature = "certs"))]
mod tests;
mod typed;

pub use body::Body;
pub(crate) use callee::CallOrigin;
pub use callee::{Call, CallFuture, Callee, IntoMethod};
pub(crate) use codec::decode_request;
#[doc(hidden)]
pub use contract::pascal;
pub use ends::{Inbound, Outbound};
pub(crate) use exchange::InitiatorLimits;
pub(crate) use fan_out::ToMany;
pub(crate) use head::Head;
pub(crate) use initiator::{RelayedReply, ask, is_retryable_on_next_link};
pub use message::{CallMeta, Context, Reply, Request, Requester, Target};
#[cfg(any(feature = "forward", feature = "gateway"))]
pub(crate) use messages::with_background;
pub use messages::{MessageSender, Messages};
pub(crate) use messages::{Next, Source};
pub use parts::MessageParts;
pub(crate) use permits::{Permit, Permits};
pub(crate) use request_body::PendingRequest;
pub(crate) use responder::{CallAcceptor, answer};
pub(crate) use retry::RetryBudget;
pub use shapes::{Bidirectional, ClientStream, ServerStream, Shape, Tcp, Unary};
pub(crate) use spans::end_span;
pub use streaming::Answer;
#[cfg(feature = "gateway")]
pub(crate) use streaming::driven;
pub use tcp::{ByteStream, Socket};
pub(crate) use tcp::{EndMark, SocketWriter, broken};
pub(crate) use typed::{answer_once, answer_with_stream, inbound, typed_handler};

use crate::status::Status;
use std::{future::Future, pin::Pin, sync::Arc};

/// Handles calls: a method of a service, the dispatch of a node, or a link to another peer.
///
/// Dropping the future cancels the call and everything after it.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. A status that it returns travels as it is, outcome included.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, Status>> + Send;
}

/// A boxed future of a reply.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Result<Reply, Status>> + Send>>;

/// [`Handler`] behind a pointer, for places that hold many kinds of them.
pub trait DynHandler: Send + Sync + 'static {
    /// As [`Handler::call`], in one allocation. The future owns the handler.
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture;
}

impl<H: Handler> DynHandler for H {
    fn call_boxed(self: Arc<Self>, request: Request) -> ReplyFuture {
        Box::pin(async move { self.call(request).await })
    }
}

/// Any handler, shared.
pub type SharedHandler = Arc<dyn DynHandler>;
