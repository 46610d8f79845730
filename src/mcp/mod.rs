//! Messages of the Model Context Protocol (MCP): what a rule has to allow for each, and the stream
//! of events that carries them.
//!
//! MCP is JSON-RPC 2.0 in the bodies of HTTP requests and in server-sent events. Messages are
//! parsed strictly and are passed on as the bytes that were parsed: a rule decides on what the
//! other side reads, whichever reader of JSON it has. Revisions 2025-03-26 to 2026-07-28:
//! <https://modelcontextprotocol.io/specification>.
//!
//! Codes of the errors that clients get:
//!
//! | code | meaning |
//! |---|---|
//! | -32700 | the body is not JSON, or nested too deeply |
//! | -32600 | the JSON is not a message, or may be read in different ways |
//! | -32601 | no rule can allow the method |
//! | -32602 | the parameters by which rules decide are missing or invalid |
//! | -32020 | the headers `Mcp-Method` and `Mcp-Name` differ from the message |
//! | -32002 - N | the call failed with the status of number N: -32009 is PERMISSION_DENIED, -32016 is UNAVAILABLE |
//!
//! Pure: no I/O and no clock.

/// Header of the id of a session.
pub(crate) const SESSION: &str = "mcp-session-id";
/// Header that repeats the method of a message.
pub(crate) const METHOD: &str = "mcp-method";
/// Header that repeats the name in a message.
pub(crate) const NAME: &str = "mcp-name";
/// Header by which a node says that the client may get requests of the server.
pub(crate) const SERVES_CLIENT: &str = "dialback-mcp-client";
/// Path of the document that names the authorisation servers of a server (RFC 9728 section 3).
pub(crate) const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

mod answer_events;
mod answer_filter;
mod body;
mod client_message;
mod content_kind;
mod rpc_message;
mod error_response;
mod headers;
mod members;
mod message_error;
mod needs;
mod params;
mod request_id;
mod server_message;
mod sse_event;
mod sse_parser;
mod tools_list;

pub(crate) use answer_events::{AnswerEvents, answer_in_events};
pub(crate) use answer_filter::{AnswerFilter, AskedRequest, MayPass, not_a_message};
pub(crate) use body::batch;
pub(crate) use client_message::{ClientBody, ClientMessage};
pub(crate) use content_kind::{ContentKind, check_request_type};
pub(crate) use error_response::{cancelled, error_response, refusal_of_server_request};
pub(crate) use message_error::{MessageError, RpcCode};
pub(crate) use needs::Needs;
pub(crate) use request_id::RequestId;
pub(crate) use rpc_message::MessageKind;
pub(crate) use server_message::{ServerBody, ServerMessage};
pub(crate) use sse_event::{SseEvent, write_event};
pub(crate) use sse_parser::SseParser;
pub(crate) use tools_list::filter_tools;
