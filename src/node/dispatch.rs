//! One call through the node: policy gives a grant, the registry a link, the link a permit, and then it is asked.

use super::{Shared, SharedAgentLink};
use crate::{
    call::{AskLimits, Handler, Reply, Request, Target, ask},
    name::{MethodPath, Name, PeerName},
    policy::{self, Decision},
    status::{Code, Status},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What the policy allows a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    timeout_max: Option<Duration>,
    message_bytes_max: Option<usize>,
}

impl Granted {
    /// The embedding program's own calls: its business.
    const IN_PROCESS: Self = Self { timeout_max: None, message_bytes_max: None };
}

/// Calls agents. In process it is what a handle calls; for remote callers it is the handler behind their streams.
pub(super) struct Dispatch {
    shared: Arc<Shared>,
}

impl Dispatch {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends a call that was granted.
    pub(super) async fn forward(
        &self,
        request: &mut Request,
        granted: Granted,
    ) -> Result<Reply, Status> {
        bound(request, granted)?;
        let Target::Agent(name) = std::mem::replace(&mut request.target, Target::Here) else {
            return Err(Status::not_executed(Code::InvalidArgument, "the call names no agent"));
        };
        let agent = self.pick(&name)?;
        let limits = &*self.shared.limits;
        let permit = agent.permits.acquire(request.deadline, limits.queue_wait_max).await?;
        let limits = AskLimits::from(limits).after_queueing(permit.waited());
        // The node's own calls go without a name: the agent knows the node by its certificate.
        let caller = (request.caller != self.shared.peer).then_some(&request.caller);
        ask(&agent.link, request, limits, caller).await
    }

    fn pick(&self, name: &Name) -> Result<SharedAgentLink, Status> {
        if self.shared.calls.is_draining() {
            return Err(Status::not_executed(Code::Unavailable, "the node is stopping"));
        }
        self.shared.registry().pick(name).cloned().ok_or_else(|| {
            Status::not_executed(Code::Unavailable, format!("agent {name} is not attached"))
        })
    }
}

impl Handler for Dispatch {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        let _counted = self.shared.calls.counted();
        self.forward(&mut request, Granted::IN_PROCESS).await
    }
}

/// Puts the bounds of the grant on a request.
fn bound(request: &mut Request, granted: Granted) -> Result<(), Status> {
    if let Some(timeout_max) = granted.timeout_max {
        request.deadline = request.deadline.min(Instant::now() + timeout_max);
    }
    match granted.message_bytes_max {
        Some(max) if request.message.len() > max => {
            let text = format!(
                "the message of {} bytes is over the rule's limit of {max} bytes (message_max)",
                request.message.len()
            );
            Err(Status::not_executed(Code::ResourceExhausted, text))
        }
        _ => Ok(()),
    }
}

/// Asks the policy about a remote party's call. A refusal says the same whether the agent exists or not.
pub(super) fn authorise(
    shared: &Shared,
    asker: &PeerName,
    target: policy::Target<'_>,
    method: &MethodPath,
) -> Result<Granted, Status> {
    match shared.policy.decide(asker, target, method) {
        Decision::Allow(grant) => Ok(Granted {
            timeout_max: grant.timeout_max(),
            message_bytes_max: grant.message_bytes_max(),
        }),
        Decision::Deny(denied) => {
            tracing::warn!("refused {asker}: {method} on {target}: {denied}");
            let text = format!(
                "{asker} may not call {method} on {target}; an [[allow]] rule of the node would have to say so"
            );
            Err(Status::not_executed(Code::PermissionDenied, text))
        }
    }
}
