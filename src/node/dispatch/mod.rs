//! Dispatch of one call: picks a route, and retries where that is safe.

use super::authorise::CallGrant;
use crate::{
    call::{Reply, Request, RetryBudget, Target},
    limits::ATTEMPTS_MAX,
    name::{HttpTarget, PeerName},
    status::{Code, Outcome, Status},
};
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// Routes that calls can take. A route is one link.
pub(super) trait Routes: Send + Sync {
    type Route: Clone + Send + Sync;

    type Waiter<'a>: Changes + Send
    where
        Self: 'a;

    /// Picks the route of a call, preferably not the one that has just failed.
    fn pick(
        &self,
        request: &Request,
        failed: Option<&Self::Route>,
    ) -> Result<Self::Route, NotPicked>;

    /// True if a retry over `next` does not use the link that failed, or that link is closed.
    fn is_another(&self, next: &Self::Route, failed: &Self::Route) -> bool;

    /// True if a call whose message is still coming may take a permit: others have enough left.
    fn has_spare_permits(&self, route: &Self::Route) -> bool;

    /// Refuses a call that would wait behind a full queue.
    fn expect_room(&self, route: &Self::Route) -> Result<(), Status>;

    fn agent_of(&self, route: &Self::Route) -> PeerName;

    /// Starts to wait for routes of a call, for changes from now on.
    fn wait_for(&self, request: &Request) -> Self::Waiter<'_>;

    /// Makes one attempt of a call. A large reply may come in parts, if `in_parts` is true.
    fn ask(
        &self,
        route: &Self::Route,
        request: &mut Request,
        in_parts: bool,
    ) -> impl Future<Output = Result<Reply, Status>> + Send;
}

/// See [`Routes::wait_for`].
pub(super) trait Changes {
    /// Waits for the next change since the start or the last change.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// Reason why no route was picked. A separate type, because an agent may answer with any code.
pub(super) enum NotPicked {
    /// The node takes no more calls.
    Stopping,
    /// No agent that may answer is attached. One may attach later.
    Absent(Status),
}

impl NotPicked {
    pub(super) fn absent(text: String) -> Self {
        Self::Absent(Status::not_executed(Code::Unavailable, text))
    }
}

impl From<NotPicked> for Status {
    fn from(why: NotPicked) -> Self {
        match why {
            NotPicked::Stopping => Self::not_executed(Code::Unavailable, "the node is stopping"),
            NotPicked::Absent(status) => status,
        }
    }
}

/// Sends calls over the available routes, and retries them where that is safe.
pub(super) struct Dispatch<R> {
    pub(super) routes: R,
    retries: Arc<RetryBudget>,
}

impl<R: Routes> Dispatch<R> {
    pub(super) const fn new(routes: R, retries: Arc<RetryBudget>) -> Self {
        Self { routes, retries }
    }

    /// Refuses a call that no agent would take now, whatever its message is.
    pub(super) fn expect_taken(&self, request: &Request) -> Result<(), Status> {
        let route = self.routes.pick(request, None)?;
        // Another of several agents may have room by then.
        let is_for_any = request.meta.target == Target::Service;
        if is_for_any { Ok(()) } else { self.routes.expect_room(&route) }
    }

    /// Sends an authorised call, with retries where that is safe. `route` is the last one it took.
    pub(super) async fn forward(
        &self,
        request: &mut Request,
        granted: CallGrant,
        route: &mut Option<R::Route>,
    ) -> Result<Reply, Status> {
        bound(request, granted)?;
        let in_parts = granted.is_reply_passed_on;
        if request.meta.target == Target::Here {
            return Err(Status::not_executed(Code::InvalidArgument, "the call names no agent"));
        }
        self.retries.earn();
        let mut failure = match self.attempt(request, in_parts, route).await {
            Ok(reply) => return Ok(reply),
            Err(status) => status,
        };
        while self.may_retry(request, granted, &failure, route.as_ref()) {
            request.meta.attempt += 1;
            // A call that may have run stays unknown, even if a later attempt did not run.
            let floor = failure.outcome();
            failure = match Box::pin(self.attempt(request, in_parts, route)).await {
                Ok(reply) => return Ok(reply),
                Err(status) if floor == Outcome::Unknown && status.is_safe_to_retry() => {
                    Status::unknown(status.code(), status.message())
                }
                Err(status) => status,
            };
        }
        Err(failure)
    }

