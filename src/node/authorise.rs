//! Authorises calls by the policy and by the quotas of its rules.

use super::{quotas::InFlight, state::NodeState};
use crate::{
    name::{MethodPath, PeerName, Role},
    observe::Event,
    policy::{self, Decision},
    status::{Code, Status},
};
use std::{fmt, time::Duration};
use tokio::time::Instant;

/// Limits that the policy sets for a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallGrant {
    pub(super) timeout_max: Option<Duration>,
    pub(super) message_bytes_max: Option<usize>,
    /// True if an attempt that may have run may be repeated.
    pub(super) is_idempotent: bool,
}

impl CallGrant {
    /// Calls of the embedding program are not limited.
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

/// A call that the policy allows, with its permit under a rule that counts calls in flight. Held
/// until the call has ended.
pub(super) struct Authorised {
    pub(super) granted: CallGrant,
    pub(super) in_flight: Option<InFlight>,
}

/// Authorises the call of a peer and charges it to the quotas of its rule. A refusal is the same
/// whether the agent exists or not.
pub(super) fn authorise(
    shared: &NodeState,
    requester: &PeerName,
    target: policy::PolicyTarget<'_>,
    method: &MethodPath,
) -> Result<Authorised, Status> {
    let question = Question { requester, target: Some(target), method };
    match shared.policy.get().decide(requester, target, method) {
        Decision::Allow(grant) => question.count(shared, grant),
        Decision::Deny(denied) => {
            question.refused(shared, Code::PermissionDenied, &denied);
            let text = format!(
                "{requester} may not call {method} on {target}; no [[allow]] rule of the node permits it"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}

/// Authorises a call that names only a service. The first rule that allows the method on any agent
/// counts it. The hosts that may answer are determined when one is picked.
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
                "{requester} may not call {method}; no [[allow]] rule of the node permits it"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}

/// A call to authorise. Without a target it is for any agent.
#[derive(Clone, Copy)]
struct Question<'a> {
    requester: &'a PeerName,
    target: Option<policy::PolicyTarget<'a>>,
    method: &'a MethodPath,
}

impl Question<'_> {
    /// Charges the call to the quotas of its rule.
    fn count(self, shared: &NodeState, grant: policy::Grant<'_>) -> Result<Authorised, Status> {
        match shared.quotas.take(grant.rule(), self.requester, Instant::now()) {
            Ok(in_flight) => Ok(Authorised { granted: CallGrant::by(grant), in_flight }),
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
            policy::PolicyTarget::Agent(name) => PeerName::new(Role::Agent, name.clone()),
            policy::PolicyTarget::Node(name) => PeerName::new(Role::Node, name.clone()),
        });
        let target = target.as_ref();
        let refused = Event::CallRefused { caller, target, via: None, method, code, reason };
        shared.observer.report(refused);
    }
}
