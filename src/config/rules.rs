//! Rules in files: `[[allow]]`, `[[deny]]` and `[[host]]` of a node, `[[allow]]` of an agent.

use super::{
    setting::{SettingTable, SettingValue},
    shared::MESSAGE_RANGE,
    table::Table,
    value::{bytes, count, duration, flag, show_bytes, show_duration, text},
};
use crate::{
    limits::{TIMEOUT_CEILING, TIMEOUT_MIN},
    name::MethodGlob,
    policy::{
        AgentPolicy, AgentRule, AllowRule, DenyRule, HostRule, HttpScope, HttpVerb, NodePolicy,
        PathGlob, Rate, RequesterGlob, TargetGlob,
    },
};
use std::{fmt::Display, ops::RangeInclusive};

/// A caller may have many links; a higher value would have no effect on any of them.
const IN_FLIGHT_RANGE: RangeInclusive<usize> = 1..=100_000;

/// Reads the rules of a node. Rules with a fault are left out; the fault refuses the file.
pub(super) fn read_node_policy(file: &mut Table<'_>) -> NodePolicy {
    let [allow, deny, host] = [("allow", "[[allow]]"), ("deny", "[[deny]]"), ("host", "[[host]]")]
        .map(|(key, title)| file.tables(key, title));
    NodePolicy {
        allow: allow.into_iter().filter_map(read_allow).collect(),
        deny: deny.into_iter().filter_map(read_deny).collect(),
        host: host.into_iter().filter_map(read_host).collect(),
    }
}

/// Lists the rules of a node.
pub(super) fn list_node_policy(policy: &NodePolicy) -> impl Iterator<Item = SettingTable> {
    let NodePolicy { allow, deny, host } = policy;
    let hosts = host.iter().map(|rule| {
        SettingTable::one_of("host")
            .set_text("agent", Some(&rule.agent))
            .set_text("service", Some(&rule.service))
    });
    let denied = deny.iter().map(|DenyRule { caller, agent, method, http, origin: _ }| {
        let table = list_matchers(SettingTable::one_of("deny"), caller, ("agent", agent), method);
        list_http_scope(table, http)
    });
    allow.iter().map(list_allow).chain(denied).chain(hosts)
}

fn list_allow(rule: &AllowRule) -> SettingTable {
    let AllowRule { caller, agent, method, http, timeout_max, .. } = rule;
    let AllowRule { idempotent, message_bytes_max, rate, in_flight, .. } = rule;
    let table = list_matchers(SettingTable::one_of("allow"), caller, ("agent", agent), method);
    list_http_scope(table, http)
        .set_text("timeout_max", timeout_max.map(show_duration))
        .set_flag("idempotent", *idempotent)
        .set_text("message_max", message_bytes_max.map(show_bytes))
        .set_text("rate", *rate)
        .set("in_flight", in_flight.map(|calls| SettingValue::Count(calls as usize)))
}

