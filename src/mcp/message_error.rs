//! Faults of messages, with the codes of JSON-RPC.

use super::RequestId;
use crate::status::{Code, Status};

/// Code of a fault: of JSON-RPC 2.0 section 5.1, or of the MCP specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RpcCode {
    ParseError = -32700,
    InvalidRequest = -32600,
    MethodNotFound = -32601,
    InvalidParams = -32602,
    HeaderMismatch = -32020,
}

impl RpcCode {
    pub(crate) const fn number(self) -> i32 {
        self as i32
    }

    /// The code of the status of such a call.
    const fn status_code(self) -> Code {
        match self {
            Self::MethodNotFound => Code::Unimplemented,
            _ => Code::InvalidArgument,
        }
    }
}

/// Fault of a message, or of a body. Nothing of the body may be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct MessageError {
    pub(crate) code: RpcCode,
    /// Of the request with the fault, if it could be read.
    pub(crate) id: Option<RequestId>,
    text: String,
}

impl MessageError {
    pub(super) fn new(code: RpcCode, text: impl Into<String>) -> Self {
        Self { code, id: None, text: text.into() }
    }

    pub(super) fn invalid_request(text: impl Into<String>) -> Self {
        Self::new(RpcCode::InvalidRequest, text)
    }

    pub(super) fn invalid_params(text: impl Into<String>) -> Self {
        Self::new(RpcCode::InvalidParams, text)
    }

    pub(super) fn with_id(mut self, id: Option<&RequestId>) -> Self {
        self.id = id.cloned();
        self
    }

    /// The status of the call: not executed.
    pub(crate) fn status(&self) -> Status {
        Status::not_executed(self.code.status_code(), self.text.clone())
    }
}

/// A text of a peer in an error: quoted, and cut to a readable length.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(80).collect();
    format!("{shown:?}")
}
