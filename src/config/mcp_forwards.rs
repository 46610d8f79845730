//! `[[mcp]]` of an agent's file: MCP servers.

use super::{
    http_forwards::{check_trust, host_header},
    setting::{MASK, SettingTable, SettingValue},
    table::Table,
    value::{duration, path, show_duration, text},
};
use crate::{
    agent::{UpstreamAddress, UpstreamCheck},
    name::Name,
};
use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

const IDLE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// One MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct McpForwardConfig {
    /// Its tools are called as `mcp:NAME/TOOL`.
    pub name: Name,
    /// The server.
    pub server: McpServerConfig,
    /// The trusted CAs of an `https` server.
    pub upstream_ca: Option<PathBuf>,
    /// The `Host` that an HTTP server gets, in place of its address.
    pub host: Option<String>,
    /// Time without a byte either way after which a request ends, or without a request after which
    /// a process does.
    pub idle: Option<Duration>,
    /// The check of an HTTP server.
    pub health: Option<UpstreamCheck>,
}

/// Where an MCP server is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum McpServerConfig {
    /// At this URL.
    Http(UpstreamAddress),
    /// In a process of this program, with these arguments.
    Command(Vec<String>),
}

impl McpForwardConfig {
    /// A server, everything else by default.
    pub const fn new(name: Name, server: McpServerConfig) -> Self {
        Self { name, server, upstream_ca: None, host: None, idle: None, health: None }
    }
}

/// Reads `[[mcp]]`. Servers with a fault are left out; the fault refuses the file.
pub(super) fn read_mcp(file: &mut Table<'_>) -> Vec<McpForwardConfig> {
    let mut forwards: Vec<McpForwardConfig> = Vec::new();
    for mut table in file.tables("mcp", "[[mcp]]") {
        let read = read_forward(&mut table);
        if let Some(forward) = read {
            if forwards.iter().any(|other| other.name == forward.name) {
                table.fault("name", format!("`name`: duplicate [[mcp]] {}", forward.name));
            }
            forwards.push(forward);
        }
        table.finish();
    }
    forwards
}

fn read_forward(table: &mut Table<'_>) -> Option<McpForwardConfig> {
    let name = table.required("name", "jira");
    let upstream = table.optional("upstream", text("http://127.0.0.1:8000/mcp"));
    let command = table.each_of_some(
        "command",
        text::<String>("npx"),
        "name a program and its arguments, as command = [\"python\", \"server.py\"]",
    );
    let upstream_ca = table.optional("upstream_ca", path);
    let host = table.optional("host", host_header);
    let idle = table.optional("idle", duration(IDLE_RANGE));
    let health = table.optional("health", text("connect"));
    table
        .refuse(&["tools"], "is decided by rules; write [[allow]] with method = \"mcp:NAME/TOOL\"");
    let server = server(table, upstream, command)?;
    match &server {
        McpServerConfig::Http(address) => check_trust(table, address, upstream_ca.is_some()),
        McpServerConfig::Command(_) => table.refuse(
            &["upstream_ca", "host", "health"],
            "is for a server with `upstream`; a command has none",
        ),
    }
    Some(McpForwardConfig { name: name?, server, upstream_ca, host, idle, health })
}

/// Lists one `[[mcp]]`. Arguments of a command may be secrets, and do not tell.
pub(super) fn list_mcp(forward: &McpForwardConfig) -> SettingTable {
    let McpForwardConfig { name, server, upstream_ca, host, idle, health } = forward;
    let (upstream, command) = match server {
        McpServerConfig::Http(upstream) => (Some(upstream), None),
        McpServerConfig::Command(words) => (None, Some(words)),
    };
    let masked = command.map(|words| {
        let masked = words.iter().enumerate().map(|(at, word)| if at == 0 { word } else { MASK });
        SettingValue::all(&masked.collect::<Vec<_>>())
    });
    let table = SettingTable::one_of("mcp")
        .set_text("name", Some(name))
        .set_text("upstream", upstream)
        .set_masked("command", command.map(|words| SettingValue::all(words)), masked)
        .set_path("upstream_ca", upstream_ca.as_deref())
        .set_text("host", host.as_ref())
        .set_text("idle", idle.map(show_duration));
    table.set_url("health", health.as_ref())
}

