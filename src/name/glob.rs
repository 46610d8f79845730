//! Patterns over names in rules. `*` is one label or the rest of one, `**` any number of labels.

use super::{
    MethodPath, Name, NameError,
    error::as_name,
    method::{FORWARDS, HTTP, MCP, is_identifier},
    peer::is_label_byte,
    tool::ToolGlob,
};
use std::str::FromStr;

/// One label of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Label {
    /// Exactly this text.
    Exact(String),
    /// `warehouse-*`: one label with this prefix and at least one more byte. `*` has no prefix.
    Prefix(String),
    /// `**`: any number of labels, none included.
    Any,
}

impl Label {
    fn parse(text: &str, is_byte: fn(u8) -> bool) -> Result<Self, &'static str> {
        if text == "**" {
            return Ok(Self::Any);
        }
        let (body, is_prefix) = match text.strip_suffix('*') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if body.contains('*') {
            return Err("has a * that is not the end of its label");
        }
        if !body.bytes().all(is_byte) {
            return Err("has a character that no such name has");
        }
        match (is_prefix, body.is_empty()) {
            (true, _) => Ok(Self::Prefix(body.into())),
            (false, true) => Err("has an empty label"),
            (false, false) => Ok(Self::Exact(body.into())),
        }
    }

    /// The text, without a `*`.
    fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Any => "",
        }
    }

    fn matches(&self, label: &str) -> bool {
        match self {
            Self::Exact(text) => text == label,
            Self::Prefix(text) => label.len() > text.len() && label.starts_with(text.as_str()),
            Self::Any => true,
        }
    }
}

/// Names are short, so `**` simply tries every length.
fn labels_match<'a>(pattern: &[Label], mut labels: impl Iterator<Item = &'a str> + Clone) -> bool {
    let Some((first, rest)) = pattern.split_first() else {
        return labels.next().is_none();
    };
    if *first != Label::Any {
        return labels.next().is_some_and(|label| first.matches(label))
            && labels_match(rest, labels);
    }
    loop {
        if labels_match(rest, labels.clone()) {
            return true;
        }
        if labels.next().is_none() {
            return false;
        }
    }
}

fn parse_labels(text: &str, is_byte: fn(u8) -> bool) -> Result<Vec<Label>, &'static str> {
    if text.len() > 300 {
        return Err("is longer than 300 bytes");
    }
    let labels: Vec<_> =
        text.split('.').map(|label| Label::parse(label, is_byte)).collect::<Result<_, _>>()?;
    // Each `**` multiplies the ways to match: two are all that anybody needs.
    if labels.iter().filter(|label| **label == Label::Any).count() > 2 {
        return Err("has more than two **");
    }
    Ok(labels)
}

/// A pattern over peer names: `acme.*`, `warehouse-*`, `**`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NameGlob {
    text: String,
    labels: Vec<Label>,
}

impl NameGlob {
    /// True if the pattern covers the name.
    pub fn matches(&self, name: &Name) -> bool {
        labels_match(&self.labels, name.as_str().split('.'))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for NameGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let labels = parse_labels(text, is_label_byte).map_err(|why| {
            NameError::new("name pattern", text, why).or_write::<Self>(text, [as_name(text)])
        })?;
        Ok(Self { text: text.into(), labels })
    }
}

/// A pattern over services: `HelloService`, `acme.**`, or over forwards of HTTP or MCP:
/// `http:grafana`, `mcp:jira`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceGlob {
    text: String,
    /// The kind of the forwards; `None` for services.
    forward: Option<&'static str>,
    labels: Vec<Label>,
}

