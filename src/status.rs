//! The error that is sent on the wire: a code, an outcome, and a message for people.

use crate::metadata::Metadata;
use bytes::Bytes;
use std::{error::Error, fmt, str::FromStr};

/// Kind of a failure: gRPC's codes with their numbers and names, which Connect uses too.
///
/// Source: <https://grpc.io/docs/guides/status-codes/>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "seventeen codes that everyone knows")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    const NAMES: [(Self, &'static str); 17] = [
        (Self::Ok, "OK"),
        (Self::Cancelled, "CANCELLED"),
        (Self::Unknown, "UNKNOWN"),
        (Self::InvalidArgument, "INVALID_ARGUMENT"),
        (Self::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Self::NotFound, "NOT_FOUND"),
        (Self::AlreadyExists, "ALREADY_EXISTS"),
        (Self::PermissionDenied, "PERMISSION_DENIED"),
        (Self::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Self::FailedPrecondition, "FAILED_PRECONDITION"),
        (Self::Aborted, "ABORTED"),
        (Self::OutOfRange, "OUT_OF_RANGE"),
        (Self::Unimplemented, "UNIMPLEMENTED"),
        (Self::Internal, "INTERNAL"),
        (Self::Unavailable, "UNAVAILABLE"),
        (Self::DataLoss, "DATA_LOSS"),
        (Self::Unauthenticated, "UNAUTHENTICATED"),
    ];

    /// Number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Code with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::NAMES.get(usize::from(number)).map(|(code, _)| *code)
    }

    /// Name in capitals: `DEADLINE_EXCEEDED`.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;

    /// Parses the name of a code, in capitals.
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::NAMES
            .into_iter()
            .find(|(_, name)| *name == text)
            .map(|(code, _)| code)
            .ok_or(UnknownCode)
    }
}

/// Error of a text that is not the name of a [`Code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no status code; they are written as DEADLINE_EXCEEDED")]
pub struct UnknownCode;

/// Execution of a call's handler, as far as it is known once the call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The complete reply arrived. The handler ran once.
    Ok = 0,
    /// The handler ran once and returned an error, which arrived completely.
    AppError = 1,
    /// The handler did not run and will not run for this attempt. Safe to retry.
    NotExecuted = 2,
    /// The handler may have run, may be running, or may still finish. Retry only idempotent calls.
    Unknown = 3,
}

impl Outcome {
    /// Number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Outcome with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ok),
            1 => Some(Self::AppError),
            2 => Some(Self::NotExecuted),
            3 => Some(Self::Unknown),
            _ => None,
        }
    }

    /// Name in lower case: `not_executed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::AppError => "app_error",
            Self::NotExecuted => "not_executed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Error of a call: code, outcome, message, and details and metadata from the handler.
///
/// A handler creates one with [`Status::new`] or the constructor of a code; dialback creates all
/// others where the failure is known. `?` converts common errors of the standard library to
/// INTERNAL, and [`Status::from_error`] any other:
///
/// ```
/// use dialback::Status;
///
/// fn read(path: &str) -> Result<u64, Status> {
///     let text = std::fs::read_to_string(path)?;
///     text.trim().parse().map_err(|_| Status::failed_precondition(format!("{path} holds no number")))
/// }
/// # assert_eq!(read("/absent/file").unwrap_err().code(), dialback::Code::Internal);
/// ```
///
/// One pointer wide, so that a `Result` on the call path stays small.
#[derive(Clone, PartialEq, thiserror::Error)]
#[error("{} ({}): {}", .0.code, .0.outcome, .0.message)]
pub struct Status(Box<StatusParts>);

#[derive(Clone, PartialEq)]
struct StatusParts {
    code: Code,
    outcome: Outcome,
    message: String,
    details: Bytes,
    metadata: Metadata,
}

impl Status {
    /// Creates a handler's own error: the handler ran, and this is its answer (`app_error`).
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::with_outcome(code, Outcome::AppError, message)
    }

    /// Creates the error of a call whose handler did not run and will not run for this attempt.
    pub fn not_executed(code: Code, message: impl Into<String>) -> Self {
        Self::with_outcome(code, Outcome::NotExecuted, message)
    }

    /// Creates the error of a call whose handler may or may not have run.
    pub fn unknown(code: Code, message: impl Into<String>) -> Self {
        Self::with_outcome(code, Outcome::Unknown, message)
    }

    /// Creates an error with any code and outcome, as read from the wire.
    pub fn with_outcome(code: Code, outcome: Outcome, message: impl Into<String>) -> Self {
        Self(Box::new(StatusParts {
            code,
            outcome,
            message: message.into(),
            details: Bytes::new(),
            metadata: Metadata::default(),
        }))
    }

    /// Attaches bytes for the caller's program, in a format that both agree on.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<Bytes>) -> Self {
        self.0.details = details.into();
        self
    }

    /// Attaches metadata, which is sent after the reply.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.0.metadata = metadata;
        self
    }

    /// Kind of the failure.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Execution of the handler, as far as it is known.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Message for people. It may come from a peer: escape it before you print it to a terminal.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Bytes that the handler attached for the caller's program.
    pub fn details(&self) -> &Bytes {
        &self.0.details
    }

    /// Metadata that was sent after the reply.
    pub fn metadata(&self) -> &Metadata {
        &self.0.metadata
    }

    /// True if another attempt cannot run the handler twice.
    pub fn is_safe_to_retry(&self) -> bool {
        self.0.outcome == Outcome::NotExecuted
    }

    /// The same error as a handler's own answer (`app_error`), even one received from another call.
    #[must_use]
    pub fn into_app_error(mut self) -> Self {
        self.0.outcome = Outcome::AppError;
        self
    }
}

