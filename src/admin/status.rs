//! `/api/v1/status`: what a node or an agent is doing, for `dialback status`.

use super::{
    minute::{CallRates, LastMinute},
    observed::Observed,
};
use crate::{
    link::Link,
    observe::{FailedCall, LinkChange, RefusalCount},
    readiness::Readiness,
    tls::Utc,
};
use serde::Serialize;
use std::{
    fmt::Display,
    time::{Duration, SystemTime},
};

/// State of a node or an agent at one moment.
#[derive(Debug, Serialize)]
pub(super) struct StatusReport {
    role: &'static str,
    name: String,
    version: &'static str,
    at: String,
    started_at: String,
    /// `running` or `draining`.
    state: &'static str,
    /// True if the page may drain it.
    can_drain: bool,
    readiness: Readiness,
    certificate: CertificateStatus,
    /// What is about to end, and what has ended, with remedies.
    warnings: Vec<String>,
    calls_in_flight: u64,
    /// Rates and failures of the last minute.
    last_minute: CallRates,
    /// Links that are up, by peer.
    links: Vec<LinkStatus>,
    last_failures: Vec<FailedCall>,
    link_changes: Vec<LinkChange>,
    /// Refusals since the start, the most frequent first.
    refusals: Vec<RefusalCount>,
}

#[derive(Debug, Serialize)]
struct CertificateStatus {
    peer: String,
    serial: String,
    ends_at: String,
    days_left: i64,
    /// End of the revocation list, if there is one.
    crl_ends_at: Option<String>,
}

#[derive(Debug, Serialize)]
struct LinkStatus {
    peer: String,
    address: String,
    path: String,
    since: String,
    /// `up`, `draining` or `replaced`.
    state: &'static str,
    rtt_ms: f64,
    /// Part of the packets sent here that were lost, in percent.
    loss_percent: f64,
    congestion_window_bytes: u64,
    mtu_bytes: u16,
    calls_in_flight: usize,
    certificate_days_left: i64,
}

/// Makes the report. Asks for readiness, which may take two seconds.
pub(super) async fn report(
    observed: &Observed,
    minute: &LastMinute,
    (started_at, can_drain): (SystemTime, bool),
) -> StatusReport {
    let readiness = observed.readiness().await;
    let (now, credentials) = (SystemTime::now(), observed.credentials());
    let validity = credentials.validity();
    let [mut warnings, soon] = credentials.expiry_lines(now);
    warnings.extend(soon);
    let recent = observed.recent();
    let links = observed.trust().up();
    let mut links: Vec<_> = links.iter().map(|link| link_status(link, now)).collect();
    links.sort_by(|one, other| one.peer.cmp(&other.peer));
    StatusReport {
        role: observed.role(),
        name: observed.peer().name.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        at: text(Utc(now)),
        started_at: text(Utc(started_at)),
        state: if observed.is_draining() { "draining" } else { "running" },
        can_drain,
        readiness,
        certificate: CertificateStatus {
            peer: text(credentials.peer_name()),
            serial: text(credentials.identity().serial()),
            ends_at: text(Utc(validity.ends.at())),
            days_left: days_left(validity.ends.at(), now),
            crl_ends_at: credentials.crl_next_update().map(|end| text(Utc(end))),
        },
        warnings,
        calls_in_flight: observed.counts().calls().map(|calls| calls.in_flight).sum(),
        last_minute: minute.rates(),
        links,
        last_failures: recent.failures(),
        link_changes: recent.links(),
        refusals: recent.refusals(),
    }
}

fn text(value: impl Display) -> String {
    value.to_string()
}

fn link_status(link: &Link, now: SystemTime) -> LinkStatus {
    let stats = link.stats();
    let state = match () {
        () if link.is_replaced() => "replaced",
        () if link.is_peer_draining() => "draining",
        () => "up",
    };
    LinkStatus {
        peer: text(link.peer()),
        address: text(link.remote_address()),
        path: text(link.path()),
        since: text(Utc(now.checked_sub(link.age()).unwrap_or(now))),
        state,
        rtt_ms: stats.rtt.as_secs_f64() * 1_000.0,
        loss_percent: stats.loss() * 100.0,
        congestion_window_bytes: stats.window_bytes,
        mtu_bytes: stats.mtu_bytes,
        calls_in_flight: link.calls_in_flight(),
        certificate_days_left: days_left(link.ends().at(), now),
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// Whole days until a moment; negative after it.
fn days_left(end: SystemTime, now: SystemTime) -> i64 {
    let days = |time: Duration| (time.as_secs() / DAY.as_secs()) as i64;
    end.duration_since(now).map_or_else(|past| -days(past.duration()) - 1, days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_ones_and_negative_once_it_has_ended() {
        let now = SystemTime::now();
        assert_eq!(days_left(now + 3 * DAY, now), 3);
        assert_eq!(days_left(now + DAY / 2, now), 0);
        assert_eq!(days_left(now - DAY / 2, now), -1);
        assert_eq!(days_left(now - DAY, now), -2);
    }
}
