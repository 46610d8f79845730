//! Head of a request for the upstream: headers of the connection and of its path are replaced.

use super::super::{
    GatewayRequest, GatewayState, request::one, response::Refusal, site::authority,
};
use super::ProxyRoute;
use crate::{
    http_call::{
        HttpRequest, grpc_timeout, guarded_twin, has_token, is_of_the_way,
        remove_connection_headers, remove_headers,
    },
    httpd::client_address,
    status::{Code, Status},
    trace::TraceContext,
};
use hyper::{
    HeaderMap, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use std::{net::IpAddr, time::Duration};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// Header of a token beside an `Authorization` for the upstream.
pub(super) const OWN_AUTHORIZATION: HeaderName = HeaderName::from_static("dialback-authorization");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Refuses a head whose headers servers read in different ways.
pub(super) fn check(head: &Parts) -> Result<(), Refusal> {
    for name in head.headers.keys() {
        if let Some(twin) = guarded_twin(name.as_str()) {
            let text =
                format!("the header {name} is not passed on: many servers read it as {twin}");
            return Err(Refusal::invalid(text).closing());
        }
    }
    one(&head.headers, &header::AUTHORIZATION)?;
    one(&head.headers, &OWN_AUTHORIZATION)?;
    if let Some(expectation) = head.headers.get(header::EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        let text = "the only expectation is 100-continue";
        return Err(Refusal::with(StatusCode::EXPECTATION_FAILED, Code::InvalidArgument, text));
    }
    Ok(())
}

/// True for headers in whose favour frameworks ignore the verb or the path of a request, by which
/// rules decide; and for `Proxy`, which CGI makes `HTTP_PROXY` of (CVE-2016-5385).
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "proxy"
            | "x-http-method"
            | "x-http-method-override"
            | "x-method-override"
            | "x-middleware-subrequest"
            | "x-original-method"
            | "x-original-uri"
            | "x-original-url"
            | "x-rewrite-url"
    )
}

/// True if an HTTP/1 client asks to change to another protocol. HTTP/2 is none of these: servers
/// that speak it are asked by TLS (RFC 9113 section 3.1).
pub(super) fn is_upgrade(head: &Parts) -> bool {
    head.version == Version::HTTP_11
        && has_token(&head.headers, &header::CONNECTION, "upgrade")
        && head.headers.contains_key(header::UPGRADE)
        && !has_token(&head.headers, &header::UPGRADE, "h2c")
}

/// The head for the upstream, as for a request without a body. `Authorization` may be dialback's
/// own.
pub(super) fn for_upstream(
    state: &GatewayState,
    route: &ProxyRoute,
    request: &GatewayRequest,
    is_authorization_own: bool,
) -> HttpRequest {
    let GatewayRequest { head, peer, .. } = request;
    let mut headers = head.headers.clone();
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    let upgrade = upgrade.map(str::to_owned);
    let takes_trailers = has_token(&headers, &header::TE, "trailers");
    remove_connection_headers(&mut headers);
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    if is_authorization_own {
        headers.remove(header::AUTHORIZATION);
    }
    headers.remove("http2-settings");
    remove_headers(&mut headers, |name| name.starts_with("dialback-") || is_override(name));
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(&mut headers);
    let from = peer.address.ip().to_canonical();
    let is_behind_proxy = state.proxies.iter().any(|range| range.contains(from));
    let client = client_address(&headers, from, &state.proxies).to_canonical();
    if !is_behind_proxy {
        remove_headers(&mut headers, is_of_the_way);
    }
    let authority = authority(head);
    add_way(&mut headers, (from, client), authority, state.has_tls);
    if let Ok(prefix) = HeaderValue::from_str(&route.prefix)
        && !route.prefix.is_empty()
    {
        headers.insert(FORWARDED_PREFIX, prefix);
    }
    headers.append(header::VIA, via(head.version));
    let query = head.uri.query().map(escaped);
    let authority = route.site.as_ref().and(authority).map(str::to_owned);
    HttpRequest { query, headers, authority, has_body: false, upgrade }
}

