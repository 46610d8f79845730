//! `dialback policy`: checks and tests rules before a node runs with them.

use crate::{
    exit::Failure,
    output::{count, escape, print, show_path},
};
use clap::Subcommand;
use dialback::{
    HttpTarget, MethodPath, NameError, NodePolicy, PeerName, Role,
    config::{NodeConfig, PolicyFile},
    policy::{AllowRule, Decision, DenyRule, Grant, PolicyTarget, other_readings},
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
  dialback policy test ops warehouse http:web --verb GET --path /api/x --config node.toml
Exit code: 0 allowed, 1 denied, 2 bad usage or rules.")]
    Test {
        /// Requester, as in rules: ops is a caller; agent/NAME and node/NAME name a role
        #[arg(value_parser = parse_requester)]
        caller: PeerName,
        /// Target: an agent's name, or node/NAME for services of the node
        #[arg(value_parser = parse_target)]
        agent: PeerName,
        /// Method, as HelloService/Hello, tcp:db, http:web or mcp:jira/get_issue
        method: MethodPath,
        /// Verb of the request, for an HTTP forward
        #[arg(long, requires = "path")]
        verb: Option<String>,
        /// Path of the request, for an HTTP forward
        #[arg(long, requires = "verb")]
        path: Option<String>,
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
            // Limits and scopes of rules are easily misread in a long file.
            let is_shown = |rule: &&AllowRule| rule.has_bounds() || !rule.http.is_all();
            let bounding = policy.allow.iter().filter(is_shown);
            bounding
                .map(|rule| format!("{}: {rule}", rule.origin))
                .try_for_each(|line| print(&escape(&line)))
        }
        PolicyCommand::Test { caller, agent, method, verb, path, config, policy } => {
            let http = http_target(&method, verb.as_deref().zip(path.as_deref()))?;
            let file = match &policy {
                // The rules of the config file do not apply.
                Some(_) => NodeConfig::default(),
                None => config.as_deref().map(NodeConfig::read).transpose()?.unwrap_or_default(),
            };
            let policy = rules_of(policy.as_deref(), file.policy)?;
            let call = TestedCall { caller, target: agent, method, path, http };
            call.test(&policy)
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

/// Verb and path of the call to test.
fn http_target(
    method: &MethodPath,
    request: Option<(&str, &str)>,
) -> Result<Option<HttpTarget>, Failure> {
    let Some((verb, path)) = request else { return Ok(None) };
    if !method.is_http() {
        let text = format!("{method} is not an HTTP forward; --verb and --path are for http:NAME");
        return Err(Failure::usage(text));
    }
    HttpTarget::new(verb, path).map(Some).map_err(|why| Failure::local(&why))
}

/// A call that is tested against rules.
struct TestedCall {
    caller: PeerName,
    target: PeerName,
    method: MethodPath,
    /// The path as given.
    path: Option<String>,
    http: Option<HttpTarget>,
}

impl TestedCall {
    fn test(&self, policy: &NodePolicy) -> Result<(), Failure> {
        let http = self.http.as_ref();
        let decision = policy.decide(&self.caller, self.target(), &self.method, http);
        print(&escape(&decision.to_string()))?;
        match (http, decision) {
            (Some(http), _) => self.print_readings(http)?,
            (None, Decision::Allow(grant)) => self.print_scopes(policy, &grant)?,
            (None, Decision::Deny(_)) => {}
        }
        if decision.is_allowed() { Ok(()) } else { Err(Failure::Reported(DENIED)) }
    }

    const fn target(&self) -> PolicyTarget<'_> {
        match self.target.role {
            Role::Node => PolicyTarget::Node(&self.target.name),
            _ => PolicyTarget::Agent(&self.target.name),
        }
    }

    /// Prints the paths on which rules decide, as far as they differ from the given one.
    fn print_readings(&self, http: &HttpTarget) -> Result<(), Failure> {
        if self.path.as_deref() != Some(http.path()) {
            print(&format!("the normalised path is {}", http.path()))?;
        }
        let readings = other_readings(http).into_iter();
        readings
            .map(|path| format!("some servers read the path as {path}"))
            .try_for_each(|line| print(&escape(&line)))
    }

    /// Prints scopes that decide on single requests, if they allow some and not all.
    fn print_scopes(&self, policy: &NodePolicy, grant: &Grant<'_>) -> Result<(), Failure> {
        let allowed = &grant.rule().http;
        let mut denying = policy.deny.iter().filter(|rule| self.is_denied_in_part(rule)).peekable();
        if !self.method.is_http() || (allowed.is_all() && denying.peek().is_none()) {
            return Ok(());
        }
        print(&escape(&format!("this rule covers {allowed}")))?;
        for rule in denying {
            print(&escape(&format!("the [[deny]] rule at {} covers {}", rule.origin, rule.http)))?;
        }
        print("test one request with --verb and --path")
    }

    fn is_denied_in_part(&self, rule: &DenyRule) -> bool {
        rule.caller.matches(&self.caller)
            && rule.agent.matches(self.target())
            && rule.method.matches(&self.method)
            && !rule.http.is_all()
    }
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
