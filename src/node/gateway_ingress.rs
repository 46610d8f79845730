//! The node as a door sees it that is no link: whoever asks was made sure of by the door, and the
//! call goes the way of all calls.

use super::{
    Directory, Node, Shared,
    authorise::{self, Authorised},
    dispatch::{Answered, Dispatch, expect_within},
    in_process::noted,
    reset_limiter::ResetLimiter,
    routes::{Links, Routes},
    snapshot,
};
use crate::{
    audit::{CallNote, Journal},
    call::{Body, CallMeta, Permits, Reply, Request, Requester, Target},
    drain::{SignalListener, Tasks},
    limits::{DOOR_CALLERS_MAX, Limits, SWEEP_EVERY, TIMEOUT_CEILING},
    link::Trust,
    memory::MemoryAccount,
    name::{CallId, MethodPath, PeerName},
    policy,
    status::{Code, Status},
    suspend_guard,
    tls::Credentials,
    wire::CallKind,
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What a door knows of a call before it has read the body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) caller: PeerName,
    pub(crate) meta: CallMeta,
    /// What the message has at least, as far as the head of the request says it.
    pub(crate) bytes_min: usize,
}

/// A way into a node's dispatch. What it calls is judged, counted and written down as what comes
/// over links is.
pub(crate) struct Door {
    shared: Arc<Shared>,
    trust: Arc<Trust>,
    dispatch: Dispatch<Links>,
    accounts: Mutex<Accounts>,
}

/// The accounts of all callers that use the door.
#[derive(Default)]
struct Accounts {
    all: HashMap<PeerName, Arc<Account>>,
    /// When those not in use were last looked for: a full map is not gone through on every call.
    swept_at: Option<Instant>,
}

/// What a link is for others: the calls of one caller, however many connections it has.
struct Account {
    permits: Permits,
    breaks: Mutex<ResetLimiter>,
}

impl Account {
    fn new(limits: &Limits) -> Self {
        let permits = Permits::new(limits.caller_calls_in_flight_max, limits.queue_max);
        Self { permits, breaks: Mutex::new(ResetLimiter::new(limits.resets_max)) }
    }

    fn is_in_use(self: &Arc<Self>, now: Instant) -> bool {
        Arc::strong_count(self) > 1 || self.permits.in_flight() > 0 || self.breaks().has_some(now)
    }

    fn breaks(&self) -> MutexGuard<'_, ResetLimiter> {
        self.breaks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no link that could be closed, so the caller waits until its breaks are forgotten.
    fn expect_steady(&self, resets_max: usize) -> Result<(), Status> {
        if self.breaks().is_full(Instant::now()) {
            let text = format!("more than {resets_max} calls were broken off in 10 s (resets_max)");
            return Err(Status::not_executed(Code::ResourceExhausted, text));
        }
        Ok(())
    }
}

/// Dropped before it is disarmed, it says that the caller has broken its call off.
struct ResetGuard {
    account: Arc<Account>,
    began: Instant,
    deadline: Instant,
    is_armed: bool,
}

impl Drop for ResetGuard {
    fn drop(&mut self) {
        if self.is_armed {
            self.account.breaks().is_too_many(self.began, self.deadline, Instant::now());
        }
    }
}

impl Node {
    /// Another way in.
    pub(crate) fn door(&self) -> Door {
        let (shared, trust) = (self.shared.clone(), self.listener.trust().clone());
        Door { dispatch: shared.dispatch(), shared, trust, accounts: Mutex::default() }
    }
}

impl Door {
    /// The certificate, key and trust that are in force.
    pub(crate) fn credentials(&self) -> Credentials {
        self.trust.credentials()
    }

