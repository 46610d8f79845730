//! `dialback agents`: lists the agents that this caller may see, attached or not.

use crate::{
    caller::{self, ReachArgs},
    exit::Failure,
    output::{self, escape, print_aside, print_json_aside},
};
use clap::{ArgAction, Args, builder::BoolishValueParser};
use dialback::{AgentInfo, Utc};
use std::time::{Duration, SystemTime};

/// `dialback agents`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: dialback agents --json
Queries the node as a caller. The rules of the node decide which agents are listed.")]
pub(crate) struct AgentsArgs {
    /// Print one JSON array; a failure is one JSON object
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Timeout of a listing, the default of a unary call.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn run(args: AgentsArgs) -> Result<(), Failure> {
    let wants_json = args.json;
    caller::run(args.reach, TIMEOUT, wants_json, None, async |caller, _left| {
        let agents = caller.agents().await?;
        match wants_json {
            true => print_json_aside(&agents).await?,
            false => print_aside(table(&agents)).await?,
        };
        Ok(())
    })
}

fn table(agents: &[AgentInfo]) -> String {
    if agents.is_empty() {
        return "this caller may see no agents".into();
    }
    let head = ["AGENT", "STATE", "SINCE", "ADDRESS", "PATH", "SOFTWARE", "CALLS", "RTT"];
    output::table(&head, agents.iter().map(row))
}

fn row(agent: &AgentInfo) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), escape);
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(agent.since_ms));
    vec![
        escape(&agent.name),
        state(agent),
        since.map_or_else(|| "-".into(), |since| Utc(since).to_string()),
        or_dash(&agent.address),
        or_dash(&agent.path),
        or_dash(&agent.software),
        agent.calls_in_flight.to_string(),
        agent.rtt_us.map_or_else(|| "-".into(), |us| format!("{:.1} ms", us as f64 / 1_000.0)),
    ]
}

fn state(agent: &AgentInfo) -> String {
    let state = match (agent.attached, agent.draining) {
        (true, false) => "attached",
        (true, true) => "draining",
        (false, _) => "detached",
    };
    let twice = if agent.certificate_used_twice { ", certificate used twice" } else { "" };
    format!("{state}{twice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_agent_has_dashes_where_nothing_is_known() {
        let agent = AgentInfo {
            name: "warehouse".into(),
            attached: false,
            since_ms: 0,
            node: "edge-1".into(),
            address: None,
            path: None,
            software: Some("evil\x1b[2J".into()),
            calls_in_flight: 0,
            rtt_us: None,
            draining: false,
            certificate_used_twice: false,
        };
        let shown = table(std::slice::from_ref(&agent));
        let expected =
            ["warehouse", "detached", "1970-01-01T00:00:00Z", "-", "-", "evil\\u{1b}[2J", "0", "-"];
        let line = shown.lines().nth(1).expect("a line");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), expected);
        assert!(table(&[]).contains("no agents"));
        let of = |attached, draining, certificate_used_twice| {
            state(&AgentInfo { attached, draining, certificate_used_twice, ..agent.clone() })
        };
        assert_eq!(of(true, false, false), "attached");
        assert_eq!(of(true, true, false), "draining");
        assert_eq!(of(true, false, true), "attached, certificate used twice");
        assert_eq!(of(false, false, true), "detached, certificate used twice");
    }
}
