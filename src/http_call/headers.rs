//! Headers of a connection, which end at each hop (RFC 9110 section 7.6.1).

use hyper::{
    HeaderMap,
    header::{self, HeaderName},
};

/// Those of every connection. Others are named by `Connection`.
const OF_CONNECTIONS: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers that `Connection` may not remove: they say where a message ends or who receives it.
const KEPT: [HeaderName; 2] = [header::CONTENT_LENGTH, header::HOST];

/// True for headers that say who calls, by which way a request came, what it is about, or where a
/// message ends.
fn is_guarded(name: &str) -> bool {
    name.starts_with("dialback-")
        || name.starts_with("mcp-")
        || is_of_the_way(name)
        || matches!(
            name,
            "authorization"
                | "connection"
                | "content-length"
                | "content-type"
                | "cookie"
                | "host"
                | "set-cookie"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "via"
        )
}

/// True for headers in which proxies say by which way a request came, and whose it is.
pub(crate) fn is_of_the_way(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "cf-connecting-ip"
                | "forwarded"
                | "remote-user"
                | "true-client-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-real-ip"
                | "x-remote-user"
        )
}

/// The name as CGI, WSGI and PHP compare it, which make variables of headers: every character that
/// is no letter or digit counts as the same.
pub(crate) fn as_variable(name: &str) -> String {
    name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// The guarded header as which servers may read this one, if that is another.
pub(crate) fn guarded_twin(name: &str) -> Option<String> {
    let read = as_variable(name);
    (read != name && is_guarded(&read)).then_some(read)
}

/// Removes trailers that servers and clients which merge them into the headers would act on, and
/// those of a connection, which HTTP/2 does not have.
pub(crate) fn remove_guarded_trailers(trailers: &mut HeaderMap) {
    remove_connection_headers(trailers);
    trailers.remove(header::ALT_SVC);
    remove_headers(trailers, |name| is_guarded(&as_variable(name)));
}

/// Removes the headers of these names.
pub(crate) fn remove_headers(headers: &mut HeaderMap, is_removed: impl Fn(&str) -> bool) {
    let removed: Vec<HeaderName> =
        headers.keys().filter(|name| is_removed(name.as_str())).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// Removes the headers of the connection on which a message came.
pub(crate) fn remove_connection_headers(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, &header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
        for name in named.iter().filter(|name| !KEPT.contains(name)) {
            headers.remove(name);
        }
    }
    for name in OF_CONNECTIONS {
        headers.remove(name);
    }
}

/// Returns `true` if a header that is a list has this member, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|member| member.eq_ignore_ascii_case(token))
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn headers_of_a_connection_and_those_that_it_names_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-One"),
            ("connection", "x-two"),
            ("connection", "content-length, host"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("content-length", "3"),
            ("host", "a"),
            ("trailer", "x-sum"),
            ("x-three", "3"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        remove_connection_headers(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "trailer", "x-three"]);
    }

    #[test]
    fn names_that_servers_read_as_guarded_headers_are_their_twins() {
        for (name, twin) in [
            ("dialback_caller", Some("dialback-caller")),
            ("dialback.caller", Some("dialback-caller")),
            ("x~forwarded!for", Some("x-forwarded-for")),
            ("content_length", Some("content-length")),
            ("x_request_id", None),
            ("x-forwarded-for", None),
            ("x.y", None),
        ] {
            assert_eq!(guarded_twin(name).as_deref(), twin, "{name}");
        }
    }

    #[test]
    fn guarded_trailers_and_their_twins_are_removed() {
        let mut trailers = HeaderMap::new();
        for name in [
            "grpc-status",
            "x-sum",
            "dialback-outcome",
            "dialback_caller",
            "x.real.ip",
            "cookie",
            "keep-alive",
            "proxy-connection",
            "proxy-authenticate",
            "alt-svc",
        ] {
            trailers.append(name, HeaderValue::from_static("1"));
        }
        remove_guarded_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "x-sum"]);
    }

    #[test]
    fn a_token_is_one_member_of_a_list_in_any_case() {
        let mut headers = HeaderMap::new();
        headers.append(header::TE, HeaderValue::from_static("gzip, Trailers"));
        assert!(has_token(&headers, &header::TE, "trailers"));
        assert!(!has_token(&headers, &header::TE, "trailer"));
        assert!(!has_token(&headers, &header::UPGRADE, "trailers"));
    }
}
