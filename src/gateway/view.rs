//! What callers may look at: each its own part, as the policy lets it see.

use super::{
    Inner,
    answer::{Answer, Refusal, set_outcome, whole},
    openapi::openapi,
    pages::{agents_page, services_page},
    route::View,
    who::Who,
};
use crate::{
    drain::blocking,
    status::{Code, Outcome, Status},
};
use hyper::StatusCode;
use std::sync::Arc;

impl Inner {
    /// Answers a GET. What is seen is put together beside the calls, and for few at once: it costs a look at the rules for each method.
    pub(super) async fn view(self: &Arc<Self>, who: Who, view: View) -> Result<Answer, Refusal> {
        let wait_max = self.door.limits().queue_wait_max;
        let turn = tokio::time::timeout(wait_max, self.views.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let text = "too many callers look at once what there is; try again";
            return Err(Status::not_executed(Code::ResourceExhausted, text).into());
        };
        let inner = self.clone();
        let seen = blocking(move || {
            let directory = inner.door.directory_for(&who.caller);
            let seen = match view {
                View::Agents => agents_page(&directory),
                View::Services => services_page(&directory),
                View::OpenApi => openapi(&directory),
            };
            seen.to_string()
        });
        let failed = || Status::unknown(Code::Internal, "the page could not be made");
        let seen = seen.await.ok_or_else(failed)?;
        let mut answer = whole(StatusCode::OK, "application/json", seen);
        set_outcome(&mut answer, Outcome::Ok);
        Ok(answer)
    }
}
