//! Pages of agents, services and OpenAPI, each limited to what the caller may see.

use super::{
    GatewayState,
    authentication::AuthenticatedCaller,
    openapi::openapi,
    page_bodies::{agents_page, services_page},
    response::{GatewayResponse, Refusal, full_response, set_outcome},
    route::GatewayPage,
};
use crate::{
    drain::blocking,
    status::{Code, Outcome, Status},
};
use hyper::StatusCode;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

impl GatewayState {
    /// Responds to a GET. Pages are built off the threads of the calls, and few at once: each costs
    /// one evaluation of the rules per method.
    pub(super) async fn page(
        self: &Arc<Self>,
        caller: AuthenticatedCaller,
        page: GatewayPage,
    ) -> Result<GatewayResponse, Refusal> {
        let (state, wait_max) = (self.clone(), self.ingress.limits().queue_wait_max);
        let body = in_turn(&self.page_turns, wait_max, move || {
            let directory = state.ingress.directory_for(&caller.name);
            let body = match page {
                GatewayPage::Agents => agents_page(&directory),
                GatewayPage::Services => services_page(&directory),
                GatewayPage::OpenApi => openapi(&directory),
            };
            body.to_string()
        });
        let mut answer = full_response(StatusCode::OK, "application/json", body.await?);
        set_outcome(&mut answer, Outcome::Ok);
        Ok(answer)
    }
}

/// Does blocking work with a permit, held to its end even if the request is dropped: clients that
/// hang up must not multiply it.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    wait_max: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let turn = tokio::time::timeout(wait_max, turns.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let text = "too many pages are being built; try again";
        return Err(Status::not_executed(Code::ResourceExhausted, text));
    };
    let done = blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await.ok_or_else(|| Status::unknown(Code::Internal, "the page could not be built"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_turn_is_held_until_its_work_ends_even_if_the_request_is_dropped() {
        let turns = Arc::new(Semaphore::new(1));
        let (goes_on, may_end) = std::sync::mpsc::channel::<()>();
        let (begins, has_begun) = oneshot::channel();
        let long = move || {
            begins.send(()).expect("somebody waits");
            may_end.recv().is_ok()
        };
        tokio::select! {
            biased;
            _ = in_turn(&turns, Duration::from_secs(5), long) => panic!("it waits"),
            begun = has_begun => begun.expect("it has begun"),
        }
        let refused = in_turn(&turns, Duration::from_millis(1), || ()).await.expect_err("no turn");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        goes_on.send(()).expect("it waits for that");
        assert_eq!(in_turn(&turns, Duration::from_secs(5), || 7).await, Ok(7));
    }
}
