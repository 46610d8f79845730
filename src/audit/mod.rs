//! The audit log: links, refusals, and calls if enabled. One JSON object per line.
//!
//! A producer puts a line into a bounded queue and does not wait; a thread writes. A slow or full
//! disk loses lines, which are counted, and does not delay calls.

mod line;
#[cfg(test)]
mod memory_sink;
mod queue;
mod writer;

pub(crate) use line::AuditLine;
#[cfg(test)]
pub(crate) use memory_sink::MemorySink;

use crate::limits::{AUDIT_FLUSH_STEP, AUDIT_LINES_WAITING_MAX};
use queue::{LineQueue, WriterCommand, WriterFlags};
use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, TrySendError},
    },
    time::{Duration, Instant},
};
use writer::AuditSink;

/// Audit log of nodes and agents: links, refusals and, with [`Audit::with_calls`], every call.
/// Clones share it; several nodes and agents may share one, and each line names its writer.
/// `Default` writes nothing and costs nothing.
///
/// A line is a JSON object with `time`, `by` and `event`; `docs/operations.md` lists all of them.
/// Names and texts from peers are escaped and truncated. Up to 8,192 lines wait in a queue; the
/// next line reports how many further lines were lost or could not be written. The writing thread
/// ends with the last clone. Call [`Audit::flush`] before the program ends.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    queue: Option<Arc<LineQueue>>,
    has_calls: bool,
}

impl Audit {
    /// Appends to a file, which is created with mode 0600 if it is missing.
    ///
    /// # Errors
    /// The file cannot be opened for writing, or no thread can be started.
    pub fn file(path: impl Into<PathBuf>) -> io::Result<Self> {
        Self::start(AuditSink::file(path.into())?)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Writes to a sink: complete lines, several at a time, and then a flush. A separate thread
    /// calls it and may block in it.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn to(sink: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(AuditSink::writer(sink))
    }

    fn start(sink: AuditSink) -> io::Result<Self> {
        let (lines, commands) = mpsc::sync_channel(AUDIT_LINES_WAITING_MAX);
        let flags = Arc::<WriterFlags>::default();
        writer::start(sink, commands, flags.clone())?;
        Ok(Self { queue: Some(Arc::new(LineQueue { lines, flags })), has_calls: false })
    }

    /// Also writes a line for each ended call. Costs some microseconds and 300 bytes per call.
    #[must_use]
    pub fn with_calls(mut self, has_calls: bool) -> Self {
        self.has_calls = has_calls;
        self
    }

