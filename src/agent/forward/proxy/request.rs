//! Request to the upstream, from the head of a call.

use super::super::http::{Outgoing, UpstreamAddress, UpstreamBody};
use crate::{
    http_call::{HttpRequest, grpc_timeout},
    name::HttpTarget,
    status::{Code, Status},
};
use hyper::{
    HeaderMap, Method, Uri,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
        UPGRADE,
    },
};
use std::time::Duration;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The request for an upstream, with this verb, path and `Host`.
pub(in crate::agent::forward) fn outgoing(
    (verb, path): (&str, &str),
    head: HttpRequest,
    host: &str,
    body: UpstreamBody,
) -> Result<Outgoing, Status> {
    let HttpRequest { query, mut headers, has_body, upgrade, .. } = head;
    headers.insert(HOST, value(host)?);
    // The node has answered it.
    headers.remove(EXPECT);
    let mut options = Vec::new();
    if headers.contains_key(TE) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        options.push("te");
    }
    if let Some(upgrade) = &upgrade {
        headers.insert(UPGRADE, value(upgrade)?);
        options.push("upgrade");
    } else if has_body && !headers.contains_key(CONTENT_LENGTH) {
        // Without it hyper sends no body with GET.
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if !options.is_empty() {
        headers.insert(CONNECTION, value(&options.join(", "))?);
    }
    let mut outgoing = Outgoing::new(body);
    *outgoing.method_mut() = Method::from_bytes(verb.as_bytes()).map_err(|_| unsendable("verb"))?;
    *outgoing.uri_mut() = uri(path, query.as_deref())?;
    *outgoing.headers_mut() = headers;
    Ok(outgoing)
}

fn uri(path: &str, query: Option<&str>) -> Result<Uri, Status> {
    let text = match query {
        Some(query) if path != "*" => format!("{path}?{query}"),
        _ => path.to_owned(),
    };
    text.parse().map_err(|_| unsendable("path or query"))
}

/// The path of a request at an upstream with this address.
pub(super) fn path_at(address: &UpstreamAddress, target: &HttpTarget) -> String {
    match target.path() {
        "*" => "*".into(),
        path => format!("{}{path}", address.prefix),
    }
}

/// Writes the time that is left where gRPC has it.
pub(in crate::agent::forward) fn stamp(headers: &mut HeaderMap, left: Duration) {
    if headers.contains_key(GRPC_TIMEOUT) {
        headers.insert(GRPC_TIMEOUT, grpc_timeout::write(left));
    }
}

fn value(text: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(text).map_err(|_| unsendable("header"))
}

fn unsendable(what: &str) -> Status {
    let text = format!("the {what} of the request is none that HTTP knows");
    Status::not_executed(Code::InvalidArgument, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Text;

    fn sent(address: &str, verb: &str, path: &str, head: HttpRequest) -> Outgoing {
        let address: UpstreamAddress = address.parse().expect("an address");
        let target = HttpTarget::new(verb, path).expect("a target");
        let body = Text::complete(bytes::Bytes::new()).into();
        let path = path_at(&address, &target);
        outgoing((verb, &path), head, &address.authority, body).expect("a request")
    }

    fn header<'r>(request: &'r Outgoing, name: &str) -> Option<&'r str> {
        request.headers().get(name).map(|value| value.to_str().expect("text"))
    }

    #[test]
    fn path_and_query_are_sent_behind_the_prefix_of_the_upstream() {
        let query = |text: &str| HttpRequest { query: Some(text.into()), ..Default::default() };
        for (address, path, head, expected) in [
            ("http://a", "/x/y", HttpRequest::default(), "/x/y"),
            ("http://a/api", "/x", query("a=b?c"), "/api/x?a=b?c"),
            ("http://a", "/", query(""), "/?"),
            ("http://a/api", "*", HttpRequest::default(), "*"),
        ] {
            let verb = if path == "*" { "OPTIONS" } else { "GET" };
            assert_eq!(sent(address, verb, path, head).uri(), expected, "{path}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_sent_in_chunks_with_any_verb() {
        for verb in ["GET", "POST", "DELETE"] {
            let head = HttpRequest { has_body: true, ..Default::default() };
            let request = sent("http://a", verb, "/", head.clone());
            assert_eq!(header(&request, "transfer-encoding"), Some("chunked"), "{verb}");
            let mut head = head;
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("3"));
            assert_eq!(header(&sent("http://a", verb, "/", head), "transfer-encoding"), None);
        }
        let request = sent("http://a", "GET", "/", HttpRequest::default());
        assert_eq!(header(&request, "transfer-encoding"), None);
    }

    #[test]
    fn an_upgrade_and_trailers_are_asked_for_where_the_client_asked() {
        let mut head = HttpRequest { upgrade: Some("websocket".into()), ..Default::default() };
        head.headers.insert(TE, HeaderValue::from_static("gzip, trailers"));
        head.headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        let request = sent("http://a", "GET", "/", head);
        assert_eq!(header(&request, "connection"), Some("te, upgrade"));
        assert_eq!(header(&request, "upgrade"), Some("websocket"));
        assert_eq!((header(&request, "te"), header(&request, "expect")), (Some("trailers"), None));
    }
}
