//! The thread that writes the audit log and reports lost lines.

use super::{
    line::AuditLine,
    queue::{WriterCommand, WriterFlags},
};
use crate::{
    limits::{AUDIT_BATCH_BYTES, AUDIT_FAULT_LOG_EVERY},
    rate_limit::{LogLimiter, RateLimit},
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    iter,
    path::PathBuf,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::SystemTime,
};
use tokio::time::Instant;

/// Destination of lines: a file, or a writer of the program.
pub(super) struct AuditSink {
    writer: Box<dyn Write + Send>,
    /// The file, to be opened again by its name. `None` for a writer of the program.
    path: Option<PathBuf>,
}

impl AuditSink {
    pub(super) fn file(path: PathBuf) -> io::Result<Self> {
        Ok(Self { writer: Box::new(open(&path)?), path: Some(path) })
    }

    pub(super) fn writer(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Box::new(writer), path: None }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = open(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        self.writer = Box::new(file);
        Ok(())
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

/// Starts the thread. It ends when all senders are dropped and all commands are done.
pub(super) fn start(
    sink: AuditSink,
    commands: Receiver<WriterCommand>,
    flags: Arc<WriterFlags>,
) -> io::Result<()> {
    let faults = LogLimiter::new(RateLimit::new(1, AUDIT_FAULT_LOG_EVERY));
    let mut writer = AuditWriter { sink, flags, faults, has_partial_line: false };
    let thread = std::thread::Builder::new().name("dialback-audit".into());
    thread.spawn(move || writer.run(&commands)).map(drop)
}

struct AuditWriter {
    sink: AuditSink,
    flags: Arc<WriterFlags>,
    faults: LogLimiter,
    /// The last line was written partially.
    has_partial_line: bool,
}

impl AuditWriter {
    fn run(&mut self, commands: &Receiver<WriterCommand>) {
        while let Ok(command) = commands.recv() {
            let (mut batch, mut flushed) = (String::new(), None);
            // Lines that arrived meanwhile are written together: one write for many lines.
            for command in iter::once(command).chain(commands.try_iter()) {
                match command {
                    WriterCommand::Line(line) => {
                        batch.push_str(&line);
                        batch.push('\n');
                        if batch.len() < AUDIT_BATCH_BYTES {
                            continue;
                        }
                    }
                    // Later lines belong to the file that is opened then.
                    WriterCommand::CheckFlags => {}
                    WriterCommand::Flush(done) => flushed = Some(done),
                }
                break;
            }
            self.write(&batch);
            self.apply_flags();
            if let Some(done) = flushed {
                // The requester may have given up.
                let _ = done.try_send(());
            }
        }
    }

    /// Runs after all earlier lines were written: a renamed file gets the lines that belong to it.
    fn apply_flags(&mut self) {
        if self.flags.reopen.swap(false, Ordering::AcqRel)
            && let Err(error) = self.sink.reopen()
        {
            tracing::error!(
                reason = %error,
                "the audit log cannot be opened again, the old file is written on: {error}"
            );
        }
        let lost = self.flags.lost.swap(0, Ordering::AcqRel);
        if lost > 0 {
            let line = AuditLine::new(SystemTime::now(), "lost").number("lines", lost).end();
            if self.write_bytes(format!("{line}\n").as_bytes()).is_err() {
                self.flags.lost.fetch_add(lost, Ordering::AcqRel);
            }
        }
    }

    /// Writes lines, and counts those that were not written completely.
    fn write(&mut self, lines: &str) {
        if let Err((written, error)) = self.write_bytes(lines.as_bytes()) {
            let missing = lines.as_bytes()[written..].iter().filter(|byte| **byte == b'\n').count();
            self.flags.lose(missing as u64);
            if let Some(suppressed) = self.faults.admit(Instant::now()) {
                tracing::error!(
                    reason = %error,
                    "the audit log cannot be written, lines are missing: {error}{suppressed}"
                );
            }
        }
    }

    /// Writes bytes. An error comes with the number that was written.
    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        if bytes.is_empty() {
            return Ok(());
        }
        // The next line must not be taken for the rest of a partial one.
        if self.has_partial_line {
            self.sink.writer.write_all(b"\n").map_err(|error| (0, error))?;
            self.has_partial_line = false;
        }
        let mut written = 0;
        while written < bytes.len() {
            let error = match self.sink.writer.write(&bytes[written..]) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    written += count;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.has_partial_line = written > 0 && bytes[written - 1] != b'\n';
            return Err((written, error));
        }
        self.sink.writer.flush().map_err(|error| (written, error))
    }
}
