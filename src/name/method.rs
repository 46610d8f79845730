//! The names of services and methods: `HelloService/Hello`.

use super::{Name, NameError, error::as_name, tool::tool_fault};
use std::{fmt, str::FromStr, sync::Arc};

const SERVICE_BYTES_MAX: usize = 200;
const METHOD_BYTES_MAX: usize = 100;

/// True if a text is one identifier: `[A-Za-z_][A-Za-z0-9_]*`.
pub(super) fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn service_fault(text: &str) -> Option<&'static str> {
    if text.len() > SERVICE_BYTES_MAX {
        Some("is longer than 200 bytes")
    } else if text.split('.').all(is_identifier) {
        None
    } else {
        Some("is not identifiers joined by dots")
    }
}

fn method_fault(text: &str) -> Option<&'static str> {
    if text.len() > METHOD_BYTES_MAX {
        Some("is longer than 100 bytes")
    } else if is_identifier(text) {
        None
    } else {
        Some("is not one identifier (letters, digits and _, no digit first)")
    }
}

/// The name of a service: identifiers joined by dots, as `HelloService` or `acme.v1.Stock`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

/// The name of a method within its service: one identifier, as `Hello`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodName(Arc<str>);

macro_rules! text_name {
    ($type:ident, $what:literal, $fault:ident) => {
        impl $type {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                match $fault(text) {
                    Some(why) => Err(NameError::new($what, text, why)),
                    None => Ok(Self(text.into())),
                }
            }
        }
    };
}

/// True for the service `dialback` and all below it.
pub(crate) fn is_of_nodes(service: &str) -> bool {
    service.strip_prefix("dialback").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl ServiceName {
    /// True for `dialback` and all below it, kept for services that every node hosts.
    pub(crate) fn is_of_nodes(&self) -> bool {
        is_of_nodes(&self.0)
    }

    /// True if the name is kept for forwards, which are listed under their kind.
    pub(crate) fn is_of_forwards(&self) -> bool {
        FORWARDS.contains(&&*self.0)
    }
}

text_name!(ServiceName, "service", service_fault);
text_name!(MethodName, "method", method_fault);

/// Kinds of forwards, the prefixes of their names.
pub(super) const FORWARDS: [&str; 3] = [HTTP, MCP, "tcp"];

pub(super) const HTTP: &str = "http";

/// Model Context Protocol: <https://modelcontextprotocol.io/specification>.
pub(super) const MCP: &str = "mcp";

/// A service and a method, `HelloService/Hello`, or a forward, `tcp:db`, `http:web` or
/// `mcp:jira/create_issue`, as one text. `HelloService.Hello`, Go's spelling, is split at the last
/// dot. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct MethodPath {
    text: Arc<str>,
    /// Of the `/`, or of a forward's `:`.
    split: usize,
}

impl MethodPath {
    /// Joins a service and a method.
    pub fn new(service: &ServiceName, method: &MethodName) -> Self {
        Self { text: format!("{service}/{method}").into(), split: service.as_str().len() }
    }

    /// A forward of TCP connections: `tcp:db`.
    pub fn tcp(name: &Name) -> Self {
        Self { text: format!("tcp:{name}").into(), split: "tcp".len() }
    }

    /// A forward of HTTP requests: `http:grafana`.
    pub fn http(name: &Name) -> Self {
        Self { text: format!("http:{name}").into(), split: "http".len() }
    }

    /// An MCP server itself, as it is registered and listed, and for calls that need no particular
    /// tool: `mcp:jira`.
    pub fn mcp_server(server: &Name) -> Self {
        Self { text: format!("{MCP}:{server}").into(), split: MCP.len() }
    }

    /// A tool of an MCP server, `mcp:jira/create_issue`, or one of the names `resources`, `prompts`
    /// and `client`, which stand for the resources and prompts of the server, and for its requests
    /// to the client.
    ///
    /// # Errors
    /// The tool is not 1 to 128 bytes of visible ASCII without `"`, `*` and `\`.
    pub fn mcp(server: &Name, tool: &str) -> Result<Self, NameError> {
        match tool_fault(tool) {
            Some(why) => Err(NameError::new("forward", &format!("{MCP}:{server}/{tool}"), why)),
            None => Ok(Self::below_server(server, tool)),
        }
    }

    /// The same for a tool that was checked.
    pub(super) fn below_server(server: &Name, tool: &str) -> Self {
        Self { text: format!("{MCP}:{server}/{tool}").into(), split: MCP.len() }
    }

