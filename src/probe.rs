//! Probe calls: they show that the peer at the other end of a link answers calls. No rule is asked,
//! and they are not recorded.

use crate::{
    call::{Body, CallMeta, InitiatorLimits, Reply, Request, Requester, Target, ask},
    directory::DIRECTORY,
    limits::HEALTH_CHECK_WAIT_MAX,
    link::Link,
    name::{CallIds, MethodPath, NameError, PeerName},
    status::{Code, Status},
    wire::CallKind,
};
use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

/// Service that every agent hosts, for its nodes.
const AGENT: &str = "dialback.v1.Agent";

/// The method of the directory by which an agent has itself probed, and of the agent that answers.
pub(crate) const PROBE: &str = "Probe";

/// The CBOR value `null`.
const NULL: Bytes = Bytes::from_static(&[0xf6]);

/// True for the probe that an agent asks its node for.
pub(crate) fn is_of_node(method: &MethodPath) -> bool {
    method.method() == PROBE && method.service() == DIRECTORY
}

/// True for the probe of an agent by its node.
pub(crate) fn is_of_agent(method: &MethodPath) -> bool {
    method.method() == PROBE && method.service() == AGENT
}

/// The answer to a probe.
pub(crate) fn answer() -> Reply {
    Reply::new(NULL)
}

/// Who probes.
pub(crate) struct Prober<'a> {
    pub(crate) peer: &'a PeerName,
    pub(crate) call_ids: &'a CallIds,
    pub(crate) limits: InitiatorLimits,
}

impl Prober<'_> {
    /// Has the node of a link call this agent, and waits for two seconds at most.
    ///
    /// # Errors
    /// The node or the way back to the agent does not answer.
    pub(crate) async fn probe_node(&self, link: &Link) -> Result<(), Status> {
        self.probe(link, DIRECTORY, Instant::now() + HEALTH_CHECK_WAIT_MAX).await
    }

    /// Calls the agent of a link.
    ///
    /// # Errors
    /// It does not answer in time.
    pub(crate) async fn probe_agent(&self, link: &Link, deadline: Instant) -> Result<(), Status> {
        self.probe(link, AGENT, deadline).await
    }

    async fn probe(&self, link: &Link, service: &str, deadline: Instant) -> Result<(), Status> {
        let method: MethodPath = format!("{service}/{PROBE}")
            .parse()
            .map_err(|fault: NameError| Status::internal(fault.to_string()))?;
        let call_id = self.call_ids.next_id();
        let meta = CallMeta::new(method, CallKind::Unary, Target::Here, call_id, deadline);
        let requester = Requester::Verified(self.peer.clone());
        let mut request = Request { meta, requester, body: Body::Message(NULL) };
        let asking = ask(link, &mut request, self.limits, None, None);
        match timeout_at(deadline, asking).await {
            Ok(Ok(_reply)) => Ok(()),
            // A peer that does not know probes has answered all the same.
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
            Ok(Err(status)) => Err(status),
            Err(_elapsed) => Err(Status::unknown(Code::DeadlineExceeded, "no answer in time")),
        }
    }
}
