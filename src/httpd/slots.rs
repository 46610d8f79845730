//! Places for connections, bounded in all and for each block of addresses. Where a bound is
//! reached, the oldest connection over which no known caller has asked gives way to the new one, so
//! that connections that say nothing close nobody out.

use super::Admission;
use crate::prefixes::{Prefix, PrefixCounts, PrefixLimits};
use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

/// The places of one door.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    all_max: usize,
    counts: PrefixCounts,
    /// By age: the oldest has the smallest number.
    held: BTreeMap<u64, Held>,
    next: u64,
}

#[derive(Debug)]
struct Held {
    /// `None` for a trusted proxy, which is neither counted with its neighbours nor dropped.
    address: Option<IpAddr>,
    standing: Arc<Standing>,
}

/// What is known of the connection that has a place.
#[derive(Debug, Default)]
pub(super) struct Standing {
    is_known: AtomicBool,
    cut: Notify,
}

impl Standing {
    /// A known caller has asked over it: it no longer gives way to others.
    pub(super) fn set_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Ends when its place was given to another connection.
    pub(super) async fn cut(&self) {
        self.cut.notified().await;
    }
}

/// The bound that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All(usize),
    Block(Prefix),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(most) => write!(f, "there are {most} connections, the most there may be"),
            Self::Block(block) => write!(f, "{block} has its share of connections"),
        }
    }
}

/// A place that was found.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) place: Place,
    /// The bound that was reached, and whose connection was dropped for it.
    pub(super) dropped: Option<(Full, IpAddr)>,
}

