//! One call through the node: policy gives a grant, the registry a link, the link a permit, and then it is asked.

use super::{Shared, SharedAgentLink, hosting::Seen, quotas::Held, waiters::Awaited};
use crate::{
    audit::{CallFacts, CallNote, Refused},
    call::{AskLimits, Body, Handler, Reply, Request, Target, ask},
    limits::{AGENTS_COPIED_AT_ONCE, ATTEMPTS_MAX, CANDIDATES_FIRST, CANDIDATES_MAX},
    name::{MethodPath, Name, PeerName, Role},
    policy::{self, Decision, NodePolicy},
    status::{Code, Outcome, Status},
    tls::random_bytes,
};
use std::{fmt, ops::Range, sync::Arc, time::Duration};
use tokio::time::Instant;

/// What the policy allows a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    timeout_max: Option<Duration>,
    pub(super) message_bytes_max: Option<usize>,
    /// Whether an attempt that may have run may be repeated.
    is_idempotent: bool,
}

impl Granted {
    /// The embedding program's own calls: its business.
    const IN_PROCESS: Self =
        Self { timeout_max: None, message_bytes_max: None, is_idempotent: false };

    fn by(grant: policy::Grant<'_>) -> Self {
        Self {
            timeout_max: grant.timeout_max(),
            message_bytes_max: grant.message_bytes_max(),
            is_idempotent: grant.is_idempotent(),
        }
    }
}

/// Calls agents. In process it is what a handle calls; for remote callers it is the handler behind their streams.
pub(super) struct Dispatch {
    shared: Arc<Shared>,
}

impl Dispatch {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Refuses a call that would be refused whatever its message is: no agent takes it, or there are more bytes than its rule lets pass.
    #[cfg(feature = "gateway")]
    pub(super) fn expect_taken(
        &self,
        request: &Request,
        granted: Granted,
        bytes_min: usize,
    ) -> Result<(), Status> {
        expect_within(bytes_min, granted)?;
        let agent = self.pick_now(request, None)?;
        // Of several agents another one may have room by then.
        if request.target == Target::Service { Ok(()) } else { agent.permits.expect_room() }
    }

    /// Sends a call that was granted, and sends it again where that is safe. Whom it asked last is left in `asked`.
    pub(super) async fn forward(
        &self,
        request: &mut Request,
        granted: Granted,
        asked: &mut Option<SharedAgentLink>,
    ) -> Result<Reply, Status> {
        bound(request, granted)?;
        if request.target == Target::Here {
            return Err(Status::not_executed(Code::InvalidArgument, "the call names no agent"));
        }
        self.shared.retries.earn();
        let mut failure = match self.attempt(request, granted, asked).await {
            Ok(reply) => return Ok(reply),
            Err(status) => status,
        };
        while let Some(mut again) = self.retry(request, granted, &failure, asked.as_ref()) {
            request.attempt = again.attempt;
            // What may have run stays unknown, whatever a later attempt says that did not run.
            let floor = failure.outcome();
            failure = match Box::pin(self.attempt(&mut again, granted, asked)).await {
                Ok(reply) => return Ok(reply),
                Err(status) if floor == Outcome::Unknown && status.is_safe_to_retry() => {
                    Status::unknown(status.code(), status.message())
                }
                Err(status) => status,
            };
        }
        Err(failure)
    }

    /// Another attempt of a failed call, if it is safe, of use, and within its bounds.
    fn retry(
        &self,
        request: &Request,
        granted: Granted,
        failure: &Status,
        asked: Option<&SharedAgentLink>,
    ) -> Option<Request> {
        let asked = asked?;
        let is_safe = match failure.outcome() {
            Outcome::NotExecuted => true,
            Outcome::Unknown => granted.is_idempotent,
            Outcome::Ok | Outcome::AppError => false,
        };
        let elsewhere = || match &request.target {
            Target::Service => true,
            _ => self
                .pick_now(request, Some(asked))
                .is_ok_and(|next| next.link.id() != asked.link.id() || next.link.is_closed()),
        };
        let is_of_use = match failure.code() {
            Code::Unavailable => elsewhere(),
            // An agent that is full: another may have room. A reply that found no room would find none again.
            Code::ResourceExhausted => {
                request.target == Target::Service && failure.outcome() == Outcome::NotExecuted
            }
            _ => false,
        };
        let has_time = Instant::now() < request.deadline;
        if !(is_safe && is_of_use && has_time && request.attempt < ATTEMPTS_MAX) {
            return None;
        }
        let again = request.again()?;
        self.shared.retries.spend().then_some(again)
    }