impl ServiceGlob {
    /// True if the pattern covers the service, or the forward (`http:grafana`). None covers both.
    pub fn matches(&self, service: &str) -> bool {
        match (service.split_once(':'), self.forward) {
            (Some((kind, name)), Some(own)) if kind == own => {
                labels_match(&self.labels, name.split('.'))
            }
            (None, None) => labels_match(&self.labels, service.split('.')),
            _ => false,
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ServiceGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (forward, labels) = match text.split_once(':') {
            Some((HTTP, name)) => (Some(HTTP), parse_labels(name, is_label_byte)),
            Some((MCP, name)) => (Some(MCP), parse_labels(name, is_label_byte)),
            _ => (None, parse_labels(text, is_identifier_byte)),
        };
        let labels = labels.map_err(|why| {
            let service = text.split('/').next().unwrap_or_default().to_owned();
            NameError::new("service pattern", text, why).or_write::<Self>(text, [service])
        })?;
        Ok(Self { text: text.into(), forward, labels })
    }
}

/// True if `wide` certainly covers all names that `narrow` covers. Conservative: may return false.
fn labels_cover(wide: &[Label], narrow: &[Label]) -> bool {
    let exact = |label: &'_ Label| matches!(label, Label::Exact(_));
    if wide == narrow || wide == [Label::Any] {
        return true;
    }
    if narrow.iter().all(exact) {
        return labels_match(wide, narrow.iter().map(Label::text));
    }
    let covers = |(wide, narrow): (&Label, &Label)| match (wide, narrow) {
        (Label::Any, _) | (_, Label::Any) => false,
        (Label::Prefix(start), Label::Prefix(longer)) => longer.starts_with(start.as_str()),
        (wide, Label::Exact(text)) => wide.matches(text),
        (Label::Exact(_), Label::Prefix(_)) => false,
    };
    wide.len() == narrow.len() && wide.iter().zip(narrow).all(covers)
}

/// Subject of a method pattern: RPC methods or forwards, never both.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    Rpc { service: Vec<Label>, method: Label },
    Forward { kind: &'static str, name: Vec<Label> },
    Mcp { server: Vec<Label>, tool: ToolGlob },
}

/// A pattern over methods: `HelloService/*`, `acme.**/Get*`, or over forwards of one kind: `tcp:*`,
/// `http:grafana`, `mcp:jira/create_*`. `*/*` is every RPC method of every service, and never a
/// forward.
///
/// In a pattern over tools of MCP servers `*` is any number of any characters of a tool. It never
/// covers the names `resources`, `prompts` and `client`, which have to be written out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MethodGlob {
    text: String,
    subject: Subject,
}

impl MethodGlob {
    /// True if the pattern covers the RPC method, or the forward. None covers both. An MCP server
    /// itself, `mcp:jira`, is covered with any of its tools, or with its resources or prompts.
    pub fn matches(&self, path: &MethodPath) -> bool {
        match &self.subject {
            Subject::Rpc { service, method } => {
                !path.is_forward()
                    && method.matches(path.method())
                    && labels_match(service, path.service().split('.'))
            }
            Subject::Forward { kind, name } => {
                path.is_forward()
                    && path.service() == *kind
                    && labels_match(name, path.method().split('.'))
            }
            Subject::Mcp { server, tool } => {
                path.server().is_some_and(|name| labels_match(server, name.split('.')))
                    && path.tool().map_or_else(|| tool.opens_server(), |name| tool.matches(name))
            }
        }
    }

