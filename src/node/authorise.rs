//! Authorises calls by the policy and by the quotas of its rules.

use super::{quotas::InFlight, state::NodeState};
use crate::{
    name::{HttpSuffix, HttpTarget, MethodPath, PeerName, Role},
    observe::Event,
    policy::{Decision, Denied, Grant, PolicyTarget},
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
    /// True if a large reply may be handed over while it comes, after which nothing is repeated.
    pub(super) is_reply_passed_on: bool,
}

impl CallGrant {
    /// Calls of the embedding program, and those of an MCP server that are about no tool, are not
    /// limited.
    pub(super) const IN_PROCESS: Self = Self {
        timeout_max: None,
        message_bytes_max: None,
        is_idempotent: false,
        is_reply_passed_on: false,
    };

    fn by(grant: Grant<'_>) -> Self {
        Self {
            timeout_max: grant.timeout_max(),
            message_bytes_max: grant.message_bytes_max(),
            is_idempotent: grant.is_idempotent(),
            is_reply_passed_on: false,
        }
    }
}

/// A call that the policy allows, with the permit of a rule that counts calls; held to its end.
pub(super) struct Authorised {
    pub(super) granted: CallGrant,
    pub(super) in_flight: Option<InFlight>,
}

/// Authorises the call of a peer and charges it to the quotas of its rule. A refusal is the same
/// whether the agent exists or not. Without a target, the first rule that allows the method on any
/// agent counts the call; the hosts that may answer are determined when one is picked. Calls of
/// HTTP forwards have an HTTP target.
pub(super) fn authorise(
    shared: &NodeState,
    requester: &PeerName,
    target: Option<PolicyTarget<'_>>,
    method: &MethodPath,
    http: Option<&HttpTarget>,
) -> Result<Authorised, Status> {
    if method.is_http() && http.is_none() {
        let text = format!("the call of {method} has no verb and no path");
        return Err(Status::not_executed(Code::InvalidArgument, text));
    }
    // Calls of MCP servers always have the same: their methods name what they are about.
    let http = http.filter(|_| method.is_http());
    let refused = RefusedCall { shared, caller: requester, target, method, http };
    let policy = shared.policy.get();
    let decision = match target {
        Some(target) => policy.decide(requester, target, method, http),
        None => policy
            .grant_anywhere(requester, method, http)
            .map_or(Decision::Deny(Denied::NoRule), Decision::Allow),
    };
    let grant = match decision {
        Decision::Allow(grant) => grant,
        Decision::Deny(denied) => {
            refused.report(Code::PermissionDenied, &denied);
            let on = target.map(|target| format!(" on {target}")).unwrap_or_default();
            let http = HttpSuffix(http);
            let text = format!(
                "{requester} may not call {method}{http}{on}; no [[allow]] rule of the node permits it"
            );
            return Err(Status::not_executed(Code::PermissionDenied, text));
        }
    };
    if method.is_mcp_server() {
        // Rules limit tools; what is about none of them, such as a list or a stream of
        // notifications, must not use up what a caller may do with one.
        return Ok(Authorised { granted: CallGrant::IN_PROCESS, in_flight: None });
    }
    match shared.quotas.take(grant.rule(), requester, Instant::now()) {
        Ok(in_flight) => Ok(Authorised { granted: CallGrant::by(grant), in_flight }),
        Err(used_up) => {
            refused.report(Code::ResourceExhausted, &format_args!("{used_up}; {grant}"));
            Err(used_up.into())
        }
    }
}

/// A refused call. Without a target it is for any agent.
struct RefusedCall<'a> {
    shared: &'a NodeState,
    caller: &'a PeerName,
    target: Option<PolicyTarget<'a>>,
    method: &'a MethodPath,
    http: Option<&'a HttpTarget>,
}

impl RefusedCall<'_> {
    fn report(&self, code: Code, reason: &dyn fmt::Display) {
        let Self { shared, caller, target, method, http } = *self;
        let target = target.map(|target| match target {
            PolicyTarget::Agent(name) => PeerName::new(Role::Agent, name.clone()),
            PolicyTarget::Node(name) => PeerName::new(Role::Node, name.clone()),
        });
        let target = target.as_ref();
        shared.observer.report(Event::CallRefused {
            caller,
            target,
            via: None,
            method,
            code,
            reason: &format_args!("{reason}{}", HttpSuffix(http)),
        });
    }
}
