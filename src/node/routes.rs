//! Routes of calls: the links of attached agents.

use super::{
    dispatch::{Changes, Dispatch, NotPicked, Routes},
    service_index::Cursor,
    state::{NodeState, SharedAgentLink},
    waiters::{Awaited, Waiter},
};
use crate::{
    call::{CallMeta, InitiatorLimits, RelayedReply, Reply, Request, Target, ask, end_span},
    limits::{AGENTS_COPIED_AT_ONCE, CANDIDATES_FIRST, CANDIDATES_MAX, PASSED_ON_WAIT_MAX},
    link::Link,
    name::{HttpTarget, MethodPath, Name, PeerName},
    policy::{self, NodePolicy},
    status::Status,
    tls::random_bytes,
    trace::{Span, Tracer},
};
use std::{ops::Range, sync::Arc};
use tokio::time::Instant;

impl Changes for Waiter<'_> {
    async fn changed(&mut self) {
        self.changed().await;
    }
}

pub(super) struct LinkRoutes(Arc<NodeState>);

impl Dispatch<LinkRoutes> {
    pub(super) fn over_links(shared: &Arc<NodeState>) -> Self {
        Self::new(LinkRoutes(shared.clone()), shared.retries.clone())
    }
}

impl Routes for LinkRoutes {
    type Route = SharedAgentLink;
    type Waiter<'a> = Waiter<'a>;

    fn pick(
        &self,
        request: &Request,
        failed: Option<&SharedAgentLink>,
    ) -> Result<SharedAgentLink, NotPicked> {
        if self.0.calls.is_draining() {
            return Err(NotPicked::Stopping);
        }
        match &request.meta.target {
            Target::Agent(name) => {
                let registry = self.0.registry();
                registry.pick(name).cloned().ok_or_else(|| {
                    let why = if registry.links(name).is_empty() {
                        "is not attached"
                    } else {
                        "is draining and takes no new calls"
                    };
                    NotPicked::absent(format!("agent {name} {why}"))
                })
            }
            _ => self.pick_any(request, failed).ok_or_else(|| {
                let service = request.meta.method.hosted();
                let text = format!("no agent that is attached may answer for {service}");
                NotPicked::absent(text)
            }),
        }
    }

    fn is_another(&self, next: &SharedAgentLink, failed: &SharedAgentLink) -> bool {
        !next.link.is_same(&failed.link) || next.link.is_closed()
    }

    fn has_spare_permits(&self, route: &SharedAgentLink) -> bool {
        route.permits.is_half_free()
    }

    fn expect_room(&self, route: &SharedAgentLink) -> Result<(), Status> {
        route.permits.expect_room()
    }

    fn agent_of(&self, route: &SharedAgentLink) -> PeerName {
        route.link.peer().clone()
    }

    fn wait_for(&self, request: &Request) -> Waiter<'_> {
        self.0.waiters.wait_for(match &request.meta.target {
            Target::Agent(name) => Awaited::Agent(name.clone()),
            _ => Awaited::Service(request.meta.method.service().into()),
        })
    }

    async fn ask(
        &self,
        route: &SharedAgentLink,
        request: &mut Request,
        in_parts: bool,
    ) -> Result<Reply, Status> {
        let (limits, deadline) = (&*route.limits, request.meta.deadline);
        let permit = route.permits.acquire(deadline, limits.queue_wait_max).await?;
        if let Some(parts) = request.body.coming() {
            // A call that waits for this permit meanwhile gets it in time.
            let wait_max = PASSED_ON_WAIT_MAX.min(limits.queue_wait_max / 2);
            parts.expect_by(Instant::now() + wait_max);
        }
        let limits = InitiatorLimits::relaying(limits, &permit);
        // The node's own calls have no caller name: the agent knows the node by its certificate.
        let peer = request.requester.peer();
        let caller = Some(peer).filter(|peer| **peer != self.0.peer).cloned();
        let relayed = RelayedReply { memory: self.0.memory.reply_account(peer), in_parts };
        let tracer = self.0.observer.tracer();
        // Of the call, for other attempts.
        let position = tracer.is_on().then(|| request.meta.traceparent.clone());
        let span = attempt_span(&mut request.meta, tracer, &route.link);
        let target = std::mem::replace(&mut request.meta.target, Target::Here);
        let asked = ask(&route.link, request, limits, caller.as_ref(), Some(relayed)).await;
        request.meta.target = target;
        if let Some(position) = position {
            request.meta.traceparent = position;
        }
        Ok(end_span(span, asked)?.holding(permit))
    }
}

/// The span of an attempt over a link.
fn attempt_span(meta: &mut CallMeta, tracer: &Tracer, link: &Link) -> Span {
    let mut span = meta.attempt_span(tracer);
    if span.is_recorded() {
        let agent = &link.peer().name;
        span.text("server.address", agent);
        span.text("dialback.agent", agent);
        span.peer_address(link.remote_address());
    }
    span
}

