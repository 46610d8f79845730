//! Slots for connections, limited in total and per block of addresses. At a limit, a new connection
//! evicts the oldest unauthenticated one: silent connections cannot exhaust the slots.

use super::client_address::IpRange;
use crate::prefixes::{Prefix, PrefixCounts, PrefixLimits};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Closed without a response.
    Refused,
    /// Limited together with its neighbours.
    One,
    /// A trusted proxy, which many clients share.
    Many,
}

impl Admission {
    pub(crate) const NOT_A_PROXY: &str =
        "plain HTTP is accepted only from addresses in trusted_proxy";

    /// Decides by the address of a connection. Without TLS only trusted proxies may connect, if any
    /// is named.
    pub(crate) fn of(from: IpAddr, proxies: &[IpRange], has_tls: bool) -> Self {
        match (proxies.iter().any(|range| range.contains(from)), has_tls || proxies.is_empty()) {
            (true, _) => Self::Many,
            (false, true) => Self::One,
            (false, false) => Self::Refused,
        }
    }
}

/// Slots of one listener.
#[derive(Debug, Clone)]
pub(super) struct Slots(Arc<Mutex<SlotsState>>);

#[derive(Debug)]
struct SlotsState {
    all_max: usize,
    counts: PrefixCounts,
    /// By age, oldest first.
    held: BTreeMap<u64, Occupied>,
    next: u64,
}

#[derive(Debug)]
struct Occupied {
    /// `None` for a trusted proxy, which is neither counted per block nor evicted.
    address: Option<IpAddr>,
    owner: Arc<SlotOwner>,
}

#[derive(Debug, Default)]
pub(super) struct SlotOwner {
    is_known: AtomicBool,
    evicted: Notify,
}

