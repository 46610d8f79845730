//! Configuration files of nodes and agents: TOML is parsed into typed settings, or all faults are
//! returned together.
//!
//! Unknown keys are faults, because a misspelt policy would not be enforced.

mod forwards;
#[cfg(feature = "gateway")]
mod gateway;
#[cfg(feature = "forward")]
mod http_forwards;
#[cfg(feature = "forward")]
mod mcp_forwards;
#[cfg(feature = "tunnel")]
mod paths;
mod places;
mod rules;
#[cfg(feature = "forward")]
mod services;
mod setting;
mod shared;
#[cfg(feature = "gateway")]
mod sites;
mod table;
mod value;
mod watch;

pub use crate::line_faults::{LineFault, LineFaults};
#[cfg(feature = "gateway")]
pub use gateway::{GatewayFile, GatewayTls};
#[cfg(feature = "forward")]
pub use http_forwards::HttpForwardConfig;
#[cfg(feature = "forward")]
pub use mcp_forwards::{McpForwardConfig, McpServerConfig};
#[cfg(feature = "tunnel")]
pub use paths::{PathsFile, TunnelFile};
pub use places::KeyPlaces;
#[cfg(feature = "forward")]
pub use services::ForwardConfig;
pub use setting::{MASK, Setting, SettingTable, SettingValue};
#[cfg(feature = "otel")]
pub use shared::TraceFile;
pub use shared::{AdminConfig, AuditFile, TlsFiles, TlsFilesError, parse_memory_max};
#[cfg(feature = "gateway")]
pub use sites::{SiteFile, SiteForward};
pub use value::{ValueError, parse_bytes, parse_duration, parse_listen};
pub use watch::{Watch, read_aside};

use crate::{
    agent::TcpForward,
    limits::{CONFIG_BYTES_MAX, Limits},
    name::NodeAddress,
    policy::{AgentPolicy, NodePolicy},
    system::reader_remedy,
    tls::open_regular,
};
use forwards::{list_tcp, read_tcp};
use rules::{list_agent_policy, list_node_policy, read_agent_policy, read_node_policy};
use shared::{
    list_admin, list_audit, list_limits, list_tls, read_admin, read_audit, read_limits, read_tls,
};
use std::{io::Read as _, net::SocketAddr, path::Path, path::PathBuf};
use table::{Table, read_document};

/// Message for keys that are documented and not supported by this version.
const NOT_YET: &str = "is not supported by this version of dialback";

/// Settings of a node's file. `Default` is an empty file.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// The files of the node's credentials.
    pub tls: TlsFiles,
    /// Rules for calls and for hosts.
    pub policy: NodePolicy,
    /// The limits, with defaults for those that the file does not name.
    pub limits: Limits,
    /// The directory for state that outlasts a restart.
    pub state: Option<PathBuf>,
    /// The audit log.
    pub audit: AuditFile,
    /// The admin listener.
    pub admin: Option<AdminConfig>,
    /// Traces.
    #[cfg(feature = "otel")]
    pub trace: Option<TraceFile>,
    /// The gateway.
    #[cfg(feature = "gateway")]
    pub gateway: Option<GatewayFile>,
    /// The sites of the gateway.
    #[cfg(feature = "gateway")]
    pub sites: Vec<SiteFile>,
    /// The tunnels that the node accepts.
    #[cfg(feature = "tunnel")]
    pub tunnel: Option<TunnelFile>,
    /// The places of the keys of the file.
    pub places: KeyPlaces,
}

impl NodeConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, LineFaults> {
        Self::parse(&read_text(path)?, &path.to_string_lossy())
    }

    /// Reads a text; `file_name` is for the faults and for the origins of rules.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, LineFaults> {
        let (config, places) = read_document(text, file_name, |file| {
            let of_agents =
                ["nodes", "node", "demo", "ledger", "enroll", "service", "tcp", "http", "mcp"];
            file.refuse(&of_agents, "belongs in an agent's file");
            let of_paths =
                ["path", "tunnel_url", "enroll_tunnel_url", "proxy", "proxy_password_file"];
            file.refuse(&of_paths, "belongs in an agent's file");
            refuse_unimplemented(file);
            Self {
                listen: file.optional("listen", value::listen),
                tls: read_tls(file),
                policy: read_node_policy(file),
                limits: read_limits(file),
                state: file.optional("state", value::path),
                audit: read_audit(file),
                admin: read_admin(file),
                #[cfg(feature = "otel")]
                trace: shared::read_trace(file),
                #[cfg(feature = "gateway")]
                gateway: gateway::read_gateway(file),
                #[cfg(feature = "gateway")]
                sites: sites::read_sites(file),
                #[cfg(feature = "tunnel")]
                tunnel: paths::read_tunnel(file),
                places: KeyPlaces::default(),
            }
        })?;
        Ok(Self { places, ..config })
    }

    /// Takes the rules of a file of rules in place of its own.
    pub fn replace_rules(&mut self, rules: PolicyFile) {
        self.policy = rules.policy;
        self.places.replace_rules(rules.places);
    }

    /// All settings, in the order of a file that has the same effect.
    pub fn settings(&self) -> Vec<SettingTable> {
        let mut top = SettingTable::new("")
            .set_text("listen", self.listen)
            .set_path("state", self.state.as_deref());
        let mut tables = vec![list_tls(&self.tls), list_audit(&self.audit)];
        list_optional(&mut top, &mut tables, "admin", self.admin.as_ref().map(list_admin));
        #[cfg(feature = "otel")]
        {
            let trace = self.trace.as_ref().map(shared::list_trace);
            list_optional(&mut top, &mut tables, "trace", trace);
        }
        #[cfg(feature = "gateway")]
        {
            let gateway = self.gateway.as_ref().map(gateway::list_gateway);
            list_optional(&mut top, &mut tables, "gateway", gateway);
            tables.extend(self.sites.iter().map(sites::list_site));
        }
        #[cfg(feature = "tunnel")]
        {
            let tunnel = self.tunnel.as_ref().map(|tunnel| vec![paths::list_tunnel(tunnel)]);
            list_optional(&mut top, &mut tables, "tunnel", tunnel);
        }
        tables.extend(list_limits(&self.limits));
        tables.extend(list_node_policy(&self.policy));
        tables.insert(0, top);
        tables
    }
}

