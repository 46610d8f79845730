//! `revoked.jsonl`, one line for every revoked certificate, and `crl.number`, the number of the
//! last list.
//!
//! The list itself is made of them, so that a `crl.pem` that was deleted or restored from a copy
//! loses nothing.

use super::{CertsError, files, record};
use crate::{
    name::PeerName,
    tls::{RevokedSerial, Utc},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The line in the file.
#[derive(Serialize, Deserialize)]
struct RevokedRecord {
    serial: String,
    /// The peer that it named, if known.
    #[serde(default, rename = "party")]
    peer: Option<String>,
    since: String,
    /// The CA that signed the list: serial numbers mean nothing without it.
    ca: String,
}

/// Records that a certificate no longer holds.
pub(super) fn append(
    path: &Path,
    ca: &str,
    peer: Option<&PeerName>,
    entry: &RevokedSerial,
) -> Result<(), CertsError> {
    let line = RevokedRecord {
        serial: entry.serial.clone(),
        peer: peer.map(ToString::to_string),
        since: Utc(entry.since).to_string(),
        ca: ca.to_owned(),
    };
    record::append(path, &line)
}

/// Every certificate in the record, or those of one CA, in the order in which they were revoked. No
/// file: none.
pub(super) fn read(path: &Path, ca: Option<&str>) -> Result<Vec<RevokedSerial>, CertsError> {
    let lines = record::read(path, |line| {
        let line: RevokedRecord = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let since = record::moment(&line.since)?;
        Ok((line.ca, RevokedSerial { serial: line.serial, since }))
    })?;
    let wanted = lines.into_iter().filter(|(of, _)| ca.is_none_or(|ca| ca == of));
    Ok(wanted.map(|(_, entry)| entry).collect())
}

/// The number of the last list that was signed here; 0 before the first.
pub(super) fn read_number(path: &Path) -> Result<u64, CertsError> {
    let Some(text) = files::read_if_there(path)? else { return Ok(0) };
    text.trim().parse().map_err(|_| CertsError::BadNumber { path: path.into() })
}

/// Records the number of a list, before the list itself is written: a number may be left out, and
/// none is used twice.
pub(super) fn write_number(path: &Path, number: u64) -> Result<(), CertsError> {
    files::replace(path, &format!("{number}\n"), files::Audience::All)
}
