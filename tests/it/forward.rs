//! Services that an agent forwards to a local HTTP server: what the server sees, what becomes of
//! its answers, and which outcome a failure has.

mod answers;
mod failures;
mod requests;
mod streams;
mod trust;
mod upstream;
mod through_node;