    /// Reopens the file by its name soon, after it was renamed. Earlier lines go to the old file,
    /// and later ones too if that fails, which is logged. No effect on a sink of the program.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.flags.reopen.store(true, Ordering::Release);
            // A full queue is processed anyway.
            drop(queue.lines.try_send(WriterCommand::CheckFlags));
        }
    }

    /// Blocks until all lines so far are written, at most `wait_max`. Returns whether they are.
    pub fn flush(&self, wait_max: Duration) -> bool {
        let Some(queue) = &self.queue else { return true };
        let until = Instant::now() + wait_max;
        let (done, written) = mpsc::sync_channel(1);
        let mut command = WriterCommand::Flush(done);
        while let Err(refused) = queue.lines.try_send(command) {
            match refused {
                TrySendError::Full(same) if Instant::now() < until => command = same,
                _ => return false,
            }
            std::thread::sleep(AUDIT_FLUSH_STEP);
        }
        written.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
    }

    /// True if the audit log is enabled.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    pub(crate) const fn records_calls(&self) -> bool {
        self.has_calls && self.queue.is_some()
    }

    /// Lines since the start that found no room or were not written.
    #[cfg(feature = "admin")]
    pub(crate) fn lost(&self) -> u64 {
        let queue = self.queue.as_ref();
        queue.map_or(0, |queue| queue.flags.lost_ever.load(Ordering::Relaxed))
    }

    /// Queues a line. A line that finds no room is counted as lost.
    pub(crate) fn write(&self, line: String) {
        let Some(queue) = &self.queue else { return };
        if queue.lines.try_send(WriterCommand::Line(line)).is_err() {
            queue.flags.lose(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    const FLUSH_WAIT_MAX: Duration = Duration::from_secs(30);

    /// A sink that blocks until its gate is open, stores what it gets, and fails a given number of
    /// times.
    #[derive(Clone, Default)]
    struct GatedSink(Arc<(Mutex<GateState>, Condvar)>);

    #[derive(Default)]
    struct GateState {
        is_open: bool,
        has_come: bool,
        failures: usize,
        bytes: Vec<u8>,
    }

    impl GatedSink {
        fn open(&self) {
            self.0.0.lock().expect("the lock").is_open = true;
            self.0.1.notify_all();
        }

        /// Waits until the writer has reached the gate.
        fn has_come(&self) {
            let state = self.0.0.lock().expect("the lock");
            drop(self.0.1.wait_while(state, |state| !state.has_come).expect("the lock"));
        }

        fn lines(&self) -> Vec<String> {
            let state = self.0.0.lock().expect("the lock");
            String::from_utf8_lossy(&state.bytes).lines().map(str::to_owned).collect()
        }
    }

    impl Write for GatedSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock().expect("the lock");
            state.has_come = true;
            self.0.1.notify_all();
            let mut state = self.0.1.wait_while(state, |state| !state.is_open).expect("the lock");
            if state.failures > 0 {
                state.failures -= 1;
                return Err(io::Error::other("the disk is full"));
            }
            // A partial write, as on a disk that fills up.
            let written = bytes.len().min(7);
            state.bytes.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let kept = GatedSink::default();
        kept.open();
        let audit = Audit::to(kept.clone()).expect("a thread");
        (0..1_000).for_each(|n| audit.write(format!("line {n}")));
        assert!(audit.flush(FLUSH_WAIT_MAX));
        let expected: Vec<_> = (0..1_000).map(|n| format!("line {n}")).collect();
        assert_eq!(kept.lines(), expected);
    }

    #[test]
    fn a_blocked_sink_delays_no_producer_and_lost_lines_are_counted() {
        let kept = GatedSink::default();
        let audit = Audit::to(kept.clone()).expect("a thread");
        audit.write("first".into());
        kept.has_come();
        // The sink has the first line, the queue is full, and the rest is lost.
        (0..AUDIT_LINES_WAITING_MAX + 5).for_each(|n| audit.write(format!("line {n}")));
        assert!(!audit.flush(Duration::ZERO), "a full queue was flushed");
        kept.open();
        assert!(audit.flush(FLUSH_WAIT_MAX));
        let lines = kept.lines();
        assert_eq!(lines.len(), 1 + AUDIT_LINES_WAITING_MAX + 1);
        let lost: Vec<_> =
            lines.iter().filter(|line| line.contains("\"event\":\"lost\"")).collect();
        assert!(lost.len() == 1 && lost[0].contains("\"lines\":5"), "{lost:?}");
        #[cfg(feature = "admin")]
        assert_eq!(audit.lost(), 5);
    }

    #[test]
    fn a_failed_line_is_counted_and_the_next_one_starts_on_a_new_line() {
        let kept = GatedSink::default();
        kept.open();
        let audit = Audit::to(kept.clone()).expect("a thread");
        audit.write("good".into());
        assert!(audit.flush(FLUSH_WAIT_MAX));
        kept.0.0.lock().expect("the lock").failures = 1;
        audit.write("bad".into());
        // The loss is reported alone or with the next line.
        assert!(audit.flush(FLUSH_WAIT_MAX));
        audit.write("good again".into());
        assert!(audit.flush(FLUSH_WAIT_MAX));
        let lines = kept.lines();
        assert_eq!(
            (lines.first().map(String::as_str), lines.len()),
            (Some("good"), 3),
            "{lines:?}"
        );
        assert!(lines[1].contains("\"event\":\"lost\",\"lines\":1"), "{lines:?}");
        assert_eq!(lines[2], "good again");
    }

    #[test]
    fn a_renamed_file_is_used_until_it_is_reopened() {
        let dir = tempfile::tempdir().expect("a directory");
        let [path, old] = ["audit.log", "audit.log.1"].map(|name| dir.path().join(name));
        let audit = Audit::file(&path).expect("a file");
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let write = |line: &str| {
            audit.write(line.into());
            assert!(audit.flush(FLUSH_WAIT_MAX));
        };
        write("one");
        std::fs::rename(&path, &old).expect("renamed");
        write("two");
        audit.reopen();
        write("three");
        assert_eq!((read(&old).as_str(), read(&path).as_str()), ("one\ntwo\n", "three\n"));
        // If it cannot be opened, the old file is used further.
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        audit.reopen();
        write("four");
        std::fs::remove_dir(&path).expect("removed");
        audit.reopen();
        write("five");
        assert_eq!(read(&path), "five\n");
        drop(audit);
        let again = Audit::file(&path).expect("a file");
        again.write("six".into());
        assert!(again.flush(FLUSH_WAIT_MAX));
        assert_eq!(read(&path), "five\nsix\n", "what was there is kept");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(Audit::file(dir.path()).is_err());
        assert!(Audit::file(dir.path().join("gone/audit.log")).is_err());
        assert!(Audit::file(dir.path().join("audit.log")).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_is_accessible_to_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let _audit = Audit::file(&path).expect("a file");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn flush_without_an_audit_log_returns_at_once() {
        let none = Audit::default();
        none.reopen();
        none.write("nowhere".into());
        assert!(none.flush(Duration::ZERO) && !none.is_on());
    }
}
