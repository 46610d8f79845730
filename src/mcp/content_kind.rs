//! What the body of a response of a server is.

use hyper::{HeaderMap, header};

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
    /// By the header `Content-Type`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "text/event-stream" => Self::Events,
            kind if kind == "application/json" || kind.ends_with("+json") => Self::Json,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn parameters_and_case_do_not_change_what_a_body_is() {
        for (text, kind) in [
            ("application/json", ContentKind::Json),
            ("Application/JSON; charset=utf-8", ContentKind::Json),
            ("application/problem+json", ContentKind::Json),
            ("text/event-stream;x=1", ContentKind::Events),
            ("text/html", ContentKind::Other),
        ] {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]);
            assert_eq!(ContentKind::of(&headers), kind, "{text}");
        }
        assert_eq!(ContentKind::of(&HeaderMap::new()), ContentKind::Other);
    }
}