fn list_matchers(
    table: SettingTable,
    caller: &RequesterGlob,
    (key, target): (&'static str, &dyn Display),
    method: &MethodGlob,
) -> SettingTable {
    table
        .set_text("caller", Some(caller))
        .set_text(key, Some(target))
        .set_text("method", Some(method))
}

/// Lists `verbs` and `paths`.
pub(super) fn list_http_scope(table: SettingTable, scope: &HttpScope) -> SettingTable {
    let HttpScope { verbs, paths } = scope;
    table.set("verbs", SettingValue::texts(verbs)).set("paths", SettingValue::texts(paths))
}

/// Lists the rules of an agent.
pub(super) fn list_agent_policy(policy: &AgentPolicy) -> impl Iterator<Item = SettingTable> {
    policy.allow.iter().map(|AgentRule { node, caller, method, http, origin: _ }| {
        let table = list_matchers(SettingTable::one_of("allow"), caller, ("node", node), method);
        list_http_scope(table, http)
    })
}

pub(super) fn read_agent_policy(file: &mut Table<'_>) -> AgentPolicy {
    let rules = file.tables("allow", "[[allow]]");
    AgentPolicy { allow: rules.into_iter().filter_map(read_agent_rule).collect() }
}

fn read_allow(mut rule: Table<'_>) -> Option<AllowRule> {
    let matchers = read_matchers(&mut rule);
    let http = read_rule_scope(&mut rule, matchers.as_ref().map(|(_, _, method)| method));
    let timeout_max = rule.optional("timeout_max", duration(TIMEOUT_MIN..=TIMEOUT_CEILING));
    let idempotent = rule.optional("idempotent", flag).unwrap_or(false);
    let message_bytes_max = rule.optional("message_max", bytes(MESSAGE_RANGE));
    let rate = rule.optional("rate", text::<Rate>("100/s"));
    let in_flight = rule.optional("in_flight", count(IN_FLIGHT_RANGE));
    // The range fits.
    let in_flight = in_flight.and_then(|calls| u32::try_from(calls).ok());
    let origin = rule.finish();
    let (caller, agent, method) = matchers?;
    let mut allow = AllowRule::new(caller, agent, method);
    (allow.http, allow.origin) = (http, origin);
    Some(AllowRule { timeout_max, idempotent, message_bytes_max, rate, in_flight, ..allow })
}

fn read_deny(mut rule: Table<'_>) -> Option<DenyRule> {
    let matchers = read_matchers(&mut rule);
    let http = read_rule_scope(&mut rule, matchers.as_ref().map(|(_, _, method)| method));
    let bounds = ["timeout_max", "idempotent", "message_max", "rate", "in_flight"];
    rule.refuse(&bounds, "has no meaning in a [[deny]]; it is for [[allow]]");
    let origin = rule.finish();
    let (caller, agent, method) = matchers?;
    Some(DenyRule { http, origin, ..DenyRule::new(caller, agent, method) })
}

/// The three that every rule on calls must have, each read even when another has a fault.
fn read_matchers(rule: &mut Table<'_>) -> Option<(RequesterGlob, TargetGlob, MethodGlob)> {
    let caller = rule.required("caller", "billing");
    let agent = rule.required("agent", "acme.*");
    let method = rule.required("method", "HelloService/*");
    Some((caller?, agent?, method?))
}

/// Reads the scope of a rule over this method. Only calls of HTTP forwards have a verb and a path.
fn read_rule_scope(rule: &mut Table<'_>, method: Option<&MethodGlob>) -> HttpScope {
    if method.is_some_and(|method| !method.is_http()) {
        rule.refuse(
            &["verbs", "paths"],
            "limits rules over HTTP forwards; write method = \"http:NAME\", or remove it",
        );
        return HttpScope::default();
    }
    read_http_scope(rule)
}

/// Reads `verbs` and `paths`: the scope of a rule, or of an HTTP forward itself.
pub(super) fn read_http_scope(table: &mut Table<'_>) -> HttpScope {
    let remedy = "remove the key for all of them";
    let verbs = table.each_of_some("verbs", text::<HttpVerb>("GET"), remedy).unwrap_or_default();
    let paths = table.each_of_some("paths", text::<PathGlob>("/api"), remedy).unwrap_or_default();
    table.fault_repeats("verbs", &verbs);
    table.fault_repeats("paths", &paths);
    HttpScope { verbs, paths }
}

fn read_host(mut rule: Table<'_>) -> Option<HostRule> {
    let agent = rule.required("agent", "acme.*");
    let service = rule.required("service", "HelloService");
    let origin = rule.finish();
    Some(HostRule { origin, ..HostRule::new(agent?, service?) })
}

fn read_agent_rule(mut rule: Table<'_>) -> Option<AgentRule> {
    let node = rule.required("node", "edge-*");
    let caller = rule.required("caller", "billing");
    let method = rule.required("method", "HelloService/*");
    let http = read_rule_scope(&mut rule, method.as_ref());
    rule.refuse(
        &["agent", "timeout_max", "idempotent", "message_max", "rate", "in_flight"],
        "belongs in a node's rule; an agent's rule has node, caller and method",
    );
    let origin = rule.finish();
    Some(AgentRule { http, origin, ..AgentRule::new(node?, caller?, method?) })
}