    /// True if this pattern certainly covers all that `other` covers: both are equal, this one is
    /// every RPC method and `other` is of RPC, or this one is wider over tools of MCP servers.
    /// Conservative: may return false for others.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.subject, &other.subject) {
            (own, others) if own == others => true,
            (Subject::Mcp { server, tool }, Subject::Mcp { server: servers, tool: tools }) => {
                labels_cover(server, servers) && tool.covers(tools)
            }
            (_, Subject::Rpc { .. }) => self.is_every_rpc(),
            _ => false,
        }
    }

    /// True if this pattern certainly covers all that `other` covers below one MCP server.
    /// Conservative, as above.
    pub(crate) fn covers_below(&self, server: &MethodPath, other: &Self) -> bool {
        match (&self.subject, &other.subject, server.server()) {
            (Subject::Mcp { server, tool }, Subject::Mcp { tool: others, .. }, Some(name)) => {
                labels_match(server, name.split('.')) && tool.covers(others)
            }
            _ => false,
        }
    }

    /// True if the pattern covers some method of the service, whatever methods that has.
    pub fn matches_some_of(&self, service: &str) -> bool {
        matches!(&self.subject, Subject::Rpc { service: labels, .. } if labels_match(labels, service.split('.')))
    }

    /// True if the pattern covers every method of the service.
    pub fn matches_all_of(&self, service: &str) -> bool {
        matches!(&self.subject, Subject::Rpc { method: Label::Prefix(start), .. } if start.is_empty())
            && self.matches_some_of(service)
    }

    /// True if the pattern covers HTTP forwards, and therefore nothing else.
    pub fn is_http(&self) -> bool {
        matches!(self.subject, Subject::Forward { kind: HTTP, .. })
    }

    fn is_every_rpc(&self) -> bool {
        let Subject::Rpc { service, method } = &self.subject else { return false };
        service.iter().all(|label| *label == Label::Any)
            && matches!(method, Label::Prefix(start) if start.is_empty())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn subject(text: &str) -> Result<Subject, &'static str> {
        if let Some((kind, name)) = forward(text) {
            if kind != MCP {
                return Ok(Subject::Forward { kind, name: parse_labels(name, is_label_byte)? });
            }
            let split = name.split_once('/');
            let (server, tool) = split.ok_or("names an MCP server and none of its tools")?;
            let server = parse_labels(server, is_label_byte)?;
            return Ok(Subject::Mcp { server, tool: ToolGlob::parse(tool)? });
        }
        let (service, method) = text
            .split_once('/')
            .ok_or("is not written SERVICE/METHOD, tcp:NAME, http:NAME or mcp:SERVER/TOOL")?;
        if text == "*/*" {
            return Ok(Subject::Rpc {
                service: vec![Label::Any],
                method: Label::Prefix(String::new()),
            });
        }
        let service = parse_labels(service, is_identifier_byte)?;
        match Label::parse(method, is_identifier_byte)? {
            Label::Any => Err("has ** for its method; * is any method"),
            Label::Exact(name) if !is_identifier(&name) => {
                Err("has a method that is no identifier")
            }
            method => Ok(Subject::Rpc { service, method }),
        }
    }
}

/// The kind and the name of a text that begins as a forward does.
fn forward(text: &str) -> Option<(&'static str, &str)> {
    let (kind, name) = text.split_once(':')?;
    FORWARDS.into_iter().find(|known| *known == kind).map(|kind| (kind, name))
}

/// `acme/v1/Stock` as `acme.v1/Stock`.
fn dotted((service, method): (&str, &str)) -> String {
    format!("{}/{method}", service.replace('/', "."))
}

