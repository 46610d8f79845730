//! `[[http]]` of an agent's file: HTTP forwards.

use super::{
    rules::{list_http_scope, read_http_scope},
    setting::SettingTable,
    table::Table,
    value::{duration, path, show_duration, text},
};
use crate::{
    agent::{UpstreamAddress, UpstreamCheck},
    name::Name,
    policy::HttpScope,
};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

const IDLE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// One HTTP forward.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpForwardConfig {
    /// It is called as `http:NAME`.
    pub name: Name,
    /// The upstream.
    pub upstream: UpstreamAddress,
    /// The trusted CAs of an `https` upstream.
    pub upstream_ca: Option<PathBuf>,
    /// The `Host` that the upstream gets, in place of the client's.
    pub host: Option<String>,
    /// Time without a byte either way after which a request ends.
    pub idle: Option<Duration>,
    /// The verbs and paths that are forwarded.
    pub scope: HttpScope,
    /// The check of the upstream.
    pub health: Option<UpstreamCheck>,
}

impl HttpForwardConfig {
    /// A forward and its upstream, everything else by default.
    pub fn new(name: Name, upstream: UpstreamAddress) -> Self {
        let scope = HttpScope::default();
        Self { name, upstream, upstream_ca: None, host: None, idle: None, scope, health: None }
    }
}

/// Reads `[[http]]`. Forwards with a fault are left out; the fault refuses the file.
pub(super) fn read_http(file: &mut Table<'_>) -> Vec<HttpForwardConfig> {
    let mut forwards: Vec<HttpForwardConfig> = Vec::new();
    for mut table in file.tables("http", "[[http]]") {
        let read = read_forward(&mut table);
        if let Some(forward) = read {
            check_against(&table, &forward, &forwards);
            forwards.push(forward);
        }
        table.finish();
    }
    forwards
}

fn read_forward(table: &mut Table<'_>) -> Option<HttpForwardConfig> {
    let name = table.required("name", "grafana");
    let upstream = table.required("upstream", "http://127.0.0.1:3000");
    let upstream_ca = table.optional("upstream_ca", path);
    let host = table.optional("host", host_header);
    let idle = table.optional("idle", duration(IDLE_RANGE));
    let scope = read_http_scope(table);
    let health = table.optional("health", text("GET /healthz"));
    table.refuse(&["forward"], "belongs in [[service]]; here it is `upstream`");
    let (name, upstream) = (name?, upstream?);
    Some(HttpForwardConfig { name, upstream, upstream_ca, host, idle, scope, health })
}

/// Lists one `[[http]]`.
pub(super) fn list_http(forward: &HttpForwardConfig) -> SettingTable {
    let HttpForwardConfig { name, upstream, upstream_ca, host, idle, scope, health } = forward;
    let table = SettingTable::one_of("http")
        .set_text("name", Some(name))
        .set_text("upstream", Some(upstream))
        .set_path("upstream_ca", upstream_ca.as_deref())
        .set_text("host", host.as_ref())
        .set_text("idle", idle.map(show_duration));
    list_http_scope(table, scope).set_url("health", health.as_ref())
}

pub(super) fn host_header(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let host: String = text("grafana.internal")(value)?;
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(format!("{host:?} is not HOST or HOST:PORT, as \"grafana.internal\""));
    }
    Ok(host)
}

fn check_against(table: &Table<'_>, forward: &HttpForwardConfig, others: &[HttpForwardConfig]) {
    let HttpForwardConfig { name, upstream, upstream_ca, .. } = forward;
    if others.iter().any(|other| other.name == *name) {
        table.fault("name", format!("`name`: duplicate [[http]] {name}"));
    }
    check_trust(table, upstream, upstream_ca.is_some());
}

/// Checks that there are CAs for `https`, and for nothing else.
pub(super) fn check_trust(table: &Table<'_>, upstream: &UpstreamAddress, has_ca: bool) {
    match (upstream.is_tls(), has_ca) {
        (true, false) => table.fault(
            "upstream",
            "`upstream`: an https upstream needs a CA; add a line as upstream_ca = \"certs/upstream-ca.pem\"".into(),
        ),
        (false, true) => table.fault(
            "upstream_ca",
            format!("`upstream_ca`: {upstream} is not https; remove the key, or write https"),
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AgentConfig;

    const HTTP: &str = "[[http]]\nname = 'web'\nupstream = 'http://127.0.0.1:3000'\n";

    fn faults(text: &str) -> String {
        AgentConfig::parse(text, "f").expect_err("a fault").to_string()
    }

    #[test]
    fn a_forward_has_a_name_and_an_upstream_and_may_have_more() {
        let text = format!(
            "{HTTP}host = 'web.internal'\nidle = '1h'\nverbs = ['GET']\npaths = ['/api']\n"
        );
        let forward = AgentConfig::parse(&text, "f").expect("a config").http.remove(0);
        let expected = HttpForwardConfig {
            host: Some("web.internal".into()),
            idle: Some(Duration::from_secs(3_600)),
            scope: HttpScope::parse(&["GET"], &["/api"]).expect("a scope"),
            ..HttpForwardConfig::new(
                "web".parse().expect("a name"),
                "http://127.0.0.1:3000".parse().expect("an upstream"),
            )
        };
        assert_eq!(forward, expected);
    }

    #[test]
    fn mistakes_in_a_forward_name_their_line_and_remedy() {
        for (text, fault) in [
            (HTTP.replace("'web'", "'Web'"), "f:2: `name`: "),
            (HTTP.replace("http://", ""), "f:3: `upstream`: "),
            (HTTP.replace("http://", "https://"), "f:3: `upstream`: an https upstream needs a CA"),
            (format!("{HTTP}upstream_ca = 'ca.pem'\n"), "f:4: `upstream_ca`: "),
            (format!("{HTTP}host = 'a b'\n"), "f:4: `host`: "),
            (format!("{HTTP}idle = '0s'\n"), "f:4: `idle`: "),
            (format!("{HTTP}forward = 'x'\n"), "f:4: `forward` belongs in [[service]]"),
            (HTTP.repeat(2), "f:5: `name`: duplicate [[http]] web"),
        ] {
            assert!(faults(&text).contains(fault), "{fault}: {}", faults(&text));
        }
    }
}
