//! The audit log: who was linked and who was refused, and every call if that is asked for. One JSON
//! object a line.
//!
//! Whoever has something to write down puts a line into a bounded queue and goes on; a thread
//! writes. A disk that is slow or full costs lines, which are counted, and never a call its time.

mod line;
mod queue;
mod writer;

pub(crate) use line::Line;

use crate::limits::{AUDIT_FLUSH_STEP, AUDIT_LINES_WAITING_MAX};
use queue::{Marks, Order, Queue};
use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, TrySendError},
    },
    time::{Duration, Instant},
};
use writer::{FileSink, Sink, WriterSink};

/// Where nodes and agents write down who was linked, who was refused and, with
/// [`Audit::with_calls`], every call. Cloning shares it; several nodes and agents may share one,
/// and their lines say whose they are. `Default` is none: nothing is written, and it costs nothing.
///
/// A line is a JSON object with `time`, `by` and `event`; `docs/operations.md` has all of them.
/// Names and texts from peers are escaped and cut. Lines wait in a queue of 8,192; of more, and of
/// those that could not be written, the next line says how many are missing. The thread that writes
/// ends with the last clone. Call [`Audit::flush`] before the program ends.
#[derive(Clone, Default)]
pub struct Audit {
    queue: Option<Arc<Queue>>,
    has_calls: bool,
}

impl Audit {
    /// Adds to a file, which is made with mode 0600 if it is missing.
    ///
    /// # Errors
    /// It cannot be opened for writing, or the system gives no thread.
    pub fn file(path: impl Into<PathBuf>) -> io::Result<Self> {
        Self::start(FileSink::open(path.into())?)
    }

