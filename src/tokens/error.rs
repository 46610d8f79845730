//! Errors of the file of tokens.

use crate::{
    limits::{BEARER_FILE_BYTES_MAX, BEARER_TOKENS_MAX},
    line_faults::LineFaults,
    name::Name,
    printable::printable,
    system::reader_remedy,
};
use std::{io, path::PathBuf};

/// Error of a file of tokens, with the file and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// The file does not exist.
    #[error(
        "{path} does not exist; create it with `dialback token create NAME --file {path}`", path = path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}{}", path.display(), reader_remedy(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Other users could read the names of callers, or add tokens.
    #[error(
        "{path} has mode {mode:04o}, so other users can access the tokens; fix it with `chmod 600 {path}`", path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not a file of tokens.
    #[error(
        "{} is too large for a file of tokens: more than {} MiB", path.display(), BEARER_FILE_BYTES_MAX >> 20
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// All lines with faults. Shown one a line.
    #[error("{0}")]
    Lines(LineFaults),
    /// The file has the maximum number of tokens.
    #[error(
        "{} is full: it has {BEARER_TOKENS_MAX} tokens; remove those that have expired with `dialback token revoke NAME`", path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// No time, or too much.
    #[error("invalid ttl: a token is valid for 1 s to 366 days; write --ttl 12h or --ttl 30d")]
    BadTtl,
    /// No token matches.
    #[error("{} has no token of {name}{}; see `dialback token list`", path.display(), with_id(id))]
    NoneOf {
        /// The file.
        path: PathBuf,
        /// The caller.
        name: Name,
        /// The id of the token, if one was named.
        id: Option<String>,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

fn with_id(id: &Option<String>) -> String {
    id.as_ref().map_or_else(String::new, |id| format!(" with the id {}", printable(id)))
}
