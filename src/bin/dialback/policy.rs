//! `dialback policy`: rules checked and tried before a node runs with them.

use crate::{
    args::{PolicyArgs, PolicyCommand},
    exit::Failure,
    output::{escape, print},
};
use dialback::{
    MethodPath, NodePolicy, PeerName, Role,
    config::{NodeConfig, PolicyFile},
    policy::Target,
};
use std::path::Path;

/// What `policy test` ends with when the call would be denied.
const DENIED: u8 = 1;

/// Runs the command.
pub(crate) fn run(args: PolicyArgs) -> Result<(), Failure> {
    match args.command {
        PolicyCommand::Check { file } => {
            let policy = PolicyFile::read(&file)?.policy;
            print(&format!("{}: {}", escape(&file.to_string_lossy()), count_rules(&policy)))?;
            // Which rules bound what is easily misread in a long file.
            let bounding = policy.allow.iter().filter(|rule| rule.has_bounds());
            bounding
                .map(|rule| format!("{}: {rule}", rule.origin))
                .try_for_each(|line| print(&escape(&line)))
        }
        PolicyCommand::Test { caller, agent, method, config, policy } => {
            let file = match &policy {
                // Its rules would not count.
                Some(_) => NodeConfig::default(),
                None => config.as_deref().map(NodeConfig::read).transpose()?.unwrap_or_default(),
            };
            test(&rules_of(policy.as_deref(), file.policy)?, &caller, &agent, &method)
        }
    }
}

/// The rules that hold: those of the file of rules if there is one, else those of the config file.
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
    let total = allow + deny + host;
    let rules = if total == 1 { "rule" } else { "rules" };
    format!("{total} {rules}: {allow} allow, {deny} deny, {host} host")
}

fn test(
    policy: &NodePolicy,
    caller: &PeerName,
    agent: &PeerName,
    method: &MethodPath,
) -> Result<(), Failure> {
    let target = match agent.role {
        Role::Node => Target::Node(&agent.name),
        _ => Target::Agent(&agent.name),
    };
    let decision = policy.decide(caller, target, method);
    print(&escape(&decision.to_string()))?;
    if decision.is_allowed() { Ok(()) } else { Err(Failure::Said(DENIED)) }
}
