//! Which handshakes may go on, of a node and of an enroller: how many at once in all and of each
//! block of addresses, and how many a second of one address. Who is over a bound and has not proved
//! its address is asked to; who has proved it waits for its turn.

use crate::{
    fair_queue::FairQueue,
    limits::{
        COUNTED_ADDRESSES_MAX, HANDSHAKE_CHECK_EVERY, HANDSHAKE_GRACE, HANDSHAKE_TURN_WAIT_MAX,
        HANDSHAKES_UNPROVEN_MAX, HANDSHAKES_UNPROVEN_PER_ADDRESS_MAX, HANDSHAKES_WAITING_MAX,
        IGNORED_HANDSHAKES_LOG_EVERY,
    },
    prefixes::{Prefix, PrefixCounts, PrefixLimits, Width},
    rate_limit::{Buckets, LogLimiter, Pace},
};
use std::{
    cmp::Reverse,
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// The first packet of somebody who wants a connection.
pub(crate) trait Incoming {
    /// Where it came from, as far as that is known.
    fn remote_address(&self) -> SocketAddr;

    /// Whether the address has proved that it receives what is sent to it.
    fn is_validated(&self) -> bool;

    /// Asks the address to prove itself. Costs one packet and no memory.
    fn retry(self);

    /// Drops it without an answer: QUIC asks again by itself.
    fn ignore(self);
}

/// Where first packets come from.
pub(crate) trait Accept {
    /// What comes.
    type Incoming: Incoming;

    /// The next one; `None` once there are no more. May be dropped and called again.
    fn accept(&self) -> impl Future<Output = Option<Self::Incoming>> + Send;

    /// Hears that so many were ignored, the last of this address.
    fn ignored(&self, last: SocketAddr, count: u64);
}

/// Why a handshake was given up whose permit was revoked.
pub(crate) const REVOKED: &str = "the handshake took long, and others waited";

/// How many handshakes may be in progress at once.
#[derive(Debug, Clone, Copy)]
struct AtOnce {
    all: usize,
    blocks: PrefixLimits,
}

impl AtOnce {
    /// One address may have a quarter, and one network half, so that it takes many networks to hold
    /// all.
    const fn of(all: usize) -> Self {
        let blocks = PrefixLimits { host: all / 4, site: all * 3 / 8, network: all / 2 };
        Self { all, blocks }
    }
}

/// Lets handshakes begin, one after the other.
pub(crate) struct HandshakeLimiter<I> {
    begun: Buckets<Prefix>,
    waiting: FairQueue<Waiting<I>>,
    in_progress: Arc<InProgress>,
    /// So that a flood of packets is no flood of lines.
    said: LogLimiter,
}

/// One that has proved its address and waits for its turn.
struct Waiting<I> {
    address: SocketAddr,
    since: Instant,
    incoming: I,
}

impl<I> Waiting<I> {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + HANDSHAKE_TURN_WAIT_MAX
    }
}

impl<I: Incoming> HandshakeLimiter<I> {
    /// So many at once, and each address at this pace.
    pub(crate) fn new(at_once: usize, pace: Pace) -> Self {
        Self {
            begun: Buckets::new(pace, COUNTED_ADDRESSES_MAX),
            waiting: FairQueue::new(HANDSHAKES_WAITING_MAX),
            in_progress: Arc::new(InProgress::new(AtOnce::of(at_once))),
            said: LogLimiter::new(Pace::new(1, IGNORED_HANDSHAKES_LOG_EVERY)),
        }
    }