fn server(
    table: &Table<'_>,
    upstream: Option<UpstreamAddress>,
    command: Option<Vec<String>>,
) -> Option<McpServerConfig> {
    match (upstream, command) {
        (Some(upstream), None) => Some(McpServerConfig::Http(upstream)),
        (None, Some(command)) => Some(McpServerConfig::Command(command)),
        (Some(_), Some(_)) => {
            let text = "`command`: the server has `upstream` too; remove one of them";
            table.fault("command", text.into());
            None
        }
        (None, None) => {
            if !table.has("upstream") && !table.has("command") {
                let text = "`upstream`: is missing; add a line as upstream = \"http://127.0.0.1:8000/mcp\", or command = [\"python\", \"server.py\"]";
                table.fault("name", text.into());
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AgentConfig, NodeConfig};

    const HTTP: &str = "[[mcp]]\nname = 'jira'\nupstream = 'http://127.0.0.1:8000/mcp'\n";
    const COMMAND: &str = "[[mcp]]\nname = 'git'\ncommand = ['python', 'server.py']\n";

    fn faults(text: &str) -> String {
        AgentConfig::parse(text, "f").expect_err("a fault").to_string()
    }

    #[test]
    fn a_server_is_at_a_url_or_in_a_process() {
        let text = format!("{HTTP}host = 'a'\nidle = '10m'\n{COMMAND}");
        let found = AgentConfig::parse(&text, "f").expect("a config").mcp;
        let name = |text: &str| text.parse().expect("a name");
        let address = "http://127.0.0.1:8000/mcp".parse().expect("an address");
        let expected = [
            McpForwardConfig {
                host: Some("a".into()),
                idle: Some(Duration::from_secs(600)),
                ..McpForwardConfig::new(name("jira"), McpServerConfig::Http(address))
            },
            McpForwardConfig::new(
                name("git"),
                McpServerConfig::Command(vec!["python".into(), "server.py".into()]),
            ),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_servers_table_in_a_nodes_file_belongs_in_an_agents() {
        let faults = NodeConfig::parse(HTTP, "f").expect_err("a fault").to_string();
        assert!(faults.contains("belongs in an agent's file"), "{faults}");
    }

    #[test]
    fn mistakes_in_a_server_name_their_line_and_remedy() {
        for (text, fault) in [
            (HTTP.replace("'jira'", "'Jira'"), "f:2: `name`: "),
            (HTTP.replace("http://", ""), "f:3: `upstream`: "),
            (HTTP.replace("http://", "https://"), "f:3: `upstream`: an https upstream needs a CA"),
            (format!("{HTTP}upstream_ca = 'ca.pem'\n"), "f:4: `upstream_ca`: "),
            (format!("{HTTP}command = ['x']\n"), "f:4: `command`: the server has `upstream` too"),
            ("[[mcp]]\nname = 'x'\n".into(), "`upstream`: is missing"),
            ("[[mcp]]\nname = 'x'\ncommand = []\n".into(), "f:3: `command`"),
            ("[[mcp]]\nname = 'x'\ncommand = 'python server.py'\n".into(), "f:3: `command`"),
            (format!("{COMMAND}host = 'a'\n"), "f:4: `host` is for a server with `upstream`"),
            (format!("{HTTP}tools = ['a']\n"), "f:4: `tools` is decided by rules"),
            (HTTP.repeat(2), "f:5: `name`: duplicate [[mcp]] jira"),
        ] {
            assert!(faults(&text).contains(fault), "{fault}: {}", faults(&text));
        }
    }
}