/// Constructors named after codes, each [`Status::new`] with that code. Code UNKNOWN has none,
/// because [`Status::unknown`] is about the outcome.
macro_rules! constructors {
    ($($name:ident $code:ident)*) => {
        impl Status {
            $(
                #[doc = concat!("A handler's own error with [`Code::", stringify!($code), "`] (outcome `app_error`).")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(Code::$code, message)
                }
            )*
        }
    };
}

constructors! {
    cancelled Cancelled
    invalid_argument InvalidArgument
    deadline_exceeded DeadlineExceeded
    not_found NotFound
    already_exists AlreadyExists
    permission_denied PermissionDenied
    resource_exhausted ResourceExhausted
    failed_precondition FailedPrecondition
    aborted Aborted
    out_of_range OutOfRange
    unimplemented Unimplemented
    internal Internal
    unavailable Unavailable
    data_loss DataLoss
    unauthenticated Unauthenticated
}

impl Status {
    /// Converts any error into a handler's own error: INTERNAL (outcome `app_error`), with the text
    /// of the error and of its sources, which the caller sees. Returns a `Status` unchanged. For
    /// `.map_err(Status::from_error)?`.
    pub fn from_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let error = match error.into().downcast::<Self>() {
            Ok(status) => return *status,
            Err(error) => error,
        };
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::internal(text)
    }
}

/// Conversions for `?` in handlers; not from every error, because `Status` is itself one.
macro_rules! from_errors {
    ($($error:ty),* $(,)?) => {
        $(
            impl From<$error> for Status {
                fn from(error: $error) -> Self {
                    Self::from_error(error)
                }
            }
        )*
    };
}

from_errors! {
    std::io::Error,
    fmt::Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    std::num::TryFromIntError,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::time::SystemTimeError,
    tokio::task::JoinError,
    tokio::time::error::Elapsed,
    Box<dyn Error + Send + Sync>,
}

#[cfg(feature = "json")]
from_errors! { serde_json::Error }

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {:?}", self.0.code, self.0.outcome, self.0.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_grpc_numbers_and_names() {
        for number in 0..=16 {
            let code = Code::from_number(number).expect("a code");
            assert_eq!(code.number(), number);
            assert_eq!(code.as_str().parse(), Ok(code));
        }
        assert_eq!(Code::from_number(17), None);
        assert_eq!((Code::DeadlineExceeded.number(), Code::Unavailable.number()), (4, 14));
        assert_eq!("deadline_exceeded".parse::<Code>(), Err(UnknownCode));
    }

    #[test]
    fn an_error_becomes_internal_with_its_sources_and_a_status_stays_unchanged() {
        #[derive(Debug, thiserror::Error)]
        #[error("the stock cannot be read")]
        struct Unreadable(#[source] fmt::Error);
        let status = Status::from_error(Unreadable(fmt::Error));
        assert_eq!((status.code(), status.outcome()), (Code::Internal, Outcome::AppError));
        assert_eq!(status.message(), format!("the stock cannot be read: {}", fmt::Error));
        let own = Status::not_executed(Code::Unavailable, "gone");
        assert_eq!(Status::from_error(own.clone()), own);
        let number = || -> Result<u8, Status> { Ok("x".parse::<u8>()?) };
        assert_eq!(number().map_err(|status| status.code()), Err(Code::Internal));
    }

    #[test]
    fn a_constructor_sets_the_code_of_its_name() {
        let made = [Status::not_found("x"), Status::data_loss("x"), Status::cancelled("x")];
        let codes = made.map(|status| (status.code(), status.outcome()));
        let wanted = [Code::NotFound, Code::DataLoss, Code::Cancelled];
        assert_eq!(codes, wanted.map(|code| (code, Outcome::AppError)));
    }

    #[test]
    fn outcomes_round_trip_through_their_numbers() {
        for number in 0..=3 {
            assert_eq!(Outcome::from_number(number).map(Outcome::number), Some(number));
        }
        assert_eq!(Outcome::from_number(4), None);
    }

    #[test]
    fn only_not_executed_is_safe_to_retry() {
        assert!(Status::not_executed(Code::Unavailable, "x").is_safe_to_retry());
        assert!(!Status::unknown(Code::Unavailable, "x").is_safe_to_retry());
        assert!(!Status::new(Code::Unavailable, "x").is_safe_to_retry());
        assert!(!Status::not_executed(Code::Unavailable, "x").into_app_error().is_safe_to_retry());
    }
}
