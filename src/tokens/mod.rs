//! Bearer tokens of callers over HTTP: a file of hashes, and the caller of each token.
//!
//! The file has lines `NAME sha256:HASH CREATED EXPIRES`, remarks (`# ...`) and empty lines.

mod bearer;
mod error;
mod file;
mod known;
mod line;
mod store;

pub use crate::line_faults::{LineFault, LineFaults};
pub use bearer::BearerToken;
pub use error::TokensError;
pub use known::{BearerTokenError, Tokens};
pub use line::TokenInfo;
pub use store::TokenFile;
