//! The thread that writes the audit log: takes what has come, writes it, and says what is missing.

use super::{
    line::Line,
    queue::{Marks, Order},
};
use crate::{
    limits::{AUDIT_BATCH_BYTES, AUDIT_FAULT_LOG_EVERY},
    rate_limit::{LogLimiter, Pace},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::SystemTime,
};
use tokio::time::Instant;

/// Where lines go.
pub(super) trait Sink: Write + Send + 'static {
    /// Begins anew under the same name.
    fn reopen(&mut self) -> io::Result<()>;
}

/// A file that is added to.
pub(super) struct FileSink {
    path: PathBuf,
    file: File,
}

impl FileSink {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file })
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    #[cfg(unix)]
    refuse_pipe(path)?;
    options.open(path)
}

/// Opening a named pipe blocks until a reader opens it, and writing blocks while it is full.
#[cfg(unix)]
fn refuse_pipe(path: &PathBuf) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let is_pipe = std::fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
    if is_pipe {
        let text = "it is a named pipe (FIFO), and an audit log is a file; to pipe it on, write it to standard output with -";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for FileSink {
    fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path).map_err(|error| {
            let path = self.path.display();
            io::Error::new(error.kind(), format!("{path}: {error}"))
        })?;
        Ok(())
    }
}

/// Whatever a program gives us. It has no name to be opened again by.
pub(super) struct WriterSink<W>(pub(super) W);

impl<W: Write> Write for WriterSink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write + Send + 'static> Sink for WriterSink<W> {
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the thread. It ends when nobody can order any more, and all that was ordered is done.
pub(super) fn start(sink: impl Sink, orders: Receiver<Order>, marks: Arc<Marks>) -> io::Result<()> {
    let faults = LogLimiter::new(Pace::new(1, AUDIT_FAULT_LOG_EVERY));
    let mut writer = Writer { sink, marks, faults, is_cut: false };
    let thread = std::thread::Builder::new().name("dialback-audit".into());
    thread.spawn(move || writer.run(&orders)).map(drop)
}

struct Writer<S> {
    sink: S,
    marks: Arc<Marks>,
    faults: LogLimiter,
    /// The last line was written in part.
    is_cut: bool,
}

impl<S: Sink> Writer<S> {
    fn run(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            let mut batch = String::new();
            let mut asked = None;
            let (mut next, mut is_more) = (Some(order), true);
            // What has come meanwhile goes with it: one write for many lines when there are many.
            while let Some(order) = next.take() {
                match order {
                    Order::Line(line) => {
                        batch.push_str(&line);
                        batch.push('\n');
                    }
                    // What comes after it is for the file that is opened then.
                    Order::Look => is_more = false,
                    Order::Flush(done) => {
                        asked = Some(done);
                        is_more = false;
                    }
                }
                if is_more && batch.len() < AUDIT_BATCH_BYTES {
                    next = orders.try_recv().ok();
                }
            }
            self.write(&batch);
            self.heed_marks();
            if let Some(done) = asked {
                // Whoever asked may have given up.
                let _ = done.try_send(());
            }
        }
    }

    /// After what came before was written: a file that was renamed gets what was meant for it.
    fn heed_marks(&mut self) {
        if self.marks.reopen.swap(false, Ordering::AcqRel)
            && let Err(error) = self.sink.reopen()
        {
            tracing::error!(
                "the audit log cannot be opened again, the old file is written on: {error}"
            );
        }
        let lost = self.marks.lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let line = Line::new(SystemTime::now(), "lost").number("lines", lost).end();
            if self.put(format!("{line}\n").as_bytes()).is_err() {
                self.marks.lost.fetch_add(lost, Ordering::AcqRel);
            }
        }
    }

    /// Writes lines; counts those that were not written whole.
    fn write(&mut self, lines: &str) {
        if let Err((written, error)) = self.put(lines.as_bytes()) {
            let missing = lines.as_bytes()[written..].iter().filter(|byte| **byte == b'\n').count();
            self.marks.lost.fetch_add(missing as u64, Ordering::AcqRel);
            if let Some(suppressed) = self.faults.say(Instant::now()) {
                tracing::error!(
                    "the audit log cannot be written, lines are missing: {error}{suppressed}"
                );
            }
        }
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// How many were written, and why no more.
    fn put(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        if bytes.is_empty() {
            return Ok(());
        }
        // What comes after a line that was cut must not be taken for its rest.
        if self.is_cut {
            self.sink.write_all(b"\n").map_err(|error| (0, error))?;
            self.is_cut = false;
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.sink.write(&bytes[written..]) {
                Ok(0) => return Err(self.cut(bytes, written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cut(bytes, written, error)),
            }
        }
        self.sink.flush().map_err(|error| (written, error))
    }

    fn cut(&mut self, bytes: &[u8], written: usize, error: io::Error) -> (usize, io::Error) {
        self.is_cut = written > 0 && bytes[written - 1] != b'\n';
        (written, error)
    }
}
