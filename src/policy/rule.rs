//! One rule of `[[allow]]`, `[[deny]]` or `[[host]]`, with its origin.

use super::{HttpScope, PolicyTarget, RequesterGlob, TargetGlob, path_reading::TargetReadings};
use crate::{
    limits::RATE_CALLS_MAX,
    name::{MethodGlob, MethodPath, Name, NameError, NameGlob, PeerName, ServiceGlob},
};
use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Origin of a rule, for explaining a decision. `Default` is the program itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Path of the file as given; `None` for a rule that a program made.
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

/// Rate limit of calls: `100/s`, `6000/m`, `10000/h`. A token bucket of size `calls` that fills
/// once in the time: `6000/m` allows a burst of 6,000 at the average rate of `100/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    calls: u32,
    per_seconds: u64,
}

const RATE_UNITS: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

impl Rate {
    /// Calls a second, from 1 to 1,000,000; a value out of range becomes the nearer of the two.
    pub fn per_second(calls: u32) -> Self {
        Self { calls: calls.clamp(1, RATE_CALLS_MAX), per_seconds: 1 }
    }

    /// Number of calls per unit of time, and the burst.
    pub const fn calls(&self) -> u32 {
        self.calls
    }

    /// The time.
    pub const fn per(&self) -> Duration {
        Duration::from_secs(self.per_seconds)
    }
}

/// A text that is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rate {text:?} {why}")]
pub struct RateError {
    text: String,
    why: &'static str,
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let fault = |why| RateError { text: text.chars().take(40).collect(), why };
        let (calls, unit) = text
            .split_once('/')
            .ok_or_else(|| fault("is not written CALLS/TIME, as 100/s, 6000/m or 10000/h"))?;
        if calls.is_empty() || !calls.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(fault("has no whole number before the /, as 100/s"));
        }
        let known = RATE_UNITS.into_iter().find(|(name, _)| *name == unit);
        let (_, per_seconds) =
            known.ok_or_else(|| fault("has an unknown time after the /; write s, m or h"))?;
        match calls.parse() {
            Ok(calls) if (1..=RATE_CALLS_MAX).contains(&calls) => Ok(Self { calls, per_seconds }),
            _ => Err(fault("has a number of calls that is not from 1 to 1000000")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = RATE_UNITS.into_iter().find(|(_, seconds)| *seconds == self.per_seconds);
        write!(f, "{}/{}", self.calls, unit.map_or("s", |(name, _)| name))
    }
}

/// Allows requesters to call methods of agents, or of the node itself, within limits.
///
/// ```
/// use dialback::{AllowRule, NodePolicy};
/// use std::time::Duration;
///
/// let mut rule = AllowRule::parse("billing", "acme.*", "Stock/*")?;
/// rule.timeout_max = Some(Duration::from_secs(5));
/// rule.rate = Some("100/s".parse()?);
/// let policy = NodePolicy::default().allow(rule);      // for `Node::builder(..).policy(policy)`
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllowRule {
    /// Requesters.
    pub caller: RequesterGlob,
    /// The targets.
    pub agent: TargetGlob,
    /// The methods.
    pub method: MethodGlob,
    /// Verbs and paths, of HTTP forwards only.
    pub http: HttpScope,
    /// The longest deadline that a call under this rule may have; longer ones are reduced to it.
    pub timeout_max: Option<Duration>,
    /// True if an attempt that may have run may be repeated. Only the operator can know.
    pub idempotent: bool,
    /// The largest message, in bytes, if it is smaller than the node's own limit.
    pub message_bytes_max: Option<usize>,
    /// Rate limit of each caller under this rule.
    pub rate: Option<Rate>,
    /// Calls of each caller that may be in flight under this rule.
    pub in_flight: Option<u32>,
    /// Origin of the rule.
    pub origin: Origin,
}

impl AllowRule {
    /// Allows without limits of its own; the fields may be set after.
    pub fn new(caller: RequesterGlob, agent: TargetGlob, method: MethodGlob) -> Self {
        Self {
            caller,
            agent,
            method,
            http: HttpScope::default(),
            timeout_max: None,
            idempotent: false,
            message_bytes_max: None,
            rate: None,
            in_flight: None,
            origin: Origin::default(),
        }
    }

