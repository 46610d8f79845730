//! What callers may look at: each its own part, as the policy lets it see.

use super::{
    Inner,
    authentication::Who,
    openapi::openapi,
    pages::{agents_page, services_page},
    response::{Answer, Refusal, set_outcome, whole},
    route::View,
};
use crate::{
    drain::blocking,
    status::{Code, Outcome, Status},
};
use hyper::StatusCode;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

impl Inner {
    /// Answers a GET. What is seen is put together beside the calls, and for few at once: it costs
    /// a look at the rules for each method.
    pub(super) async fn view(self: &Arc<Self>, who: Who, view: View) -> Result<Answer, Refusal> {
        let (inner, wait_max) = (self.clone(), self.ingress.limits().queue_wait_max);
        let seen = in_turn(&self.views, wait_max, move || {
            let directory = inner.ingress.directory_for(&who.caller);
            let seen = match view {
                View::Agents => agents_page(&directory),
                View::Services => services_page(&directory),
                View::OpenApi => openapi(&directory),
            };
            seen.to_string()
        });
        let mut answer = whole(StatusCode::OK, "application/json", seen.await?);
        set_outcome(&mut answer, Outcome::Ok);
        Ok(answer)
    }
}

/// Does work beside the calls when it is its turn. A turn lasts as long as the work, also when
/// nobody waits for it any more: else whoever asks and hangs up, again and again, would have as
/// much of it done at once as he likes.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Semaphore>,
    wait_max: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let turn = tokio::time::timeout(wait_max, turns.clone().acquire_owned()).await;
    let Ok(Ok(turn)) = turn else {
        let text = "too many callers look at once what there is; try again";
        return Err(Status::not_executed(Code::ResourceExhausted, text));
    };
    let done = blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    done.await.ok_or_else(|| Status::unknown(Code::Internal, "the page could not be made"))
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
