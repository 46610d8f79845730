//! Address of an OpenTelemetry collector that takes OTLP over HTTP.

use crate::name::NodeAddress;
use std::{fmt, str::FromStr};

/// The path of traces below the address of a collector.
const TRACES: &str = "/v1/traces";
const PORT_DEFAULT: u16 = 4318;

/// Address of a collector, as `http://127.0.0.1:4318`: OTLP in Protobuf over HTTP/1.1, without TLS.
///
/// The port is 4318 if none is written, and `/v1/traces` is added to the path unless it is its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpEndpoint {
    pub(super) address: NodeAddress,
    pub(super) path: String,
}

/// A text that is not the address of a collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("OTLP address {text:?} {why}")]
pub struct OtlpEndpointError {
    text: String,
    why: String,
}

impl FromStr for OtlpEndpoint {
    type Err = OtlpEndpointError;

    fn from_str(text: &str) -> Result<Self, OtlpEndpointError> {
        let fault = |why: &str| OtlpEndpointError {
            text: text.chars().take(80).collect(),
            why: why.into(),
        };
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(fault(if text.starts_with("https://") {
                "needs TLS, which is not supported; export to a collector on this machine or network, which passes the spans on"
            } else {
                "does not begin with http://; write http://HOST:4318"
            }));
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(fault("has a user or a password, which are not supported"));
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte);
        if !path.bytes().all(is_plain) {
            return Err(fault("has a query, or a character that a path has not"));
        }
        let address = NodeAddress::parse_with_port(authority, PORT_DEFAULT)
            .map_err(|error| fault(error.why()))?;
        let path = path.trim_end_matches('/');
        let path = if path.ends_with(TRACES) { path.into() } else { format!("{path}{TRACES}") };
        Ok(Self { address, path })
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let parsed = text.parse::<OtlpEndpoint>();
        parsed.map(|endpoint| endpoint.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn port_and_path_are_added_where_they_are_missing() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector", "http://collector:4318/v1/traces"),
            ("http://[::1]:9/", "http://[::1]:9/v1/traces"),
            ("http://c:80/otlp", "http://c:80/otlp/v1/traces"),
            ("http://c:80/v1/traces", "http://c:80/v1/traces"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn another_text_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("127.0.0.1:4318", "does not begin with http://; write http://HOST:4318"),
            ("https://c:4318", "needs TLS, which is not supported"),
            ("http://user:password@c", "has a user or a password"),
            ("http://c/a?b", "has a query"),
            ("http://", ""),
            ("http://c:0", ""),
            ("http://c:x", ""),
        ] {
            let fault = read(text).expect_err("refused");
            assert!(fault.contains(expected), "{fault}");
        }
    }
}
