//! A directory with a CA, and moments, for tests.

use super::{CertsDir, InitOptions};
use crate::name::PeerName;
use std::time::{Duration, SystemTime};

pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Certificates and records count whole seconds.
pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(super) fn peer(text: &str) -> PeerName {
    text.parse().expect("a peer")
}

pub(super) fn with_ca() -> (tempfile::TempDir, CertsDir) {
    with_ca_at(now())
}

pub(super) fn with_ca_at(now: SystemTime) -> (tempfile::TempDir, CertsDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let certs = CertsDir::new(dir.path());
    certs.init(&InitOptions::default(), now).expect("a CA");
    (dir, certs)
}