    async fn attempt(
        &self,
        request: &mut Request,
        _granted: Granted,
        asked: &mut Option<SharedAgentLink>,
    ) -> Result<Reply, Status> {
        let agent = self.pick(request, asked.as_ref()).await?;
        *asked = Some(agent.clone());
        let limits = &*agent.limits;
        let permit = agent.permits.acquire(request.deadline, limits.queue_wait_max).await?;
        let limits = AskLimits::from(limits).after_queueing(permit.waited()).relaying();
        // The node's own calls go without a name: the agent knows the node by its certificate.
        let caller = (request.caller != self.shared.peer).then(|| request.caller.clone());
        let target = std::mem::replace(&mut request.target, Target::Here);
        let memory = self.shared.memory.reply_account(&request.caller);
        let asked = ask(&agent.link, request, limits, caller.as_ref(), Some(memory)).await;
        request.target = target;
        Ok(asked?.holding(permit))
    }

    /// The link to use: now, or for a call that wants to wait, within its deadline.
    async fn pick(
        &self,
        request: &Request,
        failed: Option<&SharedAgentLink>,
    ) -> Result<SharedAgentLink, Status> {
        match self.pick_now(request, failed) {
            Err(NotPicked::Absent(_)) if request.wait => {
                Box::pin(self.wait_for(request, failed)).await
            }
            picked => Ok(picked?),
        }
    }

    async fn wait_for(
        &self,
        request: &Request,
        failed: Option<&SharedAgentLink>,
    ) -> Result<SharedAgentLink, Status> {
        let mut waiter = self.shared.waiters.wait_for(match &request.target {
            Target::Agent(name) => Awaited::Agent(name.clone()),
            _ => Awaited::Service(request.method.service().into()),
        });
        loop {
            let status = match self.pick_now(request, failed) {
                Err(NotPicked::Absent(status)) => status,
                Err(NotPicked::Stopping) => return Err(NotPicked::Stopping.into()),
                Ok(picked) => return Ok(picked),
            };
            if tokio::time::timeout_at(request.deadline, waiter.changed()).await.is_err() {
                return Err(status);
            }
        }
    }

    fn pick_now(
        &self,
        request: &Request,
        failed: Option<&SharedAgentLink>,
    ) -> Result<SharedAgentLink, NotPicked> {
        if self.shared.calls.is_draining() {
            return Err(NotPicked::Stopping);
        }
        match &request.target {
            Target::Agent(name) => {
                let registry = self.shared.registry();
                registry.pick(name).cloned().ok_or_else(|| {
                    let why = if registry.links(name).is_empty() {
                        "is not attached"
                    } else {
                        "is leaving and takes no more calls"
                    };
                    NotPicked::absent(format!("agent {name} {why}"))
                })
            }
            _ => self.pick_any(request, failed).ok_or_else(|| {
                let service = request.method.service();
                let text = format!("no agent that is attached may answer for {service}");
                NotPicked::absent(text)
            }),
        }
    }

    /// Of the agents that may answer, the less loaded of two; one that has just failed only if there is no other.
    fn pick_any(
        &self,
        request: &Request,
        failed: Option<&SharedAgentLink>,
    ) -> Option<SharedAgentLink> {
        let Request { caller, method, .. } = request;
        let policy = self.shared.policy.get();
        let may_answer = |name: &Name| may_answer(&self.shared, &policy, caller, name, method);
        let (chance, mut best) = (usize::from_ne_bytes(random_bytes()), Best::new(failed));
        let (mut looked_at, mut count) = (0, CANDIDATES_FIRST);
        // A few at random, and judged without the lock: where many may answer, two good ones are soon found.
        loop {
            let (some, hosts) = self.hosts_at(method, chance, looked_at..count);
            some.into_iter()
                .flatten()
                .filter(|link| may_answer(&link.link.peer().name))
                .for_each(|link| best.consider(link));
            if best.is_good() || (best.has_other() && count >= CANDIDATES_MAX) || count >= hosts {
                return best.take();
            }
            if count >= CANDIDATES_MAX {
                break;
            }
            (looked_at, count) = (count, CANDIDATES_MAX);
        }
        // Few of many: those are remembered, and only hosts that are new are judged.
        let next = |seen: &mut Seen| {
            self.shared.registry().hosting.of(method).next(seen, AGENTS_COPIED_AT_ONCE)
        };
        let judged = self.shared.candidates.of(caller, method, &policy, next, may_answer);
        let (start, agents) = (chance % judged.agents.len().max(1), &judged.agents);
        let registry = self.shared.registry();
        for name in agents[start..].iter().chain(&agents[..start]) {
            // It may have left, or hosts something else.
            if registry.hosting.has(name, method)
                && let Some(link) = registry.pick(name)
            {
                best.consider(link.clone());
                if best.is_good() {
                    break;
                }
            }
        }
        drop(registry);
        best.take()
    }