    /// Writes to standard output.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Writes to a sink of the program's own: whole lines, some at a time, and then a flush. It is
    /// called by a thread of its own, and may block it.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn to(sink: impl Write + Send + 'static) -> io::Result<Self> {
        Self::start(WriterSink(sink))
    }

    fn start(sink: impl Sink) -> io::Result<Self> {
        let (lines, orders) = mpsc::sync_channel(AUDIT_LINES_WAITING_MAX);
        let marks = Arc::<Marks>::default();
        writer::start(sink, orders, marks.clone())?;
        Ok(Self { queue: Some(Arc::new(Queue { lines, marks })), has_calls: false })
    }

    /// Also writes a line for each call when it has ended: a few microseconds, and some 300 bytes.
    #[must_use]
    pub fn with_calls(mut self, has_calls: bool) -> Self {
        self.has_calls = has_calls;
        self
    }

    /// Opens the file again under its name, soon: for whoever has renamed it. What came before goes
    /// to the old one. If that fails it is said in the log, and the old one is written on. Not for
    /// a sink of the program's own.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.marks.reopen.store(true, Ordering::Release);
            // A full queue will be looked at anyway.
            drop(queue.lines.try_send(Order::Look));
        }
    }

    /// Waits until all lines so far are written, but no longer than that. Blocks its thread. Says
    /// whether they are.
    pub fn flush(&self, wait_max: Duration) -> bool {
        let Some(queue) = &self.queue else { return true };
        let until = Instant::now() + wait_max;
        let (done, written) = mpsc::sync_channel(1);
        let mut order = Order::Flush(done);
        while let Err(refused) = queue.lines.try_send(order) {
            match refused {
                TrySendError::Full(same) if Instant::now() < until => order = same,
                _ => return false,
            }
            std::thread::sleep(AUDIT_FLUSH_STEP);
        }
        written.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Whether anything is written.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether calls are recorded.
    pub(crate) const fn records_calls(&self) -> bool {
        self.has_calls && self.queue.is_some()
    }

    /// Queues a line; a line that finds no room is counted.
    pub(crate) fn write(&self, line: String) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            queue.lines.try_send(Order::Line(line))
        {
            queue.marks.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, has_calls } = self;
        f.debug_struct("Audit")
            .field("is_on", &queue.is_some())
            .field("has_calls", has_calls)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Condvar, Mutex};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A sink that keeps what it gets, once its gate is open, and fails as often as it is told.
    #[derive(Clone, Default)]
    struct Kept(Arc<(Mutex<State>, Condvar)>);

    #[derive(Default)]
    struct State {
        is_open: bool,
        has_come: bool,
        failures: usize,
        bytes: Vec<u8>,
    }

    impl Kept {
        fn open(&self) {
            self.0.0.lock().expect("whole").is_open = true;
            self.0.1.notify_all();
        }

        /// Waits until the writer stands before the gate.
        fn has_come(&self) {
            let state = self.0.0.lock().expect("whole");
            drop(self.0.1.wait_while(state, |state| !state.has_come).expect("whole"));
        }

        fn lines(&self) -> Vec<String> {
            let state = self.0.0.lock().expect("whole");
            String::from_utf8_lossy(&state.bytes).lines().map(str::to_owned).collect()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.0.lock().expect("whole");
            state.has_come = true;
            self.0.1.notify_all();
            let mut state = self.0.1.wait_while(state, |state| !state.is_open).expect("whole");
            if state.failures > 0 {
                state.failures -= 1;
                return Err(io::Error::other("the disk is full"));
            }
            // Some of it, as a disk may that fills up.
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
        let kept = Kept::default();
        kept.open();
        let audit = Audit::to(kept.clone()).expect("a thread");
        (0..1_000).for_each(|n| audit.write(format!("line {n}")));
        assert!(audit.flush(PATIENCE));
        let expected: Vec<_> = (0..1_000).map(|n| format!("line {n}")).collect();
        assert_eq!(kept.lines(), expected);
    }

    #[test]
    fn nobody_waits_for_a_sink_that_stands_still_and_what_finds_no_place_is_counted() {
        let kept = Kept::default();
        let audit = Audit::to(kept.clone()).expect("a thread");
        audit.write("first".into());
        kept.has_come();
        // The first is with the sink; as many as the queue holds wait, and the rest is lost.
        (0..AUDIT_LINES_WAITING_MAX + 5).for_each(|n| audit.write(format!("line {n}")));
        assert!(!audit.flush(Duration::ZERO), "a full queue was flushed");
        kept.open();
        assert!(audit.flush(PATIENCE));
        let lines = kept.lines();
        assert_eq!(lines.len(), 1 + AUDIT_LINES_WAITING_MAX + 1);
        let lost: Vec<_> =
            lines.iter().filter(|line| line.contains("\"event\":\"lost\"")).collect();
        assert!(lost.len() == 1 && lost[0].contains("\"lines\":5"), "{lost:?}");
    }

    #[test]
    fn a_line_that_could_not_be_written_is_counted_and_the_next_one_stands_alone() {
        let kept = Kept::default();
        kept.open();
        let audit = Audit::to(kept.clone()).expect("a thread");
        audit.write("good".into());
        assert!(audit.flush(PATIENCE));
        kept.0.0.lock().expect("whole").failures = 1;
        audit.write("bad".into());
        // Whether the loss is told by itself or with the next line.
        assert!(audit.flush(PATIENCE));
        audit.write("good again".into());
        assert!(audit.flush(PATIENCE));
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
    fn a_file_that_was_renamed_is_written_on_until_it_is_opened_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let [path, old] = ["audit.log", "audit.log.1"].map(|name| dir.path().join(name));
        let audit = Audit::file(&path).expect("a file");
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let write = |line: &str| {
            audit.write(line.into());
            assert!(audit.flush(PATIENCE));
        };
        write("one");
        std::fs::rename(&path, &old).expect("renamed");
        write("two");
        audit.reopen();
        write("three");
        assert_eq!((read(&old).as_str(), read(&path).as_str()), ("one\ntwo\n", "three\n"));
        // Where it cannot be opened, the old one is written on.
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
        assert!(again.flush(PATIENCE));
        assert_eq!(read(&path), "five\nsix\n", "what was there is kept");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_no_audit_log() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(Audit::file(dir.path()).is_err());
        assert!(Audit::file(dir.path().join("gone/audit.log")).is_err());
        assert!(Audit::file(dir.path().join("audit.log")).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_made_is_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("audit.log");
        let _audit = Audit::file(&path).expect("a file");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn without_an_audit_log_nothing_is_waited_for() {
        let none = Audit::default();
        none.reopen();
        none.write("nowhere".into());
        assert!(none.flush(Duration::ZERO) && !none.is_on());
    }
}