impl LinkRoutes {
    /// Picks the less loaded of two agents that may answer; one that has just failed only if alone.
    fn pick_any(
        &self,
        request: &Request,
        failed: Option<&SharedAgentLink>,
    ) -> Option<SharedAgentLink> {
        let (caller, method) = (request.requester.peer(), &request.meta.method);
        let policy = self.0.policy.get();
        let http = request.meta.http.as_ref();
        let may = |name: &Name, http| may_answer(&self.0, &policy, caller, name, method, http);
        let may_answer = |name: &Name| may(name, http);
        let (chance, mut best) = (usize::from_ne_bytes(random_bytes()), Best::new(failed));
        let (mut looked_at, mut count) = (0, CANDIDATES_FIRST);
        // A few at random, authorised without the lock: where many may answer, two are soon found.
        loop {
            let (some, hosts) = self.hosts_at(method, chance, looked_at..count);
            some.into_iter()
                .flatten()
                .filter(|link| may_answer(&link.link.peer().name))
                .for_each(|link| best.consider(link));
            if best.is_settled()
                || (best.has_alternative() && count >= CANDIDATES_MAX)
                || count >= hosts
            {
                return best.take();
            }
            if count >= CANDIDATES_MAX {
                break;
            }
            (looked_at, count) = (count, CANDIDATES_MAX);
        }
        // Few of many: their list is cached, and only new hosts are checked.
        let next = |cursor: &mut Cursor| {
            self.0.registry().service_index.of(method).next(cursor, AGENTS_COPIED_AT_ONCE)
        };
        // Some HTTP requests of those who are listed may be refused.
        let candidates =
            self.0.candidates.of(caller, method, &policy, next, |name| may(name, None));
        let (start, agents) = (chance % candidates.agents.len().max(1), &candidates.agents);
        let registry = self.0.registry();
        for name in agents[start..].iter().chain(&agents[..start]) {
            // It may have left or may host something else now.
            if (http.is_none() || may_answer(name))
                && registry.service_index.has(name, method)
                && let Some(link) = registry.pick(name)
            {
                best.consider(link.clone());
                if best.is_settled() {
                    break;
                }
            }
        }
        drop(registry);
        best.take()
    }

    /// Links of some agents that have registered a method, by their positions after `first`, and
    /// the number of agents. Agents that come and go meanwhile may occur twice or not at all.
    fn hosts_at(
        &self,
        method: &MethodPath,
        first: usize,
        places: Range<usize>,
    ) -> ([Option<SharedAgentLink>; CANDIDATES_MAX], usize) {
        let mut links = [const { None }; CANDIDATES_MAX];
        let registry = self.0.registry();
        let hosts = registry.service_index.of(method);
        let count = hosts.len();
        for (place, link) in (places.start..places.end.min(count)).zip(&mut links) {
            let name = hosts.at((first % count + place) % count);
            *link = name.and_then(|name| registry.pick(name)).cloned();
        }
        (links, count)
    }
}

/// Best link of those considered so far. The better of two random links, not the least loaded of
/// all: many nodes that see the same loads would all pick the same agent.
struct Best<'a> {
    failed: Option<&'a SharedAgentLink>,
    chosen: Option<SharedAgentLink>,
    /// Number of considered links with a free permit that did not fail.
    good: usize,
}

impl<'a> Best<'a> {
    const fn new(failed: Option<&'a SharedAgentLink>) -> Self {
        Self { failed, chosen: None, good: 0 }
    }

    /// Lower is better.
    fn rank(&self, link: &SharedAgentLink) -> (bool, bool, usize) {
        let has_failed = self.failed.is_some_and(|failed| failed.link.peer() == link.link.peer());
        (has_failed, link.permits.is_full(), link.permits.in_flight())
    }

    fn consider(&mut self, link: SharedAgentLink) {
        if self.is_settled() {
            return;
        }
        let rank = self.rank(&link);
        self.good += usize::from(!rank.0 && !rank.1);
        if self.chosen.as_ref().is_none_or(|chosen| rank < self.rank(chosen)) {
            self.chosen = Some(link);
        }
    }

    /// True if two suitable links were considered.
    const fn is_settled(&self) -> bool {
        self.good >= 2
    }

    /// True if a link was considered that has not just failed.
    fn has_alternative(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| !self.rank(chosen).0)
    }

    fn take(self) -> Option<SharedAgentLink> {
        self.chosen
    }
}

/// True if an agent may answer a call that names only its service, and this requester may call it.
pub(super) fn may_answer(
    shared: &NodeState,
    policy: &NodePolicy,
    requester: &PeerName,
    agent: &Name,
    method: &MethodPath,
    http: Option<&HttpTarget>,
) -> bool {
    let is_own = *requester == shared.peer;
    policy.may_host(agent, method.hosted())
        && (is_own
            || policy
                .decide(requester, policy::PolicyTarget::Agent(agent), method, http)
                .is_allowed())
}