/// Adds tables that a file may lack as a whole.
fn list_optional(
    top: &mut SettingTable,
    tables: &mut Vec<SettingTable>,
    name: &'static str,
    found: Option<Vec<SettingTable>>,
) {
    match found {
        Some(found) => tables.extend(found),
        None => *top = std::mem::take(top).set(name, None),
    }
}

/// Settings of an agent's file. `Default` is an empty file.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AgentConfig {
    /// The nodes to dial.
    pub nodes: Vec<NodeAddress>,
    /// The files of the agent's credentials.
    pub tls: TlsFiles,
    /// The owner's rules for calls that nodes forward.
    pub policy: AgentPolicy,
    /// The limits, with defaults for those that the file does not name.
    pub limits: Limits,
    /// The forwards of TCP connections to host.
    pub tcp: Vec<TcpForward>,
    /// True if the demo services are hosted.
    pub demo: bool,
    /// File of `Demo/Append`.
    pub ledger: Option<PathBuf>,
    /// The services that are forwarded to local HTTP servers.
    #[cfg(feature = "forward")]
    pub forwards: Vec<ForwardConfig>,
    /// The HTTP forwards to host.
    #[cfg(feature = "forward")]
    pub http: Vec<HttpForwardConfig>,
    /// The MCP servers to host.
    #[cfg(feature = "forward")]
    pub mcp: Vec<McpForwardConfig>,
    /// The enroller that renews the agent's certificate.
    pub enroll: Option<NodeAddress>,
    /// The audit log.
    pub audit: AuditFile,
    /// The admin listener.
    pub admin: Option<AdminConfig>,
    /// Traces.
    #[cfg(feature = "otel")]
    pub trace: Option<TraceFile>,
    /// The paths to its nodes.
    #[cfg(feature = "tunnel")]
    pub paths: PathsFile,
    /// The places of the keys of the file.
    pub places: KeyPlaces,
}

impl AgentConfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, LineFaults> {
        Self::parse(&read_text(path)?, &path.to_string_lossy())
    }

    /// Reads a text; `file_name` is for the faults and for the origins of rules.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, LineFaults> {
        let (config, places) = read_document(text, file_name, |file| {
            let of_node = ["listen", "state", "deny", "host", "gateway", "tokens", "site"];
            file.refuse(&of_node, "belongs in a node's file");
            #[cfg(not(feature = "forward"))]
            file.refuse(&["service", "http", "mcp"], "needs dialback with its feature `forward`");
            refuse_unimplemented(file);
            #[cfg(feature = "tunnel")]
            let (paths, more_nodes) = paths::read_paths(file);
            #[cfg(not(feature = "tunnel"))]
            let more_nodes = Vec::new();
            Self {
                #[cfg(feature = "tunnel")]
                paths,
                nodes: read_nodes(file, more_nodes),
                tls: read_tls(file),
                policy: read_agent_policy(file),
                limits: read_limits(file),
                tcp: read_tcp(file),
                demo: file.optional("demo", value::flag).unwrap_or(false),
                ledger: file.optional("ledger", value::path),
                enroll: file.optional("enroll", value::enroller),
                audit: read_audit(file),
                admin: read_admin(file),
                #[cfg(feature = "otel")]
                trace: shared::read_trace(file),
                #[cfg(feature = "forward")]
                forwards: services::read_forwards(file),
                #[cfg(feature = "forward")]
                http: http_forwards::read_http(file),
                #[cfg(feature = "forward")]
                mcp: mcp_forwards::read_mcp(file),
                places: KeyPlaces::default(),
            }
        })?;
        Ok(Self { places, ..config })
    }

    /// All settings, in the order of a file that has the same effect.
    pub fn settings(&self) -> Vec<SettingTable> {
        #[cfg(feature = "tunnel")]
        let is_listed = |node: &&NodeAddress| self.paths.url_of(node).is_none();
        #[cfg(not(feature = "tunnel"))]
        let is_listed = |_: &&NodeAddress| true;
        let nodes: Vec<_> = self.nodes.iter().filter(is_listed).collect();
        let mut top = SettingTable::new("")
            .set("nodes", SettingValue::texts(&nodes))
            .set_flag("demo", self.demo)
            .set_path("ledger", self.ledger.as_deref())
            .set_text("enroll", self.enroll.as_ref());
        let mut tables = Vec::new();
        #[cfg(feature = "tunnel")]
        {
            top = paths::list_paths(&self.paths, top);
            tables.extend(paths::list_nodes(&self.paths, &self.nodes));
            tables.push(paths::list_tunnel_of_agent(&self.paths));
        }
        tables.extend([list_tls(&self.tls), list_audit(&self.audit)]);
        list_optional(&mut top, &mut tables, "admin", self.admin.as_ref().map(list_admin));
        #[cfg(feature = "otel")]
        {
            let trace = self.trace.as_ref().map(shared::list_trace);
            list_optional(&mut top, &mut tables, "trace", trace);
        }
        tables.extend(list_limits(&self.limits));
        tables.extend(list_tcp(&self.tcp));
        #[cfg(feature = "forward")]
        {
            tables.extend(self.http.iter().map(http_forwards::list_http));
            tables.extend(self.mcp.iter().map(mcp_forwards::list_mcp));
            tables.extend(self.forwards.iter().map(services::list_service));
        }
        tables.extend(list_agent_policy(&self.policy));
        tables.insert(0, top);
        tables
    }
}

