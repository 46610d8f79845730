//! The process of an MCP server: its input, its output, and its end.

use super::{process_group::ProcessGroup, routes::ProcessRoutes};
use crate::{
    limits::{
        MCP_LOG_LINE_BYTES_MAX, MCP_MESSAGES_AHEAD, MCP_PROCESS_END_WAIT_MAX,
        MEMORY_COUNTED_BYTES_MIN, TCP_READ_BYTES_MAX,
    },
    memory::MemoryAccount,
    name::MethodPath,
    printable::printable,
};
use bytes::Bytes;
use std::{
    io,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::{mpsc, oneshot},
    time::timeout,
};

/// A line for the input of a process.
struct Line {
    text: Bytes,
    /// Told once it is written. A line that nobody waits for any more is not written.
    written: Option<oneshot::Sender<()>>,
    /// Set before a byte of it is written.
    is_begun: Arc<AtomicBool>,
}

/// Whether a process got a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    /// It ended while the line was written.
    Perhaps,
    No,
}

/// Queue of lines for the input of a process.
#[derive(Clone)]
pub(super) struct ProcessInput(mpsc::Sender<Line>);

impl ProcessInput {
    /// Writes a line. Dropping the future before the line is being written takes it back.
    pub(super) async fn write(&self, text: Bytes) -> Written {
        let (written, is_written) = oneshot::channel();
        let is_begun = Arc::<AtomicBool>::default();
        let line = Line { text, written: Some(written), is_begun: is_begun.clone() };
        if self.0.send(line).await.is_ok() && is_written.await.is_ok() {
            return Written::Yes;
        }
        if is_begun.load(Ordering::Acquire) { Written::Perhaps } else { Written::No }
    }

    /// Writes a line if there is room in the queue, for messages that need no answer.
    pub(super) fn try_write(&self, text: Bytes) {
        // Without room the process takes nothing, and misses nothing that it could use.
        drop(self.0.try_send(Line { text, written: None, is_begun: Arc::default() }));
    }
}

/// A message as one line.
pub(super) fn line(message: &[u8]) -> Bytes {
    // Within a text these would be escaped.
    let end_of_line = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
    let mut line: Vec<u8> = message.trim_ascii().iter().map(end_of_line).collect();
    line.push(b'\n');
    line.into()
}

/// A process that runs.
pub(super) struct Process {
    child: Child,
    group: ProcessGroup,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
    lines: mpsc::Receiver<Line>,
}

impl Process {
    /// Starts a command: a program and its arguments. Variables of dialback are not passed on.
    pub(super) fn start(command: &[String]) -> io::Result<(Self, ProcessInput)> {
        let [program, arguments @ ..] = command else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"));
        };
        let mut starting = Command::new(program);
        starting.args(arguments).kill_on_drop(true);
        starting.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DIALBACK_") {
                starting.env_remove(name);
            }
        }
        #[cfg(unix)]
        starting.process_group(0);
        let mut child = starting.spawn()?;
        let group = ProcessGroup::of(child.id());
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("its standard streams were not opened"));
        };
        let (input, lines) = mpsc::channel(MCP_MESSAGES_AHEAD);
        Ok((Self { child, group, stdin, stdout, stderr, lines }, ProcessInput(input)))
    }

    /// Runs until the process has ended, its output has, or `end` does; then ends it. Every line
    /// of its output is delivered to who waits for it, and counted for the account while it is
    /// held. Returns why it has ended.
    pub(super) async fn run(
        self,
        (path, line_bytes_max): (&MethodPath, usize),
        memory: &MemoryAccount,
        routes: &ProcessRoutes,
        end: impl Future<Output = &'static str>,
    ) -> String {
        let Self { mut child, group, mut stdin, stdout, stderr, mut lines } = self;
        let last_words = Mutex::new(String::new());
        let ended = async {
            let reading = read_lines(stdout, line_bytes_max, path, memory, routes);
            tokio::pin!(reading);
            let why = tokio::select! {
                why = &mut reading => why,
                () = write_lines(&mut stdin, &mut lines) => None,
                why = end => Some(why.to_owned()),
                _ = child.wait() => {
                    // Others may hold its output open; what it wrote itself is there.
                    timeout(MCP_PROCESS_END_WAIT_MAX, &mut reading).await.ok().flatten()
                }
            };
            // What is not written by now never is.
            drop((stdin, lines));
            let ended = end_process(&mut child, &group).await;
            why.or_else(|| ended.ok().map(|status| status.to_string()))
                .unwrap_or_else(|| "it cannot be waited for".into())
        };
        let why = with_log(ended, log_lines(path, stderr, &last_words)).await;
        let last_words = last_words.into_inner().unwrap_or_else(PoisonError::into_inner);
        if routes.are_used() {
            let said = match last_words.as_str() {
                "" => "",
                _ => "; its last line on standard error: ",
            };
            tracing::warn!(
                method = %path,
                reason = %why,
                "a process of {path} has ended while it was used: {why}{said}{last_words}"
            );
        } else {
            tracing::debug!("a process of {path} has ended: {why}");
        }
        why
    }
}

