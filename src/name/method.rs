//! The names of services and methods: `HelloService/Hello`.

use super::NameError;
use std::{fmt, str::FromStr, sync::Arc};

const SERVICE_BYTES_MAX: usize = 200;
const METHOD_BYTES_MAX: usize = 100;

/// Whether a text is one identifier: `[A-Za-z_][A-Za-z0-9_]*`.
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

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

text_name!(ServiceName, "service", service_fault);
text_name!(MethodName, "method", method_fault);

/// A service and a method together: `HelloService/Hello`, one text with a place to split it.
///
/// `HelloService.Hello`, Go's spelling, is read too and split at the last dot. Cloning is cheap.
#[derive(Clone)]
pub struct MethodPath {
    text: Arc<str>,
    slash: usize,
}

impl MethodPath {
    /// Joins a service and a method.
    pub fn new(service: &ServiceName, method: &MethodName) -> Self {
        Self { text: format!("{service}/{method}").into(), slash: service.as_str().len() }
    }

    /// `HelloService/Hello`, the form that travels.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The service's part.
    pub fn service(&self) -> &str {
        &self.text[..self.slash]
    }

    /// The method's part.
    pub fn method(&self) -> &str {
        &self.text[self.slash + 1..]
    }
}

impl FromStr for MethodPath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (service, method) =
            text.split_once('/').or_else(|| text.rsplit_once('.')).ok_or_else(|| {
                NameError::new(
                    "method",
                    text,
                    "is not written SERVICE/METHOD, as HelloService/Hello",
                )
            })?;
        let fault = service_fault(service).or_else(|| method_fault(method));
        match fault {
            Some(why) => Err(NameError::new("method", text, why)),
            // A text with its slash is the text that travels: calls arrive so, and take one allocation.
            None if text.as_bytes().get(service.len()) == Some(&b'/') => {
                Ok(Self { text: text.into(), slash: service.len() })
            }
            None => Ok(Self { text: format!("{service}/{method}").into(), slash: service.len() }),
        }
    }
}

impl PartialEq for MethodPath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for MethodPath {}

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

impl fmt::Debug for MethodPath {
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
    fn what_is_no_method_is_refused() {
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
            "http:grafana",
            &format!("{}/b", "a".repeat(201)),
            &format!("a/{}", "b".repeat(101)),
        ] {
            assert!(bad.parse::<MethodPath>().is_err(), "{bad:?} was taken for a method");
        }
    }
}