/// Reads `nodes`, and adds those of `[[node]]`.
fn read_nodes(file: &mut Table<'_>, more: Vec<NodeAddress>) -> Vec<NodeAddress> {
    let (read, remedy) =
        (value::text("edge-1.example.com:4433"), "write [\"HOST:PORT\"] or remove the key");
    let mut nodes = file.each_of_some("nodes", read, remedy).unwrap_or_default();
    file.fault_repeats("nodes", &nodes);
    if !more.is_empty() {
        nodes.extend(more);
        file.fault_repeats("node", &nodes);
    }
    nodes
}

fn refuse_unimplemented(file: &mut Table<'_>) {
    file.refuse(&["cluster"], NOT_YET);
    file.refuse(&["policy", "log", "log_level"], NOT_YET);
    #[cfg(not(feature = "gateway"))]
    file.refuse(&["gateway", "tokens", "site"], NOT_YET);
    #[cfg(not(feature = "otel"))]
    file.refuse(&["trace"], "needs dialback with its feature `otel`");
    #[cfg(not(feature = "tunnel"))]
    file.refuse(&["tunnel", "path", "tunnel_url", "proxy", "node"], "needs the feature `tunnel`");
}

/// A file that holds only a node's rules, and replaces those of the node's file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PolicyFile {
    /// The rules, at least one.
    pub policy: NodePolicy,
    /// The places of the keys of the file.
    pub places: KeyPlaces,
}

impl PolicyFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, LineFaults> {
        Self::parse(&read_text(path)?, &path.to_string_lossy())
    }

    /// Reads a text; `file_name` is for the faults and for the origins of rules. A file without
    /// rules is refused: it was more likely truncated than intended.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, LineFaults> {
        let (policy, places) = read_document(text, file_name, |file| {
            let policy = read_node_policy(file);
            let others = [
                "listen", "state", "tls", "limits", "link", "audit", "trace", "nodes", "gateway",
                "site",
            ];
            file.refuse(
                &others,
                "does not belong in a policy file, which has [[allow]], [[deny]] and [[host]]; check a node's or an agent's file with `dialback config check`",
            );
            policy
        })?;
        if policy == NodePolicy::default() {
            let text = "holds no rules; add at least one [[allow]], [[deny]] or [[host]]";
            return Err(LineFaults::one(file_name, 0, text));
        }
        Ok(Self { policy, places })
    }
}

fn read_text(path: &Path) -> Result<String, LineFaults> {
    let name = path.to_string_lossy();
    let bytes = read_bytes(path).map_err(|error| {
        let text = format!("cannot be read{}: {error}", reader_remedy(&error));
        LineFaults::one(&name, 0, text)
    })?;
    if bytes.len() > CONFIG_BYTES_MAX {
        return Err(LineFaults::one(&name, 0, "is too large: more than 4 MiB"));
    }
    if bytes.trim_ascii().is_empty() {
        let text = "is empty; it may have been truncated while it was written. Leave the option out to run without a file";
        return Err(LineFaults::one(&name, 0, text));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        LineFaults::one(&name, line, "is not UTF-8 text; save the file as UTF-8")
    })
}

/// Reads a file that settings name, up to 4 MiB and a byte. Blocks.
///
/// # Errors
/// It cannot be opened or read, or is not a regular file.
pub fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