    /// The links of some agents that have registered a method, by their places after a first one, and how many agents there are. Agents that
    /// come and go in between may be met twice or not at all.
    fn hosts_at(
        &self,
        method: &MethodPath,
        first: usize,
        places: Range<usize>,
    ) -> ([Option<SharedAgentLink>; CANDIDATES_MAX], usize) {
        let mut links = [const { None }; CANDIDATES_MAX];
        let registry = self.shared.registry();
        let hosts = registry.hosting.of(method);
        let count = hosts.len();
        for (place, link) in (places.start..places.end.min(count)).zip(&mut links) {
            let name = hosts.at((first % count + place) % count);
            *link = name.and_then(|name| registry.pick(name)).cloned();
        }
        (links, count)
    }

    /// How a call of the program's own is to be written down, if it is.
    fn note(&self, request: &Request) -> Option<Box<CallNote>> {
        self.shared.journal.call(|| CallFacts {
            caller: request.caller.to_string(),
            agent: match &request.target {
                Target::Agent(name) => Some(PeerName::new(Role::Agent, name.clone())),
                Target::Here | Target::Service => None,
            },
            via: None,
            method: request.method.clone(),
            call_id: request.call_id,
            kind: request.kind,
            attempt: request.attempt,
            began: Instant::now(),
            deadline: request.deadline,
        })
    }
}

/// Why no link can be used. A type and not a code: what an agent answers can have any code.
enum NotPicked {
    /// This node takes no more calls.
    Stopping,
    /// No agent is there that may answer. One may come.
    Absent(Status),
}

impl NotPicked {
    fn absent(text: String) -> Self {
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

/// The best of those considered so far. Two by chance, not the least loaded of all: many nodes that see the same numbers would all run to
/// the same agent.
struct Best<'a> {
    /// Has just failed this call.
    failed: Option<&'a SharedAgentLink>,
    chosen: Option<SharedAgentLink>,
    /// Those with a free place that were considered, and did not fail.
    good: usize,
}

impl<'a> Best<'a> {
    const fn new(failed: Option<&'a SharedAgentLink>) -> Self {
        Self { failed, chosen: None, good: 0 }
    }

    /// Less is better.
    fn rank(&self, link: &SharedAgentLink) -> (bool, bool, usize) {
        let has_failed = self.failed.is_some_and(|failed| failed.link.peer() == link.link.peer());
        (has_failed, link.permits.is_full(), link.permits.in_flight())
    }

    fn consider(&mut self, link: SharedAgentLink) {
        if self.is_good() {
            return;
        }
        let rank = self.rank(&link);
        self.good += usize::from(!rank.0 && !rank.1);
        if self.chosen.as_ref().is_none_or(|chosen| rank < self.rank(chosen)) {
            self.chosen = Some(link);
        }
    }

    /// Whether two good ones were considered.
    const fn is_good(&self) -> bool {
        self.good >= 2
    }

    /// Whether one was considered that has not just failed.
    fn has_other(&self) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| !self.rank(chosen).0)
    }

    fn take(self) -> Option<SharedAgentLink> {
        self.chosen
    }
}

/// Whether an agent may answer a call that names only its service, and whoever asks may call it there.
pub(super) fn may_answer(
    shared: &Shared,
    policy: &NodePolicy,
    asker: &PeerName,
    agent: &Name,
    method: &MethodPath,
) -> bool {
    let is_own = *asker == shared.peer;
    policy.may_host(agent, method.service())
        && (is_own || policy.decide(asker, policy::Target::Agent(agent), method).is_allowed())
}

impl Handler for Dispatch {
    /// No async function, which would keep the request twice.
    fn call(&self, request: Request) -> impl Future<Output = Result<Reply, Status>> + Send {
        let mut request = request;
        async move {
            let counted = self.shared.calls.counted();
            let (note, mut asked) = (self.note(&request), None);
            let bytes_in = request.message().ok().map(|message| message.len() as u64);
            let answered = self.forward(&mut request, Granted::IN_PROCESS, &mut asked).await;
            let answered = match note {
                Some(note) => noted(note, asked.as_ref(), bytes_in, answered),
                None => answered,
            };
            Ok(answered?.holding(counted))
        }
    }
}

