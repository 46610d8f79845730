//! MCP servers of `dialback agent`: read from flags and the config file.

use crate::{exit::Failure, forwards::bad_upstream};
use dialback::{
    McpForward,
    config::{McpForwardConfig, McpServerConfig},
};
use std::error::Error;

pub(crate) fn parse_mcp(text: &str) -> Result<McpForwardConfig, Box<dyn Error + Send + Sync>> {
    let (name, server) = text.split_once('=').ok_or(
        "expected NAME=URL, as jira=http://127.0.0.1:8000/mcp, or NAME=stdio:COMMAND, as git=stdio:python server.py",
    )?;
    let server = match server.strip_prefix("stdio:") {
        Some(command) => {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            if words.is_empty() || command.contains(['"', '\'', '\\']) {
                let text = "after stdio: comes a command without quotes; if an argument has spaces, configure it in the config file, [[mcp]] with `command`";
                return Err(text.into());
            }
            McpServerConfig::Command(words)
        }
        None => McpServerConfig::Http(server.parse()?),
    };
    if matches!(&server, McpServerConfig::Http(address) if address.is_tls()) {
        let text = "an https upstream requires a CA: configure it in the config file, [[mcp]] with `upstream` and `upstream_ca`";
        return Err(text.into());
    }
    Ok(McpForwardConfig::new(name.parse()?, server))
}

/// Makes the forward, with the CAs of its upstream.
pub(crate) fn make(
    config: &McpForwardConfig,
    ca_pem: Option<&[u8]>,
) -> Result<McpForward, Failure> {
    let McpForwardConfig { name, server, upstream_ca, host, idle, health, .. } = config;
    let mut forward = match server {
        McpServerConfig::Command(command) => McpForward::command(name.clone(), command),
        McpServerConfig::Http(address) => McpForward::http(name.clone(), address.clone(), ca_pem)
            .map_err(|fault| {
            bad_upstream(&format!("mcp:{name}"), upstream_ca.as_deref(), &fault)
        })?,
        _ => return Err(Failure::usage(format!("the server of mcp:{name} is of an unknown kind"))),
    };
    if let Some(host) = host {
        forward = forward.host(host);
    }
    if let Some(idle) = idle {
        forward = forward.idle_max(*idle);
    }
    if let Some(check) = health {
        forward = forward.check(check.clone());
    }
    Ok(forward)
}