    /// The path of a forward of this kind as it is registered: `tcp:db`, `mcp:jira`.
    pub(crate) fn registered_forward(kind: &str, name: &str) -> Result<Self, NameError> {
        let path: Self = format!("{kind}:{name}").parse()?;
        if path.tool().is_some() {
            let why = "names a tool; servers are registered without their tools";
            return Err(NameError::new("forward", path.as_str(), why));
        }
        Ok(path)
    }

    /// `HelloService/Hello`, the form that travels.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The service's part; of a forward its kind, `tcp`.
    pub fn service(&self) -> &str {
        &self.text[..self.split]
    }

    /// The method's part; of a forward its name, `db`, or `jira/create_issue`.
    pub fn method(&self) -> &str {
        &self.text[self.split + 1..]
    }

    /// What host rules name: the service, or a forward as a whole.
    pub(crate) fn hosted(&self) -> &str {
        if self.is_forward() { self.registered() } else { self.service() }
    }

    /// True if it names a forward, `tcp:db`, and no RPC method. Patterns of one never cover the
    /// other.
    pub fn is_forward(&self) -> bool {
        self.text.as_bytes()[self.split] == b':'
    }

    /// True if it names an HTTP forward, `http:grafana`. Its calls have a verb and a path.
    pub fn is_http(&self) -> bool {
        self.is_forward() && self.service() == HTTP
    }

    /// The MCP server of a path of the kind `mcp`.
    pub fn server(&self) -> Option<&str> {
        self.below_mcp().map(|(server, _)| server)
    }

    /// The tool of a path of the kind `mcp`, or `resources`, `prompts` or `client`. `None` if it
    /// names a server itself.
    pub fn tool(&self) -> Option<&str> {
        self.below_mcp().and_then(|(_, tool)| tool)
    }

    /// True if it names an MCP server itself, `mcp:jira`. Rules over its tools decide on its calls.
    pub fn is_mcp_server(&self) -> bool {
        self.below_mcp().is_some_and(|(_, tool)| tool.is_none())
    }

    fn below_mcp(&self) -> Option<(&str, Option<&str>)> {
        if !self.is_forward() || self.service() != MCP {
            return None;
        }
        let name = self.method();
        Some(name.split_once('/').map_or((name, None), |(server, tool)| (server, Some(tool))))
    }

    /// The path under which it is registered: of a tool its server.
    pub(crate) fn registered(&self) -> &str {
        match self.tool() {
            Some(tool) => &self.text[..self.text.len() - tool.len() - 1],
            None => &self.text,
        }
    }

    /// `tcp:db`, if the text begins as a forward does.
    fn forward(text: &str) -> Option<Result<Self, NameError>> {
        let (kind, name) = text.split_once(':').filter(|(kind, _)| FORWARDS.contains(kind))?;
        let fault = |why| NameError::new("forward", text, why);
        let (name, tool) = match name.split_once('/') {
            Some((server, tool)) if kind == MCP => (server, Some(tool)),
            _ => (name, None),
        };
        if let Some(why) = tool.and_then(tool_fault) {
            return Some(Err(fault(why)));
        }
        let named = name.parse::<Name>().map_err(|name_fault| {
            let tool = tool.map(|tool| format!("/{tool}")).unwrap_or_default();
            let spelling = format!("{kind}:{}{tool}", as_name(name));
            fault(name_fault.why()).or_write::<Self>(text, [spelling])
        });
        Some(named.map(|_| Self { text: text.into(), split: kind.len() }))
    }
}

impl FromStr for MethodPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(forward) = Self::forward(text) {
            return forward;
        }
        let fault = |why| NameError::new("method", text, why);
        let split = text.split_once('/').or_else(|| text.rsplit_once('.'));
        let (service, method) = split.ok_or_else(|| {
            fault(
                "is not written SERVICE/METHOD, as HelloService/Hello, or tcp:NAME, http:NAME or mcp:SERVER/TOOL",
            )
        })?;
        if let Some(why) = service_fault(service).or_else(|| method_fault(method)) {
            return Err(fault(why));
        }
        // A text with its slash is the text that travels: calls arrive so, and take one allocation.
        let text = match text.as_bytes()[service.len()] {
            b'/' => text.into(),
            _ => format!("{service}/{method}").into(),
        };
        Ok(Self { text, split: service.len() })
    }
}

impl std::hash::Hash for MethodPath {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl std::borrow::Borrow<str> for MethodPath {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for MethodPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, service: &str, method: &str) {
        let path: MethodPath = text.parse().expect("a method");
        assert_eq!((path.service(), path.method()), (service, method));
        assert_eq!(path.as_str(), format!("{service}/{method}"));
    }

    #[test]
    fn both_spellings_name_the_same_method() {
        check("HelloService/Hello", "HelloService", "Hello");
        check("HelloService.Hello", "HelloService", "Hello");
        check("acme.v1.Stock/List", "acme.v1.Stock", "List");
        check("acme.v1.Stock.List", "acme.v1.Stock", "List");
        check("_s/_m1", "_s", "_m1");
    }

