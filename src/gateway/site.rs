//! Sites: host names whose requests go to an HTTP forward of an agent.

use crate::{
    call::Target,
    name::{MethodPath, Name, NameError, PeerName, Role},
    tls::{HostCertificates, ServerCertificate},
};
use hyper::{Uri, header, http::request::Parts};
use std::{fmt, str::FromStr, sync::Arc};

const HOST_BYTES_MAX: usize = 253;

/// Host name of a site: lower-case labels joined by dots, or an IP address. Requests name it in
/// any case and with any port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteHost(Arc<str>);

impl SiteHost {
    /// The name, without a port.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SiteHost {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fault = |why| Err(NameError::new("host", text, why));
        if text.contains("://") || text.contains('/') {
            return fault("is a URL; write the host name alone, as grafana.example.com");
        }
        let is_ip = text.trim_start_matches('[').trim_end_matches(']');
        if is_ip.parse::<std::net::IpAddr>().is_ok() {
            return Ok(Self(text.into()));
        }
        if text.contains(':') {
            return fault("has a port; a site answers on the port of the gateway");
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        };
        if text.is_empty() || text.len() > HOST_BYTES_MAX || !text.split('.').all(is_label) {
            return fault("is not a host name in lower case, as grafana.example.com");
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SiteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Kind of a forward behind a site or a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardKind {
    Http,
    Mcp,
}

/// A forward of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForwardName {
    pub(super) kind: ForwardKind,
    pub(super) name: Name,
}

impl fmt::Display for ForwardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ForwardKind::Http => MethodPath::http(&self.name).fmt(f),
            ForwardKind::Mcp => MethodPath::mcp_server(&self.name).fmt(f),
        }
    }
}

/// A host name of the gateway whose requests go to an HTTP forward, as they are, or to an MCP
/// server of an agent.
#[derive(Debug, Clone)]
#[must_use = "a site is added to a gateway"]
pub struct Site {
    pub(super) host: SiteHost,
    pub(super) target: Target,
    pub(super) forward: ForwardName,
    pub(super) public: Option<PeerName>,
    pub(super) certificate: Option<ServerCertificate>,
}

impl Site {
    /// A site that `http:FORWARD` of this agent answers.
    pub const fn new(host: SiteHost, agent: Name, forward: Name) -> Self {
        Self::of(host, Target::Agent(agent), forward)
    }

    /// A site that any agent answers which hosts `http:FORWARD` and may do so by a host rule.
    pub const fn of_any_agent(host: SiteHost, forward: Name) -> Self {
        Self::of(host, Target::Service, forward)
    }

    const fn of(host: SiteHost, target: Target, name: Name) -> Self {
        let forward = ForwardName { kind: ForwardKind::Http, name };
        Self { host, target, forward, public: None, certificate: None }
    }

    /// Makes it a site of the MCP server `mcp:FORWARD`, which clients reach at the path `/mcp`, or
    /// without one.
    pub const fn mcp(mut self) -> Self {
        self.forward.kind = ForwardKind::Mcp;
        self
    }

    /// Opens the site, and no other part of the gateway, to everybody: requests without a
    /// credential are calls of this caller.
    pub fn public(mut self, caller: Name) -> Self {
        self.public = Some(PeerName::new(Role::Caller, caller));
        self
    }

    /// Sets the certificate that TLS shows for this host. Default: the gateway's.
    pub fn certificate(mut self, certificate: ServerCertificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    pub(super) fn announce(&self, scheme: &str, port: u16) {
        let Self { host, forward, .. } = self;
        let to = match &self.target {
            Target::Agent(agent) => format!("agent/{agent}"),
            Target::Service | Target::Here => "any agent that may host it".to_owned(),
        };
        let path = if forward.kind == ForwardKind::Mcp { "/mcp" } else { "" };
        tracing::info!(%host, method = %forward, "the site {scheme}://{host}:{port}{path} goes to {forward} of {to}");
        if let Some(caller) = &self.public {
            tracing::warn!(
                %host,
                method = %forward,
                %caller,
                "the site {host} is PUBLIC: everybody who reaches this gateway may call {forward} as {caller}, without any credential"
            );
        }
    }

    /// Its host name.
    pub const fn host(&self) -> &SiteHost {
        &self.host
    }
}

/// The sites of a gateway.
#[derive(Debug, Default)]
pub(super) struct Sites(Vec<Arc<Site>>);

impl Sites {
    pub(super) fn new(sites: Vec<Site>) -> Self {
        Self(sites.into_iter().map(Arc::new).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.0.iter()
    }

    /// The site that a request names.
    pub(super) fn of(&self, head: &Parts) -> Option<Arc<Site>> {
        if self.0.is_empty() {
            return None;
        }
        let host = host_of(authority(head)?);
        self.0.iter().find(|site| site.host.0.eq_ignore_ascii_case(host)).cloned()
    }
}

/// The certificates that sites have of their own.
pub(super) fn host_certificates(sites: &[Site]) -> HostCertificates {
    let own = |site: &Site| Some((site.host.to_string(), site.certificate.clone()?));
    sites.iter().filter_map(own).collect()
}

/// Host and port that a request names. The server has checked that there are no two.
pub(super) fn authority(head: &Parts) -> Option<&str> {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(|authority| authority.as_str()).or(host)
}

/// A request target that names a host must name that of the header (RFC 9112 section 3.2.2).
pub(super) fn names_one_host(uri: &Uri, host: Option<&str>) -> bool {
    match (uri.authority(), host) {
        (Some(authority), Some(host)) => authority.as_str().eq_ignore_ascii_case(host),
        _ => true,
    }
}

fn host_of(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    // The name of the root is the same host.
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn named(uri: &str, host: Option<&str>) -> Option<String> {
        let site = |host: &str| {
            let name = |text: &str| text.parse().expect("a name");
            Site::new(host.parse().expect("a host"), name("a"), name("web"))
        };
        let sites =
            Sites::new(["web.example", "api.example", "192.0.2.1", "[::1]"].map(site).into());
        let mut request = Request::builder().uri(uri);
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        let (head, ()) = request.body(()).expect("a request").into_parts();
        sites.of(&head).map(|site| site.host.to_string())
    }

    #[test]
    fn a_site_is_named_in_any_case_and_with_any_port() {
        for (uri, host, expected) in [
            ("/", Some("web.example"), Some("web.example")),
            ("/", Some("WEB.example:8443"), Some("web.example")),
            ("/", Some("web.example."), Some("web.example")),
            ("http://api.example/x", None, Some("api.example")),
            ("/", Some("[::1]:80"), Some("[::1]")),
            ("/", Some("192.0.2.1:80"), Some("192.0.2.1")),
            ("/", Some("other.example"), None),
            ("/", Some("x.web.example"), None),
            ("/", None, None),
        ] {
            assert_eq!(named(uri, host).as_deref(), expected, "{uri} {host:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_in_lower_case_or_an_address() {
        for good in ["localhost", "a.b-c.example", "192.0.2.1", "[::1]", "a_b.example"] {
            assert!(good.parse::<SiteHost>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "A.example",
            "a..b",
            "-a",
            "a-",
            "a b",
            "http://a",
            "a/b",
            "a:80",
            "*.a",
            "ä.example",
        ] {
            assert!(bad.parse::<SiteHost>().is_err(), "{bad:?}");
        }
    }
}
