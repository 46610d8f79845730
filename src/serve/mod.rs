//! Hosting: which handler answers a method, and the loop that takes a link's calls. Agents and
//! nodes both do it.

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

/// Takes the calls of one link until it ends, a task for each. It reads nothing itself: one slow
/// peer holds up no other call.
pub(crate) async fn take_calls<R: CallAcceptor>(
    link: Link,
    reception: Arc<R>,
    limits: Arc<Limits>,
    tasks: Tasks,
) {
    while let Some(stream) = link.accept(limits.message_bytes_max).await {
        let (reception, limits) = (reception.clone(), limits.clone());
        // Boxed: the runtime moves a task's future several times, and this one is some kilobytes.
        let peer_max = link.peer_message_bytes_max();
        tasks.spawn(Box::pin(answer(stream, reception, limits, peer_max)));
    }
}
