//! MCP forwards: a call becomes a message to an MCP server, over HTTP or to a process.
//!
//! Each call carries one message, and its method names the tool in it. Agent and node both read
//! the message and decide by their own rules.

mod rules;
mod exchange;
mod refusals;
mod until_drain;
mod events_reply;
mod session_owners;
mod http_server;
mod stdio;
mod hosted;

use super::{
    check::{UpstreamCheck, of_http},
    http::{UpstreamAddress, UpstreamError},
    proxy::IdleLimits,
};
use crate::{
    drain::{Signal, Tasks},
    limits::HTTP_STREAM_IDLE_MAX,
    memory::MessageMemory,
    name::{MethodPath, Name},
    policy::AgentPolicy,
    serve::Service,
    shared_value::SharedValue,
    tls::UpstreamTls,
    wire::CallKind,
};
use hosted::{HostedMcp, McpServer};
use http_server::HttpServer;
pub(in crate::agent) use session_owners::SessionOwners;
use std::{fmt, sync::Arc, time::Duration};
use stdio::StdioServer;

/// An MCP server (Model Context Protocol), whose tools are called as `mcp:NAME/TOOL`.
///
/// It is a local HTTP server ("streamable HTTP"), or a command that speaks MCP on its standard
/// input and output, of which each session of a client gets a process of its own. Clients reach it
/// over the gateway of a node. `docs/mcp.md` describes rules, sessions and failures.
///
/// A clone is the same forward: an agent that hosts it already keeps its sessions when it is given
/// the clone.
#[derive(Clone)]
#[must_use = "a forward answers once it is hosted"]
pub struct McpForward(Arc<McpSettings>);

#[derive(Clone)]
struct McpSettings {
    name: Name,
    upstream: McpUpstream,
    host: Option<String>,
    idle: Option<Duration>,
    check: Option<UpstreamCheck>,
}

#[derive(Clone)]
enum McpUpstream {
    Http(UpstreamAddress, Option<UpstreamTls>),
    Command(Vec<String>),
}

impl McpForward {
    /// Forwards `mcp:NAME/TOOL` to a server at this URL. `https` needs the CAs (PEM) that vouch for
    /// it.
    ///
    /// # Errors
    /// `https` without CAs, CAs without `https`, or invalid CAs.
    pub fn http(
        name: Name,
        address: UpstreamAddress,
        ca_pem: Option<&[u8]>,
    ) -> Result<Self, UpstreamError> {
        let tls = address.tls(ca_pem, true)?;
        Ok(Self::new(name, McpUpstream::Http(address, tls)))
    }

    /// Forwards `mcp:NAME/TOOL` to processes of a command: a program and its arguments.
    pub fn command(name: Name, command: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::new(name, McpUpstream::Command(command.into_iter().map(Into::into).collect()))
    }

    fn new(name: Name, upstream: McpUpstream) -> Self {
        Self(Arc::new(McpSettings { name, upstream, host: None, idle: None, check: None }))
    }

    fn with(mut self, set: impl FnOnce(&mut McpSettings)) -> Self {
        set(Arc::make_mut(&mut self.0));
        self
    }

    /// Sets the `Host` that an HTTP server gets. Default: its address.
    pub fn host(self, host: impl Into<String>) -> Self {
        self.with(|settings| settings.host = Some(host.into()))
    }

    /// Sets after how long without a byte in either direction a request to an HTTP server ends, by
    /// default 5 min while the response is awaited and an hour once it has begun; and after how
    /// long without a request the process of a session ends, by default an hour.
    pub fn idle_max(self, idle_max: Duration) -> Self {
        self.with(|settings| settings.idle = Some(idle_max))
    }

    /// Sets the check of an HTTP server. Default: none but after a failure.
    pub fn check(self, check: UpstreamCheck) -> Self {
        self.with(|settings| settings.check = Some(check))
    }

    /// Its name: its tools are called as `mcp:NAME/TOOL`.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// True if one is a clone of the other.
    pub(in crate::agent) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(in crate::agent) fn into_service(
        self,
        policy: Arc<SharedValue<AgentPolicy>>,
        (message_bytes_max, memory): (usize, MessageMemory),
        (tasks, drain): (Tasks, Arc<Signal>),
        owners: Arc<SessionOwners>,
    ) -> Service {
        let McpSettings { name, upstream, host, idle, check } = Arc::unwrap_or_clone(self.0);
        let check = match &upstream {
            McpUpstream::Http(address, tls) => Some(of_http(address, tls.as_ref(), check)),
            McpUpstream::Command(_) => None,
        };
        let path = MethodPath::mcp_server(&name);
        let server = match upstream {
            McpUpstream::Http(address, tls) => {
                let idle = idle
                    .map_or_else(IdleLimits::default, |max| IdleLimits { head: max, stream: max });
                McpServer::Http(HttpServer::new(
                    path,
                    (address, tls),
                    host,
                    idle,
                    message_bytes_max,
                    (drain, owners),
                ))
            }
            McpUpstream::Command(command) => {
                let idle = idle.unwrap_or(HTTP_STREAM_IDLE_MAX);
                McpServer::Stdio(StdioServer::new(
                    path,
                    command,
                    idle,
                    message_bytes_max,
                    (tasks, drain),
                ))
            }
        };
        let refusals = Arc::default();
        let hosted =
            HostedMcp { refusals, name: name.clone(), policy, message_bytes_max, memory, server };
        let service = Service::new("mcp").raw_method_of(CallKind::Http, name.to_string(), hosted);
        match check {
            Some(check) => service.checked_by(check),
            None => service,
        }
    }
}

impl fmt::Debug for McpForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpForward").field("name", &self.0.name).finish_non_exhaustive()
    }
}
