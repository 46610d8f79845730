//! MCP servers of `dialback agent`: read from flags and the config file.

use crate::{exit::Failure, forwards::read_cas};
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

/// Those of the flags, and those of the config file that have other names.
pub(crate) fn all(
    typed: &[McpForwardConfig],
    of_file: Vec<McpForwardConfig>,
) -> Result<Vec<McpForwardConfig>, Failure> {
    for (at, forward) in typed.iter().enumerate() {
        if typed[..at].iter().any(|other| other.name == forward.name) {
            return Err(Failure::usage(format!("--mcp names {} twice", forward.name)));
        }
    }
    let is_typed = |one: &McpForwardConfig| typed.iter().any(|forward| forward.name == one.name);
    let others = of_file.into_iter().filter(|one| !is_typed(one));
    Ok(typed.iter().cloned().chain(others).collect())
}

/// Makes the forwards, with the CAs that they name.
pub(crate) fn make(configs: &[McpForwardConfig]) -> Result<Vec<McpForward>, Failure> {
    configs.iter().map(forward).collect()
}

fn forward(config: &McpForwardConfig) -> Result<McpForward, Failure> {
    let McpForwardConfig { name, server, upstream_ca, host, idle, health, .. } = config;
    let of = format!("mcp:{name}");
    let mut forward = match server {
        McpServerConfig::Command(command) => {
            let program = command.first().map_or("", String::as_str);
            // Arguments may be secrets.
            tracing::info!(method = of, program, "forwarding {of} to processes of {program}");
            McpForward::command(name.clone(), command)
        }
        McpServerConfig::Http(address) => {
            let ca_pem = upstream_ca.as_deref().map(|path| read_cas(path, &of)).transpose()?;
            tracing::info!(method = of, %address, "forwarding {of} to {address}");
            McpForward::http(name.clone(), address.clone(), ca_pem.as_deref())
                .map_err(|fault| Failure::usage(format!("upstream of {of}: {fault}")))?
        }
        _ => return Err(Failure::usage(format!("the server of {of} is of an unknown kind"))),
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
