//! Readiness of an agent: its links answer probes, and its services are assessed one by one.

use super::state::{AgentState, AttachedLink, STOPS, in_use};
use crate::{probe::Prober, readiness::Readiness};
use std::sync::Arc;
use tokio::{task::JoinSet, time::Instant};

impl AgentState {
    pub(super) async fn readiness(self: &Arc<Self>) -> Readiness {
        let (mut probing, mut assessing) = (JoinSet::new(), JoinSet::new());
        let links = in_use(&self.attached.borrow()).cloned().collect::<Vec<_>>();
        for attached in links.into_iter().filter(|attached| !attached.is_retiring) {
            let state = self.clone();
            probing.spawn(async move { (state.probe(&attached).await, attached) });
        }
        let hosted = self.hosted.borrow().clone();
        for (name, health) in hosted.services.health() {
            let (name, health) = (name.clone(), health.clone());
            assessing.spawn(async move { (name, health.assess().await) });
        }
        let (links, services) = tokio::join!(probing.join_all(), assessing.join_all());
        Readiness::new(self.reasons(&links), services.into_iter().collect())
    }

    fn reasons(&self, links: &[(Option<String>, AttachedLink)]) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push(STOPS.to_owned());
        }
        let [over, _soon] = self.dialler.trust().credentials().expiry_lines(self.net.now());
        reasons.extend(over);
        if links.is_empty() {
            reasons.push("it is registered on no node".to_owned());
        } else if links.iter().all(|(fault, _)| fault.is_some()) {
            reasons.extend(links.iter().filter_map(|(fault, AttachedLink { node, .. })| {
                Some(format!("node {node} answers no probe: {}", fault.as_ref()?))
            }));
        } else if links.iter().all(|(_, attached)| attached.permits.is_full()) {
            let text = "it takes no more calls: all permits are taken (calls_in_flight_max)";
            reasons.push(text.to_owned());
        }
        reasons
    }

    /// Probes a link if it is time. Returns why it counts as not answering.
    async fn probe(&self, attached: &AttachedLink) -> Option<String> {
        let mut last = attached.probe.0.lock().await;
        let asked_at = Instant::now();
        if last.is_due(asked_at) {
            let limits = (&*self.limits.get()).into();
            let prober = Prober { peer: &self.peer, call_ids: &self.call_ids, limits };
            let answered = prober.probe_node(&attached.link).await;
            last.note(asked_at, Instant::now(), answered.err().map(|fault| fault.to_string()));
        }
        last.fault(Instant::now()).map(str::to_owned)
    }
}
