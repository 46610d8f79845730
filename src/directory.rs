//! Types of the directory service: the agents, services and methods that one caller may see.

use crate::wire::CallKind;
use serde::{Deserialize, Serialize};

/// Name of the service that every node hosts. Open to every admitted peer, and filtered by policy.
pub const DIRECTORY: &str = "dialback.v1.Directory";

/// Agents and services that one caller may see, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Name of the reporting node.
    pub node: String,
    /// Agents that the caller may see, attached or not, by name.
    pub agents: Vec<AgentInfo>,
    /// Services of agents that are attached and take calls, by name.
    pub services: Vec<ListedService>,
}

/// Information about one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Name of the agent.
    pub name: String,
    /// True if it has a link now.
    pub attached: bool,
    /// Time at which it was attached or detached, in milliseconds since 1970.
    pub since_ms: u64,
    /// Name of the reporting node.
    pub node: String,
    /// Source address of the agent's packets, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `udp` or `tunnel`: how the packets of its link travel, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Software that the agent reports, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// Calls in flight from this node to the agent.
    #[serde(default)]
    pub calls_in_flight: u64,
    /// Round-trip time of its link in microseconds, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// True if it is attached and takes no more calls, because it is closing gracefully.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    /// True if two instances with its certificate keep taking over from each other, or did within
    /// ten minutes. Each needs its own certificate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub certificate_used_twice: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A service that a caller may call, over all attached agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedService {
    /// Name of the service.
    pub name: String,
    /// Description by the first agent, by name, that has one. It is not verified.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Methods, by name. A method that agents host as two kinds is listed once for each.
    pub methods: Vec<ListedMethod>,
}

/// A method that a caller may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMethod {
    /// Name of the method. A forward is listed under its kind, `tcp`, as if that were a service.
    /// [`crate::ANY_METHOD`] stands for all methods of a service that the agent does not know.
    pub name: String,
    /// Kind of calls.
    pub kind: CallKind,
    /// Description by the first agent, by name, that has one. Not verified, as the schemas.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// JSON Schema of a request message, as text, from the same agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_schema: String,
    /// JSON Schema of a reply message.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reply_schema: String,
    /// Agents on which the caller may call it by name, sorted.
    pub agents: Vec<String>,
    /// Agents of these that may answer a call that names only the service, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

impl ListedMethod {
    /// Path of the method in a service of this name: `HelloService/Hello`, for a forward `tcp:db`.
    pub fn path(&self, service: &str) -> String {
        self.kind.path(service, &self.name)
    }
}
