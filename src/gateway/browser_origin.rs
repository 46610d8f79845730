//! Origin of a request: the page of a browser, and the requested host.

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

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
