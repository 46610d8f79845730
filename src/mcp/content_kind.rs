//! What the body of a response of a server is.

use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderValue},
};

/// What the body of a response of a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKind {
    /// A message, or a batch of them.
    Json,
    /// A stream of events with messages.
    Events,
    /// No message: nothing, or a text for people.
    Other,
}

impl ContentKind {
    /// By status and `Content-Type`, which is written again: some clients take other types for
    /// those of messages, and would read in them what was not checked.
    ///
    /// # Errors
    /// The body is encoded, or has two types.
    pub(crate) fn of(status: StatusCode, headers: &mut HeaderMap) -> Result<Self, &'static str> {
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Err("is compressed, which was not asked for");
        }
        let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
        let first = kinds.next().map(|kind| media_type(kind).unwrap_or_default());
        if kinds.next().is_some() {
            return Err("has two types of content");
        }
        let (kind, written) = match first.as_deref() {
            Some("application/json") => (Self::Json, "application/json"),
            Some("text/event-stream") if status.is_success() => (Self::Events, "text/event-stream"),
            _ => (Self::Other, "text/plain; charset=utf-8"),
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(written));
        let nosniff = HeaderValue::from_static("nosniff");
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        Ok(kind)
    }
}

/// The type alone, in lower case.
fn media_type(kind: &HeaderValue) -> Option<String> {
    let kind = kind.to_str().ok()?;
    kind.split(';').next().map(|kind| kind.trim().to_ascii_lowercase())
}

/// Checks the type of the body of a POST, and writes it again: servers take the encoding of its
/// text from it.
///
/// # Errors
/// It is not JSON in UTF-8, as it is.
pub(crate) fn check_request_type(headers: &mut HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err("a message is not compressed (content-encoding)");
    }
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = kinds.next().and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let plain = kind.to_ascii_lowercase().replace([' ', '\t', '"'], "");
    let is_json = matches!(plain.as_str(), "application/json" | "application/json;charset=utf-8");
    if !is_json || kinds.next().is_some() {
        return Err("the content-type of a message is application/json, in UTF-8");
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_type_that_is_not_exactly_one_of_messages_is_a_text() {
        let (ok, gone) = (StatusCode::OK, StatusCode::NOT_FOUND);
        for (status, kind, expected, written) in [
            (ok, "application/json", ContentKind::Json, "application/json"),
            (ok, "Application/JSON; charset=utf-16", ContentKind::Json, "application/json"),
            (gone, "application/json", ContentKind::Json, "application/json"),
            (ok, "text/event-stream;x=1", ContentKind::Events, "text/event-stream"),
            (gone, "text/event-stream", ContentKind::Other, "text/plain; charset=utf-8"),
            (ok, "application/jsonx", ContentKind::Other, "text/plain; charset=utf-8"),
            (ok, "text/event-streamx", ContentKind::Other, "text/plain; charset=utf-8"),
            (ok, "application/json, text/plain", ContentKind::Other, "text/plain; charset=utf-8"),
        ] {
            let mut headers = headers(&[("content-type", kind)]);
            assert_eq!(ContentKind::of(status, &mut headers), Ok(expected), "{kind}");
            assert_eq!(headers[header::CONTENT_TYPE], written, "{kind}");
        }
        assert_eq!(ContentKind::of(ok, &mut HeaderMap::new()), Ok(ContentKind::Other));
        let json = ("content-type", "application/json");
        for bad in [[json, json], [json, ("content-encoding", "identity")]] {
            assert!(ContentKind::of(ok, &mut headers(&bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_message_is_json_in_utf_8() {
        for good in [
            "application/json",
            "application/json; charset=UTF-8",
            "Application/Json;charset=\"utf-8\"",
        ] {
            let mut headers = headers(&[("content-type", good)]);
            assert_eq!(check_request_type(&mut headers), Ok(()), "{good}");
            assert_eq!(headers[header::CONTENT_TYPE], "application/json");
        }
        for bad in [
            "application/json; charset=utf-7",
            "application/json; charset=utf-8; charset=utf-7",
            "application/json; x=y",
            "text/plain",
            "",
        ] {
            assert!(check_request_type(&mut headers(&[("content-type", bad)])).is_err(), "{bad}");
        }
        let json = ("content-type", "application/json");
        for bad in [&[json, json][..], &[json, ("content-encoding", "br")], &[]] {
            assert!(check_request_type(&mut headers(bad)).is_err(), "{bad:?}");
        }
    }
}