    /// Reads three patterns as in files: `parse("billing", "acme.*", "Stock/*")`.
    pub fn parse(caller: &str, agent: &str, method: &str) -> Result<Self, NameError> {
        Ok(Self::new(caller.parse()?, agent.parse()?, method.parse()?))
    }

    pub(super) fn covers(
        &self,
        requester: &PeerName,
        target: PolicyTarget<'_>,
        method: &MethodPath,
        http: Option<&TargetReadings<'_>>,
    ) -> bool {
        self.caller.matches(requester)
            && self.agent.matches(target)
            && self.method.matches(method)
            && self.http.is_allowed(method, http)
    }

    /// True if it limits the calls that it allows, or lets them be repeated.
    pub const fn has_bounds(&self) -> bool {
        self.counts_calls()
            || self.timeout_max.is_some()
            || self.message_bytes_max.is_some()
            || self.idempotent
    }

    /// True if it counts calls: only then is anything remembered of them.
    pub(crate) const fn counts_calls(&self) -> bool {
        self.rate.is_some() || self.in_flight.is_some()
    }

    /// Hashes the identity of the rule for counting its calls: not its line, which changes with the
    /// lines above it, and not the limits of a single call.
    pub(crate) fn hash_identity(&self, state: &mut impl Hasher) {
        let Self { caller, agent, method, http, rate, in_flight, .. } = self;
        (caller, agent, method, http, rate, in_flight).hash(state);
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, agent, method, http, .. } = self;
        write!(f, "{caller} on {agent} {method}{}{}", ShownScope(http), RuleLimits(self))
    }
}

/// ` (GET on /api)`, the scope after a method; empty for a scope over everything.
struct ShownScope<'a>(&'a HttpScope);

impl fmt::Display for ShownScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_all() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// Limits of a rule, as the end of a sentence; empty for a rule without limits.
pub(super) struct RuleLimits<'a>(pub(super) &'a AllowRule);

impl fmt::Display for RuleLimits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AllowRule { timeout_max, idempotent, message_bytes_max, rate, in_flight, .. } = self.0;
        let bounds = [
            timeout_max.map(|time| format!("timeout_max {time:?}")),
            message_bytes_max.map(|bytes| format!("message_max {bytes}B")),
            rate.map(|rate| format!("rate {rate}")),
            in_flight.map(|calls| format!("in_flight {calls}")),
            idempotent.then(|| "idempotent".to_owned()),
        ];
        let bounds: Vec<_> = bounds.into_iter().flatten().collect();
        if bounds.is_empty() { Ok(()) } else { write!(f, ": {}", bounds.join(", ")) }
    }
}

/// Denies calls that an `[[allow]]` rule allows. Deny wins in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DenyRule {
    /// Requesters.
    pub caller: RequesterGlob,
    /// The targets.
    pub agent: TargetGlob,
    /// The methods.
    pub method: MethodGlob,
    /// Verbs and paths, of HTTP forwards only.
    pub http: HttpScope,
    /// Origin of the rule.
    pub origin: Origin,
}

impl DenyRule {
    /// Denies; the origin may be set after.
    pub fn new(caller: RequesterGlob, agent: TargetGlob, method: MethodGlob) -> Self {
        Self { caller, agent, method, http: HttpScope::default(), origin: Origin::default() }
    }

    /// Reads the three patterns as a rule in a file has them.
    pub fn parse(caller: &str, agent: &str, method: &str) -> Result<Self, NameError> {
        Ok(Self::new(caller.parse()?, agent.parse()?, method.parse()?))
    }

    pub(super) fn covers(
        &self,
        requester: &PeerName,
        target: PolicyTarget<'_>,
        method: &MethodPath,
        http: Option<&TargetReadings<'_>>,
    ) -> bool {
        self.caller.matches(requester)
            && self.agent.matches(target)
            && self.method.matches(method)
            && self.http.is_denied(method, http)
    }
}

/// Lets agents answer calls that name only the service, not the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostRule {
    /// The agents.
    pub agent: NameGlob,
    /// The services.
    pub service: ServiceGlob,
    /// Origin of the rule.
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

/// An `[[allow]]` rule of an agent: node, caller and method patterns, verbs and paths.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentRule {
    /// Nodes that may forward the call.
    pub node: NameGlob,
    /// Requesters, as the node states them.
    pub caller: RequesterGlob,
    /// The methods.
    pub method: MethodGlob,
    /// Verbs and paths, of HTTP forwards only.
    pub http: HttpScope,
    /// Origin of the rule.
    pub origin: Origin,
}

