//! Where a request is passed on to.

use super::super::{
    response::Refusal,
    route::parsed,
    site::{Site, names_one_host},
};
use crate::{call::Target, name::Name};
use hyper::{header, http::request::Parts};
use std::sync::Arc;

/// An HTTP forward, and the path that its upstream gets.
pub(in crate::gateway) struct ProxyRoute {
    pub(super) target: Target,
    pub(super) forward: Name,
    /// As it was received.
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
        let path = match head.uri.path() {
            "" => "/",
            path => path,
        };
        let (target, forward) = (site.target.clone(), site.forward.clone());
        let (path, prefix, site) = (path.into(), String::new(), Some(site));
        Ok(Self { target, forward, path, prefix, has_slash: true, site })
    }

    /// The rest of a path below `/v1/agents/AGENT/http/NAME`; `None` for other paths.
    pub(in crate::gateway) fn of_path(head: &Parts) -> Option<Result<Self, Refusal>> {
        let path = head.uri.path();
        let (agent, rest) = path.strip_prefix("/v1/agents/")?.split_once('/')?;
        let rest = rest.strip_prefix("http/")?;
        let (name, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let prefix = &path[..path.len() - below.len()];
        Some(Self::below(prefix, agent, name, below))
    }

    fn below(prefix: &str, agent: &str, name: &str, below: &str) -> Result<Self, Refusal> {
        let (agent, forward) = (parsed("agent", agent)?, parsed("forward", name)?);
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
            assert_eq!(route.forward.as_str(), "web");
            let found = (route.path.as_str(), route.prefix.as_str(), route.has_slash);
            assert_eq!(found, (path, prefix, has_slash), "{uri}");
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
