//! Maps metadata to HTTP headers and back, and drops reserved names.

use crate::{
    http_call::as_variable,
    metadata::Metadata,
    status::{Code, Status},
};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers of a connection or of the form of a message, in either direction, not of a call.
const OF_THE_MESSAGE: &[&str] = &[
    "accept",
    "accept-encoding",
    "alt-svc",
    "connection",
    "date",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "server",
    "te",
    "trailer",
    "traceparent",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Headers from which servers derive the client's identity. Only `dialback-caller` states it here.
const OF_IDENTITY: &[&str] = &["forwarded", "via", "x-real-ip"];

/// Prefixes of such names, and of the names that dialback and Connect set.
const STARTS: &[&str] = &["connect-", "content-", "dialback-", "x-forwarded-"];

/// Names that servers, proxies, frameworks and libraries trust as written by a proxy: client
/// identity and address, URL, host, method, and completed checks.
const ACTED_ON: &[&str] = &[
    "auth-type",
    "auth-user",
    "base-url",
    "cdn-loop",
    "client-ip",
    "destination",
    "es-security-runas-user",
    "front-end-https",
    "gateway-interface",
    "http-url",
    "https",
    "if-range",
    "max-forwards",
    "path-info",
    "path-translated",
    // CGI makes HTTP_PROXY of it, which the server's own HTTP clients use (CVE-2016-5385).
    "proxy",
    "query-string",
    "range",
    "real-ip",
    "redirect-status",
    "redirect-url",
    "request-method",
    "request-uri",
    "script-filename",
    "script-name",
    "true-client-ip",
    "x-cluster-client-ip",
    "x-custom-ip-authorization",
    "x-host",
    "x-https",
    "x-invoke-path",
    "x-matched-path",
    "x-method-override",
    "x-original",
    "x-scheme",
    "x-url-scheme",
    "x-user",
    "x-username",
];

/// Prefixes of such names.
const ACTED_ON_STARTS: &[&str] = &[
    "cf-",
    "fastly-",
    "fly-",
    "impersonate-",
    "proxy-",
    "remote-",
    "server-",
    "ssl-",
    "tailscale-",
    "tls-client-",
    "wl-proxy-",
    "x-accel-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-anonymous-",
    "x-appengine-",
    "x-arr-",
    "oidc-",
    "x-apigateway-",
    "x-auth-request-",
    "x-auth-user",
    "x-authenticated-",
    "x-authentik-",
    "x-endpoint-api-",
    "x-spiffe-",
    "x-userinfo",
    "x-vouch-",
    "x-azure-",
    "x-client-",
    "x-consumer-",
    "x-credential-",
    "x-envoy-",
    "x-forward",
    "x-goog-",
    "x-http-destinationurl",
    "x-http-host",
    "x-http-method",
    // Marks that a check was passed (CVE-2025-29927).
    "x-middleware-",
    "x-ms-client-principal",
    "x-ms-token-",
    "x-nginx-",
    "x-original-",
    "x-originating-",
    "x-pomerium-",
    "x-proxy",
    "x-real-",
    "x-remote-",
    "x-rewrite-",
    "x-script-name",
    "x-sendfile",
    "x-server-",
    "x-ssl-",
    "x-true-",
    "x-vercel-",
    "x-webauth-",
];

fn is_ours(name: &str) -> bool {
    is_among(&as_variable(name), &[OF_THE_MESSAGE, OF_IDENTITY], STARTS)
}

/// Returns `true` if metadata of that name never becomes a header of a request.
pub(super) fn never_travels(name: &str) -> bool {
    is_ours(name) || is_among(&as_variable(name), &[ACTED_ON], ACTED_ON_STARTS)
}

fn is_among(name: &str, lists: &[&[&str]], starts: &[&str]) -> bool {
    lists.iter().any(|list| list.contains(&name))
        || starts.iter().any(|start| name.starts_with(start))
}

/// Returns `true` if a pair becomes a header. A name that is not ASCII is refused, not dropped.
fn travels(key: &str, allowed: Option<&[String]>) -> bool {
    match allowed {
        Some(names) if !names.iter().any(|name| name.eq_ignore_ascii_case(key)) => false,
        _ => !key.is_ascii() || !never_travels(key),
    }
}

/// The caller's pairs as headers, without reserved names and those outside the list, if there is
/// one. Another pair that cannot be a header fails the call: `INVALID_ARGUMENT`, not executed.
pub(super) fn of_metadata(
    metadata: &Metadata,
    allowed: Option<&[String]>,
) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    for (key, value) in metadata.iter().filter(|(key, _)| travels(key, allowed)) {
        let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| no_header(key))?;
        headers.append(name, value_of(value).ok_or_else(|| no_header(key))?);
    }
    Ok(headers)
}

/// A value that every server reads in the same way. `HeaderValue` also accepts bytes above ASCII.
pub(super) fn value_of(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text).ok().filter(|_| text.is_ascii())
}

fn no_header(key: &str) -> Status {
    let key: String = key.chars().take(40).collect();
    let text = format!(
        "the metadata {key:?} cannot be a header of HTTP, and the method is forwarded as HTTP; names are tokens, values are of ASCII without control characters"
    );
    Status::not_executed(Code::InvalidArgument, text)
}

