//! Answers requests for a tunnel: a WebSocket of one subprotocol (RFC 6455 section 4.2).

use crate::{
    httpd::Peer,
    path::{SUBPROTOCOL, TunnelPeer, Tunnels},
};
use hyper::{
    HeaderMap, Method, Response, StatusCode, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use std::{net::SocketAddr, sync::Arc};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) const TOO_MANY_UNUSED: &str =
    "too many tunnels of this address, or of its network, are not used by a link\n";

/// A request that does not ask for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotATunnelRequest {
    status: StatusCode,
    text: &'static str,
}

/// Answers a request for a tunnel of this client. The connection then carries datagrams.
pub(crate) fn answer(
    head: &Parts,
    peer: &Arc<Peer>,
    client: SocketAddr,
    tunnels: &Arc<Tunnels>,
) -> Response<&'static str> {
    let accept = match accept_key(head) {
        Ok(accept) => accept,
        Err(NotATunnelRequest { status, text }) => return refusal(status, text),
    };
    let Ok(unused) = tunnels.admit(client.ip()) else {
        return refusal(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_UNUSED);
    };
    let (tunnels, peer_of) = (tunnels.clone(), peer.clone());
    // Behind a proxy the local address says nothing about the path of the client's packets.
    let is_direct = client.ip().to_canonical() == peer.address.ip().to_canonical();
    let at = TunnelPeer { address: client, local: peer.local.filter(|_| is_direct) };
    peer.upgrade(move |stream| async move {
        let known = move || {
            peer_of.set_known();
            drop(unused);
        };
        tunnels.run(stream, at, known).await;
    });
    let mut response = Response::new("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Refuses a request with a line of text.
pub(super) fn refusal(status: StatusCode, text: &'static str) -> Response<&'static str> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == StatusCode::UPGRADE_REQUIRED {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

/// Checks the handshake, and returns the value of `Sec-WebSocket-Accept`.
fn accept_key(head: &Parts) -> Result<HeaderValue, NotATunnelRequest> {
    let refused = |status, text| Err(NotATunnelRequest { status, text });
    if head.method != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
    }
    let headers = &head.headers;
    if headers.contains_key(header::ORIGIN) {
        return refused(StatusCode::FORBIDDEN, "a page of a browser may not open a tunnel\n");
    }
    let upgrades = has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade");
    if head.version != Version::HTTP_11 || !upgrades {
        let text = "this is a tunnel of dialback, for agents and callers: a WebSocket over HTTP/1.1; if a proxy is in between, it must pass Upgrade on\n";
        return refused(StatusCode::UPGRADE_REQUIRED, text);
    }
    if !has_token(headers, header::SEC_WEBSOCKET_VERSION, "13") {
        return refused(StatusCode::UPGRADE_REQUIRED, "use version 13 of WebSocket\n");
    }
    if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return refused(StatusCode::BAD_REQUEST, "use the subprotocol dialback.tunnel.v1\n");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let accept = key.filter(|key| key.len() == 24).map(derive_accept_key);
    match accept.and_then(|accept| HeaderValue::try_from(accept).ok()) {
        Some(accept) => Ok(accept),
        None => refused(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing or malformed\n"),
    }
}

/// Returns true if a header has this token in one of its lists, in any case.
fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    fn head(change: impl FnOnce(&mut Request<()>)) -> Parts {
        let mut request = Request::get("/dialback/tunnel").body(()).expect("a request");
        for (name, value) in [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "other, dialback.tunnel.v1"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        change(&mut request);
        request.into_parts().0
    }

    fn status_without(name: &str) -> StatusCode {
        accept_key(&head(|request| drop(request.headers_mut().remove(name))))
            .expect_err(name)
            .status
    }

    #[test]
    fn the_key_is_answered_as_in_the_rfc() {
        let accept = accept_key(&head(|_| ())).expect("a tunnel");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_request_that_lacks_anything_is_refused_with_the_status_that_says_so() {
        for name in ["upgrade", "connection", "sec-websocket-version"] {
            assert_eq!(status_without(name), StatusCode::UPGRADE_REQUIRED, "{name}");
        }
        for name in ["sec-websocket-protocol", "sec-websocket-key"] {
            assert_eq!(status_without(name), StatusCode::BAD_REQUEST, "{name}");
        }
        let page = head(|request| {
            let origin = HeaderValue::from_static("https://evil.example");
            request.headers_mut().insert(header::ORIGIN, origin);
        });
        assert_eq!(accept_key(&page).expect_err("a page").status, StatusCode::FORBIDDEN);
        let post = head(|request| *request.method_mut() = Method::POST);
        assert_eq!(accept_key(&post).expect_err("POST").status, StatusCode::METHOD_NOT_ALLOWED);
        let h2 = head(|request| *request.version_mut() = Version::HTTP_2);
        assert_eq!(accept_key(&h2).expect_err("HTTP/2").status, StatusCode::UPGRADE_REQUIRED);
    }
}
