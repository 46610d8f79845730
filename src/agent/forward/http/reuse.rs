//! Decides whether a connection to an upstream may be reused, by its headers and past behaviour.

use crate::limits::{FORWARD_HABIT_KEPT, FORWARD_IDLE_MAX, FORWARD_REST};
use hyper::{
    Response, Version,
    header::{CONNECTION, HeaderMap, HeaderName, WWW_AUTHENTICATE},
};
use std::time::Duration;
use tokio::time::Instant;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Maximum idle time of a connection after this reply; `None` if it was the last one.
pub(super) fn idle_max<B>(response: &Response<B>) -> Option<Duration> {
    let headers = response.headers();
    let is_last = response.version() <= Version::HTTP_10
        || members(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("close"));
    if is_last || members(headers, &WWW_AUTHENTICATE).any(is_of_connection) {
        return None;
    }
    let mut idle_max = FORWARD_IDLE_MAX;
    for member in members(headers, &KEEP_ALIVE) {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        let Ok(number) = value.trim().trim_matches('"').parse::<u64>() else { continue };
        match name.trim().to_ascii_lowercase().as_str() {
            // Half of it, because the server's clock runs from its own end of the connection.
            "timeout" => idle_max = idle_max.min(Duration::from_secs(number) / 2),
            "max" if number == 0 => return None,
            _ => {}
        }
    }
    (!idle_max.is_zero()).then_some(idle_max)
}

/// True for credentials that authenticate a connection and not a request: it must not be shared.
pub(super) fn is_of_connection(credential: &str) -> bool {
    let scheme = credential.split(' ').next().unwrap_or_default();
    ["ntlm", "negotiate"].iter().any(|one| scheme.eq_ignore_ascii_case(one))
}

fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Observed behaviour of an upstream with connections after its replies. Some close after a reply,
/// or after the n-th one, unannounced. The close arrives shortly after the reply, and a request
/// written in between ends unknown.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// A connection was still open [`FORWARD_REST`] after a reply.
    keeps: bool,
    /// Number of replies after which a connection was closed, and until when this counts.
    closes_after: Option<(u32, Instant)>,
}

impl Habit {
    /// Returns `true` if a connection with this number of replies may be reused.
    pub(super) fn allows(&mut self, answers: u32, now: Instant) -> bool {
        if self.closes_after.is_some_and(|(_, until)| until <= now) {
            self.closes_after = None;
        }
        self.closes_after.is_none_or(|(most, _)| answers < most)
    }

    /// Time from which a connection that is idle since `idle_since` may be used.
    pub(super) fn ready_at(&self, idle_since: Instant) -> Instant {
        if self.keeps { idle_since } else { idle_since + FORWARD_REST }
    }

    /// Notes that a connection was open after this idle time.
    pub(super) fn was_open(&mut self, idle_for: Duration) {
        self.keeps |= idle_for >= FORWARD_REST;
    }

    /// Notes that a connection ended, or had unexpected bytes, after these replies and idle time.
    pub(super) fn was_closed(&mut self, answers: u32, idle_for: Duration, now: Instant) {
        if idle_for >= FORWARD_REST {
            // It was idle for too long, which does not concern busy connections.
            return;
        }
        self.keeps = false;
        let most = self.closes_after.map_or(answers, |(most, _)| most.min(answers));
        self.closes_after = Some((most, now + FORWARD_HABIT_KEPT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(version: Version, headers: &[(&'static str, &'static str)]) -> Option<Duration> {
        let mut response = Response::builder().version(version);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        idle_max(&response.body(()).expect("a response"))
    }

    #[test]
    fn a_connection_that_the_upstream_closes_is_not_used_again() {
        assert_eq!(after(Version::HTTP_11, &[]), Some(FORWARD_IDLE_MAX));
        assert_eq!(after(Version::HTTP_10, &[]), None);
        for headers in [
            &[("connection", "close")][..],
            &[("connection", "x, Close")],
            &[("connection", "keep-alive"), ("connection", "close")],
            &[("keep-alive", "timeout=5, max=0")],
            &[("keep-alive", "timeout=0")],
            &[("www-authenticate", "Negotiate")],
            &[("www-authenticate", "NTLM TlRMTVNTUAAC")],
        ] {
            assert_eq!(after(Version::HTTP_11, headers), None, "{headers:?}");
        }
    }

    #[test]
    fn a_timeout_that_the_upstream_announces_bounds_the_idle_time_by_half() {
        for (text, idle) in [
            ("timeout=1", Duration::from_millis(500)),
            ("max=7, Timeout=1", Duration::from_millis(500)),
            ("timeout=\"1\"", Duration::from_millis(500)),
            ("timeout=2", FORWARD_IDLE_MAX),
            ("timeout=3600, max=1", FORWARD_IDLE_MAX),
            ("timeout", FORWARD_IDLE_MAX),
            ("timeout=-1", FORWARD_IDLE_MAX),
            ("timeout=18446744073709551616", FORWARD_IDLE_MAX),
        ] {
            assert_eq!(after(Version::HTTP_11, &[("keep-alive", text)]), Some(idle), "{text}");
        }
    }

    #[test]
    fn connections_rest_until_one_was_open_for_that_long() {
        let (mut habit, now) = (Habit::default(), Instant::now());
        let almost = FORWARD_REST - Duration::from_millis(1);
        habit.was_open(almost);
        assert_eq!(habit.ready_at(now), now + FORWARD_REST);
        habit.was_open(FORWARD_REST);
        assert_eq!(habit.ready_at(now), now);
    }

    #[test]
    fn an_upstream_that_closes_after_the_second_answer_gets_no_third_request_on_a_connection() {
        let (mut habit, now) = (Habit::default(), Instant::now());
        habit.was_open(FORWARD_REST);
        habit.was_closed(2, Duration::from_millis(1), now);
        assert!(habit.allows(1, now) && !habit.allows(2, now) && !habit.allows(3, now));
        assert_eq!(habit.ready_at(now), now + FORWARD_REST, "the others rest again");
        habit.was_closed(5, Duration::ZERO, now);
        assert!(!habit.allows(2, now), "the lowest counts");
        assert!(habit.allows(3, now + FORWARD_HABIT_KEPT), "for a while");
    }

    #[test]
    fn connection_closed_after_a_long_idle_time_does_not_affect_busy_ones() {
        let (mut habit, now) = (Habit::default(), Instant::now());
        habit.was_closed(1, FORWARD_REST, now);
        assert!(habit.allows(1, now));
    }
}
