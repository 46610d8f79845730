//! Files of one JSON record a line.

use super::{CertsError, files};
use serde::Serialize;
use std::{path::Path, time::SystemTime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// The line of a record, without its end.
pub(super) fn line(record: &impl Serialize) -> Result<String, CertsError> {
    serde_json::to_string(record).map_err(|error| CertsError::Signing { why: error.to_string() })
}

pub(super) fn append(path: &Path, record: &impl Serialize) -> Result<(), CertsError> {
    files::append_line(path, &line(record)?)
}

/// Reads the records of a file. No file: none.
pub(super) fn read<T>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, CertsError> {
    let text = files::read_if_there(path)?.unwrap_or_default();
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let records = lines.map(|(at, line)| {
        parse(line).map_err(|why| CertsError::BadRecord { path: path.into(), line: at + 1, why })
    });
    records.collect()
}

pub(super) fn moment(text: &str) -> Result<SystemTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(SystemTime::from)
        .map_err(|_| format!("{text:?} is not a date such as 2026-11-22T10:15:00Z"))
}
