//! How many handshakes an address may begin, and how many of them may be in progress at once. What is over a bound is not answered.

use crate::{
    limits::{HANDSHAKES_PER_ADDRESS_MAX, KNOCK_ADDRESSES_MAX, KNOCKS_SAID_EVERY, Limits},
    pace::{Buckets, Pace, Sparse},
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

/// Whose handshakes are counted together: an IPv4 address, or the 64 bits that one site of IPv6 has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 => v4,
        })
    }
}

/// Who may begin a handshake.
pub(crate) struct Knocks {
    begun: Buckets<Source>,
    /// So that a flood of packets is no flood of lines.
    ignored: Sparse,
}

impl Knocks {
    pub(crate) fn new(limits: &Limits) -> Self {
        let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let every = Duration::from_secs(1) / bounded(limits.handshakes_per_address);
        // So many addresses at once are a flood of made-up ones, against which proving them helps, and not this.
        Self::at(Pace::new(bounded(limits.handshakes_burst), every))
    }

    /// At this pace for each address.
    pub(crate) fn at(pace: Pace) -> Self {
        let begun = Buckets::new(pace, KNOCK_ADDRESSES_MAX);
        Self { begun, ignored: Sparse::new(Pace::new(1, KNOCKS_SAID_EVERY)) }
    }

    /// Whether this address may begin a handshake now; if so and it `counts`, it is one less that it may.
    pub(crate) fn may(&mut self, address: IpAddr, now: Instant, counts: bool) -> bool {
        self.begun.may(Source::of(address), now, counts)
    }

    /// One more was ignored. Gives how many there were since the last line, if it is time for another.
    pub(crate) fn ignored(&mut self, now: Instant) -> Option<u64> {
        self.ignored.say(now).map(|before| before.0 + 1)
    }
}

/// The places for handshakes that each address holds: one address that stalls its handshakes must not hold them all.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    held: Arc<Mutex<HashMap<Source, usize>>>,
    most: usize,
}

impl Default for Shares {
    fn default() -> Self {
        Self::of(HANDSHAKES_PER_ADDRESS_MAX)
    }
}

impl Shares {
    /// So many for each address.
    pub(crate) fn of(most: usize) -> Self {
        Self { held: Arc::default(), most }
    }

    /// A share of the places for this address, if it has some left.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Share> {
        let source = Source::of(address);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(source).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { shares: self.clone(), source })
    }

    /// Whether this address has to prove itself first: else whoever sends under a made-up one could hold the share of its owner.
    pub(crate) fn must_prove(&self, address: IpAddr) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&Source::of(address)).is_some_and(|count| *count >= self.most / 2)
    }

    fn give_back(&self, source: Source) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                held.remove(&source);
            }
        }
    }
}

/// One of the places that an address may hold. Given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Shares,
    source: Source,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.give_back(self.source);
    }
}

/// A place among the handshakes in progress: one of all, and one of those of its address.
#[derive(Debug)]
pub(crate) struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_address: Share,
}

impl Place {
    pub(crate) const fn new(of_all: OwnedSemaphorePermit, of_address: Share) -> Self {
        Self { _of_all: of_all, _of_address: of_address }
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
    fn a_burst_passes_and_then_the_rate() {
        let (mut knocks, now) = (knocks(200, 1_000), Instant::now());
        assert_eq!(passing(&mut knocks, "192.0.2.1", now), 1_000);
        assert_eq!(passing(&mut knocks, "192.0.2.1", now + SECOND), 200);
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
    fn a_flood_is_said_at_once_and_then_every_ten_seconds() {
        let (mut knocks, now) = (knocks(1, 1), Instant::now());
        assert_eq!(knocks.ignored(now), Some(1));
        assert!((1..100).all(|n| knocks.ignored(now + n * SECOND / 10).is_none()));
        assert_eq!(knocks.ignored(now + 10 * SECOND), Some(100));
    }

    #[test]
    fn an_address_holds_its_share_of_places_and_not_one_more_until_one_is_given_back() {
        let shares = Shares::default();
        let take = |address: &str| shares.take(ip(address));
        let mut held: Vec<_> = (0..HANDSHAKES_PER_ADDRESS_MAX)
            .map(|_| take("2001:db8::1").expect("a share"))
            .collect();
        assert!(take("2001:db8::2").is_none(), "a site has more than its share");
        assert!(take("2001:db8:0:1::1").is_some() && take("192.0.2.1").is_some());
        assert!(shares.must_prove(ip("2001:db8::2")) && !shares.must_prove(ip("192.0.2.1")));
        held.pop();
        assert!(take("2001:db8::2").is_some());
        held.clear();
        assert!(shares.held.lock().expect("whole").is_empty(), "it remembers who holds nothing");
    }
}
