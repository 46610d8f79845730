//! Checks of this machine: the buffers of UDP sockets, and its clock.

use super::check::Check;
use dialback::{
    BindError, Utc,
    diagnostic::{UdpBuffers, larger_buffers},
    limits::{UDP_RECEIVE_BUFFER_BYTES, UDP_SEND_BUFFER_BYTES},
};
use std::time::{Duration, SystemTime};

/// Checks the buffers that the system gives a UDP socket.
pub(super) fn buffers(given: &Result<UdpBuffers, BindError>) -> Check {
    let check = "socket buffers";
    let given = match given {
        Ok(given) => given,
        Err(error) => return Check::skipped(check, format!("no UDP socket: {error}")),
    };
    let kib = |bytes: usize| bytes / 1024;
    let shown = |UdpBuffers { receive_bytes, send_bytes }: &UdpBuffers| {
        format!("{} KiB to receive and {} KiB to send", kib(*receive_bytes), kib(*send_bytes))
    };
    let wanted =
        UdpBuffers { receive_bytes: UDP_RECEIVE_BUFFER_BYTES, send_bytes: UDP_SEND_BUFFER_BYTES };
    let is_small =
        given.receive_bytes < wanted.receive_bytes || given.send_bytes < wanted.send_bytes;
    if !is_small {
        return Check::ok(check, shown(given));
    }
    let text = format!(
        "UDP sockets have {}, where {} are asked for; under load packets may be lost",
        shown(given),
        shown(&wanted)
    );
    Check::warning(check, text, larger_buffers())
}

/// Difference between clocks that is worth a warning.
const CLOCK_DIFFERENCE_WARNED: Duration = Duration::from_secs(60);
/// Difference beyond which a new certificate may be refused: certificates are valid from an hour
/// before they were made.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(3_600);

/// Another clock, and the clock of this machine at that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClockReading {
    /// Whose clock it is.
    pub(super) of: String,
    pub(super) there: SystemTime,
    pub(super) here: SystemTime,
}

const SET_THE_CLOCK: &str =
    "compare both clocks with a third one (`date -u`), and set the wrong one, by NTP for example";

/// Checks the clock of this machine against other clocks. Without any, a certificate that is not
/// valid yet shows that one of two clocks is behind.
pub(super) fn clock(readings: &[ClockReading], is_not_valid_yet: bool, now: SystemTime) -> Check {
    let (check, shown) = ("clock", Utc(now));
    let furthest = readings.iter().max_by_key(|reading| difference(reading));
    let Some(reading) = furthest else {
        let here = format!("this machine's clock says {shown}");
        return match is_not_valid_yet {
            true => Check::failure(
                check,
                format!("{here}, and by this clock or the peer's a certificate is not valid yet"),
                SET_THE_CLOCK,
            ),
            false => {
                Check::skipped(check, format!("{here}; there is no other clock to compare it with"))
            }
        };
    };
    let difference = difference(reading);
    let side = if reading.there > reading.here { "behind" } else { "ahead of" };
    let (of, seconds) = (&reading.of, difference.as_secs());
    let text = format!("this machine's clock says {shown}, {seconds} s {side} that of {of}");
    match difference {
        difference if difference > CLOCK_DIFFERENCE_MAX => {
            Check::failure(check, text, SET_THE_CLOCK)
        }
        difference if difference > CLOCK_DIFFERENCE_WARNED => {
            Check::warning(check, text, SET_THE_CLOCK)
        }
        _ => Check::ok(check, format!("this machine's clock agrees with that of {of}")),
    }
}

fn difference(reading: &ClockReading) -> Duration {
    let ahead = reading.there.duration_since(reading.here);
    ahead.unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::CheckState;

    #[test]
    fn small_buffers_are_a_warning_with_the_setting_that_enlarges_them() {
        let of = |receive_bytes, send_bytes| buffers(&Ok(UdpBuffers { receive_bytes, send_bytes }));
        let (receive, send) = (UDP_RECEIVE_BUFFER_BYTES, UDP_SEND_BUFFER_BYTES);
        assert_eq!(of(receive, send).state, CheckState::Ok);
        for small in [of(receive - 1, send), of(receive, send - 1), of(212_992, 212_992)] {
            assert_eq!(small.state, CheckState::Warning, "{small:?}");
            let remedy = small.remedy.expect("a remedy");
            assert!(remedy.contains("sysctl -w net.core.rmem_max=7340032"), "{remedy}");
        }
        assert!(of(212_992, 212_992).text.contains("208 KiB to receive"));
    }

    #[test]
    fn a_clock_that_differs_by_a_minute_is_a_warning_and_by_a_day_a_failure() {
        let now = SystemTime::now();
        let at = |there| {
            let of = "wss://edge-1:443".to_owned();
            clock(&[ClockReading { of, there, here: now }], false, now)
        };
        let second = Duration::from_secs(1);
        assert_eq!(at(now + 60 * second).state, CheckState::Ok);
        assert_eq!(at(now - 61 * second).state, CheckState::Warning);
        for (there, side) in
            [(now + 86_400 * second, "86400 s behind"), (now - 86_400 * second, "86400 s ahead of")]
        {
            let check = at(there);
            assert!(check.state == CheckState::Failure && check.text.contains(side), "{check:?}");
        }
    }

    #[test]
    fn without_another_clock_only_a_certificate_shows_a_difference() {
        let now = SystemTime::now();
        assert_eq!(clock(&[], false, now).state, CheckState::Skipped);
        assert_eq!(clock(&[], true, now).state, CheckState::Failure);
    }
}
