//! The types of the directory that every node hosts: its agents and their services, as one caller
//! may see them.

use crate::wire::CallKind;
use serde::{Deserialize, Serialize};

/// The service that every node hosts, open to every admitted peer and filtered by policy.
pub const DIRECTORY: &str = "dialback.v1.Directory";

/// What there is to call, as one caller may see it: a picture of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The node that says so.
    pub node: String,
    /// The agents that the caller may see, attached or not, by name.
    pub agents: Vec<AgentInfo>,
    /// The services of agents that are attached and take calls, by name.
    pub services: Vec<ListedService>,
}

/// What is known of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The agent's name.
    pub name: String,
    /// Whether it has a link now.
    pub attached: bool,
    /// Attached or detached since: milliseconds since 1970.
    pub since_ms: u64,
    /// The node that says so.
    pub node: String,
    /// Where the agent's packets come from, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What the agent says it runs, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// Calls of this node that it is answering.
    #[serde(default)]
    pub calls_in_flight: u64,
    /// The round-trip time of its link in microseconds, while it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Whether it is attached and takes no more calls, because it is leaving.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    /// Whether two instances with its certificate keep taking over from each other, or did within
    /// ten minutes: each needs its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub certificate_used_twice: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// One service as a caller may call it, over all agents that are attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedService {
    /// Its name.
    pub name: String,
    /// What it is for, in the words of the first agent by name that has any. Nobody has vouched for
    /// them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its methods, by name. One that agents host as two kinds stands here once for each.
    pub methods: Vec<ListedMethod>,
}

/// One method as a caller may call it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMethod {
    /// Its name; a forward's stands under its kind, `tcp`, as if that were a service.
    /// [`crate::ANY_METHOD`] stands for whatever methods the service has, where the agent does not
    /// know.
    pub name: String,
    /// Its shape.
    pub kind: CallKind,
    /// What it does, in the words of the first agent by name that has any. Nobody has vouched for
    /// them, nor for the schemas.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The JSON Schema of a message of its request, as text, of the same agent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_schema: String,
    /// The same of a message of its reply.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reply_schema: String,
    /// The agents on which the caller may call it by name, sorted.
    pub agents: Vec<String>,
    /// Those of them that may answer a call that names only the service, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

impl ListedMethod {
    /// How it is called, as a method of a service of this name: `HelloService/Hello`, a forward
    /// `tcp:db`.
    pub fn path(&self, service: &str) -> String {
        self.kind.path(service, &self.name)
    }
}
