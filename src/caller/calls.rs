//! Sends the calls of a caller over its current link.

use super::state::CloseOnDrop;
use crate::{
    call::{Handler, Reply, Request, ask, is_retryable_on_next_link},
    status::Status,
};

impl Handler for CloseOnDrop {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        loop {
            let link = self.0.link_by(request.meta.deadline).await?;
            let limits = (&*self.0.limits).into();
            let reply = ask(&link, &mut request, limits, None, None).await;
            if !is_retryable_on_next_link(&reply, &link) || request.is_spent() {
                return reply;
            }
        }
    }
}
