//! `revoked.jsonl`, a line for every revoked certificate, and `crl.number`, the last list's number.
//!
//! The list is made of them: a deleted or restored `crl.pem` loses nothing.

use super::{CertsError, files, record};
use crate::{
    name::PeerName,
    tls::{RevokedSerial, Utc},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

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

/// Every certificate in the record, or those of one CA, in order. No file: none.
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

/// Records a number before its list is written: it may be left out, and is not used twice.
pub(super) fn write_number(path: &Path, number: u64) -> Result<(), CertsError> {
    files::replace(path, &format!("{number}\n"), files::Audience::All)
}