    #[test]
    fn a_forward_has_a_kind_and_a_name_and_is_not_an_rpc_method() {
        for (text, kind, name) in [
            ("tcp:db", "tcp", "db"),
            ("tcp:acme.db-1", "tcp", "acme.db-1"),
            ("http:x", "http", "x"),
        ] {
            let path: MethodPath = text.parse().expect("a forward");
            assert_eq!((path.as_str(), path.service(), path.method()), (text, kind, name));
            assert!(path.is_forward(), "{text}");
            assert_eq!(path.is_http(), kind == "http", "{text}");
        }
        for text in ["tcp/db", "http/web"] {
            let rpc: MethodPath = text.parse().expect("a method");
            assert!(!rpc.is_forward() && !rpc.is_http(), "{text}");
            assert_ne!(Ok(rpc), text.replace('/', ":").parse());
        }
        assert_eq!(MethodPath::tcp(&"db".parse().expect("a name")).as_str(), "tcp:db");
    }

    #[test]
    fn an_mcp_path_has_a_server_and_perhaps_a_tool() {
        for (text, server, tool) in [
            ("mcp:jira", "jira", None),
            ("mcp:acme.jira-1", "acme.jira-1", None),
            ("mcp:jira/create_issue", "jira", Some("create_issue")),
            ("mcp:jira/fs/read.all:v2", "jira", Some("fs/read.all:v2")),
            ("mcp:jira/resources", "jira", Some("resources")),
        ] {
            let path: MethodPath = text.parse().expect("a path");
            assert_eq!((path.server(), path.tool()), (Some(server), tool), "{text}");
            assert_eq!((path.service(), path.method()), ("mcp", &text[4..]));
            assert_eq!(path.registered(), format!("mcp:{server}"));
            assert!(path.is_forward() && !path.is_http(), "{text}");
            assert_eq!(path.is_mcp_server(), tool.is_none(), "{text}");
        }
        for text in ["tcp:db", "http:web", "mcp/jira", "A/b"] {
            let path: MethodPath = text.parse().expect("a path");
            assert_eq!((path.server(), path.tool(), path.registered()), (None, None, text));
            assert!(!path.is_mcp_server(), "{text}");
        }
    }

    #[test]
    fn an_mcp_path_is_made_of_a_server_and_a_name_below_it() {
        let server = "jira".parse().expect("a name");
        assert_eq!(MethodPath::mcp_server(&server).as_str(), "mcp:jira");
        let made = MethodPath::mcp(&server, "a/b").expect("a path");
        assert_eq!((made.as_str(), made.tool()), ("mcp:jira/a/b", Some("a/b")));
        for bad in ["", "a b", "*", "é"] {
            assert!(MethodPath::mcp(&server, bad).is_err(), "{bad:?} was taken for a tool");
        }
    }

    #[test]
    fn only_forwards_without_a_tool_are_registered() {
        let registered = |kind, name| MethodPath::registered_forward(kind, name);
        for (kind, name) in [("tcp", "db"), ("http", "web"), ("mcp", "jira")] {
            assert_eq!(
                registered(kind, name).map(|path| path.to_string()),
                Ok(format!("{kind}:{name}"))
            );
        }
        for (kind, name) in
            [("mcp", "jira/x"), ("mcp", "*"), ("tcp", "a/b"), ("S", "a"), ("S", "a/b")]
        {
            assert!(registered(kind, name).is_err(), "{kind}:{name} was registered");
        }
    }

    #[test]
    fn a_text_that_is_not_a_method_is_refused() {
        for bad in [
            "",
            "Hello",
            "/",
            "a/",
            "/b",
            "a//b",
            "a/b/c",
            "a/b.c",
            "1a/b",
            "a/1b",
            "a-b/c",
            "a.b/",
            "a..b/c",
            "é/b",
            "a/b\0",
            "ftp:grafana",
            "tcp:",
            "tcp:DB",
            "tcp:a/b",
            "tcp:a_b",
            "tcp:*",
            "TCP:db",
            "mcp:",
            "mcp:/x",
            "mcp:Jira/x",
            "mcp:jira/",
            "mcp:jira/a b",
            "mcp:jira/a*",
            "mcp:jira/é",
            "MCP:jira/x",
            &format!("mcp:jira/{}", "a".repeat(129)),
            &format!("{}/b", "a".repeat(201)),
            &format!("a/{}", "b".repeat(101)),
        ] {
            assert!(bad.parse::<MethodPath>().is_err(), "{bad:?} was taken for a method");
        }
    }
}
