//! Head of a response for the client.

use super::{
    ProxyRoute,
    grpc::{GRPC_STATUS, is_grpc},
    request_head::via,
};
use crate::http_call::HttpResponse;
use hyper::{
    HeaderMap, StatusCode, Version,
    header::{self, HeaderValue},
};

/// Status and headers for the client.
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

impl ResponseHead {
    /// True if no body follows: by its status, by its length, or because it is a gRPC failure,
    /// which clients read only in a head that ends the response (Trailers-Only).
    pub(super) fn is_all(&self) -> bool {
        let Self { status, headers } = self;
        matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0")
            || (is_grpc(headers) && headers.contains_key(GRPC_STATUS))
    }
}

/// Below a path, absolute paths of the upstream are made paths of the gateway.
pub(super) fn for_client(route: &ProxyRoute, response: HttpResponse) -> ResponseHead {
    let HttpResponse { status, mut headers, .. } = response;
    // It would lead clients past the node.
    headers.remove(header::ALT_SVC);
    headers.append(header::VIA, via(Version::HTTP_11));
    if !route.prefix.is_empty() {
        move_location(&mut headers, &route.prefix);
        move_cookies(&mut headers, &route.prefix);
    }
    ResponseHead { status, headers }
}

fn move_location(headers: &mut HeaderMap, prefix: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    if location.starts_with('/')
        && !location.starts_with("//")
        && let Ok(moved) = HeaderValue::try_from(format!("{prefix}{location}"))
    {
        headers.insert(header::LOCATION, moved);
    }
}

/// Cookies are limited to the path of their forward: others of the gateway are not its business.
fn move_cookies(headers: &mut HeaderMap, prefix: &str) {
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        let moved = cookie.to_str().ok().map(|text| moved_cookie(text, prefix));
        let moved = moved.and_then(|text| HeaderValue::try_from(text).ok());
        headers.append(header::SET_COOKIE, moved.unwrap_or(cookie));
    }
}

fn moved_cookie(text: &str, prefix: &str) -> String {
    let mut parts = text.split(';').map(str::trim);
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut has_path = false;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name.trim().eq_ignore_ascii_case("domain") {
            continue;
        }
        if name.trim().eq_ignore_ascii_case("path") && value.trim().starts_with('/') {
            has_path = true;
            out.push_str(&format!("; Path={prefix}{}", value.trim()));
        } else {
            out.push_str(&format!("; {part}"));
        }
    }
    if !has_path {
        out.push_str(&format!("; Path={prefix}/"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/v1/agents/w/http/web";

    #[test]
    fn a_location_on_the_upstream_is_moved_below_the_path() {
        for (location, moved) in [
            ("/login?x=1", "/v1/agents/w/http/web/login?x=1"),
            ("login", "login"),
            ("https://other.example/", "https://other.example/"),
            ("//other.example/", "//other.example/"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(location));
            move_location(&mut headers, PREFIX);
            assert_eq!(headers[header::LOCATION], moved);
        }
    }

    #[test]
    fn cookies_stay_below_the_path() {
        for (cookie, moved) in [
            ("a=1", "a=1; Path=/v1/agents/w/http/web/"),
            ("a=1; Path=/; HttpOnly", "a=1; Path=/v1/agents/w/http/web/; HttpOnly"),
            ("a=1;path=/x;Secure", "a=1; Path=/v1/agents/w/http/web/x; Secure"),
            ("a=1; Domain=app.example", "a=1; Path=/v1/agents/w/http/web/"),
        ] {
            assert_eq!(moved_cookie(cookie, PREFIX), moved);
        }
    }
}
