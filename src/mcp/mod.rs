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

mod body;
mod client_message;
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

pub(crate) use body::batch;
pub(crate) use client_message::{ClientBody, ClientMessage};
pub(crate) use error_response::{error_response, refusal_of_server_request};
pub(crate) use message_error::{MessageError, RpcCode};
pub(crate) use needs::Needs;
pub(crate) use request_id::RequestId;
pub(crate) use rpc_message::MessageKind;
pub(crate) use server_message::{ServerBody, ServerMessage};
pub(crate) use sse_event::{SseEvent, write_event};
pub(crate) use sse_parser::{SseError, SseParser};
pub(crate) use tools_list::filter_tools;
