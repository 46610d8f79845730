//! Where a request is passed on to.

use super::super::{
    response::Refusal,
    route::parsed,
    site::{ForwardKind, ForwardName, Site, names_one_host},
};
use crate::{call::Target, mcp::METADATA_PATH, status::Code};
use hyper::{StatusCode, header, http::request::Parts};
use std::sync::Arc;

/// A forward, and the path that its upstream gets.
pub(in crate::gateway) struct ProxyRoute {
    pub(super) target: Target,
    pub(super) forward: ForwardName,
    /// As it was received; of an MCP server `/`, or the path of its metadata.
    pub(super) path: String,
    /// What stands before it in the path of the request: `/v1/agents/AGENT/http/NAME`.
    pub(super) prefix: String,
    /// False for the path of a forward itself.
    pub(super) has_slash: bool,
    pub(super) site: Option<Arc<Site>>,
}

impl ProxyRoute {
    /// The whole path of a request for a site.
    pub(in crate::gateway) fn of_site(site: Arc<Site>, head: &Parts) -> Result<Self, Refusal> {
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        if !names_one_host(&head.uri, host) {
            return Err(Refusal::invalid("host and the request target name different hosts"));
        }
        let path = match (head.uri.path(), site.forward.kind) {
            ("" | "/" | "/mcp" | "/mcp/", ForwardKind::Mcp) | ("", ForwardKind::Http) => "/",
            (path, _) => path,
        };
        let (target, forward) = (site.target.clone(), site.forward.clone());
        let (path, prefix, site) = (path.into(), String::new(), Some(site));
        Ok(Self { target, forward, path, prefix, has_slash: true, site })
    }

    /// The rest of a path below `/v1/agents/AGENT/http/NAME`, or an MCP server at
    /// `/v1/agents/AGENT/mcp/NAME`; `None` for other paths.
    pub(in crate::gateway) fn of_path(head: &Parts) -> Option<Result<Self, Refusal>> {
        let path = head.uri.path();
        let metadata_of = path.strip_prefix(METADATA_PATH);
        let (agent, rest) =
            metadata_of.unwrap_or(path).strip_prefix("/v1/agents/")?.split_once('/')?;
        if let Some(name) = rest.strip_prefix("mcp/") {
            let name = name.strip_suffix('/').unwrap_or(name);
            return Some(Self::of_mcp(agent, name, metadata_of.map_or("/", |_| path)));
        }
        if metadata_of.is_some() {
            return None;
        }
        let rest = rest.strip_prefix("http/")?;
        let (name, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let prefix = &path[..path.len() - below.len()];
        Some(Self::below(prefix, agent, name, below))
    }

    fn of_mcp(agent: &str, name: &str, path: &str) -> Result<Self, Refusal> {
        if name.contains('/') {
            let text = "an MCP server is at /v1/agents/AGENT/mcp/NAME, with nothing behind it";
            return Err(Refusal::with(StatusCode::NOT_FOUND, Code::Unimplemented, text));
        }
        let (agent, name) = (parsed("agent", agent)?, parsed("forward", name)?);
        let forward = ForwardName { kind: ForwardKind::Mcp, name };
        let (target, path, prefix) = (Target::Agent(agent), path.into(), String::new());
        Ok(Self { target, forward, path, prefix, has_slash: true, site: None })
    }

    fn below(prefix: &str, agent: &str, name: &str, below: &str) -> Result<Self, Refusal> {
        let (agent, name) = (parsed("agent", agent)?, parsed("forward", name)?);
        let forward = ForwardName { kind: ForwardKind::Http, name };
        let has_slash = !below.is_empty();
        let path = if has_slash { below } else { "/" }.into();
        let (target, prefix) = (Target::Agent(agent), prefix.into());
        Ok(Self { target, forward, path, prefix, has_slash, site: None })
    }

    /// The URL of this forward with a slash, without which its relative links lead out of it.
    pub(super) fn with_slash(&self, query: Option<&str>) -> String {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{}/{query}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn of(uri: &str) -> Option<Result<ProxyRoute, Refusal>> {
        let (head, ()) = Request::builder().uri(uri).body(()).expect("a request").into_parts();
        ProxyRoute::of_path(&head)
    }

    #[test]
    fn a_path_names_agent_and_forward_and_the_rest_is_the_upstreams() {
        for (uri, path, prefix, has_slash) in [
            ("/v1/agents/w/http/web/", "/", "/v1/agents/w/http/web", true),
            ("/v1/agents/w/http/web/a//b/?q", "/a//b/", "/v1/agents/w/http/web", true),
            ("/v1/agents/w/http/web", "/", "/v1/agents/w/http/web", false),
            ("/v1/agents/%77/http/web/%2F", "/%2F", "/v1/agents/%77/http/web", true),
        ] {
            let route = of(uri).expect("a route").expect("a route");
            assert_eq!(route.target, Target::Agent("w".parse().expect("a name")));
            assert_eq!(route.forward.name.as_str(), "web");
            let found = (route.path.as_str(), route.prefix.as_str(), route.has_slash);
            assert_eq!(found, (path, prefix, has_slash), "{uri}");
        }
    }

    #[test]
    fn an_mcp_server_has_one_path_and_that_of_its_metadata() {
        let metadata = "/.well-known/oauth-protected-resource/v1/agents/w/mcp/jira";
        for (uri, path) in [
            ("/v1/agents/w/mcp/jira", "/"),
            ("/v1/agents/w/mcp/jira/?x", "/"),
            (metadata, metadata),
        ] {
            let route = of(uri).expect("a route").expect("a route");
            assert_eq!((route.forward.to_string(), &route.path[..]), ("mcp:jira".into(), path));
            assert_eq!(route.target, Target::Agent("w".parse().expect("a name")));
        }
        for bad in ["/v1/agents/w/mcp/jira/x", "/v1/agents/w/mcp/", "/v1/agents/W/mcp/jira"] {
            assert!(of(bad).expect("a route").is_err(), "{bad}");
        }
        let site = |path: &str| {
            let name = |text: &str| text.parse().expect("a name");
            let site = Site::new("a.example".parse().expect("a host"), name("w"), name("jira"));
            let request = Request::builder().uri(path).body(()).expect("a request");
            ProxyRoute::of_site(Arc::new(site.mcp()), &request.into_parts().0)
        };
        for (path, expected) in [
            ("/", "/"),
            ("/mcp", "/"),
            ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource"),
            (metadata, metadata),
            ("/other", "/other"),
        ] {
            assert_eq!(site(path).expect("a route").path, expected);
        }
    }

    #[test]
    fn other_paths_are_none_and_bad_names_are_refused() {
        for uri in ["/", "/v1/agents/w/httpx/web", "/v1/agents/w/S/M", "/v1/services/http/web"] {
            assert!(of(uri).is_none(), "{uri}");
        }
        for uri in ["/v1/agents/W/http/web/", "/v1/agents/w/http//x", "/v1/agents/../http/web/"] {
            assert!(of(uri).expect("a route").is_err(), "{uri}");
        }
    }
}