/// Likely spellings of a text that is not a method pattern, the likeliest first.
fn spellings(text: &str) -> Vec<String> {
    match text.split_once(['/', ':']) {
        // Go's `Service.Method`, every method, or all of one service.
        None if !text.contains('.') && text.contains('*') => {
            vec![format!("*/{}", text.replace("**", "*"))]
        }
        None => {
            let go = text.rsplit_once('.').map(|(service, method)| format!("{service}/{method}"));
            go.into_iter().chain([format!("{text}/*")]).collect()
        }
        Some((service, "**")) => vec![format!("{service}/*")],
        Some((kind, name)) if kind.eq_ignore_ascii_case(MCP) && text.contains(':') => {
            let (server, tool) = name.split_once('/').unwrap_or((name, "*"));
            vec![format!("{MCP}:{}/{}", as_name(server), tool.replace("**", "*"))]
        }
        Some((kind, name)) if FORWARDS.contains(&&*kind.to_ascii_lowercase()) => {
            vec![format!("{}:{}", kind.to_ascii_lowercase(), as_name(name))]
        }
        Some(_) => text.rsplit_once('/').map(dotted).into_iter().collect(),
    }
}

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl FromStr for MethodGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let subject = Self::subject(text).map_err(|why| {
            NameError::new("method pattern", text, why).or_write::<Self>(text, spellings(text))
        })?;
        Ok(Self { text: text.into(), subject })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_name(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob: NameGlob = pattern.parse().expect("a pattern");
        for name in yes {
            assert!(glob.matches(&name.parse().expect("a name")), "{pattern} missed {name}");
        }
        for name in no {
            assert!(!glob.matches(&name.parse().expect("a name")), "{pattern} took {name}");
        }
    }

    #[test]
    fn a_pattern_of_300_bytes_passes_and_one_of_301_does_not() {
        let pattern = |bytes: usize| "a".repeat(bytes).parse::<NameGlob>();
        assert!(pattern(300).is_ok());
        assert!(pattern(301).expect_err("refused").to_string().contains("longer than 300 bytes"));
    }

    #[test]
    fn name_patterns_cover_labels_and_never_cross_a_dot() {
        check_name("warehouse", &["warehouse"], &["warehouse-1", "acme.warehouse", "warehous"]);
        check_name("*", &["a", "warehouse"], &["a.b"]);
        check_name("acme.*", &["acme.a"], &["acme", "acme.a.b", "acmee.a"]);
        check_name(
            "warehouse-*",
            &["warehouse-1", "warehouse-1-b"],
            &["warehouse", "warehouse-1.b"],
        );
        check_name("**", &["a", "a.b.c"], &[]);
        check_name("acme.**", &["acme", "acme.a", "acme.a.b"], &["acmee", "a.acme"]);
        check_name("**.db", &["db", "a.db", "a.b.db"], &["a.dbs", "db.a"]);
        check_name("a.**.z", &["a.z", "a.b.z", "a.b.c.z"], &["a", "z", "a.b"]);
    }

    #[test]
    fn texts_that_are_not_name_patterns_are_refused() {
        for bad in ["", ".", "a..b", "*a", "a*b", "***", "A", "a/b", "**.**.**.a", "é"] {
            assert!(bad.parse::<NameGlob>().is_err(), "{bad:?} was taken for a pattern");
        }
    }

    #[track_caller]
    fn check_method(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob: MethodGlob = pattern.parse().expect("a pattern");
        for path in yes {
            assert!(glob.matches(&path.parse().expect("a method")), "{pattern} missed {path}");
        }
        for path in no {
            assert!(!glob.matches(&path.parse().expect("a method")), "{pattern} took {path}");
        }
    }

    #[test]
    fn method_patterns_cover_services_and_methods() {
        check_method(
            "HelloService/Hello",
            &["HelloService/Hello"],
            &["HelloService/Bye", "a.HelloService/Hello"],
        );
        check_method("HelloService/*", &["HelloService/Hello"], &["Hello/Hello"]);
        check_method("*/*", &["A/b", "acme.v1.Stock/List"], &[]);
        check_method("*/Get*", &["A/GetIt"], &["A/Get", "a.b/GetIt"]);
        check_method("acme.**/List", &["acme/List", "acme.v1.Stock/List"], &["acme.v1.Stock/Load"]);
    }

    #[test]
    fn a_pattern_of_forwards_never_opens_a_method_and_the_reverse() {
        for forward in ["tcp:db", "tcp:*", "tcp:**"] {
            check_method(forward, &[], &["http/grafana", "http:db", "tcp/db", "A/b"]);
        }
        for forward in ["http:db", "http:*", "http:**"] {
            check_method(forward, &[], &["http/db", "tcp:db", "A/b"]);
        }
        for methods in ["*/*", "**/*", "tcp/*", "*/db", "tcp/db", "http/*", "http/db"] {
            check_method(methods, &[], &["tcp:db", "tcp:a.db", "http:db"]);
        }
    }

    #[test]
    fn patterns_of_forwards_cover_their_kind_label_by_label() {
        check_method("tcp:db", &["tcp:db"], &["tcp:db-1", "tcp:a.db", "http:db"]);
        check_method("tcp:*", &["tcp:db", "tcp:db-1"], &["tcp:a.db", "http:db"]);
        check_method("tcp:db-*", &["tcp:db-1"], &["tcp:db", "tcp:db-1.x"]);
        check_method("tcp:**", &["tcp:db", "tcp:a.db"], &["http:db"]);
        check_method("tcp:acme.*", &["tcp:acme.db"], &["tcp:acme", "tcp:db"]);
        check_method("http:grafana", &["http:grafana"], &["http:grafana-2", "tcp:grafana"]);
        check_method("http:**", &["http:web", "http:acme.web"], &["tcp:web"]);
        for (pattern, is_http) in
            [("http:web", true), ("http:**", true), ("tcp:**", false), ("http/*", false)]
        {
            assert_eq!(pattern.parse::<MethodGlob>().expect(pattern).is_http(), is_http);
        }
    }

    #[track_caller]
    fn check_service(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob: ServiceGlob = pattern.parse().expect("a pattern");
        for service in yes {
            assert!(glob.matches(service), "{pattern} missed {service}");
        }
        for service in no {
            assert!(!glob.matches(service), "{pattern} took {service}");
        }
    }

    #[test]
    fn service_patterns_cover_labels_as_names_do() {
        check_service("HelloService", &["HelloService"], &["Hello", "a.HelloService"]);
        check_service("*", &["HelloService"], &["a.HelloService"]);
        check_service("acme.**", &["acme.v1.Stock", "acme.Stock"], &["acmee.Stock"]);
        check_service("http:**", &["http:web", "http:acme.web"], &["mcp:web", "http"]);
        check_service("mcp:jira", &["mcp:jira"], &["http:jira", "mcp:jira-2", "mcp"]);
        for bad in ["", "a-b", "a/b", "a..b", "*a"] {
            assert!(bad.parse::<ServiceGlob>().is_err(), "{bad:?} was taken for a pattern");
        }
    }

    #[track_caller]
    fn check_covers(wide: &str, narrow: &str, expected: bool) {
        let [wide, narrow] = [wide, narrow].map(|text| text.parse::<MethodGlob>().expect("one"));
        assert_eq!(wide.covers(&narrow), expected, "{wide} over {narrow}");
    }

    #[test]
    fn every_rpc_method_covers_any_but_no_forward() {
        check_covers("*/*", "acme.**/Get*", true);
        check_covers("**/*", "*/*", true);
        check_covers("A/*", "A/*", true);
        check_covers("tcp:db", "tcp:db", true);
        check_covers("*/*", "tcp:db", false);
        check_covers("*/*", "http:db", false);
        check_covers("http:db", "tcp:db", false);
        check_covers("A/*", "*/*", false);
        check_covers("**/Get*", "A/*", false);
    }

    #[test]
    fn a_pattern_of_mcp_covers_narrower_ones() {
        for (wide, narrow) in [
            ("mcp:jira/*", "mcp:jira/a"),
            ("mcp:jira/*", "mcp:jira/a*"),
            ("mcp:*/*", "mcp:jira/*"),
            ("mcp:**/*", "mcp:acme.**/a"),
            ("mcp:acme.*/*", "mcp:acme.jira-*/x"),
            ("mcp:acme.**/*", "mcp:acme.a.jira/x"),
            ("mcp:j*/a", "mcp:ji*/a"),
            ("mcp:**/client", "mcp:jira/client"),
        ] {
            check_covers(wide, narrow, true);
            check_covers(narrow, wide, false);
        }
        for (wide, narrow) in [
            ("mcp:jira/*", "mcp:jira/resources"),
            ("mcp:*/*", "mcp:acme.*/*"),
            ("mcp:*/*", "mcp:**/*"),
            ("mcp:jira/*", "mcp:jir*/*"),
            ("mcp:jira/*", "http:jira"),
            ("*/*", "mcp:jira/a"),
            ("**/*", "mcp:jira/*"),
            ("mcp:**/*", "*/*"),
        ] {
            check_covers(wide, narrow, false);
        }
    }

    #[test]
    fn texts_that_are_not_method_patterns_are_refused() {
        for bad in [
            "",
            "*",
            "a",
            "a/",
            "/b",
            "a/**",
            "a/b/c",
            "a/1b",
            "ftp:x",
            "http:",
            "a-b/c",
            "a/*b",
            "mcp:",
            "mcp:/",
            "mcp:jira",
            "mcp:*",
            "mcp:/a",
            "mcp:jira/",
            "mcp:*a/b",
            "mcp:jira/**",
        ] {
            assert!(bad.parse::<MethodGlob>().is_err(), "{bad:?} was taken for a pattern");
        }
    }

    #[test]
    fn patterns_of_mcp_cover_servers_by_label_and_tools_by_text() {
        check_method(
            "mcp:jira/create_*",
            &["mcp:jira/create_issue", "mcp:jira/create_a/b"],
            &["mcp:jira/get_issue", "mcp:jira-2/create_issue", "http:jira", "mcp/jira"],
        );
        check_method("mcp:*/*", &["mcp:jira/a", "mcp:git/b/c"], &["mcp:acme.jira/a", "A/b"]);
        check_method(
            "mcp:acme.**/get.issue-*",
            &["mcp:acme.a.b/get.issue-1"],
            &["mcp:a/get.issue-1"],
        );
        check_method("mcp:jira/a", &["mcp:jira/a"], &["mcp:jira/a/b", "mcp:jira/A"]);
        check_method("*/*", &[], &["mcp:jira/a", "mcp:jira"]);
        check_method("**/*", &[], &["mcp:jira/a", "mcp:jira"]);
        check_method("mcp/*", &["mcp/jira"], &["mcp:jira", "mcp:jira/a"]);
    }

    #[test]
    fn reserved_names_below_a_server_have_to_be_written_out() {
        for name in ["resources", "prompts", "client"] {
            let path = format!("mcp:jira/{name}");
            check_method(&path, &[&path], &["mcp:jira/a"]);
            for wide in ["mcp:jira/*", "mcp:**/*", &format!("mcp:jira/{}*", &name[..3])] {
                check_method(wide, &[], &[&path]);
            }
        }
    }

    #[test]
    fn a_server_is_covered_with_what_may_be_called_on_it() {
        for pattern in
            ["mcp:jira/a", "mcp:jira/*", "mcp:**/x*", "mcp:jira/resources", "mcp:*/prompts"]
        {
            check_method(pattern, &["mcp:jira"], &["http:jira", "tcp:jira", "mcp/jira"]);
        }
        check_method("mcp:jira/client", &[], &["mcp:jira"]);
        check_method("mcp:jira/*", &[], &["mcp:git", "mcp:acme.jira"]);
    }

    #[track_caller]
    fn check_covers_below(server: &str, [wide, narrow]: [&str; 2], expected: bool) {
        let [left, right] = [wide, narrow].map(|text| text.parse::<MethodGlob>().expect("one"));
        let server = server.parse().expect("a server");
        assert_eq!(left.covers_below(&server, &right), expected, "{wide} over {narrow}");
    }

    #[test]
    fn a_pattern_covers_another_below_one_server() {
        check_covers_below("mcp:jira", ["mcp:jira/*", "mcp:**/a*"], true);
        check_covers_below("mcp:jira", ["mcp:j*/a", "mcp:jira/a"], true);
        check_covers_below("mcp:git", ["mcp:jira/*", "mcp:**/a*"], false);
        check_covers_below("mcp:jira", ["mcp:jira/*", "mcp:jira/resources"], false);
        check_covers_below("mcp:jira", ["*/*", "mcp:jira/a"], false);
        check_covers_below("mcp:jira", ["mcp:jira/*", "*/*"], false);
    }

    #[test]
    fn a_wrong_pattern_is_refused_with_the_likely_spelling() {
        for (bad, right) in [
            ("*", Some("*/*")),
            ("**", Some("*/*")),
            ("Get*", Some("*/Get*")),
            ("Hello.*", Some("Hello/*")),
            ("HelloService", Some("HelloService/*")),
            ("HelloService.Hello", Some("HelloService/Hello")),
            ("HelloService/**", Some("HelloService/*")),
            ("acme/v1/Stock", Some("acme.v1/Stock")),
            ("tcp:DB_1", Some("tcp:db-1")),
            ("TCP:db", Some("tcp:db")),
            ("HTTP:Web", Some("http:web")),
            ("http:a/b", None),
            ("mcp:jira", Some("mcp:jira/*")),
            ("mcp:*", Some("mcp:*/*")),
            ("MCP:Jira/Create_*", Some("mcp:jira/Create_*")),
            ("mcp:jira/**", Some("mcp:jira/*")),
            ("mcp:jira/a b", None),
            ("mcp:", None),
            ("a-b/c", None),
            ("ftp:x", None),
            ("é", None),
            ("", None),
        ] {
            let message = bad.parse::<MethodGlob>().expect_err(bad).to_string();
            let right = right.filter(|right| right.parse::<MethodGlob>().is_ok());
            assert_eq!(message.split_once("; write ").map(|(_, right)| right), right, "{message}");
        }
        for (bad, right) in [("Ops", "ops"), ("ware_*", "ware-*"), ("Ware House", "ware-house")] {
            let message = bad.parse::<NameGlob>().expect_err(bad).to_string();
            assert!(message.ends_with(&format!("; write {right}")), "{message}");
        }
        let message = "Stock/*".parse::<ServiceGlob>().expect_err("a method").to_string();
        assert!(message.ends_with("; write Stock"), "{message}");
    }
}