impl Places {
    pub(super) fn new(all_max: usize, limits: PrefixLimits) -> Self {
        let counts = PrefixCounts::new(limits);
        Self(Arc::new(Mutex::new(State { all_max, counts, held: BTreeMap::new(), next: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address.
    ///
    /// # Errors
    /// A bound is reached, and known callers hold all that it allows.
    pub(super) fn take(&self, address: IpAddr, admission: Admission) -> Result<Taken, Full> {
        let mut state = self.state();
        let counted = (admission != Admission::Many).then_some(address);
        let full = state.full(counted);
        let dropped = match full {
            Some(full) => Some((full, state.drop_oldest_unknown(full).ok_or(full)?)),
            None => None,
        };
        let (id, standing) = state.hold(counted);
        Ok(Taken { place: Place { places: self.clone(), id, standing }, dropped })
    }
}

impl State {
    /// The bound that a new connection meets. The narrowest comes first: an address that has its
    /// share takes nothing from its neighbours.
    fn full(&self, counted: Option<IpAddr>) -> Option<Full> {
        if let Some(block) = counted.and_then(|address| self.counts.full(address)) {
            return Some(Full::Block(block));
        }
        (self.held.len() >= self.all_max).then_some(Full::All(self.all_max))
    }

    fn hold(&mut self, counted: Option<IpAddr>) -> (u64, Arc<Standing>) {
        let (id, standing) = (self.next, Arc::new(Standing::default()));
        self.next += 1;
        if let Some(address) = counted {
            let added = self.counts.add(address);
            debug_assert!(added.is_ok(), "its bounds were looked at under this lock");
        }
        self.held.insert(id, Held { address: counted, standing: standing.clone() });
        (id, standing)
    }

    /// Takes the place of the oldest connection within this bound that has shown no known caller. A
    /// wider bound than the one that was reached may be reached as well; the one place is in all of
    /// them.
    fn drop_oldest_unknown(&mut self, full: Full) -> Option<IpAddr> {
        let is_within = |address: IpAddr| match full {
            Full::All(_) => true,
            Full::Block(block) => block.contains(address),
        };
        let (id, address) = self.held.iter().find_map(|(id, held)| {
            let address = held.address.filter(|address| is_within(*address))?;
            (!held.standing.is_known.load(Ordering::Relaxed)).then_some((*id, address))
        })?;
        if let Some(held) = self.release(id) {
            held.standing.cut.notify_one();
        }
        Some(address)
    }

    fn release(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        if let Some(address) = held.address {
            self.counts.remove(address);
        }
        Some(held)
    }
}

/// A place. Given back when it is dropped, unless another connection has it by then.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    id: u64,
    pub(super) standing: Arc<Standing>,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.places.state().release(self.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Duration, timeout};

    const LIMITS: PrefixLimits = PrefixLimits { host: 2, site: 3, network: 4 };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Takes one place. Gives it, and whose place it was.
    #[track_caller]
    fn take(places: &Places, address: &str) -> (Place, Option<String>) {
        let taken = places.take(ip(address), Admission::One).expect("a place");
        (taken.place, taken.dropped.map(|(_, address)| address.to_string()))
    }

    #[track_caller]
    fn refused(places: &Places, address: &str) -> Full {
        places.take(ip(address), Admission::One).expect_err("no place")
    }

    async fn is_cut(place: &Place) -> bool {
        timeout(Duration::ZERO, place.standing.cut()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_drops_the_oldest_connection_that_has_shown_no_caller() {
        let places = Places::new(3, LIMITS);
        let (known, _) = take(&places, "192.0.2.1");
        known.standing.set_known();
        let (oldest, _) = take(&places, "198.51.100.1");
        let (younger, dropped) = take(&places, "198.51.100.1");
        assert_eq!(dropped, None);
        let (newest, dropped) = take(&places, "203.0.113.1");
        assert_eq!(dropped.as_deref(), Some("198.51.100.1"));
        assert!(is_cut(&oldest).await);
        for stays in [&younger, &known, &newest] {
            assert!(!is_cut(stays).await);
        }
        // What was dropped gives nothing back a second time.
        drop(oldest);
        assert_eq!(places.state().held.len(), 3);
    }

    #[test]
    fn where_known_callers_hold_every_place_a_new_connection_is_refused() {
        let places = Places::new(2, LIMITS);
        let held = [take(&places, "192.0.2.1").0, take(&places, "198.51.100.1").0];
        held.iter().for_each(|place| place.standing.set_known());
        assert_eq!(refused(&places, "203.0.113.1"), Full::All(2));
        drop(held);
        assert_eq!(take(&places, "203.0.113.1").1, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_block_drops_its_own_oldest_and_nobody_elses() {
        let places = Places::new(100, LIMITS);
        let (elsewhere, _) = take(&places, "192.0.2.1");
        let mut held = Vec::new();
        for (address, dropped) in [
            ("2001:db8::1", None),
            ("2001:db8::2", None),
            ("2001:db8::3", Some("2001:db8::1")),
            ("2001:db8:0:1::1", None),
            // The /56 is full, and the oldest in it goes, which is of another /64.
            ("2001:db8:0:2::1", Some("2001:db8::2")),
            ("2001:db8:0:100::1", None),
            // The /48 is full.
            ("2001:db8:0:200::1", Some("2001:db8::3")),
        ] {
            let (place, found) = take(&places, address);
            assert_eq!(found.as_deref(), dropped, "{address}");
            held.push(place);
        }
        assert!(!is_cut(&elsewhere).await);
        held.iter().for_each(|place| place.standing.set_known());
        let block = refused(&places, "2001:db8:0:300::1").to_string();
        assert_eq!(block, "2001:db8::/48 has its share of connections");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_counted_with_all_and_neither_with_its_block_nor_dropped() {
        let places = Places::new(4, LIMITS);
        let proxy = || places.take(ip("10.0.0.1"), Admission::Many);
        let held: Vec<_> = (0..4).map(|_| proxy().expect("a place")).collect();
        assert!(places.state().counts.is_empty() && proxy().is_err());
        assert_eq!(refused(&places, "192.0.2.1"), Full::All(4));
        drop(held);
        let (silent, _) = take(&places, "192.0.2.1");
        let held: Vec<_> = (0..4).map(|_| proxy().expect("a place")).collect();
        assert!(is_cut(&silent).await && held.len() == 4);
    }

    #[test]
    fn places_that_are_given_back_leave_nothing_behind() {
        let places = Places::new(4, LIMITS);
        let held: Vec<_> = (0..9).map(|_| take(&places, "2001:db8::1").0).collect();
        assert_eq!(places.state().held.len(), 2);
        drop(held);
        let state = places.state();
        assert!(state.held.is_empty() && state.counts.is_empty());
    }
}
