//! What the policy says of a call, and what its rules leave the caller.

use super::{quotas::InFlight, state::NodeState};
use crate::{
    name::{MethodPath, PeerName, Role},
    observe::Event,
    policy::{self, Decision},
    status::{Code, Status},
};
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// What the policy allows a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) timeout_max: Option<Duration>,
    pub(super) message_bytes_max: Option<usize>,
    /// Whether an attempt that may have run may be repeated.
    pub(super) is_idempotent: bool,
}

impl Granted {
    /// The embedding program's own calls: its business.
    pub(super) const IN_PROCESS: Self =
        Self { timeout_max: None, message_bytes_max: None, is_idempotent: false };

    fn by(grant: policy::Grant<'_>) -> Self {
        Self {
            timeout_max: grant.timeout_max(),
            message_bytes_max: grant.message_bytes_max(),
            is_idempotent: grant.is_idempotent(),
        }
    }
}

/// A call that the policy has let pass, and the place that it takes among those that its rule
/// counts. Held until the call has ended.
pub(super) struct Authorised {
    pub(super) granted: Granted,
    pub(super) in_flight: Option<InFlight>,
}

/// Asks the policy about a remote party's call, and takes one from what its rule leaves the party.
/// A refusal says the same whether the agent exists or not.
pub(super) fn authorise(
    shared: &NodeState,
    requester: &PeerName,
    target: policy::Target<'_>,
    method: &MethodPath,
) -> Result<Authorised, Status> {
    let question = Question { requester, target: Some(target), method };
    match shared.policy.get().decide(requester, target, method) {
        Decision::Allow(grant) => question.count(shared, grant),
        Decision::Deny(denied) => {
            question.refused(shared, Code::PermissionDenied, &denied);
            let text = format!(
                "{requester} may not call {method} on {target}; an [[allow]] rule of the node would have to say so"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}

/// The same for a call that names only the service, which the first rule that opens the method on
/// some agent counts. Which agents may answer it is looked at when one is picked.
pub(super) fn authorise_any(
    shared: &NodeState,
    requester: &PeerName,
    method: &MethodPath,
) -> Result<Authorised, Status> {
    let question = Question { requester, target: None, method };
    match shared.policy.get().grant_anywhere(requester, method) {
        Some(grant) => question.count(shared, grant),
        None => {
            question.refused(shared, Code::PermissionDenied, &policy::Denied::NoRule);
            let text = format!(
                "{requester} may not call {method}; an [[allow]] rule of the node would have to say so"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}

/// What is asked of the policy; without a target it is any agent.
#[derive(Clone, Copy)]
struct Question<'a> {
    requester: &'a PeerName,
    target: Option<policy::Target<'a>>,
    method: &'a MethodPath,
}

impl Question<'_> {
    /// Takes the call from what its rule leaves the caller.
    fn count(self, shared: &NodeState, grant: policy::Grant<'_>) -> Result<Authorised, Status> {
        match shared.quotas.take(grant.rule(), self.requester, Instant::now()) {
            Ok(in_flight) => Ok(Authorised { granted: Granted::by(grant), in_flight }),
            Err(used_up) => {
                let why = format_args!("{used_up}; {grant}");
                self.refused(shared, Code::ResourceExhausted, &why);
                Err(used_up.into())
            }
        }
    }

    fn refused(self, shared: &NodeState, code: Code, reason: &dyn fmt::Display) {
        let Self { requester: caller, target, method } = self;
        let target = target.map(|target| match target {
            policy::Target::Agent(name) => PeerName::new(Role::Agent, name.clone()),
            policy::Target::Node(name) => PeerName::new(Role::Node, name.clone()),
        });
        let target = target.as_ref();
        let refused = Event::CallRefused { caller, target, via: None, method, code, reason };
        shared.observer.report(refused);
    }
}