/// Writes down how a call has ended that came over no link; of a stream, how it will.
pub(super) fn noted(
    note: Box<CallNote>,
    asked: Option<&SharedAgentLink>,
    bytes_in: Option<u64>,
    mut answered: Result<Reply, Status>,
) -> Result<Reply, Status> {
    if let Some(asked) = asked {
        note.picked(asked.link.peer());
    }
    match &mut answered {
        Ok(Reply { body: Body::Messages(messages), .. }) => messages.note(note),
        Ok(Reply { body: Body::Message(message), .. }) => {
            note.ended(Code::Ok, Outcome::Ok, [bytes_in, Some(message.len() as u64)]);
        }
        Err(status) => note.ended(status.code(), status.outcome(), [bytes_in, Some(0)]),
    }
    answered
}

/// Puts the bounds of the grant on a request.
fn bound(request: &mut Request, granted: Granted) -> Result<(), Status> {
    if let Some(timeout_max) = granted.timeout_max {
        request.deadline = request.deadline.min(Instant::now() + timeout_max);
    }
    expect_within(request.message().map_or(0, bytes::Bytes::len), granted)
}

fn expect_within(bytes: usize, granted: Granted) -> Result<(), Status> {
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

/// A call that the policy has let pass, and the place that it takes among those that its rule counts. Held until the call has ended.
pub(super) struct Authorised {
    pub(super) granted: Granted,
    pub(super) held: Option<Held>,
}

/// Asks the policy about a remote party's call, and takes one from what its rule leaves the party. A refusal says the same whether the
/// agent exists or not.
pub(super) fn authorise(
    shared: &Shared,
    asker: &PeerName,
    target: policy::Target<'_>,
    method: &MethodPath,
) -> Result<Authorised, Status> {
    let asked = Asked { asker, target: Some(target), method };
    match shared.policy.get().decide(asker, target, method) {
        Decision::Allow(grant) => asked.count(shared, grant),
        Decision::Deny(denied) => {
            asked.refused(shared, Code::PermissionDenied, &denied);
            let text = format!(
                "{asker} may not call {method} on {target}; an [[allow]] rule of the node would have to say so"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}

/// The same for a call that names only the service, which the first rule that opens the method on some agent counts. Which agents may
/// answer it is looked at when one is picked.
pub(super) fn authorise_any(
    shared: &Shared,
    asker: &PeerName,
    method: &MethodPath,
) -> Result<Authorised, Status> {
    let asked = Asked { asker, target: None, method };
    match shared.policy.get().grant_anywhere(asker, method) {
        Some(grant) => asked.count(shared, grant),
        None => {
            asked.refused(shared, Code::PermissionDenied, &policy::Denied::NoRule);
            let text = format!(
                "{asker} may not call {method}; an [[allow]] rule of the node would have to say so"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}

/// What is asked of the policy; without a target it is any agent.
#[derive(Clone, Copy)]
struct Asked<'a> {
    asker: &'a PeerName,
    target: Option<policy::Target<'a>>,
    method: &'a MethodPath,
}

impl Asked<'_> {
    /// Takes the call from what its rule leaves the caller.
    fn count(self, shared: &Shared, grant: policy::Grant<'_>) -> Result<Authorised, Status> {
        match shared.quotas.take(grant.rule(), self.asker, Instant::now()) {
            Ok(held) => Ok(Authorised { granted: Granted::by(grant), held }),
            Err(used_up) => {
                let why = format_args!("{used_up}; {grant}");
                self.refused(shared, Code::ResourceExhausted, &why);
                Err(used_up.into())
            }
        }
    }

    /// Writes down that it was refused, and says so unless there was too much to say.
    fn refused(self, shared: &Shared, code: Code, why: &dyn fmt::Display) {
        let Self { asker, target, method } = self;
        if let Some(left_out) = shared.lines.calls.say(asker.clone(), Instant::now()) {
            match target {
                Some(target) => {
                    tracing::warn!("refused {asker}: {method} on {target}: {why}{left_out}");
                }
                None => tracing::warn!("refused {asker}: {method} on any agent: {why}{left_out}"),
            }
        }
        let agent = target.map(|target| match target {
            policy::Target::Agent(name) => PeerName::new(Role::Agent, name.clone()),
            policy::Target::Node(name) => PeerName::new(Role::Node, name.clone()),
        });
        let refused = Refused { caller: asker, agent: agent.as_ref(), via: None, method };
        shared.journal.call_refused(refused, code, why);
    }
}
