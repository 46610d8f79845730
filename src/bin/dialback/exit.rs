//! How a command ends: its exit code, and how a failure is told. Only here an error meets the
//! terminal.

use crate::beside::{self, Grouped};
use crate::log_writer::LogWriter;
use crate::output::{escape, print_json_aside};
use dialback::{
    BindError, CallId, Code, ConnectError, CredentialsError, GatewayError, StartError, StateError,
    Status,
    certs::CertsError,
    config::{Faults, TlsFilesError},
};
use serde::Serialize;
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

/// The process could not do what was asked although it was asked rightly.
const RUNTIME: u8 = 1;
/// What was typed, a config file or local credentials are at fault.
const LOCAL: u8 = 2;
/// A failed call ends with this and its code, as grpcurl does.
const CALL_BASE: u8 = 64;
/// A process that a signal ended, as shells count.
const SIGNAL_BASE: u8 = 128;

/// Why a command did not succeed. Its kind decides the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed while running.
    Runtime(Vec<String>),
    /// What was typed, a config file or local credentials are at fault: one line a fact.
    Local(Vec<String>),
    /// A certificate is not valid yet, by a clock that may be behind; ours is from this moment on.
    NotValidYet(String, Option<SystemTime>),
    /// A call failed.
    Call(Status, Option<CallId>),
    /// A signal of this number came.
    Signal(u8),
    /// All has been said, and this is the code.
    Said(u8),
}

impl Failure {
    /// The reader of standard output has gone before the last line: the exit code of programs that
    /// SIGPIPE ends.
    pub(crate) const READER_GONE: Self = Self::Signal(13);

    /// What was typed, a config file or local credentials: one fact, with its causes.
    pub(crate) fn local(error: &dyn Error) -> Self {
        Self::Local(vec![chain(error)])
    }

    /// The same, in words.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Local(vec![text.into()])
    }

    /// A call that failed, and was told already.
    pub(crate) const fn said(code: Code) -> Self {
        Self::Said(CALL_BASE + code.number())
    }

    /// Something that failed while running, with its causes.
    pub(crate) fn runtime(error: &dyn Error) -> Self {
        Self::Runtime(vec![chain(error)])
    }

    /// Tells a failed call as one JSON object on standard output, if that was asked for.
    pub(crate) async fn told_as_json(self, wanted: bool) -> Self {
        match &self {
            Self::Call(status, call_id) if wanted => {
                let said = Self::Said(self.code());
                let printed = print_json_aside(&FailedCall::new(status, *call_id)).await;
                printed.map_or_else(|why| why, |_| said)
            }
            _ => self,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Runtime(_) => RUNTIME,
            Self::Local(_) | Self::NotValidYet(..) => LOCAL,
            Self::Call(status, _) => CALL_BASE + status.code().number(),
            Self::Signal(number) => SIGNAL_BASE + number,
            Self::Said(code) => *code,
        }
    }

    /// What there is to tell, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Runtime(lines) | Self::Local(lines) => lines.clone(),
            Self::NotValidYet(line, _) => vec![line.clone()],
            Self::Call(status, _) => vec![beside::line(status)],
            Self::Signal(_) | Self::Said(_) => vec![],
        }
    }
}

/// Prints why a command failed, one `error: ...` a line, and gives the exit code.
///
/// They go the way of log lines, after those, and wait for a place in their queue: a standard error
/// that is read has them, and one that nobody reads holds up the end by a bounded time only.
pub(crate) fn code_of(result: Result<(), Failure>, log: Option<&LogWriter>) -> ExitCode {
    let code = result.as_ref().err().map_or(0, Failure::code);
    let lines = result.err().iter().flat_map(Failure::lines).collect::<Vec<_>>();
    let lines = lines.iter().map(|line| format!("error: {}\n", escape(line)).into_bytes());
    match log {
        Some(log) => drop(log.finish(lines.collect())),
        // Nobody may be there to read it; the exit code still tells.
        None => lines.for_each(|line| drop(io::stderr().write_all(&line))),
    }
    code.into()
}

/// An error and its causes in one line. A cause that the text already has is not said twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A failed call as `--json` shows it.
#[derive(Serialize)]
struct FailedCall<'a> {
    ok: bool,
    code: &'static str,
    outcome: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    #[serde(skip_serializing_if = "Grouped::is_empty")]
    metadata: Grouped,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
}

impl<'a> FailedCall<'a> {
    fn new(status: &'a Status, call_id: Option<CallId>) -> Self {
        Self {
            ok: false,
            code: status.code().as_str(),
            outcome: status.outcome().as_str(),
            message: status.message(),
            details: beside::details(status),
            metadata: Grouped::of(status.metadata()),
            call_id: call_id.map(|id| id.to_string()),
        }
    }
}

impl From<CredentialsError> for Failure {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::NotValidYet { since, .. } => {
                Self::NotValidYet(chain(&error), Some(since.0))
            }
            _ => Self::local(&error),
        }
    }
}

impl From<TlsFilesError> for Failure {
    fn from(error: TlsFilesError) -> Self {
        Self::local(&error)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Local(faults.iter().map(ToString::to_string).collect())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Bind(BindError::Socket { .. })
            | StartError::State(StateError::Unusable { .. }) => Self::runtime(&error),
            _ => Self::local(&error),
        }
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        match error {
            GatewayError::Socket { .. } => Self::runtime(&error),
            _ => Self::local(&error),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Start(error) => error.into(),
            _ => Self::Call(error.to_status(), None),
        }
    }
}

impl From<CertsError> for Failure {
    fn from(error: CertsError) -> Self {
        match error {
            CertsError::CaNotValidYet { since, .. } => {
                Self::NotValidYet(chain(&error), Some(since.0))
            }
            CertsError::Unwritable { .. } | CertsError::Signing { .. } => Self::runtime(&error),
            _ => Self::local(&error),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Call(status, None)
    }
}

/// A call that is refused before anything is sent.
pub(crate) fn refused_here(text: impl Into<String>) -> Failure {
    Status::not_executed(Code::InvalidArgument, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_failure_decides_its_exit_code() {
        let call = |code| Failure::from(Status::not_executed(code, "x")).code();
        assert_eq!(call(Code::InvalidArgument), 67);
        assert_eq!(call(Code::DeadlineExceeded), 68);
        assert_eq!(call(Code::PermissionDenied), 71);
        assert_eq!(call(Code::Unavailable), 78);
        assert_eq!(call(Code::Unauthenticated), 80);
        assert_eq!(Failure::usage("x").code(), 2);
        assert_eq!(Failure::Runtime(vec![]).code(), 1);
        assert_eq!(Failure::Signal(2).code(), 130);
    }

    #[test]
    fn a_failed_call_is_told_in_one_line() {
        let failure =
            Failure::from(Status::not_executed(Code::Unavailable, "agent a is not attached"));
        assert_eq!(failure.lines(), ["UNAVAILABLE (not_executed): agent a is not attached"]);
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer{}", if *.tells { ": inner" } else { "" })]
        struct Outer {
            tells: bool,
            source: io::Error,
        }
        for tells in [true, false] {
            let error = Outer { tells, source: io::Error::other("inner") };
            assert_eq!(chain(&error), "outer: inner");
        }
    }
}
