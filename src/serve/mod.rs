//! Hosting of services, for agents and nodes: handlers of methods, and the loop that accepts the
//! calls of a link.

mod description;
mod error;
mod fallback;
mod service;
mod services;

pub use description::Description;
pub use error::ServiceError;
pub use service::Service;
#[doc(hidden)]
pub use service::method_path;
pub(crate) use services::Services;

use crate::{
    call::{CallAcceptor, answer},
    drain::Tasks,
    limits::Limits,
    link::Link,
};
use std::sync::Arc;

/// Accepts the calls of one link until it ends, one task each, so a slow peer delays no other call.
pub(crate) async fn take_calls<R: CallAcceptor>(
    link: Link,
    acceptor: Arc<R>,
    limits: Arc<Limits>,
    tasks: Tasks,
) {
    while let Some(stream) = link.accept(limits.message_bytes_max).await {
        let (acceptor, limits) = (acceptor.clone(), limits.clone());
        // Boxed: the runtime moves a task's future several times, and this one has some kilobytes.
        let peer_max = link.peer_message_bytes_max();
        tasks.spawn(Box::pin(answer(stream, acceptor, limits, peer_max)));
    }
}