/// A query whose bytes beyond ASCII, which some clients send as they are, are escaped.
fn escaped(query: &str) -> String {
    let mut out = String::with_capacity(query.len());
    for byte in query.bytes() {
        match byte {
            0x80.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// HTTP/2 clients may send a cookie in pieces (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// Adds this hop to `Forwarded` (RFC 7239) and to the headers that came before it. Entries of a
/// trusted proxy stay.
fn add_way(
    headers: &mut HeaderMap,
    (from, client): (IpAddr, IpAddr),
    authority: Option<&str>,
    has_tls: bool,
) {
    let scheme = if has_tls { "https" } else { "http" };
    let ip = if from.is_ipv6() { format!("\"[{from}]\"") } else { from.to_string() };
    let host = authority.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    if let Ok(element) = HeaderValue::try_from(format!("for={ip}{host};proto={scheme}")) {
        headers.append(header::FORWARDED, element);
    }
    if let Ok(from) = HeaderValue::try_from(from.to_string()) {
        headers.append(FORWARDED_FOR, from);
    }
    if let Ok(client) = HeaderValue::try_from(client.to_string()) {
        headers.insert(REAL_IP, client);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static(scheme));
    if let Some(Ok(host)) = authority.map(HeaderValue::from_str) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

/// This hop in `Via` (RFC 9110 section 7.6.3).
pub(super) const fn via(version: Version) -> HeaderValue {
    match version {
        Version::HTTP_10 => HeaderValue::from_static("1.0 dialback"),
        Version::HTTP_2 => HeaderValue::from_static("2.0 dialback"),
        _ => HeaderValue::from_static("1.1 dialback"),
    }
}

/// The time that a gRPC client gives.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let Some(text) = one(headers, &GRPC_TIMEOUT)? else { return Ok(None) };
    let fault = || Refusal::invalid(format!("grpc-timeout {text:?} is not a time of gRPC, as 5S"));
    match grpc_timeout::read(text).ok_or_else(fault)? {
        Duration::ZERO => {
            let text = "the deadline passed before the request came";
            Err(Status::not_executed(Code::DeadlineExceeded, text).into())
        }
        timeout => Ok(Some(timeout)),
    }
}

pub(super) fn traceparent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get(TRACEPARENT)?.to_str().ok();
    text.filter(|text| TraceContext::parse(text).is_some()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(lines: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::builder().uri("/a");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn headers_that_servers_take_for_others_are_refused() {
        for bad in [
            "dialback_caller",
            "x_forwarded_for",
            "X_Forwarded-Proto",
            "content_length",
            "transfer_encoding",
            "x_real_ip",
            "dialback.caller",
        ] {
            assert!(check(&head(&[(bad, "1")])).is_err(), "{bad}");
        }
        assert!(check(&head(&[("x_request_id", "1"), ("expect", "100-Continue")])).is_ok());
        assert!(check(&head(&[("expect", "x")])).is_err());
    }

    #[test]
    fn an_upgrade_is_asked_for_by_connection_and_upgrade_in_http_1_1() {
        let websocket = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert!(is_upgrade(&head(&websocket)));
        assert!(!is_upgrade(&head(&websocket[..1])) && !is_upgrade(&head(&websocket[1..])));
        assert!(!is_upgrade(&head(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        let mut old = head(&websocket);
        old.version = Version::HTTP_10;
        assert!(!is_upgrade(&old));
    }

    #[test]
    fn the_way_is_added_behind_that_of_trusted_proxies() {
        let mut headers =
            head(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https")]).headers;
        let (from, client) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 7]));
        add_way(&mut headers, (from, client), Some("web.example"), false);
        let all = |name: &HeaderName| {
            let values = headers.get_all(name).iter().map(|value| value.to_str().expect("text"));
            values.collect::<Vec<_>>().join(",")
        };
        assert_eq!(all(&FORWARDED_FOR), "192.0.2.7,10.0.0.1");
        assert_eq!((all(&FORWARDED_PROTO), all(&REAL_IP)), ("https".into(), "192.0.2.7".into()));
        assert_eq!(all(&FORWARDED_HOST), "web.example");
        assert_eq!(all(&header::FORWARDED), "for=10.0.0.1;host=\"web.example\";proto=http");
    }

    #[test]
    fn bytes_beyond_ascii_in_a_query_are_escaped() {
        assert_eq!(escaped("a=\u{e4}&b=%20"), "a=%C3%A4&b=%20");
    }

    #[test]
    fn cookies_in_pieces_are_joined() {
        let mut headers = head(&[("cookie", "a=1"), ("cookie", "b=2")]).headers;
        join_cookies(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn the_time_of_a_grpc_client_is_its_deadline() {
        let read = |text| timeout(&head(&[("grpc-timeout", text)]).headers);
        assert_eq!(read("5S").ok(), Some(Some(Duration::from_secs(5))));
        assert!(read("0S").is_err() && read("x").is_err());
        assert_eq!(timeout(&HeaderMap::new()).ok(), Some(None));
    }
}
