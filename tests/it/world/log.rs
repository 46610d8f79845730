//! The log of the library, so that tests can wait for a line. One recorder per process; lines name
//! their node's port.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};
use tokio::sync::watch;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

static LINES: LazyLock<watch::Sender<Vec<Arc<str>>>> = LazyLock::new(|| {
    // Fails only if another recorder is set; the tests that wait for lines would then fail.
    drop(tracing::subscriber::set_global_default(LogRecorder));
    watch::Sender::default()
});

/// Starts to record; once is enough.
pub(super) fn record() {
    LazyLock::force(&LINES);
}

/// Waits for a line that has all of these parts; it may have been logged already.
#[track_caller]
pub(crate) fn logged(parts: &[&str]) -> impl Future<Output = Arc<str>> + use<> {
    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
    super::soon(&format!("the log has {parts:?}"), async move {
        let has_all = |line: &Arc<str>| parts.iter().all(|part| line.contains(part));
        let mut lines = LINES.subscribe();
        let lines = lines.wait_for(|lines| lines.iter().any(has_all)).await.expect("a static");
        lines.iter().find(|line| has_all(line)).expect("it was found").clone()
    })
}

/// The lines so far that have this text.
pub(crate) fn lines_with(text: &str) -> Vec<Arc<str>> {
    LINES.borrow().iter().filter(|line| line.contains(text)).cloned().collect()
}

struct LogRecorder;

impl Subscriber for LogRecorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("dialback") && *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = MessageVisitor(String::new());
        event.record(&mut line);
        LINES.send_modify(|lines| lines.push(line.0.into()));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        if field.name() == "message" {
            write!(self.0, "{value:?}").expect("memory");
        }
    }
}
