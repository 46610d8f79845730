//! Sends the calls of a caller over its current link.

use super::state::{CallerState, CloseOnDrop};
use crate::{
    call::{Handler, Reply, Request, ask, is_retryable_on_next_link},
    status::Status,
};
use std::sync::Arc;

/// Sends calls over the present link.
pub(super) struct CallerHandler {
    pub(super) state: Arc<CallerState>,
    pub(super) _guard: Arc<CloseOnDrop>,
}

impl Handler for CallerHandler {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        loop {
            let link = self.state.link_by(request.meta.deadline).await?;
            let limits = (&*self.state.limits).into();
            let reply = ask(&link, &mut request, limits, None, None).await;
            if !is_retryable_on_next_link(&reply, &link) || request.is_spent() {
                return reply;
            }
        }
    }
}
