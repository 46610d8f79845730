//! Metadata as headers and back: which pairs travel, which are ours to write, and which say nothing to the other side.

use crate::{
    metadata::Metadata,
    status::{Code, Status},
};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// Headers of a connection or of the form of a message, in either direction: they say nothing of a call.
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

/// By which an upstream may believe to know who asks. Here it is told by `dialback-caller` and by nothing else.
const OF_IDENTITY: &[&str] = &["forwarded", "via", "x-real-ip"];

/// The same as starts of names, and what we and Connect write ourselves.
const STARTS: &[&str] = &["connect-", "content-", "dialback-", "x-forwarded-"];

/// Whether a pair of that name is left behind. Names are compared as CGI and its heirs do, to which every sign is the same: WSGI takes `_`
/// for `-`, PHP `.` too.
fn is_left_behind(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    OF_THE_MESSAGE.contains(&name.as_str())
        || OF_IDENTITY.contains(&name.as_str())
        || STARTS.iter().any(|start| name.starts_with(start))
}

/// The caller's pairs as headers, without those that are ours to write.
///
/// # Errors
/// A pair that cannot be a header: `INVALID_ARGUMENT`, not executed.
pub(super) fn of_metadata(metadata: &Metadata) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::new();
    for (key, value) in metadata.iter().filter(|(key, _)| !is_left_behind(key)) {
        let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| no_header(key))?;
        let value = HeaderValue::from_str(value).map_err(|_| no_header(key))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn no_header(key: &str) -> Status {
    let key: String = key.chars().take(40).collect();
    let text = format!(
        "the metadata {key:?} cannot be a header of HTTP, and the method is forwarded as HTTP; names are tokens, values are of ASCII without control characters"
    );
    Status::not_executed(Code::InvalidArgument, text)
}

/// What of an upstream's headers travels before the messages, and what after them: those that begin with `trailer-`, as Connect has it.
pub(super) fn into_metadata(headers: &HeaderMap) -> (Metadata, Metadata) {
    let (mut metadata, mut trailing) = (Metadata::default(), Metadata::default());
    for (name, value) in headers {
        let (Ok(value), name) = (value.to_str(), name.as_str()) else { continue };
        match name.strip_prefix("trailer-") {
            Some(name) if !is_left_behind(name) => trailing.insert(name, value),
            Some(_) => {}
            None if !is_left_behind(name) => metadata.insert(name, value),
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
        let headers = of_metadata(&pairs.collect())?;
        let pair = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().expect("a text").to_owned())
        };
        Ok(headers.iter().map(pair).collect())
    }

    #[test]
    fn pairs_travel_in_lower_case_and_a_key_may_come_twice() {
        let pairs = sent(&[("Authorization", "x"), ("a", "1"), ("a", "2")]).expect("headers");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(pairs, [pair("authorization", "x"), pair("a", "1"), pair("a", "2")]);
    }

    #[test]
    fn what_says_who_asks_or_how_long_a_message_is_stays_behind_however_it_is_spelt() {
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
    fn a_pair_that_would_break_the_request_is_refused() {
        for (key, value) in
            [("a b", "x"), ("", "x"), ("a:", "x"), ("é", "x"), ("a", "x\r\nb: c"), ("a", "\0")]
        {
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
