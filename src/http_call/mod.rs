//! HTTP exchanges as calls: heads, bodies, trailers and upgraded connections become messages, and
//! messages become them again.
//!
//! Wire format: `docs/protocol.md`, "HTTP". The body is the messages after the head; an empty one
//! ends it, and trailers may follow.

mod body;
mod body_source;
pub(crate) mod grpc_timeout;
mod head;
mod headers;
mod relay;

pub(crate) use body::HttpBody;
pub(crate) use body_source::BodySource;
#[cfg(test)]
pub(crate) use head::encode_trailers;
pub(crate) use head::{HttpRequest, HttpResponse};
pub(crate) use headers::{
    as_variable, guarded_twin, has_token, is_of_the_way, remove_connection_headers, remove_headers,
};
pub(crate) use relay::{RelayEnd, relay};
