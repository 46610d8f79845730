//! Sends HTTP/1 clients the keep-alive state of a connection, to keep requests off a closing one.

use crate::limits::HTTP_KEEP_ALIVE_ADVERTISED;
use hyper::{
    HeaderMap, Version,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
};
use std::sync::LazyLock;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static TIMEOUT: LazyLock<HeaderValue> = LazyLock::new(|| {
    let timeout = format!("timeout={}", HTTP_KEEP_ALIVE_ADVERTISED.as_secs());
    HeaderValue::try_from(timeout).unwrap_or(HeaderValue::from_static("timeout=1"))
});

/// Keep-alive as requested by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Persistence(bool);

impl Persistence {
    /// Reads it from the head of a request, by RFC 9112 section 9.3.
    pub(super) fn of(head: &Parts) -> Self {
        let has_option = |option| has_option(&head.headers, option);
        let is_default = head.version > Version::HTTP_10;
        Self(!has_option("close") && (is_default || has_option("keep-alive")))
    }

    /// Writes it into the head of the response. The connection closes after a request whose body
    /// the client withholds, and may still send: it is indistinguishable from the next request. And
    /// after a response whose end only the end of the connection shows.
    pub(super) fn write(self, answer: &mut HeaderMap, closes: bool) {
        if !self.0 || has_option(answer, "close") {
            return;
        }
        if closes {
            answer.insert(header::CONNECTION, HeaderValue::from_static("close"));
            return;
        }
        answer.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        answer.insert(KEEP_ALIVE, TIMEOUT.clone());
    }
}

fn has_option(headers: &HeaderMap, option: &str) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut options = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    options.any(|one| one.trim().eq_ignore_ascii_case(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers of the response to a request of this version, both with these options, as
    /// `connection` and `keep-alive`.
    fn written(version: Version, requested: &[&str], answered: &[&str], closes: bool) -> String {
        let mut request = hyper::Request::new(());
        *request.version_mut() = version;
        let mut answer = HeaderMap::new();
        for (headers, options) in [(request.headers_mut(), requested), (&mut answer, answered)] {
            for option in options {
                headers.append(header::CONNECTION, HeaderValue::from_str(option).expect("one"));
            }
        }
        Persistence::of(&request.into_parts().0).write(&mut answer, closes);
        let text = |name| answer.get(name).map_or("", |value| value.to_str().expect("text"));
        format!("{}|{}", text(header::CONNECTION), text(KEEP_ALIVE))
    }

    #[test]
    fn keep_alive_timeout_is_sent_only_if_the_connection_stays_open() {
        let (old, new) = (Version::HTTP_10, Version::HTTP_11);
        let open = "keep-alive|timeout=6";
        for (version, requested, answered, expected) in [
            (new, &[][..], &[][..], open),
            (new, &["keep-alive, te"], &[], open),
            (new, &["close"], &[], "|"),
            (new, &["te", "x, Close"], &[], "|"),
            (new, &["keep-alive, close"], &[], "|"),
            (new, &[], &["close"], "close|"),
            (old, &[], &[], "|"),
            (old, &["Keep-Alive"], &[], open),
            (old, &["keep-alive"], &["close"], "close|"),
        ] {
            let written = written(version, requested, answered, false);
            assert_eq!(written, expected, "{version:?} {requested:?} {answered:?}");
        }
        assert_eq!(written(new, &[], &[], true), "close|");
        assert_eq!(written(new, &["close"], &[], true), "|");
    }
}
