//! Changes of what an agent hosts while it runs: new services answer before nodes know of them, and
//! those of before until no call for them can be on its way.

use super::{
    ServiceSet,
    hosted_services::HostedServices,
    state::{AgentState, AttachedLink, in_use},
};
use crate::{
    limits::{HELLO_WAIT_MAX, Limits, PREVIOUS_SERVICES_WAIT},
    serve::ServiceError,
};
use std::{sync::Arc, time::Duration};

impl AgentState {
    /// The next set, for messages within these limits, while the rules of before still apply.
    #[cfg_attr(
        not(feature = "forward"),
        expect(unused_variables, reason = "only MCP forwards have such limits")
    )]
    pub(super) fn hosted_next(
        &self,
        set: ServiceSet,
        limits: &Limits,
    ) -> Result<HostedServices, ServiceError> {
        let hosted = self.hosted.borrow().clone();
        #[cfg(feature = "forward")]
        let next = hosted.next(set, self.policy.get(), |forward, owners| {
            let held = (limits.message_bytes_max, self.memory.clone());
            forward.into_service(
                self.policy.clone(),
                held,
                (self.links.clone(), self.drain.clone()),
                owners,
            )
        });
        #[cfg(not(feature = "forward"))]
        let next = hosted.next(set, self.policy.get());
        next
    }

    /// Hosts the next set. Its nodes register it, and after that the previous one answers no more.
    pub(super) fn host(self: &Arc<Self>, next: HostedServices) {
        let (has_previous, version) = (next.has_previous(), next.version);
        self.hosted.send_replace(Arc::new(next));
        if has_previous {
            let state = self.clone();
            self.links.spawn_until_stopped(async move { state.end_previous(version).await });
        }
    }

    /// Waits until only the present services answer.
    pub(super) async fn previous_ended(&self) {
        let mut hosted = self.hosted.subscribe();
        // The sender is in `self`, so this ends only when it is true.
        drop(hosted.wait_for(|hosted| !hosted.has_previous()).await);
    }

    async fn end_previous(&self, version: u64) {
        let mut attached = self.attached.subscribe();
        let is_current = |link: &AttachedLink| link.is_retiring || link.hosted >= version;
        let registered = attached.wait_for(|all| in_use(all).all(is_current));
        // A node that does not answer loses its link by the heartbeat.
        let have_all = tokio::time::timeout(HELLO_WAIT_MAX, registered).await.is_ok();
        tokio::time::sleep(self.on_their_way()).await;
        let has_ended = self.hosted.send_if_modified(|hosted| {
            let is_last = hosted.version == version;
            if is_last {
                *hosted = Arc::new(hosted.without_previous());
            }
            is_last
        });
        match (has_ended, have_all) {
            (false, _) => {}
            (true, true) => tracing::info!(
                "the nodes have registered what is hosted now; services that were left out answer no more"
            ),
            (true, false) => tracing::warn!(
                "a node has not confirmed what is hosted now; services that were left out answer no more all the same"
            ),
        }
    }

    /// How long calls may take that nodes sent before they confirmed, with packets lost once.
    fn on_their_way(&self) -> Duration {
        let attached = self.attached.borrow();
        let slowest = in_use(&attached).map(|attached| attached.link.rtt()).max();
        let [least, most] = PREVIOUS_SERVICES_WAIT;
        (4 * slowest.unwrap_or_default()).clamp(least, most)
    }
}
