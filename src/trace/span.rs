//! Spans: the time of one step of a call, with what is known about it.

use super::{
    context::TraceContext,
    queue::SpanQueue,
    span_data::{AttributeValue, SpanData, SpanKind, SpanParent},
};
use crate::{
    limits::{SPAN_ATTRIBUTES_MAX, SPAN_TEXT_BYTES_MAX},
    printable::truncated,
    status::{Code, Outcome},
};
use std::{
    fmt::Display,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// A span that begins now.
#[derive(Debug)]
pub(crate) struct NewSpan<'a> {
    pub(crate) kind: SpanKind,
    pub(crate) name: &'a str,
    /// A span that is dropped after it has ended so.
    pub(crate) deadline: Instant,
}

/// A span, if its call is sampled. Dropped before [`Span::ended`], it was cancelled or timed out.
#[derive(Debug, Default)]
pub(crate) struct Span(Option<Box<OpenSpan>>);

/// Boxed: most calls have none, and do not carry its size.
#[derive(Debug)]
struct OpenSpan {
    queue: Arc<SpanQueue>,
    data: SpanData,
    began: Instant,
    deadline: Instant,
}

/// Texts come from peers.
fn bounded(text: &str) -> Box<str> {
    truncated(text, SPAN_TEXT_BYTES_MAX).into()
}

impl Span {
    pub(super) fn begin(
        queue: &Arc<SpanQueue>,
        context: TraceContext,
        parent: Option<SpanParent>,
        new: &NewSpan<'_>,
    ) -> Self {
        let data = SpanData {
            context,
            parent,
            kind: new.kind,
            name: bounded(new.name),
            start: SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            failure: None,
        };
        let (queue, began, deadline) = (queue.clone(), Instant::now(), new.deadline);
        Self(Some(Box::new(OpenSpan { queue, data, began, deadline })))
    }

    /// True if the call is sampled, so that it is worth finding out more about it.
    pub(crate) const fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an attribute, unless the span has one of this key.
    pub(crate) fn text(&mut self, key: &'static str, value: impl Display) {
        self.add(key, || AttributeValue::Text(bounded(&value.to_string())));
    }

    pub(crate) fn number(&mut self, key: &'static str, value: impl Into<i64>) {
        self.add(key, || AttributeValue::Number(value.into()));
    }

    fn add(&mut self, key: &'static str, value: impl FnOnce() -> AttributeValue) {
        if let Some(open) = &mut self.0
            && open.data.attributes.len() < SPAN_ATTRIBUTES_MAX
            && open.data.attributes.iter().all(|(have, _)| *have != key)
        {
            open.data.attributes.push((key, value()));
        }
    }

    /// Adds the address of the peer of the connection.
    pub(crate) fn peer_address(&mut self, address: SocketAddr) {
        if self.is_recorded() {
            self.text("network.peer.address", address.ip());
            self.number("network.peer.port", address.port());
        }
    }