    /// Each address at another pace from now on.
    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.begun = Buckets::new(pace, COUNTED_ADDRESSES_MAX);
    }

    /// The next handshake that may begin, and its permit; `None` once no more come.
    pub(crate) async fn next<A: Accept<Incoming = I>>(
        &mut self,
        accept: &A,
    ) -> Option<(I, HandshakePermit)> {
        let in_progress = self.in_progress.clone();
        loop {
            let mut over = Vec::new();
            let next = self.begin(Instant::now(), &mut over);
            self.ignore(over, accept);
            if next.is_some() {
                return next;
            }
            tokio::select! {
                incoming = accept.accept() => {
                    let dropped = self.take(incoming?, Instant::now());
                    self.ignore(dropped, accept);
                }
                () = in_progress.returned.notified() => {}
                () = sleep(HANDSHAKE_CHECK_EVERY), if !self.waiting.is_empty() => {
                    let now = Instant::now();
                    let over = self.waiting.remove_if(|waiting| waiting.is_over(now));
                    self.ignore(over, accept);
                }
            }
        }
    }

    fn ignore<A: Accept>(&mut self, dropped: impl IntoIterator<Item = Waiting<I>>, accept: &A) {
        for Waiting { address, incoming, .. } in dropped {
            incoming.ignore();
            if let Some(before) = self.said.say(Instant::now()) {
                accept.ignored(address, before.0 + 1);
            }
        }
    }

    /// Puts one in the queue, or asks it to prove its address. Gives the one that had to leave the
    /// queue for it.
    fn take(&mut self, incoming: I, now: Instant) -> Option<Waiting<I>> {
        let address = incoming.remote_address();
        if !incoming.is_validated() && self.require_address_validation(address.ip(), now) {
            incoming.retry();
            return None;
        }
        self.waiting.push(address.ip(), Waiting { address, since: now, incoming })
    }

    /// Whether this address has to prove itself first: else packets under made-up addresses could
    /// hold the share of their owners.
    fn require_address_validation(&mut self, address: IpAddr, now: Instant) -> bool {
        let has_room = self.in_progress.held().has_room_for_unproven(address);
        !has_room || !self.waiting.is_empty() || !may_begin(&mut self.begun, address, now, false)
    }

    /// The one whose turn it is, if it may begin now. Those whose time is over are left aside.
    fn begin(&mut self, now: Instant, over: &mut Vec<Waiting<I>>) -> Option<(I, HandshakePermit)> {
        let Self { begun, waiting, in_progress, .. } = self;
        let mut held = in_progress.held();
        while !waiting.is_empty() {
            let next = match held.is_full() {
                true => None,
                false => waiting.pop(|block| {
                    let is_in_pace = block.width() != Width::Host || begun.may(block, now, false);
                    is_in_pace && !held.is_full_of(block)
                }),
            };
            let Some(next) = next else {
                let wanted = waiting.hosts().into_iter().filter(|blocks| {
                    blocks.last().is_some_and(|host| begun.may(*host, now, false))
                });
                match held.revoke_one(wanted, now) {
                    true => continue,
                    false => return None,
                }
            };
            if next.is_over(now) {
                over.push(next);
                continue;
            }
            may_begin(begun, next.address.ip(), now, true);
            let (id, revoked) = held.add(next.address.ip(), now);
            let in_progress = in_progress.clone();
            return Some((next.incoming, HandshakePermit { in_progress, id, revoked }));
        }
        None
    }
}

/// Whether the pace of an address lets it begin now; if so and it `counts`, it is one less that it
/// may.
fn may_begin(begun: &mut Buckets<Prefix>, address: IpAddr, now: Instant, counts: bool) -> bool {
    Prefix::of(address, Width::Host).is_some_and(|host| begun.may(host, now, counts))
}

/// What the holders of permits share with the limiter.
struct InProgress {
    held: Mutex<Held>,
    /// Told when a permit was returned.
    returned: Notify,
}

