//! Services that an agent forwards to a local HTTP server: the requests that the server sees, the
//! handling of its answers, and the outcome of each failure.

mod answers;
mod failures;
mod requests;
mod streams;
mod trust;
pub(crate) mod upstream;
mod through_node;