/// Awaits the end of a process while its log is read, and then the rest of the log.
async fn with_log(ended: impl Future<Output = String>, log: impl Future<Output = ()>) -> String {
    tokio::pin!(ended, log);
    let mut is_read = false;
    let why = loop {
        tokio::select! {
            why = &mut ended => break why,
            () = &mut log, if !is_read => is_read = true,
        }
    };
    if !is_read {
        // Others may hold it open.
        drop(timeout(MCP_PROCESS_END_WAIT_MAX, &mut log).await);
    }
    why
}

/// Waits for the end of a process whose input is closed, and ends it if it does not end.
async fn end_process(child: &mut Child, group: &ProcessGroup) -> io::Result<ExitStatus> {
    if let Ok(ended) = timeout(MCP_PROCESS_END_WAIT_MAX, child.wait()).await {
        return ended;
    }
    group.terminate();
    if let Ok(ended) = timeout(MCP_PROCESS_END_WAIT_MAX, child.wait()).await {
        return ended;
    }
    child.start_kill()?;
    child.wait().await
}

async fn write_lines(stdin: &mut ChildStdin, lines: &mut mpsc::Receiver<Line>) {
    while let Some(Line { text, written, is_begun }) = lines.recv().await {
        if written.as_ref().is_some_and(oneshot::Sender::is_closed) {
            continue;
        }
        is_begun.store(true, Ordering::Release);
        if stdin.write_all(&text).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
        if let Some(written) = written {
            // An error only says that nobody waits any more.
            let _ = written.send(());
        }
    }
}

/// Reads lines to the end of the output. Returns why no more are read, if that is not the end.
async fn read_lines(
    stdout: impl AsyncRead + Unpin,
    line_bytes_max: usize,
    path: &MethodPath,
    memory: &MemoryAccount,
    routes: &ProcessRoutes,
) -> Option<String> {
    let mut stdout = BufReader::new(stdout);
    loop {
        let (mut line, mut held) = (Vec::new(), memory.take(0).ok()?);
        while !line.ends_with(b"\n") {
            let piece = line_bytes_max.saturating_sub(line.len()).min(TCP_READ_BYTES_MAX);
            if piece == 0 {
                return Some(format!(
                    "it wrote a line of {line_bytes_max} bytes or more (message_bytes_max)"
                ));
            }
            if line.len() + piece > MEMORY_COUNTED_BYTES_MIN
                && let Err(why) = held.grow((line.len() + piece).saturating_sub(held.bytes()))
            {
                return Some(format!("there is no memory for what it writes: {why}"));
            }
            match (&mut stdout).take(piece as u64).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
        let line = Bytes::from(line);
        let text = line.slice_ref(line.trim_ascii());
        if !text.is_empty() {
            match held.become_message(text) {
                Ok(message) => routes.deliver(path, message).await,
                Err(why) => return Some(format!("there is no memory for what it writes: {why}")),
            }
        }
    }
}

/// Logs what the process writes to its standard error, line by line and cut to a length, and keeps
/// the last line.
async fn log_lines(path: &MethodPath, stderr: impl AsyncRead + Unpin, last_words: &Mutex<String>) {
    let mut stderr = BufReader::new(stderr);
    let mut is_begun = false;
    while let Some(line) = next_line(&mut stderr, MCP_LOG_LINE_BYTES_MAX).await {
        // The rest of a line that was cut is left out.
        if !is_begun {
            let text = printable(String::from_utf8_lossy(line.trim_ascii()).as_ref());
            tracing::debug!("{path} writes: {text}");
            if !text.is_empty() {
                *last_words.lock().unwrap_or_else(PoisonError::into_inner) = text;
            }
        }
        is_begun = !line.ends_with(b"\n");
    }
}

/// The next line, or its beginning of this size. `None` at the end.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin), bytes_max: usize) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader
        .take(bytes_max as u64)
        .read_until(b'\n', &mut line)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    Some(line)
}