impl InProgress {
    fn new(at_once: AtOnce) -> Self {
        Self { held: Mutex::new(Held::new(at_once)), returned: Notify::new() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handshakes in progress.
struct Held {
    at_once: AtOnce,
    counts: PrefixCounts,
    /// By age: the oldest has the smallest number.
    all: BTreeMap<u64, Handshake>,
    next: u64,
}

struct Handshake {
    address: IpAddr,
    since: Instant,
    /// It has come so far that it gives way to no other.
    is_settled: bool,
    revoked: CancellationToken,
}

impl Held {
    fn new(at_once: AtOnce) -> Self {
        let counts = PrefixCounts::new(at_once.blocks);
        Self { at_once, counts, all: BTreeMap::new(), next: 0 }
    }

    fn is_full(&self) -> bool {
        self.all.len() >= self.at_once.all
    }

    fn is_full_of(&self, block: Prefix) -> bool {
        self.counts.count(block) >= self.at_once.blocks.of(block.width())
    }

    fn has_room_for_unproven(&self, address: IpAddr) -> bool {
        let of_host = Prefix::of(address, Width::Host).map_or(0, |host| self.counts.count(host));
        of_host < HANDSHAKES_UNPROVEN_PER_ADDRESS_MAX && self.all.len() < HANDSHAKES_UNPROVEN_MAX
    }

    fn add(&mut self, address: IpAddr, since: Instant) -> (u64, CancellationToken) {
        let (id, revoked) = (self.next, CancellationToken::new());
        self.next += 1;
        // There is room: its blocks were looked at under this lock.
        self.counts.add(address).ok();
        let handshake = Handshake { address, since, is_settled: false, revoked: revoked.clone() };
        self.all.insert(id, handshake);
        (id, revoked)
    }

    fn remove(&mut self, id: u64) -> Option<Handshake> {
        let removed = self.all.remove(&id)?;
        self.counts.remove(removed.address);
        Some(removed)
    }

    /// Revokes the permit of one handshake that has taken longer than the grace, for the sake of
    /// the first of these hosts for which that helps. Says whether there was one.
    fn revoke_one(&mut self, wanted: impl IntoIterator<Item = Vec<Prefix>>, now: Instant) -> bool {
        let is_slow = |handshake: &Handshake| {
            !handshake.is_settled && now >= handshake.since + HANDSHAKE_GRACE
        };
        let slow: Vec<_> = self.all.iter().filter(|(_, one)| is_slow(one)).collect();
        if slow.is_empty() {
            return false;
        }
        let is_full = self.is_full();
        let victim = wanted.into_iter().find_map(|blocks| {
            match blocks.into_iter().find(|block| self.is_full_of(*block)) {
                Some(full) => slow.iter().find(|(_, one)| full.contains(one.address)),
                // The oldest of the network that has most.
                None if is_full => slow.iter().max_by_key(|(id, one)| {
                    let network = Prefix::of(one.address, Width::Network);
                    (network.map(|network| self.counts.count(network)), Reverse(**id))
                }),
                None => None,
            }
            .map(|(id, _)| **id)
        });
        let revoked = victim.and_then(|id| self.remove(id));
        revoked.inspect(|handshake| handshake.revoked.cancel()).is_some()
    }
}

/// The right to do one handshake. Returned when it is dropped, unless it was revoked before.
pub(crate) struct HandshakePermit {
    in_progress: Arc<InProgress>,
    id: u64,
    revoked: CancellationToken,
}

impl HandshakePermit {
    /// Ends when the handshake has to make way for another: it took long, and others waited.
    pub(crate) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }

    /// The handshake has come so far that it makes way for no other.
    #[cfg(feature = "certs")]
    pub(crate) fn settle(&self) {
        if let Some(handshake) = self.in_progress.held().all.get_mut(&self.id) {
            handshake.is_settled = true;
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let returned = self.in_progress.held().remove(self.id);
        if returned.is_some() {
            self.in_progress.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// What became of first packets.
    type Fates = Arc<Mutex<Vec<(String, &'static str)>>>;

    struct Packet {
        address: SocketAddr,
        is_validated: bool,
        fates: Fates,
    }

    impl Packet {
        fn ends(self, fate: &'static str) {
            self.fates.lock().expect("whole").push((self.address.ip().to_string(), fate));
        }
    }

    impl Incoming for Packet {
        fn remote_address(&self) -> SocketAddr {
            self.address
        }

        fn is_validated(&self) -> bool {
            self.is_validated
        }

        fn retry(self) {
            self.ends("retry");
        }

        fn ignore(self) {
            self.ends("ignored");
        }
    }

    /// A limiter, and the permits that it gave.
    struct Door {
        limiter: HandshakeLimiter<Packet>,
        fates: Fates,
        permits: Vec<(String, HandshakePermit)>,
        now: Instant,
    }

    impl Door {
        fn new(at_once: usize, burst: u32) -> Self {
            let pace = Pace::new(burst, SECOND / 100);
            let limiter = HandshakeLimiter::new(at_once, pace);
            Self { limiter, fates: Fates::default(), permits: vec![], now: Instant::now() }
        }

        fn comes(&mut self, address: &str, is_validated: bool) {
            let address = SocketAddr::new(address.parse().expect("an address"), 1);
            let packet = Packet { address, is_validated, fates: self.fates.clone() };
            if let Some(dropped) = self.limiter.take(packet, self.now) {
                dropped.incoming.ignore();
            }
            self.begin();
        }

        fn proven(&mut self, address: &str, count: usize) {
            (0..count).for_each(|_| self.comes(address, true));
        }

        fn begin(&mut self) {
            let mut over = Vec::new();
            while let Some((packet, permit)) = self.limiter.begin(self.now, &mut over) {
                self.permits.push((packet.address.ip().to_string(), permit));
            }
            over.into_iter().for_each(|waiting| waiting.incoming.ignore());
        }

        fn after(&mut self, time: Duration) {
            self.now += time;
            self.begin();
        }

        /// The handshakes in progress of addresses that begin so, without those whose permit was
        /// revoked.
        fn in_progress(&self, address: &str) -> usize {
            let of = |(of, permit): &&(String, HandshakePermit)| {
                of.starts_with(address) && !permit.revoked.is_cancelled()
            };
            self.permits.iter().filter(of).count()
        }

        /// One handshake of this address ends.
        fn ends(&mut self, address: &str) {
            let at = self
                .permits
                .iter()
                .position(|(of, permit)| of == address && !permit.revoked.is_cancelled());
            drop(self.permits.remove(at.expect("in progress")));
            self.begin();
        }

        fn fates(&self, fate: &str) -> usize {
            self.fates.lock().expect("whole").iter().filter(|(_, of)| *of == fate).count()
        }
    }

    #[test]
    fn an_address_holds_a_quarter_a_site_three_eighths_and_a_network_half() {
        let mut door = Door::new(64, 1_000);
        door.proven("192.0.2.1", 40);
        assert_eq!(door.in_progress("192.0.2.1"), 16);
        door.proven("192.0.2.2", 40);
        assert_eq!(door.in_progress("192.0.2."), 32);
        door.proven("192.0.2.3", 40);
        assert_eq!(door.in_progress("192.0.2."), 32);
        for (address, of_all) in [
            ("2001:db8::1", 16),
            ("2001:db8:0:1::1", 24),
            ("2001:db8:0:2::1", 24),
            ("2001:db8:0:100::1", 32),
            ("2001:db8:0:200::1", 32),
        ] {
            door.proven(address, 20);
            assert_eq!(door.in_progress("2001:db8:"), of_all, "{address}");
        }
        assert_eq!((door.fates("ignored"), door.fates("retry")), (0, 0));
    }

    #[test]
    fn an_address_over_its_share_waits_and_begins_when_another_has_ended() {
        let mut door = Door::new(8, 1_000);
        door.proven("192.0.2.1", 5);
        assert_eq!((door.permits.len(), door.limiter.waiting.len()), (2, 3));
        door.ends("192.0.2.1");
        assert_eq!((door.permits.len(), door.limiter.waiting.len()), (2, 2));
        for _ in 0..4 {
            door.ends("192.0.2.1");
        }
        assert_eq!((door.permits.len(), door.fates("ignored")), (0, 0));
        assert!(door.limiter.in_progress.held().counts.is_empty());
    }

    #[test]
    fn over_its_pace_an_address_waits_and_others_do_not() {
        let mut door = Door::new(1_000, 3);
        door.proven("192.0.2.1", 5);
        door.proven("192.0.2.2", 3);
        assert_eq!((door.in_progress("192.0.2.1"), door.in_progress("192.0.2.2")), (3, 3));
        door.after(SECOND / 100);
        assert_eq!(door.in_progress("192.0.2.1"), 4);
        door.after(SECOND / 100);
        assert_eq!(door.in_progress("192.0.2.1"), 5);
    }

    #[test]
    fn an_address_that_has_not_proved_itself_has_to_where_others_would_pay_for_it() {
        let mut door = Door::new(512, 1_000);
        for n in 0..=HANDSHAKES_UNPROVEN_PER_ADDRESS_MAX {
            assert_eq!(door.fates("retry"), 0, "{n}");
            door.comes("192.0.2.1", false);
        }
        assert_eq!(door.fates("retry"), 1);
        for n in HANDSHAKES_UNPROVEN_PER_ADDRESS_MAX..=HANDSHAKES_UNPROVEN_MAX {
            assert_eq!(door.fates("retry"), 1, "{n}");
            door.comes(&format!("198.51.100.{n}"), false);
        }
        assert_eq!((door.fates("retry"), door.permits.len()), (2, HANDSHAKES_UNPROVEN_MAX));
        // Nor does it go ahead of those that wait, or over its pace.
        let mut busy = Door::new(4, 1_000);
        busy.proven("192.0.2.1", 2);
        busy.comes("198.51.100.1", false);
        let mut fast = Door::new(512, 1);
        fast.comes("192.0.2.1", false);
        fast.comes("192.0.2.1", false);
        assert_eq!((busy.fates("retry"), fast.fates("retry")), (1, 1));
    }

    #[test]
    fn a_handshake_that_takes_long_makes_way_for_one_of_its_own_block_and_for_no_other() {
        let mut door = Door::new(64, 1_000);
        door.proven("198.51.100.1", 1);
        door.proven("192.0.2.1", 17);
        door.after(HANDSHAKE_GRACE - Duration::from_millis(1));
        assert_eq!(door.limiter.waiting.len(), 1);
        door.after(Duration::from_millis(1));
        // The oldest of the block, though another is older.
        assert_eq!((door.limiter.waiting.len(), door.in_progress("192.0.2.1")), (0, 16));
        assert!(door.permits[1].1.revoked.is_cancelled());
        assert_eq!(door.in_progress("198.51.100.1"), 1);
        // Its permit is in other hands: that it returns it changes nothing.
        door.permits.remove(1);
        assert_eq!(door.limiter.in_progress.held().all.len(), 17);
        door.proven("192.0.2.1", 1);
        assert_eq!((door.limiter.waiting.len(), door.in_progress("192.0.2.1")), (0, 16));
    }

    #[test]
    fn where_all_is_full_the_network_that_has_most_makes_way() {
        let mut door = Door::new(8, 1_000);
        door.proven("203.0.113.1", 1);
        for address in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2"] {
            door.proven(address, 2);
        }
        assert_eq!((door.permits.len(), door.limiter.waiting.len()), (8, 1));
        door.after(HANDSHAKE_GRACE);
        assert_eq!(door.in_progress("192.0.2."), 3);
        assert_eq!((door.in_progress("198.51.100."), door.in_progress("203.0.113.")), (4, 1));
    }

    #[test]
    fn a_handshake_that_is_settled_makes_way_for_none() {
        let mut door = Door::new(4, 1_000);
        door.proven("192.0.2.1", 1);
        door.permits[0].1.settle();
        door.after(10 * SECOND);
        door.proven("192.0.2.1", 1);
        door.after(HANDSHAKE_GRACE);
        assert_eq!((door.limiter.waiting.len(), door.permits.len()), (1, 1));
    }

    #[test]
    fn an_address_that_has_waited_too_long_is_ignored_when_its_turn_comes() {
        let mut door = Door::new(4, 1_000);
        door.proven("192.0.2.1", 1);
        door.permits[0].1.settle();
        door.proven("192.0.2.1", 1);
        door.now += HANDSHAKE_TURN_WAIT_MAX - Duration::from_millis(1);
        door.proven("198.51.100.1", 1);
        door.now += Duration::from_millis(1);
        door.ends("192.0.2.1");
        assert_eq!((door.fates("ignored"), door.in_progress("198.51.100.1")), (1, 1));
    }

    #[test]
    fn an_honest_network_has_its_turn_however_many_wait_of_another() {
        let mut door = Door::new(8, 10_000);
        for n in 0..HANDSHAKES_WAITING_MAX + 100 {
            door.proven(&format!("2001:db8:0:{n:x}::1"), 1);
        }
        // The queue is full, and what came first of the crowd had to leave it.
        assert_eq!(door.fates("ignored"), 100 - 4);
        door.proven("192.0.2.1", 1);
        assert_eq!(door.in_progress("192.0.2.1"), 1, "half of all is left to other networks");
        door.proven("192.0.2.1", 2);
        door.proven("198.51.100.1", 2);
        door.proven("203.0.113.1", 1);
        // All are in progress now; the next ones that end make room in turns.
        assert!(door.limiter.in_progress.held().is_full());
        door.ends("192.0.2.1");
        assert_eq!(door.in_progress("203.0.113.1") + door.in_progress("192.0.2.1"), 2);
    }
}