/// Metadata and trailers from an upstream's headers. Trailers begin with `trailer-`, as in Connect.
pub(super) fn into_metadata(headers: &HeaderMap) -> (Metadata, Metadata) {
    let (mut metadata, mut trailing) = (Metadata::default(), Metadata::default());
    for (name, value) in headers {
        let (Ok(value), name) = (value.to_str(), name.as_str()) else { continue };
        match name.strip_prefix("trailer-") {
            Some(name) if !is_ours(name) => trailing.insert(name, value),
            Some(_) => {}
            None if !is_ours(name) => metadata.insert(name, value),
            None => {}
        }
    }
    (metadata, trailing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, Status> {
        let pairs = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into()));
        let headers = of_metadata(&pairs.collect(), None)?;
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().expect("a text").to_owned())
        };
        Ok(headers.iter().map(pair).collect())
    }

    #[test]
    fn pairs_are_sent_in_lower_case_and_keys_may_repeat() {
        let pairs = sent(&[("Authorization", "x"), ("a", "1"), ("a", "2")]).expect("headers");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs, [pair("authorization", "x"), pair("a", "1"), pair("a", "2")]);
    }

    #[test]
    fn identity_and_length_headers_are_dropped_in_any_spelling() {
        for name in [
            "dialback-caller",
            "Dialback-Node",
            "dialback_caller",
            "DIALBACK_CALL_ID",
            "dialback.caller",
            "Dialback~Node",
            "x.forwarded.for",
            "connect-timeout-ms",
            "content-length",
            "Content-Type",
            "Transfer-Encoding",
            "transfer_encoding",
            "host",
            "traceparent",
            "X-Forwarded-For",
            "x_real_ip",
            "forwarded",
            "connection",
        ] {
            assert_eq!(sent(&[(name, "x")]), Ok(vec![]), "{name}");
        }
    }

    #[test]
    fn names_that_servers_trust_from_a_proxy_are_dropped_in_any_spelling() {
        for name in [
            "proxy",
            "PROXY",
            "Proxy-Authorization",
            "proxy_connection",
            "x-original-url",
            "X_Original_URL",
            "X-Original-Host",
            "x-rewrite-url",
            "remote-user",
            "REMOTE_USER",
            "remote.addr",
            "x-remote-user",
            "x-http-method-override",
            "X-HTTP-Method",
            "x-method-override",
            "x-middleware-subrequest",
            "x-forwarded-user",
            "x-forward-for",
            "x-forwarded",
            "X-Client-IP",
            "client_ip",
            "true-client-ip",
            "x-real-host",
            "cf-connecting-ip",
            "x-ms-client-principal-name",
            "x-amzn-oidc-identity",
            "x-goog-authenticated-user-email",
            "ssl-client-verify",
            "x-ssl-client-s-dn",
            "x-webauth-user",
            "x-auth-request-email",
            "impersonate-user",
            "script_name",
            "path-info",
            "query-string",
            "request_uri",
            "server-name",
            "https",
            "keep-alive",
            "upgrade",
            "te",
            "trailer",
        ] {
            assert_eq!(sent(&[(name, "x")]), Ok(vec![]), "{name}");
            let allowed = [name.to_owned()];
            let metadata = [(name.to_owned(), "x".to_owned())].into_iter().collect();
            let headers = of_metadata(&metadata, Some(&allowed)).expect("headers");
            assert!(headers.is_empty(), "{name}: a list does not open it");
        }
    }

    #[test]
    fn similar_names_are_forwarded() {
        for name in [
            "x-request-id",
            "idempotency-key",
            "authorization",
            "cookie",
            "x-auth-token",
            "x-tenant",
            "proxyid",
            "remote",
            "x-origin",
            "if-match",
            "accept-language",
            "x-user-id",
        ] {
            let pair = (name.to_owned(), "x".to_owned());
            assert_eq!(sent(&[(name, "x")]), Ok(vec![pair]), "{name}");
        }
    }

    #[test]
    fn with_a_list_of_names_all_others_are_dropped() {
        let sent_with = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).into()).collect();
            let pairs = [("Tenant", "a"), ("X_Tenant", "b"), ("other", "ü"), ("ö", "d")];
            let pairs = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into()));
            of_metadata(&pairs.collect(), Some(&allowed))
                .map(|headers| headers.keys().map(HeaderName::to_string).collect::<Vec<_>>())
        };
        assert_eq!(sent_with(&[]), Ok(vec![]));
        assert_eq!(sent_with(&["tenant"]), Ok(vec!["tenant".into()]));
        assert_eq!(sent_with(&["x-tenant"]), Ok(vec![]), "signs are not the same here");
        let status = sent_with(&["OTHER"]).expect_err("it is not ASCII");
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    #[test]
    fn a_pair_that_would_break_the_request_is_refused() {
        for (key, value) in [
            ("a b", "x"),
            ("", "x"),
            ("a:", "x"),
            ("é", "x"),
            ("x-forwarded-é", "x"),
            ("a", "x\r\nb: c"),
            ("a", "\0"),
            ("a", "é"),
            ("a", "\u{80}"),
            ("a", "日本"),
            ("a", "\u{7f}"),
        ] {
            let status = sent(&[(key, value)]).expect_err("no header");
            assert_eq!(status.code(), Code::InvalidArgument, "{key:?}: {value:?}");
            assert!(status.is_safe_to_retry());
        }
    }

    #[test]
    fn an_upstreams_headers_become_metadata_before_and_after_the_reply() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("server", "x"),
            ("date", "x"),
            ("content-type", "x"),
            ("connect-x", "x"),
            ("dialback-outcome", "x"),
            ("etag", "7"),
            ("trailer-cost", "9"),
            ("trailer-dialback-x", "x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let (metadata, trailing) = into_metadata(&headers);
        assert_eq!(metadata.iter().collect::<Vec<_>>(), [("etag", "7")]);
        assert_eq!(trailing.iter().collect::<Vec<_>>(), [("cost", "9")]);
    }
}
