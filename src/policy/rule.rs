//! The rules themselves: what stands in one `[[allow]]`, `[[deny]]` or `[[host]]`, and where it was written.

use super::{AskerGlob, Target, TargetGlob};
use crate::name::{MethodGlob, MethodPath, Name, NameError, NameGlob, PeerName, ServiceGlob};
use std::{fmt, sync::Arc, time::Duration};

/// Where a rule was written, so that a decision can be explained. `Default` is the program itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The file as it was named to us; none for a rule that a program made.
    pub file: Option<Arc<str>>,
    /// The line of the rule's header, from 1.
    pub line: u32,
}

impl Origin {
    /// Names a line of a file.
    pub fn at(file: impl Into<Arc<str>>, line: u32) -> Self {
        Self { file: Some(file.into()), line }
    }

    /// Names a rule in a sentence: `the [[allow]] rule at node.toml:12`.
    pub(super) fn cite(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        match self.file {
            Some(_) => write!(f, "the [[{kind}]] rule at {self}"),
            None => write!(f, "{self} ({kind})"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}:{}", self.line),
            None => f.write_str("a rule set in the program"),
        }
    }
}

/// Opens methods of agents, or of the node itself, to askers, within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllowRule {
    /// Who may ask.
    pub caller: AskerGlob,
    /// On what.
    pub agent: TargetGlob,
    /// For which methods.
    pub method: MethodGlob,
    /// The longest deadline that a call under this rule may have; longer ones are cut to it.
    pub timeout_max: Option<Duration>,
    /// Whether an attempt that may have run may be repeated. Only the operator can know.
    pub idempotent: bool,
    /// The largest message, in bytes, where it is to be smaller than the node's own bound.
    pub message_bytes_max: Option<usize>,
    /// Where the rule was written.
    pub origin: Origin,
}

impl AllowRule {
    /// Allows without bounds of its own; the fields may be set after.
    pub fn new(caller: AskerGlob, agent: TargetGlob, method: MethodGlob) -> Self {
        Self {
            caller,
            agent,
            method,
            timeout_max: None,
            idempotent: false,
            message_bytes_max: None,
            origin: Origin::default(),
        }
    }

    /// Reads the three patterns as a rule in a file has them: `parse("billing", "acme.*", "Stock/*")`.
    pub fn parse(caller: &str, agent: &str, method: &str) -> Result<Self, NameError> {
        Ok(Self::new(caller.parse()?, agent.parse()?, method.parse()?))
    }

    pub(super) fn covers(&self, asker: &PeerName, target: Target<'_>, method: &MethodPath) -> bool {
        self.caller.matches(asker) && self.agent.matches(target) && self.method.matches(method)
    }
}

/// Closes what some `[[allow]]` opens. Deny wins, wherever it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DenyRule {
    /// Who may not ask.
    pub caller: AskerGlob,
    /// On what.
    pub agent: TargetGlob,
    /// For which methods.
    pub method: MethodGlob,
    /// Where the rule was written.
    pub origin: Origin,
}

impl DenyRule {
    /// Denies; the origin may be set after.
    pub fn new(caller: AskerGlob, agent: TargetGlob, method: MethodGlob) -> Self {
        Self { caller, agent, method, origin: Origin::default() }
    }

    /// Reads the three patterns as a rule in a file has them.
    pub fn parse(caller: &str, agent: &str, method: &str) -> Result<Self, NameError> {
        Ok(Self::new(caller.parse()?, agent.parse()?, method.parse()?))
    }

    pub(super) fn covers(&self, asker: &PeerName, target: Target<'_>, method: &MethodPath) -> bool {
        self.caller.matches(asker) && self.agent.matches(target) && self.method.matches(method)
    }
}

/// Lets agents answer calls that name only the service. A call that names its agent needs no such rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostRule {
    /// Which agents.
    pub agent: NameGlob,
    /// For which services.
    pub service: ServiceGlob,
    /// Where the rule was written.
    pub origin: Origin,
}

impl HostRule {
    /// Grants; the origin may be set after.
    pub fn new(agent: NameGlob, service: ServiceGlob) -> Self {
        Self { agent, service, origin: Origin::default() }
    }

    /// Reads the two patterns as a rule in a file has them.
    pub fn parse(agent: &str, service: &str) -> Result<Self, NameError> {
        Ok(Self::new(agent.parse()?, service.parse()?))
    }

    pub(super) fn covers(&self, agent: &Name, service: &str) -> bool {
        self.agent.matches(agent) && self.service.matches(service)
    }
}

/// The word of an agent's owner: through which node, for whom, which methods.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentRule {
    /// Nodes that may bring the call.
    pub node: NameGlob,
    /// Who may ask, by the node's word.
    pub caller: AskerGlob,
    /// For which methods.
    pub method: MethodGlob,
    /// Where the rule was written.
    pub origin: Origin,
}

impl AgentRule {
    /// Allows; the origin may be set after.
    pub fn new(node: NameGlob, caller: AskerGlob, method: MethodGlob) -> Self {
        Self { node, caller, method, origin: Origin::default() }
    }

    /// Reads the three patterns as a rule in a file has them.
    pub fn parse(node: &str, caller: &str, method: &str) -> Result<Self, NameError> {
        Ok(Self::new(node.parse()?, caller.parse()?, method.parse()?))
    }

    pub(super) fn covers(&self, node: &Name, asker: &PeerName, method: &MethodPath) -> bool {
        self.node.matches(node) && self.caller.matches(asker) && self.method.matches(method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_names_its_file_and_line_or_the_program() {
        assert_eq!(Origin::at("node.toml", 12).to_string(), "node.toml:12");
        assert_eq!(Origin::default().to_string(), "a rule set in the program");
    }

    #[test]
    fn a_rule_with_one_bad_pattern_is_refused() {
        assert!(AllowRule::parse("billing", "acme.*", "Stock/*").is_ok());
        assert!(AllowRule::parse("Billing", "acme.*", "Stock/*").is_err());
        assert!(AllowRule::parse("billing", "agent/acme", "Stock/*").is_err());
        assert!(AllowRule::parse("billing", "acme.*", "Stock").is_err());
        assert!(HostRule::parse("acme.*", "Stock").is_ok());
        assert!(HostRule::parse("acme.*", "Stock/List").is_err());
        assert!(AgentRule::parse("edge-*", "billing", "*/*").is_ok());
        assert!(AgentRule::parse("node/edge", "billing", "*/*").is_err());
    }
}
