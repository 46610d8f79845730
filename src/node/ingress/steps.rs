//! The steps of every call, whichever way it arrives: draining, permit, policy and quota, body,
//! route, record.

use crate::node::{
    authorise::{Authorised, CallGrant, authorise},
    dispatch::{Dispatch, Routes, expect_within},
    quotas::InFlight,
    routes::LinkRoutes,
    state::NodeState,
};
use crate::{
    call::{Body, CallMeta, Permit, Reply, Request, SharedHandler, Target, end_span},
    directory::DIRECTORY,
    observe::CallRecord,
    policy::PolicyTarget,
    status::{Code, Outcome, Status},
};
use std::{future::Future, sync::Arc};
use tokio::time::{Instant, timeout_at};

/// One call as it arrives, with what the steps need of its link, client or program.
pub(super) trait Arrival: Send {
    /// True if the policy applies. It does not apply to calls of the program that runs the node.
    const IS_AUTHORISED: bool = true;

    /// True if a call that no agent would take now is refused before its body is read.
    const PICKS_BEFORE_BODY: bool = false;

    /// True if a large reply of one message may be handed over while it comes.
    const TAKES_PARTS: bool = false;

    /// Starts the record of the call, if it is made here and calls are recorded.
    fn note(&self, _request: &mut Request) -> Option<Box<CallRecord>> {
        None
    }

    /// Waits for a permit of the requester.
    fn permit(
        &mut self,
        request: &Request,
    ) -> impl Future<Output = Result<Option<Permit>, Status>> + Send;

    /// Smallest size of the message, as far as it is known before the body is read.
    fn bytes_min(&self) -> usize {
        0
    }

    /// Reads the body into the request, and moves its deadline by the time for which this process
    /// was suspended. `bytes_max` limits each message, below the node's own limit.
    fn read_body(
        &mut self,
        request: &mut Request,
        bytes_max: Option<usize>,
    ) -> impl Future<Output = Result<(), Status>> + Send;

    /// Size of the message as it is recorded, once it has been read.
    fn bytes_in(&self, _request: &Request) -> Option<u64> {
        None
    }

    /// Called when the call has ended; for a streamed reply, when its handler has begun.
    fn ended(&mut self) {}
}

/// Takes calls into the node.
pub(super) struct Ingress<R> {
    pub(super) shared: Arc<NodeState>,
    pub(super) dispatch: Dispatch<R>,
}

/// Result of a call, and the route that it took last.
pub(super) struct RoutedReply<R> {
    pub(super) reply: Result<Reply, Status>,
    pub(super) route: Option<R>,
}

/// A call that passed all checks, with its body and its permits.
struct AdmittedCall {
    granted: CallGrant,
    permit: Option<Permit>,
    in_flight: Option<InFlight>,
    /// Set for a call of the node's own services.
    handler: Option<SharedHandler>,
}

impl Ingress<LinkRoutes> {
    /// Takes calls of agents over the links of a node.
    pub(super) fn over_links(shared: &Arc<NodeState>) -> Self {
        Self { shared: shared.clone(), dispatch: Dispatch::over_links(shared) }
    }
}

impl<R: Routes> Ingress<R> {
    /// Takes a call from arrival to reply. Dropping the future, or the reply's stream, cancels it.
    /// Not an async function, which would keep the request twice.
    pub(super) fn answer<A: Arrival>(
        &self,
        request: Request,
        arrival: A,
    ) -> impl Future<Output = RoutedReply<R::Route>> + Send {
        let (mut request, mut arrival) = (request, arrival);
        async move {
            let note = arrival.note(&mut request);
            let admitted = self.admit(&mut request, &mut arrival).await;
            let bytes_in = arrival.bytes_in(&request);
            let mut route = None;
            let mut reply = match admitted {
                Err(status) => Err(status),
                Ok(AdmittedCall { granted, permit, in_flight, handler }) => {
                    let reply = match handler {
                        Some(handler) => {
                            let span = request.meta.handler_span(self.shared.observer.tracer());
                            end_span(span, own_reply(handler, request, granted).await)
                        }
                        None => self.dispatch.forward(&mut request, granted, &mut route).await,
                    };
                    reply.map(|reply| reply.holding_some(in_flight).holding_some(permit))
                }
            };
            arrival.ended();
            if let Some(mut note) = note {
                if let Some(route) = &route {
                    note.picked(|| self.dispatch.routes.agent_of(route));
                }
                record(note, bytes_in, &mut reply);
            }
            RoutedReply { reply, route }
        }
    }