impl SlotOwner {
    /// Marks the connection as authenticated: it is not evicted any more.
    pub(super) fn set_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SlotsFull {
    #[error("there are {0} connections, the most there may be")]
    All(usize),
    #[error("{0} has its share of connections")]
    Block(Prefix),
}

#[derive(Debug)]
pub(super) struct Acquired {
    pub(super) slot: Slot,
    /// The limit that was reached, and the address of the evicted connection.
    pub(super) dropped: Option<(SlotsFull, IpAddr)>,
}

impl Slots {
    pub(super) fn new(all_max: usize, limits: PrefixLimits) -> Self {
        let counts = PrefixCounts::new(limits);
        Self(Arc::new(Mutex::new(SlotsState { all_max, counts, held: BTreeMap::new(), next: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, SlotsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires a slot for a connection from this address. Fails at a limit that authenticated
    /// connections fill.
    pub(super) fn take(
        &self,
        address: IpAddr,
        admission: Admission,
    ) -> Result<Acquired, SlotsFull> {
        let mut state = self.state();
        let counted = (admission != Admission::Many).then_some(address);
        let full = state.full(counted);
        let dropped = match full {
            Some(full) => Some((full, state.drop_oldest_unknown(full).ok_or(full)?)),
            None => None,
        };
        let (id, owner) = state.hold(counted);
        Ok(Acquired { slot: Slot { slots: self.clone(), id, owner }, dropped })
    }
}

impl SlotsState {
    /// Limit that a new connection exceeds, the narrowest first: no neighbour need be evicted.
    fn full(&self, counted: Option<IpAddr>) -> Option<SlotsFull> {
        if let Some(block) = counted.and_then(|address| self.counts.full(address)) {
            return Some(SlotsFull::Block(block));
        }
        (self.held.len() >= self.all_max).then_some(SlotsFull::All(self.all_max))
    }

    fn hold(&mut self, counted: Option<IpAddr>) -> (u64, Arc<SlotOwner>) {
        let (id, owner) = (self.next, Arc::new(SlotOwner::default()));
        self.next += 1;
        if let Some(address) = counted {
            let added = self.counts.add(address);
            debug_assert!(added.is_ok(), "its bounds were looked at under this lock");
        }
        self.held.insert(id, Occupied { address: counted, owner: owner.clone() });
        (id, owner)
    }

    /// Evicts the oldest unauthenticated connection within this limit. Wider limits may be reached
    /// as well; the slot counts in all of them.
    fn drop_oldest_unknown(&mut self, full: SlotsFull) -> Option<IpAddr> {
        let is_within = |address: IpAddr| match full {
            SlotsFull::All(_) => true,
            SlotsFull::Block(block) => block.contains(address),
        };
        let (id, address) = self.held.iter().find_map(|(id, held)| {
            let address = held.address.filter(|address| is_within(*address))?;
            (!held.owner.is_known.load(Ordering::Relaxed)).then_some((*id, address))
        })?;
        if let Some(held) = self.release(id) {
            held.owner.evicted.notify_one();
        }
        Some(address)
    }

    fn release(&mut self, id: u64) -> Option<Occupied> {
        let held = self.held.remove(&id)?;
        if let Some(address) = held.address {
            self.counts.remove(address);
        }
        Some(held)
    }
}

/// A slot. Dropping it releases it, unless it was evicted.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    id: u64,
    pub(super) owner: Arc<SlotOwner>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.slots.state().release(self.id));
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

    /// Takes one slot. Gives it, and whose slot it was.
    #[track_caller]
    fn take(slots: &Slots, address: &str) -> (Slot, Option<String>) {
        let taken = slots.take(ip(address), Admission::One).expect("a slot");
        (taken.slot, taken.dropped.map(|(_, address)| address.to_string()))
    }

    #[track_caller]
    fn refused(slots: &Slots, address: &str) -> SlotsFull {
        slots.take(ip(address), Admission::One).expect_err("no slot")
    }

    async fn is_evicted(slot: &Slot) -> bool {
        timeout(Duration::ZERO, slot.owner.evicted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn full_server_evicts_the_oldest_unauthenticated_connection() {
        let slots = Slots::new(3, LIMITS);
        let (known, _) = take(&slots, "192.0.2.1");
        known.owner.set_known();
        let (oldest, _) = take(&slots, "198.51.100.1");
        let (younger, dropped) = take(&slots, "198.51.100.1");
        assert_eq!(dropped, None);
        let (newest, dropped) = take(&slots, "203.0.113.1");
        assert_eq!(dropped.as_deref(), Some("198.51.100.1"));
        assert!(is_evicted(&oldest).await);
        for stays in [&younger, &known, &newest] {
            assert!(!is_evicted(stays).await);
        }
        // A dropped slot is not released twice.
        drop(oldest);
        assert_eq!(slots.state().held.len(), 3);
    }

    #[test]
    fn new_connection_is_refused_where_authenticated_ones_hold_every_slot() {
        let slots = Slots::new(2, LIMITS);
        let held = [take(&slots, "192.0.2.1").0, take(&slots, "198.51.100.1").0];
        held.iter().for_each(|slot| slot.owner.set_known());
        assert_eq!(refused(&slots, "203.0.113.1"), SlotsFull::All(2));
        drop(held);
        assert_eq!(take(&slots, "203.0.113.1").1, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_block_drops_its_own_oldest_and_nobody_elses() {
        let slots = Slots::new(100, LIMITS);
        let (elsewhere, _) = take(&slots, "192.0.2.1");
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
            let (slot, found) = take(&slots, address);
            assert_eq!(found.as_deref(), dropped, "{address}");
            held.push(slot);
        }
        assert!(!is_evicted(&elsewhere).await);
        held.iter().for_each(|slot| slot.owner.set_known());
        let block = refused(&slots, "2001:db8:0:300::1").to_string();
        assert_eq!(block, "2001:db8::/48 has its share of connections");
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_is_counted_with_all_and_neither_with_its_block_nor_dropped() {
        let slots = Slots::new(4, LIMITS);
        let proxy = || slots.take(ip("10.0.0.1"), Admission::Many);
        let held: Vec<_> = (0..4).map(|_| proxy().expect("a slot")).collect();
        assert!(slots.state().counts.is_empty() && proxy().is_err());
        assert_eq!(refused(&slots, "192.0.2.1"), SlotsFull::All(4));
        drop(held);
        let (silent, _) = take(&slots, "192.0.2.1");
        let held: Vec<_> = (0..4).map(|_| proxy().expect("a slot")).collect();
        assert!(is_evicted(&silent).await && held.len() == 4);
    }

    #[test]
    fn released_slots_free_all_their_state() {
        let slots = Slots::new(4, LIMITS);
        let held: Vec<_> = (0..9).map(|_| take(&slots, "2001:db8::1").0).collect();
        assert_eq!(slots.state().held.len(), 2);
        drop(held);
        let state = slots.state();
        assert!(state.held.is_empty() && state.counts.is_empty());
    }
}
