//! Parses request paths: decoded once and matched exactly, no dots, no empty segments.

use super::response::Refusal;
use crate::{
    limits::HTTP_PATH_BYTES_MAX,
    name::{MethodName, MethodPath, Name, NameError, ServiceName},
    status::Code,
};
use hyper::{Method, StatusCode, Uri};
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestRoute {
    /// A call of a method on this agent, or on any that may answer for the service.
    Call { agent: Option<Name>, method: MethodPath },
    /// A page.
    GatewayPage(GatewayPage),
}

/// Pages, limited to what the caller may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GatewayPage {
    Agents,
    Services,
    OpenApi,
}

impl RequestRoute {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let path = uri.path();
        if path.len() > HTTP_PATH_BYTES_MAX {
            let text = format!("the path is longer than {HTTP_PATH_BYTES_MAX} bytes");
            return Err(Refusal::with(StatusCode::URI_TOO_LONG, Code::InvalidArgument, text));
        }
        let segments: Vec<&str> = path.split('/').collect();
        let route = match segments.as_slice() {
            ["", "v1", "agents", agent, service, method] => {
                Self::call(Some(parsed::<Name>("agent", agent)?), service, method)?
            }
            ["", "v1", "services", service, method] => Self::call(None, service, method)?,
            ["", "v1", "agents"] => Self::GatewayPage(GatewayPage::Agents),
            ["", "v1", "services"] => Self::GatewayPage(GatewayPage::Services),
            ["", "v1", "openapi.json"] => Self::GatewayPage(GatewayPage::OpenApi),
            _ => return Err(not_found()),
        };
        if uri.query().is_some() {
            let text = "this path takes no query (`?...`); put the parameters of a call into its body and headers";
            return Err(Refusal::invalid(text));
        }
        Ok(route)
    }

    fn call(agent: Option<Name>, service: &str, method: &str) -> Result<Self, Refusal> {
        let service = parsed::<ServiceName>("service", service)?;
        let method = parsed::<MethodName>("method", method)?;
        Ok(Self::Call { agent, method: MethodPath::new(&service, &method) })
    }

    /// HTTP method of the target.
    pub(super) const fn verb(&self) -> Method {
        match self {
            Self::Call { .. } => Method::POST,
            Self::GatewayPage(_) => Method::GET,
        }
    }
}

fn not_found() -> Refusal {
    let text = "unknown path; calls are POST /v1/agents/AGENT/SERVICE/METHOD or POST /v1/services/SERVICE/METHOD; forwards are below /v1/agents/AGENT/http/NAME/, MCP servers at /v1/agents/AGENT/mcp/NAME";
    Refusal::with(StatusCode::NOT_FOUND, Code::NotFound, text)
}

/// Parses a segment as a name. Double encoding and encoded slashes are not names.
pub(super) fn parsed<T: FromStr<Err = NameError>>(what: &str, segment: &str) -> Result<T, Refusal> {
    let decoded = decoded(segment).ok_or_else(|| {
        Refusal::invalid(format!("the {what} in the path is not percent-encoded UTF-8"))
    })?;
    decoded.parse().map_err(|fault: NameError| Refusal::invalid(fault.to_string()))
}

/// Decodes percent-encoding, once.
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(uri: &str) -> Result<RequestRoute, StatusCode> {
        RequestRoute::of(&uri.parse().expect("a URI")).map_err(|refusal| refusal.http_status())
    }

    #[track_caller]
    fn check_call(uri: &str, agent: Option<&str>, method: &str) {
        let agent = agent.map(|agent| agent.parse().expect("a name"));
        let method = method.parse().expect("a method");
        assert_eq!(route(uri), Ok(RequestRoute::Call { agent, method }), "{uri}");
    }

    #[test]
    fn calls_name_an_agent_or_a_service_only() {
        check_call(
            "/v1/agents/warehouse/HelloService/Hello",
            Some("warehouse"),
            "HelloService/Hello",
        );
        check_call(
            "/v1/agents/acme.w-1/acme.v1.Stock/List",
            Some("acme.w-1"),
            "acme.v1.Stock/List",
        );
        check_call("/v1/services/HelloService/Hello", None, "HelloService/Hello");
        check_call("/v1/services/%48elloService/Hell%6f", None, "HelloService/Hello");
        assert_eq!(route("/v1/agents"), Ok(RequestRoute::GatewayPage(GatewayPage::Agents)));
        assert_eq!(route("/v1/openapi.json"), Ok(RequestRoute::GatewayPage(GatewayPage::OpenApi)));
    }

    #[test]
    fn other_paths_are_not_found() {
        for uri in [
            "/",
            "/v1",
            "/v1/",
            "/v1/agents/",
            "/v1/agents/a",
            "/v1/agents/a/S",
            "/v1/agents/a/S/M/",
            "/v1/agents/a/S/M/x",
            "//v1/agents/a/S/M",
            "/v1//agents/a/S/M",
            "/V1/agents/a/S/M",
            "/v1/Agents/a/S/M",
            "/v1/%61gents/a/S/M",
            "/v1/agents/a/../b/S/M",
            "/v1/services/S",
            "/v1/./services/S/M",
            "/v2/services/S/M",
            "/v1/agents%2fa/S/M",
        ] {
            assert_eq!(route(uri), Err(StatusCode::NOT_FOUND), "{uri}");
        }
    }

    #[test]
    fn invalid_names_are_bad_requests() {
        for uri in [
            "/v1/agents/A/S/M",
            "/v1/agents/../S/M",
            "/v1/agents/%2e%2e/S/M",
            "/v1/agents/a%2Fb/S/M",
            "/v1/agents/a%252Fb/S/M",
            "/v1/agents/a%00/S/M",
            "/v1/agents/a%/S/M",
            "/v1/agents/a%zz/S/M",
            "/v1/agents/%ff/S/M",
            "/v1/agents//S/M",
            "/v1/services/S/M-x",
            "/v1/services/S/9",
            "/v1/services/../M",
            "/v1/services/S/M;x=1",
            "/v1/services/S/M?x=1",
            "/v1/services/S/M?",
            "/v1/agents?caller=ops",
        ] {
            assert_eq!(route(uri), Err(StatusCode::BAD_REQUEST), "{uri}");
        }
    }

    #[test]
    fn a_path_is_percent_decoded_once() {
        check_call("/v1/agents/%61/%53/%4d", Some("a"), "S/M");
        for uri in [
            "/v1/agents/%2561/S/M",
            "/v1/agents/a/%2553/M",
            "/v1/agents/a/S/%254d",
            "/v1/services/%2553/M",
            "/v1/services/S/%254d",
            "/v1/agents/%252561/S/M",
        ] {
            assert_eq!(route(uri), Err(StatusCode::BAD_REQUEST), "{uri}");
        }
    }

    #[test]
    fn a_path_over_the_limit_is_refused() {
        let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
        assert_eq!(route(&path(HTTP_PATH_BYTES_MAX)), Err(StatusCode::NOT_FOUND));
        assert_eq!(route(&path(HTTP_PATH_BYTES_MAX + 1)), Err(StatusCode::URI_TOO_LONG));
    }
}