    /// Adds the status of an HTTP response. It may say that the request has failed, whatever the
    /// outcome of the call: to a client from 400 on, and to a server, which answered, from 500 on.
    #[cfg_attr(
        not(any(feature = "forward", feature = "gateway")),
        allow(dead_code, reason = "for requests over HTTP")
    )]
    pub(crate) fn http_status(&mut self, status: u16) {
        self.number("http.response.status_code", status);
        let Some(open) = &self.0 else { return };
        let fails_from = if open.data.kind == SpanKind::Client { 400 } else { 500 };
        if status >= fails_from {
            self.text("error.type", status);
            self.fail("");
        }
    }

    fn fail(&mut self, reason: &str) {
        if let Some(open) = &mut self.0 {
            // A status of HTTP has no reason, and the call may have one.
            let failure = open.data.failure.take().filter(|reason| !reason.is_empty());
            open.data.failure = failure.or_else(|| Some(bounded(reason)));
        }
    }

    /// Ends with this result, and the reason of a failure.
    pub(crate) fn ended(mut self, (code, outcome): (Code, Outcome), reason: &str) {
        self.end((code, outcome), reason);
    }

    fn end(&mut self, (code, outcome): (Code, Outcome), reason: &str) {
        let Some(open) = &self.0 else { return };
        // What a client cancels is not a fault of who answers it.
        let is_fault = match open.data.kind {
            SpanKind::Client => code != Code::Ok,
            SpanKind::Server | SpanKind::Internal => !matches!(code, Code::Ok | Code::Cancelled),
        };
        self.text("rpc.response.status_code", code);
        self.text("dialback.outcome", outcome);
        if is_fault {
            self.text("error.type", code);
            self.fail(reason);
        }
        if let Some(open) = self.0.take() {
            let OpenSpan { queue, mut data, began, .. } = *open;
            data.took = began.elapsed();
            queue.export(data);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = &self.0 else { return };
        let (code, reason) = match Instant::now() >= open.deadline {
            true => (Code::DeadlineExceeded, "its deadline passed"),
            false => (Code::Cancelled, "it was cancelled"),
        };
        self.end((code, Outcome::Unknown), reason);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::queue::ToExport, *};
    use crate::drain::Tasks;
    use tokio::sync::mpsc;

    const LONG: Duration = Duration::from_secs(60);

    /// What is exported of a span of this kind.
    fn exported(kind: SpanKind, end: impl FnOnce(Span)) -> SpanData {
        let (sender, mut ended) = mpsc::channel(1);
        let queue = SpanQueue { sender, counts: Arc::default(), tasks: Tasks::default() };
        let (name, deadline) = (&*"é".repeat(200), Instant::now() + LONG);
        let context = TraceContext::new([1; 16], [2; 8], true);
        end(Span::begin(&Arc::new(queue), context, None, &NewSpan { kind, name, deadline }));
        let Ok(ToExport::Span(data)) = ended.try_recv() else { panic!("nothing was exported") };
        assert!(ended.try_recv().is_err(), "it was exported twice");
        *data
    }

    fn text(data: &SpanData, key: &str) -> Option<String> {
        let found = data.attributes.iter().find(|(have, _)| *have == key)?;
        match &found.1 {
            AttributeValue::Text(text) => Some(text.to_string()),
            AttributeValue::Number(number) => Some(number.to_string()),
        }
    }

    #[test]
    fn texts_and_attributes_are_bounded_and_a_key_occurs_once() {
        const KEYS: [&str; 3] = ["a", "b", "c"];
        let data = exported(SpanKind::Server, |mut span| {
            (0..100).for_each(|at| span.text(KEYS[at % 3], "x".repeat(1_000)));
            span.ended((Code::Internal, Outcome::Unknown), &"y".repeat(1_000));
        });
        assert_eq!((data.name.len(), data.name.chars().count()), (256, 128));
        assert_eq!(data.failure.map(|reason| reason.len()), Some(SPAN_TEXT_BYTES_MAX));
        // Those three, and how it ended.
        assert_eq!(data.attributes.len(), 6);
        let bytes = data.attributes.iter().map(|(_, value)| match value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Number(_) => 8,
        });
        assert_eq!(bytes.max(), Some(SPAN_TEXT_BYTES_MAX));
    }

    #[test]
    fn a_dropped_span_was_cancelled_or_late() {
        let cancelled = exported(SpanKind::Client, drop);
        assert_eq!(text(&cancelled, "error.type").as_deref(), Some("CANCELLED"));
        let late = exported(SpanKind::Server, |mut span| {
            if let Some(open) = &mut span.0 {
                open.deadline = open.began;
            }
        });
        assert_eq!(text(&late, "error.type").as_deref(), Some("DEADLINE_EXCEEDED"));
    }

    #[test]
    fn what_a_client_cancels_is_no_failure_of_who_answers() {
        for kind in [SpanKind::Server, SpanKind::Internal] {
            let data = exported(kind, drop);
            let code = text(&data, "rpc.response.status_code");
            assert_eq!((code.as_deref(), data.failure), (Some("CANCELLED"), None));
        }
    }

    #[test]
    fn a_status_of_http_is_a_failure_by_the_side_that_sees_it() {
        let failed = |kind, status| {
            let data = exported(kind, |mut span| {
                span.http_status(status);
                span.ended((Code::Ok, Outcome::Ok), "");
            });
            (data.failure.is_some(), text(&data, "error.type"))
        };
        let is = |status: &str| (true, Some(status.to_owned()));
        assert_eq!(failed(SpanKind::Client, 404), is("404"));
        assert_eq!(failed(SpanKind::Server, 404), (false, None));
        assert_eq!(failed(SpanKind::Server, 500), is("500"));
        assert_eq!(failed(SpanKind::Client, 302), (false, None));
    }
}