    /// Refuses a call or reads its body.
    async fn admit<A: Arrival>(
        &self,
        request: &mut Request,
        arrival: &mut A,
    ) -> Result<AdmittedCall, Status> {
        if self.shared.calls.is_draining() {
            return Err(Status::not_executed(Code::Unavailable, "the node is stopping"));
        }
        let permit = arrival.permit(request).await?;
        let handler = self.own_handler(&request.meta);
        let Authorised { mut granted, in_flight } = self.authorise::<A>(request)?;
        // A call that may be repeated keeps its reply until it is whole.
        granted.is_reply_passed_on = A::TAKES_PARTS && !granted.is_idempotent;
        let handler = handler.transpose()?;
        if A::PICKS_BEFORE_BODY {
            expect_within(arrival.bytes_min(), granted)?;
            self.dispatch.expect_taken(request)?;
        }
        // Dispatch checks a message that was read, with an error that names the rule.
        let is_bounded_here = handler.is_some() || request.meta.kind.streams_requests();
        let bytes_max = granted.message_bytes_max.filter(|_| is_bounded_here);
        arrival.read_body(request, bytes_max).await?;
        Ok(AdmittedCall { granted, permit, in_flight, handler })
    }

    fn authorise<A: Arrival>(&self, request: &Request) -> Result<Authorised, Status> {
        if !A::IS_AUTHORISED {
            return Ok(Authorised { granted: CallGrant::IN_PROCESS, in_flight: None });
        }
        let CallMeta { method, target, http, .. } = &request.meta;
        let (shared, requester) = (&self.shared, request.requester.peer());
        let target = match target {
            // Open to every admitted peer: the directory filters its content by the policy.
            Target::Here if method.service() == DIRECTORY => {
                return Ok(Authorised { granted: CallGrant::IN_PROCESS, in_flight: None });
            }
            Target::Here => Some(PolicyTarget::Node(&shared.name)),
            Target::Agent(name) => Some(PolicyTarget::Agent(name)),
            Target::Service => None,
        };
        authorise(shared, requester, target, method, http.as_ref())
    }

    /// Handler of a call of the node's own services; `None` for a call of an agent.
    fn own_handler(&self, meta: &CallMeta) -> Option<Result<SharedHandler, Status>> {
        if meta.target != Target::Here {
            return None;
        }
        let directory = self.shared.directory.get();
        let directory = directory.filter(|_| meta.method.service() == DIRECTORY);
        let services = directory.unwrap_or(&self.shared.services);
        Some(services.find(&meta.method, meta.kind).cloned())
    }
}

/// Records the end of a call; for a streamed reply, when it ends.
fn record(note: Box<CallRecord>, bytes_in: Option<u64>, reply: &mut Result<Reply, Status>) {
    match reply {
        Ok(Reply { body: Body::Messages(messages), .. }) => messages.note(note),
        Ok(Reply { body, .. }) => {
            let bytes_out = Some(body.message_bytes() as u64);
            note.ended((Code::Ok, Outcome::Ok), "", [bytes_in, bytes_out]);
        }
        Err(status) => {
            let result = (status.code(), status.outcome());
            note.ended(result, status.message(), [bytes_in, Some(0)]);
        }
    }
}

/// Runs a handler of the node's own services, within the time that the rule allows.
async fn own_reply(
    handler: SharedHandler,
    mut request: Request,
    granted: CallGrant,
) -> Result<Reply, Status> {
    let Some(timeout_max) = granted.timeout_max else { return handler.call_boxed(request).await };
    let deadline = request.meta.deadline.min(Instant::now() + timeout_max);
    request.meta.deadline = deadline;
    timeout_at(deadline, handler.call_boxed(request)).await.unwrap_or_else(|_elapsed| {
        Err(Status::unknown(Code::DeadlineExceeded, "the deadline passed"))
    })
}
