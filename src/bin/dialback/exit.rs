//! Exit code and error output of a command. Errors reach the terminal only here.

use crate::log_writer::LogWriter;
use crate::metadata::{self, MetadataMap};
use crate::output::{escape, print_json_aside};
use dialback::{
    AdminError, BindError, CallId, Code, ConnectError, CredentialsError, GatewayError, NameError,
    ProxyPasswordError, StartError, StateError, Status, TunnelListenError,
    certs::{CertsError, JoinTokenError},
    config::{LineFaults, TlsFilesError},
};
use serde::Serialize;
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

/// Runtime failure of a valid command.
const RUNTIME: u8 = 1;
/// Bad usage, config file or local credentials.
const LOCAL: u8 = 2;
/// Added to the code of a failed call, as grpcurl does.
const CALL_BASE: u8 = 64;
/// Added to the number of a signal, as shells do.
const SIGNAL_BASE: u8 = 128;

/// Failure of a command. Its kind decides the exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Runtime failure, one line per fact.
    Runtime(Vec<String>),
    /// Bad usage, config file or local credentials: one line per fact.
    Local(Vec<String>),
    /// A certificate is not valid yet by a clock that may be behind; with its start, if it is ours.
    NotValidYet(String, Option<SystemTime>),
    /// A call failed.
    Call(Status, Option<CallId>),
    /// Ended by the signal of this number.
    Signal(u8),
    /// Already reported; with its exit code.
    Reported(u8),
}

impl Failure {
    /// The reader of standard output closed the pipe early: the exit code of SIGPIPE.
    pub(crate) const READER_GONE: Self = Self::Signal(13);

    /// Bad usage, config file or local credentials: an error with its causes.
    pub(crate) fn local(error: &dyn Error) -> Self {
        Self::Local(vec![chain(error)])
    }

    /// The same, as text.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Local(vec![text.into()])
    }

    /// A failed call that is already reported.
    pub(crate) const fn reported(code: Code) -> Self {
        Self::Reported(CALL_BASE + code.number())
    }

    /// Adds the id of the call that failed.
    pub(crate) fn of_call(self, call_id: CallId) -> Self {
        match self {
            Self::Call(status, None) => Self::Call(status, Some(call_id)),
            other => other,
        }
    }

    /// Runtime failure: an error with its causes.
    pub(crate) fn runtime(error: &dyn Error) -> Self {
        Self::Runtime(vec![chain(error)])
    }

    /// Runtime failure, or a fault of local files or settings.
    pub(crate) fn of(error: &dyn Error, is_runtime: bool) -> Self {
        if is_runtime { Self::runtime(error) } else { Self::local(error) }
    }

    /// Prints a failed call as one JSON object on standard output, if wanted.
    pub(crate) async fn printed_as_json(self, wanted: bool) -> Self {
        match &self {
            Self::Call(status, call_id) if wanted => {
                let reported = Self::Reported(self.code());
                let printed = print_json_aside(&FailedCall::new(status, *call_id)).await;
                printed.map_or_else(|why| why, |_| reported)
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
            Self::Reported(code) => *code,
        }
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Runtime(lines) | Self::Local(lines) => lines.clone(),
            Self::NotValidYet(line, _) => vec![line.clone()],
            Self::Call(status, _) => vec![metadata::line(status)],
            Self::Signal(_) | Self::Reported(_) => vec![],
        }
    }
}

/// Prints one `error: ...` per line and returns the exit code. The lines queue behind the log's and
/// delay the exit by a bounded time if standard error is not read.
pub(crate) fn code_of(result: Result<(), Failure>, log: Option<&LogWriter>) -> ExitCode {
    let code = result.as_ref().err().map_or(0, Failure::code);
    let lines = result.err().iter().flat_map(Failure::lines).collect::<Vec<_>>();
    let lines = lines.iter().map(|line| format!("error: {}\n", escape(line)).into_bytes());
    match log {
        Some(log) => drop(log.finish(lines.collect())),
        // Standard error may be closed; the exit code still reports the failure.
        None => lines.for_each(|line| drop(io::stderr().write_all(&line))),
    }
    code.into()
}

/// An error and its causes in one line. A cause that the text already contains is not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
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

#[derive(Serialize)]
pub(crate) struct FailedCall<'a> {
    ok: bool,
    code: &'static str,
    outcome: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    #[serde(skip_serializing_if = "MetadataMap::is_empty")]
    metadata: MetadataMap<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
}

impl<'a> FailedCall<'a> {
    pub(crate) fn new(status: &'a Status, call_id: Option<CallId>) -> Self {
        Self {
            ok: false,
            code: status.code().as_str(),
            outcome: status.outcome().as_str(),
            message: status.message(),
            details: metadata::details(status),
            metadata: metadata::map_of(status.metadata()),
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

macro_rules! local_errors {
    ($($error:ty)*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::local(&error)
            }
        }
    )*};
}

local_errors!(TlsFilesError NameError JoinTokenError ProxyPasswordError);

impl From<LineFaults> for Failure {
    fn from(faults: LineFaults) -> Self {
        Self::Local(faults.iter().map(ToString::to_string).collect())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Bind(BindError::Socket { .. })
            | StartError::Tunnel(TunnelListenError::Socket { .. })
            | StartError::State(StateError::Unusable { .. }) => Self::runtime(&error),
            _ => Self::local(&error),
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::of(&error, matches!(error, AdminError::Socket { .. }))
    }
}

impl From<GatewayError> for Failure {
    fn from(error: GatewayError) -> Self {
        Self::of(&error, matches!(error, GatewayError::Socket { .. }))
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

/// Error for a call that is rejected before anything is sent.
pub(crate) fn rejected_locally(text: impl Into<String>) -> Failure {
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
    fn a_failed_call_is_printed_in_one_line() {
        let failure =
            Failure::from(Status::not_executed(Code::Unavailable, "agent a is not attached"));
        assert_eq!(failure.lines(), ["UNAVAILABLE (not_executed): agent a is not attached"]);
    }

    #[test]
    fn a_cause_is_printed_once() {
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
