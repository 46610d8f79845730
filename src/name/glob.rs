//! Patterns over names, as rules write them. `*` is one label or the rest of one, `**` any number of labels.

use super::{MethodPath, Name, NameError, method::is_identifier, party::is_label_byte};
use std::{fmt, str::FromStr};

/// One label of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Label {
    /// Exactly this text.
    Exact(String),
    /// `warehouse-*`: any one label that starts so and goes on for at least one byte. `*` alone starts with nothing.
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

    fn matches(&self, label: &str) -> bool {
        match self {
            Self::Exact(text) => text == label,
            Self::Prefix(text) => label.len() > text.len() && label.starts_with(text.as_str()),
            Self::Any => true,
        }
    }
}

/// Labels of a pattern against labels of a name. Names are short, so `**` simply tries every length.
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

/// A pattern over party names: `acme.*`, `warehouse-*`, `**`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NameGlob {
    text: String,
    labels: Vec<Label>,
}

impl NameGlob {
    /// Whether the pattern covers the name.
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
        let labels = parse_labels(text, is_label_byte)
            .map_err(|why| NameError::new("name pattern", text, why))?;
        Ok(Self { text: text.into(), labels })
    }
}

/// A pattern over services: `HelloService`, `acme.**`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServiceGlob {
    text: String,
    labels: Vec<Label>,
}

impl ServiceGlob {
    /// Whether the pattern covers the service.
    pub fn matches(&self, service: &str) -> bool {
        labels_match(&self.labels, service.split('.'))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for ServiceGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let labels = parse_labels(text, is_identifier_byte)
            .map_err(|why| NameError::new("service pattern", text, why))?;
        Ok(Self { text: text.into(), labels })
    }
}

/// What a method pattern speaks of: RPC methods or forwards, never both.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    Rpc { service: Vec<Label>, method: Label },
    Forward { kind: &'static str, name: Vec<Label> },
}

/// A pattern over methods: `HelloService/*`, `acme.**/Get*`, `http:grafana`, `tcp:*`.
///
/// `*/*` is every RPC method of every service, and never a forward.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MethodGlob {
    text: String,
    subject: Subject,
}

impl MethodGlob {
    /// Whether the pattern covers the RPC method.
    pub fn matches(&self, path: &MethodPath) -> bool {
        match &self.subject {
            Subject::Rpc { service, method } => {
                method.matches(path.method()) && labels_match(service, path.service().split('.'))
            }
            Subject::Forward { .. } => false,
        }
    }

    /// Whether this pattern surely covers all that `other` covers: it is the same pattern, or this one
    /// is every RPC method and `other` speaks of some. May say no where a closer look would say yes.
    pub fn covers(&self, other: &Self) -> bool {
        self.subject == other.subject
            || (self.is_every_rpc() && matches!(other.subject, Subject::Rpc { .. }))
    }

    /// Whether the pattern covers some method of the service, whatever methods that has.
    pub fn matches_some_of(&self, service: &str) -> bool {
        matches!(&self.subject, Subject::Rpc { service: labels, .. } if labels_match(labels, service.split('.')))
    }

    /// Whether the pattern covers every method of the service.
    pub fn matches_all_of(&self, service: &str) -> bool {
        matches!(&self.subject, Subject::Rpc { method: Label::Prefix(start), .. } if start.is_empty())
            && self.matches_some_of(service)
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
        for (prefix, kind) in [("http:", "http"), ("tcp:", "tcp")] {
            if let Some(name) = text.strip_prefix(prefix) {
                return Ok(Subject::Forward { kind, name: parse_labels(name, is_label_byte)? });
            }
        }
        let (service, method) =
            text.split_once('/').ok_or("is not written SERVICE/METHOD, http:NAME or tcp:NAME")?;
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

fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

impl FromStr for MethodGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let subject =
            Self::subject(text).map_err(|why| NameError::new("method pattern", text, why))?;
        Ok(Self { text: text.into(), subject })
    }
}

macro_rules! shown_as_written {
    ($($type:ident)*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.text, f)
            }
        }
    )*};
}

shown_as_written!(NameGlob ServiceGlob MethodGlob);

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
    fn name_patterns_cover_labels_and_never_reach_over_a_dot() {
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
    fn texts_that_are_no_name_patterns_are_refused() {
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
        for forward in ["http:grafana", "tcp:*", "tcp:**"] {
            check_method(forward, &[], &["http/grafana", "tcp/db", "A/b"]);
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
        check_covers("http:grafana", "http:grafana", true);
        check_covers("*/*", "http:grafana", false);
        check_covers("A/*", "*/*", false);
        check_covers("**/Get*", "A/*", false);
    }

    #[test]
    fn texts_that_are_no_method_patterns_are_refused() {
        for bad in
            ["", "*", "a", "a/", "/b", "a/**", "a/b/c", "a/1b", "ftp:x", "http:", "a-b/c", "a/*b"]
        {
            assert!(bad.parse::<MethodGlob>().is_err(), "{bad:?} was taken for a pattern");
        }
    }
}
