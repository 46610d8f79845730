//! Whether a node or an agent is ready for calls, and each of its services.

use serde::Serialize;
use std::collections::BTreeMap;

/// Readiness of a node or an agent at one moment. As JSON it is the body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Readiness {
    /// True if it takes calls now.
    pub ready: bool,
    /// Why it does not; empty if it does.
    pub reasons: Vec<String>,
    /// Services of an agent, by the names that rules use: `HelloService`, `http:grafana`. A service
    /// that is not ready does not make its agent unready.
    pub services: BTreeMap<String, ServiceReadiness>,
}

/// Readiness of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ServiceReadiness {
    /// True if calls of it may succeed, as far as the last ones and its checks show.
    pub ready: bool,
    /// Why they may not; empty if they may.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Ready without reasons against it.
    pub(crate) fn new(reasons: Vec<String>, services: BTreeMap<String, ServiceReadiness>) -> Self {
        Self { ready: reasons.is_empty(), reasons, services }
    }
}

impl ServiceReadiness {
    pub(crate) fn new(reasons: Vec<String>) -> Self {
        Self { ready: reasons.is_empty(), reasons }
    }
}