    /// True if a failed call gets another attempt: it is safe, useful, and within its limits.
    fn may_retry(
        &self,
        request: &Request,
        granted: CallGrant,
        failure: &Status,
        route: Option<&R::Route>,
    ) -> bool {
        let Some(route) = route else { return false };
        let is_safe = match failure.outcome() {
            Outcome::NotExecuted => true,
            Outcome::Unknown => granted.is_idempotent && is_repeatable(request.meta.http.as_ref()),
            Outcome::Ok | Outcome::AppError => false,
        };
        let is_for_any = request.meta.target == Target::Service;
        let has_other = || {
            let next = self.routes.pick(request, Some(route));
            next.is_ok_and(|next| self.routes.is_another(&next, route))
        };
        let is_of_use = match failure.code() {
            Code::Unavailable => is_for_any || has_other(),
            // Another agent may have room. A reply that found no room would find none again.
            Code::ResourceExhausted => is_for_any && failure.outcome() == Outcome::NotExecuted,
            _ => false,
        };
        let is_in_time = Instant::now() < request.meta.deadline;
        let has_attempts = request.meta.attempt < ATTEMPTS_MAX;
        let is_whole = request.body.can_be_sent_again() && !request.is_spent();
        is_safe && is_of_use && is_in_time && has_attempts && is_whole && self.retries.spend()
    }

    async fn attempt(
        &self,
        request: &mut Request,
        in_parts: bool,
        route: &mut Option<R::Route>,
    ) -> Result<Reply, Status> {
        let picked = self.pick(request, route.as_ref()).await?;
        if request.body.coming().is_some() {
            // Boxed: few messages are this large, and the other calls do not carry its size.
            return Box::pin(self.attempt_while_coming(request, in_parts, picked, route)).await;
        }
        self.routes.ask(route.insert(picked), request, in_parts).await
    }

    /// Makes one attempt of a call whose message is still coming. It is passed on at once if the
    /// agent has permits to spare. Otherwise, or if it does not come in time, it is stored first.
    async fn attempt_while_coming(
        &self,
        request: &mut Request,
        in_parts: bool,
        picked: R::Route,
        route: &mut Option<R::Route>,
    ) -> Result<Reply, Status> {
        let failed = route.take();
        let picked = route.insert(picked);
        if self.routes.has_spare_permits(picked) {
            let reply = self.routes.ask(picked, request, in_parts).await;
            if !request.body.coming().is_some_and(|parts| parts.is_late()) {
                return reply;
            }
        }
        store(request).await?;
        // The agent may have left meanwhile.
        *picked = self.pick(request, failed.as_ref()).await?;
        self.routes.ask(picked, request, in_parts).await
    }

    /// Picks the route of a call, and waits for one if the call says so.
    async fn pick(
        &self,
        request: &mut Request,
        failed: Option<&R::Route>,
    ) -> Result<R::Route, Status> {
        match self.routes.pick(request, failed) {
            Err(NotPicked::Absent(_)) if request.meta.wait => {
                Box::pin(self.wait_for(request, failed)).await
            }
            picked => Ok(picked?),
        }
    }

    /// Waits for a route of a call, within its deadline.
    async fn wait_for(
        &self,
        request: &mut Request,
        failed: Option<&R::Route>,
    ) -> Result<R::Route, Status> {
        // A sender that is not read for long gives up.
        store(request).await?;
        let mut waiter = self.routes.wait_for(request);
        loop {
            let status = match self.routes.pick(request, failed) {
                Err(NotPicked::Absent(status)) => status,
                Err(NotPicked::Stopping) => return Err(NotPicked::Stopping.into()),
                Ok(picked) => return Ok(picked),
            };
            if timeout_at(request.meta.deadline, waiter.changed()).await.is_err() {
                return Err(status);
            }
        }
    }
}

/// True for all calls but HTTP requests whose verb is not idempotent (RFC 9110 section 9.2.2).
fn is_repeatable(http: Option<&HttpTarget>) -> bool {
    http.is_none_or(|http| matches!(http.verb(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE"))
}

/// Waits until the whole message of a request has come.
async fn store(request: &mut Request) -> Result<(), Status> {
    if let Some(parts) = request.body.coming() {
        parts.become_whole().await?;
        parts.lower(&mut request.meta.deadline);
    }
    Ok(())
}

/// Refuses a message that is larger than its rule allows.
pub(super) fn expect_within(bytes: usize, granted: CallGrant) -> Result<(), Status> {
    match granted.message_bytes_max {
        Some(max) if bytes > max => {
            let text = format!(
                "the message of {bytes} bytes is over the rule's limit of {max} bytes (message_max)"
            );
            Err(Status::not_executed(Code::ResourceExhausted, text))
        }
        _ => Ok(()),
    }
}

/// Applies the limits of a grant to a request.
fn bound(request: &mut Request, granted: CallGrant) -> Result<(), Status> {
    if let Some(timeout_max) = granted.timeout_max {
        request.meta.deadline = request.meta.deadline.min(Instant::now() + timeout_max);
    }
    expect_within(request.body.message_bytes(), granted)
}

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;
