//! Patterns of rules over requesters and targets: a pattern over names, and a role.

use crate::name::{Name, NameError, NameGlob, PeerName, Role};
use std::{fmt, str::FromStr};

/// Pattern over requesters of one role: `billing`, `acme.*` and `**` are callers, `agent/warehouse`
/// and `node/*` say their role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequesterGlob {
    role: Role,
    names: NameGlob,
}

impl RequesterGlob {
    /// Joins a role and a pattern over names of that role.
    pub const fn new(role: Role, names: NameGlob) -> Self {
        Self { role, names }
    }

    /// True if the pattern covers the peer.
    pub fn matches(&self, requester: &PeerName) -> bool {
        self.role == requester.role && self.names.matches(&requester.name)
    }
}

impl FromStr for RequesterGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            Some((role, names)) => Ok(Self::new(role.parse()?, names.parse()?)),
            None => Ok(Self::new(Role::Caller, text.parse()?)),
        }
    }
}

/// Shown in the shortest form: a caller without its role.
impl fmt::Display for RequesterGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            Role::Caller => write!(f, "{}", self.names),
            role => write!(f, "{role}/{}", self.names),
        }
    }
}

/// Target of a call: an agent's services, or those of the node itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyTarget<'a> {
    /// The agent of this name.
    Agent(&'a Name),
    /// The node of this name.
    Node(&'a Name),
}

impl fmt::Display for PolicyTarget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(name) => write!(f, "agent {name}"),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

/// Pattern over targets: `acme.*` are agents, `node/NAME` are the services of the node itself. `**`
/// is every agent and never a node, so that a rule for agents does not open the node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetGlob {
    /// Agents of these names.
    Agents(NameGlob),
    /// Nodes of these names.
    Nodes(NameGlob),
}

impl TargetGlob {
    /// True if the pattern covers the target.
    pub fn matches(&self, target: PolicyTarget<'_>) -> bool {
        match (self, target) {
            (Self::Agents(names), PolicyTarget::Agent(name)) => names.matches(name),
            (Self::Nodes(names), PolicyTarget::Node(name)) => names.matches(name),
            _ => false,
        }
    }
}

impl FromStr for TargetGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.split_once('/') {
            None => Ok(Self::Agents(text.parse()?)),
            Some(("node", names)) => Ok(Self::Nodes(names.parse()?)),
            Some(_) => Err(NameError::new(
                "agent pattern",
                text,
                "has a role; write an agent's name alone, or node/NAME for what the node hosts",
            )),
        }
    }
}

impl fmt::Display for TargetGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agents(names) => write!(f, "{names}"),
            Self::Nodes(names) => write!(f, "node/{names}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_requester(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob: RequesterGlob = pattern.parse().expect("a pattern");
        for requester in yes {
            assert!(
                glob.matches(&requester.parse().expect("a peer")),
                "{pattern} missed {requester}"
            );
        }
        for requester in no {
            assert!(
                !glob.matches(&requester.parse().expect("a peer")),
                "{pattern} took {requester}"
            );
        }
    }

    #[test]
    fn a_requester_pattern_covers_one_role_and_callers_when_it_names_none() {
        check_requester("billing", &["caller/billing"], &["agent/billing", "node/billing"]);
        check_requester("caller/billing", &["caller/billing"], &["agent/billing"]);
        check_requester("**", &["caller/a", "caller/a.b"], &["agent/a", "node/a"]);
        check_requester("agent/acme.*", &["agent/acme.a"], &["caller/acme.a", "agent/acme"]);
        check_requester("node/*", &["node/edge-1"], &["caller/edge-1", "agent/edge-1"]);
    }

    #[track_caller]
    fn check_target(pattern: &str, target: &str, expected: bool) {
        let glob: TargetGlob = pattern.parse().expect("a pattern");
        let peer: PeerName = target.parse().expect("a peer");
        let target = match peer.role {
            Role::Node => PolicyTarget::Node(&peer.name),
            _ => PolicyTarget::Agent(&peer.name),
        };
        assert_eq!(glob.matches(target), expected, "{pattern} against {target:?}");
    }

    #[test]
    fn a_target_pattern_covers_agents_or_nodes_and_never_both() {
        check_target("**", "agent/acme.a", true);
        check_target("**", "node/edge-1", false);
        check_target("acme.*", "agent/acme.a", true);
        check_target("acme.*", "agent/acme", false);
        check_target("node/edge-*", "node/edge-1", true);
        check_target("node/edge-*", "agent/edge-1", false);
        check_target("node/**", "node/a.b", true);
    }

    #[test]
    fn texts_that_are_not_patterns_are_refused() {
        for bad in ["", "boss/a", "agent/", "/a", "agent/a/b", "Agent/a", "a b"] {
            assert!(bad.parse::<RequesterGlob>().is_err(), "{bad:?} was taken for a requester");
        }
        for bad in ["", "agent/a", "caller/a", "node/", "node/a/b", "A"] {
            assert!(bad.parse::<TargetGlob>().is_err(), "{bad:?} was taken for a target");
        }
    }

    #[test]
    fn patterns_are_shown_in_a_form_that_reads_back() {
        for text in ["billing", "agent/acme.*", "node/**"] {
            assert_eq!(text.parse::<RequesterGlob>().map(|glob| glob.to_string()), Ok(text.into()));
        }
        for text in ["acme.**", "node/edge-*"] {
            assert_eq!(text.parse::<TargetGlob>().map(|glob| glob.to_string()), Ok(text.into()));
        }
    }
}
