//! How often an address may do what costs us: token buckets by address, in bounded memory. Handshakes of strangers, and tries of join tokens.

use crate::limits::{KNOCK_ADDRESSES_MAX, KNOCKS_SAID_EVERY, Limits};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};
use tokio::time::Instant;

/// Whose handshakes are counted together: an IPv4 address, or the 64 bits that one site of IPv6 has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 => v4,
        })
    }
}

/// The buckets. One is a single moment: when it will be full again.
pub(crate) struct Knocks {
    /// Between two handshakes of an address that goes on for ever.
    every: Duration,
    /// How long an empty bucket takes to fill: as many handshakes may come at once.
    fill: Duration,
    /// Who has come since the turn, and who came in the time of one filling before it. Whoever is in neither has a full bucket.
    recent: HashMap<Source, Instant>,
    before: HashMap<Source, Instant>,
    turn: Option<Instant>,
}

impl Knocks {
    /// For handshakes, with the bounds that a node's owner sets.
    pub(crate) fn new(limits: &Limits) -> Self {
        let rate = u32::try_from(limits.handshakes_per_address).unwrap_or(u32::MAX).max(1);
        let burst = u32::try_from(limits.handshakes_burst).unwrap_or(u32::MAX);
        Self::one_every(Duration::from_secs(1) / rate, burst)
    }

    /// One every so often, and so many at once.
    pub(crate) fn one_every(every: Duration, burst: u32) -> Self {
        Self {
            every,
            fill: every.saturating_mul(burst.max(1)),
            recent: HashMap::new(),
            before: HashMap::new(),
            turn: None,
        }
    }

    /// Whether this address may begin a handshake now; if so and it `counts`, it is one less that it may.
    pub(crate) fn may(&mut self, address: IpAddr, now: Instant, counts: bool) -> bool {
        self.forget(now);
        let source = Source::of(address);
        let full_at = self.recent.get(&source).or_else(|| self.before.get(&source));
        let full_at = full_at.map_or(now, |full_at| now.max(*full_at)) + self.every;
        if full_at > now + self.fill {
            return false;
        }
        // So many addresses at once are a flood of made-up ones, against which proving them helps, and not this.
        let has_room = self.recent.len() < KNOCK_ADDRESSES_MAX;
        if counts && (has_room || self.recent.contains_key(&source)) {
            self.recent.insert(source, full_at);
        }
        true
    }

    /// Buckets that nobody took from while they could fill are full, and a full one needs no memory.
    fn forget(&mut self, now: Instant) {
        let turn = *self.turn.get_or_insert(now);
        if now >= turn + self.fill {
            self.before = std::mem::take(&mut self.recent);
            if now >= turn + self.fill * 2 {
                self.before.clear();
            }
            self.turn = Some(now);
        }
    }
}

/// Counts what was ignored, so that a flood of packets is no flood of lines.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    count: u64,
    said: Option<Instant>,
}

impl Ignored {
    /// One more. Gives how many there were since the last line, if it is time for another.
    pub(crate) fn one_more(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.said.is_some_and(|said| now < said + KNOCKS_SAID_EVERY) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn knocks(rate: usize, burst: usize) -> Knocks {
        Knocks::new(&Limits {
            handshakes_per_address: rate,
            handshakes_burst: burst,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of many handshakes at one moment pass.
    fn passing(knocks: &mut Knocks, address: &str, now: Instant) -> usize {
        (0..5_000).filter(|_| knocks.may(ip(address), now, true)).count()
    }

    #[test]
    fn a_burst_passes_and_one_more_does_not_until_there_was_time() {
        let (mut knocks, now) = (knocks(200, 1_000), Instant::now());
        assert_eq!(passing(&mut knocks, "192.0.2.1", now), 1_000);
        assert!(!knocks.may(ip("192.0.2.1"), now + Duration::from_millis(4), true));
        assert!(knocks.may(ip("192.0.2.1"), now + Duration::from_millis(5), true));
        assert_eq!(passing(&mut knocks, "192.0.2.1", now + SECOND), 199);
        assert_eq!(passing(&mut knocks, "192.0.2.1", now + 60 * SECOND), 1_000);
    }

    #[test]
    fn one_address_takes_nothing_from_another_and_a_site_of_ipv6_is_one() {
        let (mut knocks, now) = (knocks(1, 3), Instant::now());
        for (address, left) in [
            ("192.0.2.1", 3),
            ("192.0.2.2", 3),
            ("192.0.2.1", 0),
            ("::ffff:192.0.2.1", 0),
            ("2001:db8::1", 3),
            ("2001:db8::ffff:1", 0),
            ("2001:db8:0:1::1", 3),
        ] {
            assert_eq!(passing(&mut knocks, address, now), left, "{address}");
        }
    }

    #[test]
    fn who_only_has_to_prove_its_address_is_not_counted() {
        let (mut knocks, now) = (knocks(1, 1), Instant::now());
        assert!((0..10).all(|_| knocks.may(ip("192.0.2.1"), now, false)));
        assert!(knocks.may(ip("192.0.2.1"), now, true));
        assert!(!knocks.may(ip("192.0.2.1"), now, false));
    }

    #[test]
    fn nothing_is_forgotten_before_its_bucket_is_full_again() {
        let (mut knocks, now) = (knocks(1, 10), Instant::now());
        for second in 0..100 {
            let now = now + second * SECOND;
            // Others come all the while, so that the tables turn.
            assert!(knocks.may(ip("192.0.2.2"), now, true));
            let wanted = if second == 0 { 10 } else { 1 };
            assert_eq!(passing(&mut knocks, "192.0.2.1", now), wanted, "second {second}");
        }
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory_and_shuts_nobody_out() {
        let (mut knocks, start) = (knocks(1, 10), Instant::now());
        let stranger = |n: u32| IpAddr::V4(n.into());
        for n in 0..3 * KNOCK_ADDRESSES_MAX as u32 {
            assert!(knocks.may(stranger(n), start + Duration::from_micros(n.into()), true));
        }
        assert_eq!(knocks.recent.len(), KNOCK_ADDRESSES_MAX);
        assert!(knocks.may(ip("192.0.2.1"), start + SECOND, true));
        assert!(knocks.may(ip("192.0.2.1"), start + 60 * SECOND, true));
        assert_eq!((knocks.recent.len(), knocks.before.len()), (1, 0));
    }

    #[test]
    fn a_flood_is_said_at_once_and_then_every_ten_seconds() {
        let (mut ignored, now) = (Ignored::default(), Instant::now());
        assert_eq!(ignored.one_more(now), Some(1));
        assert!((1..100).all(|n| ignored.one_more(now + n * SECOND / 10).is_none()));
        assert_eq!(ignored.one_more(now + 10 * SECOND), Some(100));
        assert_eq!(ignored.one_more(now + 11 * SECOND), None);
    }
}
