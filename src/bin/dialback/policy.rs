//! `dialback policy`: checks and tests rules before a node runs with them.

use crate::{
    exit::Failure,
    output::{count, escape, print, show_path},
};
use clap::Subcommand;
use dialback::{
    MethodPath, NameError, NodePolicy, PeerName, Role,
    config::{NodeConfig, PolicyFile},
    policy::PolicyTarget,
};
use std::path::{Path, PathBuf};

/// `dialback policy ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a file of rules and report all errors at once
    #[command(after_help = "Example: dialback policy check rules.toml")]
    Check {
        /// File with [[allow]], [[deny]] and [[host]] only
        file: PathBuf,
    },
    /// Show whether rules allow a call, and which rule decides
    #[command(after_help = "\
Examples:
  dialback policy test ops warehouse HelloService/Hello --config examples/first/node.toml
  dialback policy test agent/kiosk node/edge-1 Stock/List --policy rules.toml
Exit code: 0 allowed, 1 denied, 2 bad usage or rules.")]
    Test {
        /// Requester, as in rules: ops is a caller; agent/NAME and node/NAME name a role
        #[arg(value_parser = parse_requester)]
        caller: PeerName,
        /// Target: an agent's name, or node/NAME for services of the node
        #[arg(value_parser = parse_target)]
        agent: PeerName,
        /// Method, as HelloService/Hello
        method: MethodPath,
        /// Config file of the node
        #[arg(long, value_name = "FILE", required_unless_present = "policy")]
        config: Option<PathBuf>,
        /// File with policy rules, which replace those of the config file
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

/// Exit code of `policy test` when the call is denied.
const DENIED: u8 = 1;

pub(crate) fn run(command: PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check { file } => {
            let policy = PolicyFile::read(&file)?.policy;
            print(&format!("{}: {}", show_path(&file), count_rules(&policy)))?;
            // Limits of rules are easily misread in a long file.
            let bounding = policy.allow.iter().filter(|rule| rule.has_bounds());
            bounding
                .map(|rule| format!("{}: {rule}", rule.origin))
                .try_for_each(|line| print(&escape(&line)))
        }
        PolicyCommand::Test { caller, agent, method, config, policy } => {
            let file = match &policy {
                // The rules of the config file do not apply.
                Some(_) => NodeConfig::default(),
                None => config.as_deref().map(NodeConfig::read).transpose()?.unwrap_or_default(),
            };
            test(&rules_of(policy.as_deref(), file.policy)?, &caller, &agent, &method)
        }
    }
}

/// The rules in effect: those of the file of rules if there is one, else those of the config file.
pub(crate) fn rules_of(
    policy: Option<&Path>,
    of_config: NodePolicy,
) -> Result<NodePolicy, Failure> {
    match policy {
        Some(path) => Ok(PolicyFile::read(path)?.policy),
        None => Ok(of_config),
    }
}

/// `3 rules: 1 allow, 1 deny, 1 host`.
pub(crate) fn count_rules(policy: &NodePolicy) -> String {
    let [allow, deny, host] = [policy.allow.len(), policy.deny.len(), policy.host.len()];
    let rules = count(allow + deny + host, "rule");
    format!("{rules}: {allow} allow, {deny} deny, {host} host")
}

fn test(
    policy: &NodePolicy,
    caller: &PeerName,
    agent: &PeerName,
    method: &MethodPath,
) -> Result<(), Failure> {
    let target = match agent.role {
        Role::Node => PolicyTarget::Node(&agent.name),
        _ => PolicyTarget::Agent(&agent.name),
    };
    let decision = policy.decide(caller, target, method, None);
    print(&escape(&decision.to_string()))?;
    if decision.is_allowed() { Ok(()) } else { Err(Failure::Reported(DENIED)) }
}

/// `ops` is a caller, as in rules.
fn parse_requester(text: &str) -> Result<PeerName, String> {
    parse_peer(text, Role::Caller)
}

/// `warehouse` is an agent, as in rules; a node may be named, a caller cannot be called.
fn parse_target(text: &str) -> Result<PeerName, String> {
    match parse_peer(text, Role::Agent)? {
        peer if peer.role == Role::Caller => {
            Err("a caller hosts no services; write an agent's name, or node/NAME".into())
        }
        peer => Ok(peer),
    }
}

fn parse_peer(text: &str, role: Role) -> Result<PeerName, String> {
    let peer = match text.contains('/') {
        true => text.parse(),
        false => text.parse().map(|name| PeerName::new(role, name)),
    };
    peer.map_err(|why: NameError| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_parsed_as_in_rules() {
        let requester = |text| parse_requester(text).map(|peer| peer.to_string());
        assert_eq!(requester("ops"), Ok("caller/ops".into()));
        assert_eq!(requester("agent/kiosk"), Ok("agent/kiosk".into()));
        let target = |text| parse_target(text).map(|peer| peer.to_string());
        assert_eq!(target("warehouse"), Ok("agent/warehouse".into()));
        assert_eq!(target("node/edge-1"), Ok("node/edge-1".into()));
        for bad in ["caller/ops", "boss/x", "A", ""] {
            assert!(target(bad).is_err(), "{bad:?} was taken for a target");
        }
    }
}
