//! Reads the file of bearer tokens: checks its mode, parses its lines, and collects their faults.

use super::{TokensError, line::TokenInfo};
use crate::{
    limits::{BEARER_FILE_BYTES_MAX, BEARER_TOKENS_MAX},
    line_faults::{LineFault, LineFaults},
    tls,
};
use std::{
    collections::HashMap,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

/// Reads a file after a check of its permissions, on the same open file.
pub(super) fn read_text(path: &Path) -> Result<Vec<u8>, TokensError> {
    let file = tls::open_regular(path).map_err(|error| unreadable(path, error))?;
    if let Some(mode) = tls::exposed_mode(&file).map_err(|error| unreadable(path, error))? {
        return Err(TokensError::Exposed { path: path.into(), mode });
    }
    let mut bytes = Vec::new();
    let most = BEARER_FILE_BYTES_MAX as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    if bytes.len() > BEARER_FILE_BYTES_MAX {
        return Err(TokensError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

fn unreadable(path: &Path, source: io::Error) -> TokensError {
    match source.kind() {
        io::ErrorKind::NotFound => TokensError::Missing { path: path.into() },
        _ => TokensError::Unreadable { path: path.into(), source },
    }
}

/// The tokens of a text, in the order of their lines.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<TokenInfo>, TokensError> {
    let file: Arc<str> = path.to_string_lossy().into();
    let (mut found, mut faults, mut seen) = (Vec::new(), Vec::new(), HashMap::new());
    for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let (number, file) = (u32::try_from(at + 1).unwrap_or(u32::MAX), file.clone());
        let fault = |text| faults.push(LineFault { file, line: number, text });
        match read_line(line) {
            Ok(None) => {}
            Ok(Some(_)) if found.len() == BEARER_TOKENS_MAX => {
                fault(format!("too many tokens: the limit is {BEARER_TOKENS_MAX}"));
                break;
            }
            Ok(Some(info)) => match seen.insert(info.digest, at + 1) {
                Some(first) => fault(format!(
                    "duplicate token: it is also in line {first}; remove one of the two"
                )),
                None => found.push(info),
            },
            Err(text) => fault(text),
        }
    }
    LineFaults::found(faults).map_or(Ok(found), |faults| Err(TokensError::Lines(faults)))
}

/// A line's token; none for a remark and for an empty line.
pub(super) fn read_line(line: &[u8]) -> Result<Option<TokenInfo>, String> {
    let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8 text".to_owned())?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    TokenInfo::parse(line).map(Some)
}
