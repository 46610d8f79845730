//! `issued.jsonl`: one line for every leaf that was ever signed here. Revoking needs the serials.

use super::{CertsError, record};
use crate::{
    name::PeerName,
    tls::{self, CertificateInfo, Utc},
};
use serde::{Deserialize, Serialize};
use std::{path::Path, time::SystemTime};

/// A leaf that was signed here. It may be revoked, replaced or past its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCertificate {
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// The peer that it names.
    pub peer: PeerName,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// Host names and addresses of a node.
    pub sans: Vec<String>,
    /// Since when it no longer holds, if it was revoked.
    pub revoked: Option<SystemTime>,
    /// The digest of its public key. Lines of earlier versions have none.
    pub(super) key_digest: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct IssuedRecord {
    serial: String,
    role: String,
    name: String,
    not_before: String,
    not_after: String,
    #[serde(default)]
    sans: Vec<String>,
    #[serde(default)]
    key_sha256: Option<String>,
}

pub(super) fn append(
    path: &Path,
    peer: &PeerName,
    leaf: &CertificateInfo,
    sans: &[String],
) -> Result<(), CertsError> {
    let line = IssuedRecord {
        serial: leaf.serial.clone(),
        role: peer.role.to_string(),
        name: peer.name.to_string(),
        not_before: Utc(leaf.not_before).to_string(),
        not_after: Utc(leaf.not_after).to_string(),
        sans: sans.to_vec(),
        key_sha256: tls::key_digest(leaf.public_key_der()),
    };
    record::append(path, &line)
}

/// Every leaf in the record, in the order in which they were signed. No file: none.
pub(super) fn read(path: &Path) -> Result<Vec<ListedCertificate>, CertsError> {
    record::read(path, parse)
}

fn parse(line: &str) -> Result<ListedCertificate, String> {
    let line: IssuedRecord = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let peer = format!("{}/{}", line.role, line.name);
    Ok(ListedCertificate {
        serial: line.serial,
        peer: peer.parse().map_err(|error: crate::name::NameError| error.to_string())?,
        not_before: record::moment(&line.not_before)?,
        not_after: record::moment(&line.not_after)?,
        sans: line.sans,
        revoked: None,
        key_digest: line.key_sha256,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_line_is_read_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("issued.jsonl");
        assert_eq!(read(&path).expect("no file, no leafs"), []);
        let good = r#"{"serial":"4a","role":"agent","name":"a","not_before":"2026-01-01T00:00:00Z","not_after":"2026-04-01T00:00:00Z","sans":[]}"#;
        std::fs::write(&path, format!("{good}\n\n{good}\n")).expect("written");
        assert_eq!(read(&path).expect("read").len(), 2);
        std::fs::write(&path, format!("{good}\n{}\n", &good[..40])).expect("written");
        assert!(read(&path).expect_err("refused").to_string().contains("issued.jsonl:2:"));
    }
}