impl AgentRule {
    /// Allows; the origin may be set after.
    pub fn new(node: NameGlob, caller: RequesterGlob, method: MethodGlob) -> Self {
        Self { node, caller, method, http: HttpScope::default(), origin: Origin::default() }
    }

    /// Reads the three patterns as a rule in a file has them.
    pub fn parse(node: &str, caller: &str, method: &str) -> Result<Self, NameError> {
        Ok(Self::new(node.parse()?, caller.parse()?, method.parse()?))
    }

    pub(super) fn covers(
        &self,
        node: &Name,
        requester: &PeerName,
        method: &MethodPath,
        http: Option<&TargetReadings<'_>>,
    ) -> bool {
        self.node.matches(node)
            && self.caller.matches(requester)
            && self.method.matches(method)
            && self.http.is_allowed(method, http)
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
    fn a_rate_is_a_number_of_calls_in_a_second_a_minute_or_an_hour() {
        for (text, calls, secs) in [
            ("100/s", 100, 1),
            ("6000/m", 6_000, 60),
            ("1/h", 1, 3_600),
            ("1000000/s", 1_000_000, 1),
        ] {
            let rate: Rate = text.parse().expect("a rate");
            assert_eq!((rate.calls(), rate.per().as_secs()), (calls, secs), "{text}");
            assert_eq!(rate.to_string(), text);
        }
        for bad in [
            "",
            "100",
            "/s",
            "100/",
            "0/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "1000001/s",
            "100/S",
            "100/ms",
            "100/d",
            "100 /s",
            "100/s/s",
            "99999999999999999999/s",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?} was taken for a rate");
        }
        assert_eq!(
            [0, 5, u32::MAX].map(|calls| Rate::per_second(calls).calls()),
            [1, 5, 1_000_000]
        );
    }

    fn identity(rule: &AllowRule) -> u64 {
        let mut state = std::hash::DefaultHasher::new();
        rule.hash_identity(&mut state);
        state.finish()
    }

    #[test]
    fn a_rule_keeps_its_counts_until_its_patterns_or_limits_change() {
        let rule = || {
            let mut rule = AllowRule::parse("billing", "acme.*", "Stock/*").expect("a rule");
            rule.rate = Some(Rate::per_second(5));
            rule
        };
        let mut moved = rule();
        moved.origin = Origin::at("node.toml", 12);
        moved.timeout_max = Some(Duration::from_secs(1));
        moved.message_bytes_max = Some(10);
        moved.idempotent = true;
        assert_eq!(identity(&moved), identity(&rule()));
        let changes: [fn(&mut AllowRule); 6] = [
            |rule| rule.caller = "ops".parse().expect("a pattern"),
            |rule| rule.agent = "node/acme".parse().expect("a pattern"),
            |rule| rule.method = "Stock/List".parse().expect("a pattern"),
            |rule| rule.http = HttpScope::parse(&["GET"], &[]).expect("a scope"),
            |rule| rule.rate = Some(Rate::per_second(6)),
            |rule| rule.in_flight = Some(1),
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut other = rule();
            change(&mut other);
            assert_ne!(identity(&other), identity(&rule()), "change {n}");
        }
    }

    #[test]
    fn a_rule_is_shown_with_its_limits() {
        let mut rule = AllowRule::parse("billing", "acme.*", "Stock/*").expect("a rule");
        assert_eq!(rule.to_string(), "billing on acme.* Stock/*");
        assert!(!rule.counts_calls());
        rule.timeout_max = Some(Duration::from_secs(30));
        rule.message_bytes_max = Some(1_024);
        rule.rate = "6000/m".parse().ok();
        rule.in_flight = Some(4);
        rule.idempotent = true;
        let expected = "billing on acme.* Stock/*: timeout_max 30s, message_max 1024B, rate 6000/m, in_flight 4, idempotent";
        assert_eq!(rule.to_string(), expected);
        assert!(rule.counts_calls());
        let mut rule = AllowRule::parse("ops", "a", "http:web").expect("a rule");
        rule.http = HttpScope::parse(&["GET", "HEAD"], &["/api/**"]).expect("a scope");
        rule.in_flight = Some(4);
        let expected = "ops on a http:web (GET, HEAD on /api/**): in_flight 4";
        assert_eq!(rule.to_string(), expected);
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
