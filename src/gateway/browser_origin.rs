//! Origin of a request: the page of a browser, and the requested host.

use hyper::{
    HeaderMap, Uri,
    header::{self, HeaderValue},
};
use std::net::IpAddr;

/// True if a request names this machine (`localhost` or a loopback address). A page of another site
/// can let its own name resolve to this machine, but cannot name it localhost.
pub(super) fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = uri.authority().map(|authority| authority.as_str()).or(host) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BrowserOrigin {
    /// No page of a browser.
    None,
    Allowed,
    Foreign,
}

pub(super) fn browser_origin(headers: &HeaderMap, allowed: &[String]) -> BrowserOrigin {
    match headers.get(header::ORIGIN) {
        None => BrowserOrigin::None,
        Some(origin) if allowed.iter().any(|one| one.as_bytes() == origin.as_bytes()) => {
            BrowserOrigin::Allowed
        }
        Some(_) => BrowserOrigin::Foreign,
    }
}

pub(super) fn add_cors_headers(request: &HeaderMap, response: &mut HeaderMap) {
    if let Some(origin) = request.get(header::ORIGIN) {
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    // Keeps caches from returning a response of one page to another.
    response.insert(header::VARY, HeaderValue::from_static("origin"));
    let exposed = "dialback-outcome, dialback-call-id, www-authenticate, retry-after";
    response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(exposed));
}

pub(super) fn add_preflight_headers(request: &HeaderMap, response: &mut HeaderMap) {
    response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    // All requested headers are allowed: unknown ones are ignored, and the origin is trusted.
    if let Some(headers) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
    }
    response.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_name_this_machine() {
        let names = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).expect("a value"));
            names_loopback(&"/v1/agents".parse().expect("a path"), &headers)
        };
        for own in
            ["localhost", "localhost:8080", "127.0.0.1:8080", "127.8.0.1", "[::1]:8080", "[::1]"]
        {
            assert!(names(own), "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example:8080", "192.0.2.1", "", "[::2]:1"] {
            assert!(!names(foreign), "{foreign}");
        }
    }
}