    /// The bounds that are in force.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.shared.limits.get()
    }

    /// Where what is held for a caller is counted.
    pub(crate) fn memory(&self, caller: &PeerName) -> MemoryAccount {
        self.shared.memory.account(caller)
    }

    /// Where refusals are written down.
    pub(crate) fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// What this caller may see of what there is to call.
    pub(crate) fn directory_for(&self, caller: &PeerName) -> Directory {
        snapshot::directory_for(&self.shared, caller)
    }

    /// The facts of the next call, which begins now. Without a timeout it has the default of its
    /// kind.
    pub(crate) fn next_call(
        &self,
        call_id: CallId,
        method: MethodPath,
        kind: CallKind,
        target: Target,
        timeout: Option<Duration>,
    ) -> CallMeta {
        let limits = self.limits();
        let default = match kind {
            CallKind::Unary => limits.timeout_default,
            _ => limits.stream_timeout_default,
        };
        let deadline = Instant::now() + timeout.unwrap_or(default).min(TIMEOUT_CEILING);
        CallMeta::new(method, kind, target, call_id, deadline)
    }

    /// A name for the next call.
    pub(crate) fn next_call_id(&self) -> CallId {
        self.shared.call_ids.next_id()
    }

    /// What ends with the node.
    pub(crate) fn tasks(&self) -> Tasks {
        self.shared.links.clone()
    }

    /// Whether the node takes no more calls.
    pub(crate) fn is_leaving(&self) -> bool {
        self.shared.drain.is_notified() || self.shared.calls.is_draining()
    }

    /// Tells when the node leaves: first that nothing new is taken, then that nothing is left to
    /// do.
    pub(crate) fn leaving(&self) -> [SignalListener; 2] {
        [self.shared.drain.listen(), self.shared.goodbye.listen()]
    }

    /// Calls an agent. The body is read once nothing that is known without it refuses the call, and
    /// within the call's time.
    ///
    /// # Errors
    /// As for any call. Dropping the future, or the stream of the reply, cancels it.
    pub(crate) async fn call(
        &self,
        asked: Asked,
        body: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let entered = self.shared.net.suspend().enter();
        let (began, limits) = (Instant::now(), self.limits());
        let deadline = asked.meta.deadline;
        let note = self.note(&asked, began);
        let account = match self.account_of(&asked.caller, &limits) {
            Ok(account) => account,
            Err(full) => {
                return match note {
                    Some(note) => noted(note, None, None, Err(full)),
                    None => Err(full),
                };
            }
        };
        // A client that has hung up while this node stood still is not to blame.
        let is_armed = !entered.is_owed();
        let mut guard = ResetGuard { account: account.clone(), began, deadline, is_armed };
        let mut link = None;
        let mut bytes_in = None;
        let work = async {
            if self.is_leaving() {
                return Err(Status::not_executed(Code::Unavailable, "the node is stopping"));
            }
            let counted = self.shared.calls.counted();
            account.expect_steady(limits.resets_max)?;
            let permit = account.permits.acquire(deadline, limits.queue_wait_max).await?;
            let Authorised { granted, held } = self.authorise(&asked)?;
            let Asked { caller, meta, bytes_min } = asked;
            let (requester, body_to_come) = (Requester::Verified(caller), Body::default());
            let mut request = Request { meta, requester, body: body_to_come };
            expect_within(bytes_min, granted)?;
            self.expect_taken(&request)?;
            let message = tokio::time::timeout_at(deadline, body).await.map_err(|_elapsed| {
                let text = "the deadline passed before the body had come";
                Status::not_executed(Code::DeadlineExceeded, text)
            })??;
            bytes_in = Some(message.len() as u64);
            let left = self.shared.net.suspend().pass(entered, deadline).await;
            request.meta.deadline = left.ok_or_else(|| suspend_guard::too_late("node"))?;
            request.body = Body::Message(message);
            let Answered { reply, route } = self.dispatch.forward(&mut request, granted).await;
            link = route;
            Ok(reply?.holding_some(held).holding(permit).holding(counted))
        };
        let answered = Box::pin(work).await;
        guard.is_armed = false;
        match note {
            Some(note) => noted(note, link.as_ref(), bytes_in, answered),
            None => answered,
        }
    }

    /// Refuses a call that no agent takes, whatever its message is.
    fn expect_taken(&self, request: &Request) -> Result<(), Status> {
        let agent = self.dispatch.routes().pick(request, None)?;
        // Of several agents another one may have room by then.
        if request.meta.target == Target::Service { Ok(()) } else { agent.permits.expect_room() }
    }

    fn authorise(&self, asked: &Asked) -> Result<Authorised, Status> {
        let Asked { caller, meta: CallMeta { method, target, .. }, .. } = asked;
        match target {
            Target::Agent(name) => {
                authorise::authorise(&self.shared, caller, policy::Target::Agent(name), method)
            }
            _ => authorise::authorise_any(&self.shared, caller, method),
        }
    }

    fn note(&self, asked: &Asked, began: Instant) -> Option<Box<CallNote>> {
        let caller = || asked.caller.to_string();
        self.shared.journal.call(|| asked.meta.facts(caller(), None, None, began))
    }

    fn account_of(&self, caller: &PeerName, limits: &Limits) -> Result<Arc<Account>, Status> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.of(caller, limits, Instant::now())
    }
}

impl Accounts {
    fn of(
        &mut self,
        caller: &PeerName,
        limits: &Limits,
        now: Instant,
    ) -> Result<Arc<Account>, Status> {
        let Self { all, swept_at } = self;
        if all.len() >= DOOR_CALLERS_MAX && !all.contains_key(caller) {
            if swept_at.is_none_or(|at| now >= at + SWEEP_EVERY) {
                *swept_at = Some(now);
                all.retain(|_, account| account.is_in_use(now));
            }
            if all.len() >= DOOR_CALLERS_MAX {
                let text = format!(
                    "{DOOR_CALLERS_MAX} callers use the gateway, and no more can be counted; try again"
                );
                return Err(Status::not_executed(Code::ResourceExhausted, text));
            }
        }
        let bounds = (limits.caller_calls_in_flight_max, limits.queue_max);
        let account = all.entry(caller.clone()).or_insert_with(|| Arc::new(Account::new(limits)));
        // New bounds hold when the last call under the old ones has ended.
        if !account.is_in_use(now) && !account.permits.is_bounded_by(bounds) {
            *account = Arc::new(Account::new(limits));
        }
        Ok(account.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_caller_has_an_account_and_one_more_has_none_until_one_is_idle() {
        let (mut accounts, limits, now) = (Accounts::default(), Limits::default(), Instant::now());
        let mut of = |n: usize, now| {
            accounts.of(&format!("caller/c{n}").parse().expect("a name"), &limits, now)
        };
        let mut held: Vec<_> =
            (0..DOOR_CALLERS_MAX).map(|n| of(n, now).expect("at the limit")).collect();
        let refused = of(DOOR_CALLERS_MAX, now).map(drop).expect_err("one past the limit");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.is_safe_to_retry(), "{refused}");
        assert!(of(0, now).is_ok(), "one that has an account keeps it");
        held.pop();
        assert!(of(DOOR_CALLERS_MAX, now).is_err(), "looked for once a second");
        assert!(of(DOOR_CALLERS_MAX, now + SWEEP_EVERY).is_ok());
        assert!(of(DOOR_CALLERS_MAX + 1, now + SWEEP_EVERY * 2).is_ok(), "the one before is idle");
    }
}
