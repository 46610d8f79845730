//! Limits handshakes on a node or an enroller: how many are in progress in all and per block of
//! addresses, and how many one address may begin per second. A client over a limit must validate
//! its address; once it has, it waits in a fair queue.

use crate::{
    fair_queue::FairQueue,
    limits::{
        COUNTED_ADDRESSES_MAX, HANDSHAKE_CHECK_EVERY, HANDSHAKE_GRACE, HANDSHAKE_TURN_WAIT_MAX,
        HANDSHAKES_UNVALIDATED_MAX, HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX, HANDSHAKES_WAITING_MAX,
        IGNORED_HANDSHAKES_LOG_EVERY,
    },
    prefixes::{Prefix, PrefixCounts, PrefixLimits, Width},
    rate_limit::{LogLimiter, RateLimit, TokenBuckets},
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

/// The first packet of a client that wants a connection.
pub(crate) trait Incoming {
    /// Source address of the packet. It may be spoofed unless [`Incoming::is_validated`].
    fn remote_address(&self) -> SocketAddr;

    /// True if the client has shown that it receives packets at this address.
    fn is_validated(&self) -> bool;

    /// Sends a Retry, so that the client validates its address. Costs one packet and no memory.
    fn retry(self);

    /// Drops the packet without an answer. QUIC sends it again.
    fn ignore(self);
}

/// A source of first packets.
pub(crate) trait Accept {
    type Incoming: Incoming;

    /// Waits for the next one; `None` at the end. Cancel safe.
    fn accept(&self) -> impl Future<Output = Option<Self::Incoming>> + Send;

    /// Reports that `count` packets were ignored, the last of them from `last`.
    fn ignored(&self, last: SocketAddr, count: u64);
}

/// Reason of a handshake whose permit was revoked.
pub(crate) const REVOKED: &str = "the handshake took too long while others waited";

/// Admits handshakes, one after the other.
pub(crate) struct HandshakeLimiter<I> {
    buckets: TokenBuckets<Prefix>,
    waiting: FairQueue<QueuedHandshake<I>>,
    in_progress: Arc<InProgress>,
    /// Keeps a flood of packets from flooding the log.
    log_limiter: LogLimiter,
}

/// A handshake from a validated address that waits.
struct QueuedHandshake<I> {
    address: SocketAddr,
    since: Instant,
    incoming: I,
}

impl<I> QueuedHandshake<I> {
    fn is_expired(&self, now: Instant) -> bool {
        now >= self.since + HANDSHAKE_TURN_WAIT_MAX
    }
}

impl<I: Incoming> HandshakeLimiter<I> {
    /// A limiter for `at_once` handshakes in progress, begun by one address at most at this rate.
    pub(crate) fn new(at_once: usize, rate: RateLimit) -> Self {
        Self {
            buckets: TokenBuckets::new(rate, COUNTED_ADDRESSES_MAX),
            waiting: FairQueue::new(HANDSHAKES_WAITING_MAX),
            in_progress: Arc::new(InProgress {
                active: Mutex::new(ActiveHandshakes::new(at_once)),
                returned: Notify::new(),
            }),
            log_limiter: LogLimiter::new(RateLimit::new(1, IGNORED_HANDSHAKES_LOG_EVERY)),
        }
    }

    /// Replaces the rate per address. All buckets start full again.
    pub(crate) fn set_rate(&mut self, rate: RateLimit) {
        self.buckets = TokenBuckets::new(rate, COUNTED_ADDRESSES_MAX);
    }

    /// Takes a permit for the next handshake that may begin. `None` once no more arrive.
    pub(crate) async fn next<A: Accept<Incoming = I>>(
        &mut self,
        accept: &A,
    ) -> Option<(I, HandshakePermit)> {
        let in_progress = self.in_progress.clone();
        loop {
            let mut expired = Vec::new();
            let next = self.begin(Instant::now(), &mut expired);
            self.ignore(expired, accept);
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
                    let expired = self.waiting.remove_if(|waiting| waiting.is_expired(now));
                    self.ignore(expired, accept);
                }
            }
        }
    }

    fn ignore<A: Accept>(
        &mut self,
        dropped: impl IntoIterator<Item = QueuedHandshake<I>>,
        accept: &A,
    ) {
        for QueuedHandshake { address, incoming, .. } in dropped {
            incoming.ignore();
            if let Some(before) = self.log_limiter.admit(Instant::now()) {
                accept.ignored(address, before.0 + 1);
            }
        }
    }

    /// Queues a handshake or sends it a Retry. Returns the one evicted from a full queue.
    fn take(&mut self, incoming: I, now: Instant) -> Option<QueuedHandshake<I>> {
        let address = incoming.remote_address();
        if !incoming.is_validated() && self.require_address_validation(address.ip(), now) {
            incoming.retry();
            return None;
        }
        self.waiting.push(address.ip(), QueuedHandshake { address, since: now, incoming })
    }

    /// True if this client must validate its address first, or spoofers could use up its share.
    fn require_address_validation(&mut self, address: IpAddr, now: Instant) -> bool {
        let has_room = self.in_progress.active().has_room_for_unvalidated(address);
        let host = Prefix::host(address);
        !has_room || !self.waiting.is_empty() || !self.buckets.allows(host, now, false)
    }

    /// Takes the next queued handshake if it may begin; those that waited too long go to `expired`.
    fn begin(
        &mut self,
        now: Instant,
        expired: &mut Vec<QueuedHandshake<I>>,
    ) -> Option<(I, HandshakePermit)> {
        let Self { buckets, waiting, in_progress, .. } = self;
        let mut active = in_progress.active();
        while !waiting.is_empty() {
            let next = match active.is_full() {
                true => None,
                false => waiting.pop(|block| {
                    let is_within_rate =
                        block.width() != Width::Host || buckets.allows(block, now, false);
                    is_within_rate && !active.counts.is_full(block)
                }),
            };
            let Some(next) = next else {
                let wanted = waiting.hosts().into_iter().filter(|blocks| {
                    blocks.last().is_some_and(|host| buckets.allows(*host, now, false))
                });
                match active.revoke_one(wanted, now) {
                    true => continue,
                    false => return None,
                }
            };
            if next.is_expired(now) {
                expired.push(next);
                continue;
            }
            buckets.allows(Prefix::host(next.address.ip()), now, true);
            let (id, revoked) = active.add(next.address.ip(), now);
            let in_progress = in_progress.clone();
            return Some((next.incoming, HandshakePermit { in_progress, id, revoked }));
        }
        None
    }
}

/// State that permits share with the limiter.
struct InProgress {
    active: Mutex<ActiveHandshakes>,
    /// Notified when a permit was returned.
    returned: Notify,
}

impl InProgress {
    fn active(&self) -> MutexGuard<'_, ActiveHandshakes> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ActiveHandshakes {
    max: usize,
    counts: PrefixCounts,
    /// By age: the oldest has the smallest number.
    all: BTreeMap<u64, Handshake>,
    next: u64,
}

struct Handshake {
    address: IpAddr,
    since: Instant,
    /// Its permit cannot be revoked.
    is_settled: bool,
    revoked: CancellationToken,
}

impl ActiveHandshakes {
    /// Gives one address a quarter and one network half, so that it takes many networks to use all.
    fn new(max: usize) -> Self {
        let limits = PrefixLimits { host: max / 4, site: max * 3 / 8, network: max / 2 };
        Self { max, counts: PrefixCounts::new(limits), all: BTreeMap::new(), next: 0 }
    }

    fn is_full(&self) -> bool {
        self.all.len() >= self.max
    }

    fn has_room_for_unvalidated(&self, address: IpAddr) -> bool {
        self.counts.count(Prefix::host(address)) < HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX
            && self.all.len() < HANDSHAKES_UNVALIDATED_MAX
    }

    fn add(&mut self, address: IpAddr, since: Instant) -> (u64, CancellationToken) {
        let (id, revoked) = (self.next, CancellationToken::new());
        self.next += 1;
        // There is room: the caller checked its blocks under this lock.
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

    /// Revokes the permit of one handshake that is older than [`HANDSHAKE_GRACE`], for the first of
    /// these hosts that this helps. Returns whether it revoked one.
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
            match blocks.into_iter().find(|block| self.counts.is_full(*block)) {
                Some(full) => slow.iter().find(|(_, one)| full.contains(one.address)),
                // The oldest of the network that has the most.
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

/// Permits one handshake. Returned on drop unless it was revoked.
pub(crate) struct HandshakePermit {
    in_progress: Arc<InProgress>,
    id: u64,
    revoked: CancellationToken,
}

impl HandshakePermit {
    /// Waits until the permit is revoked because the handshake took long and others waited.
    pub(crate) async fn revoked(&self) {
        self.revoked.cancelled().await;
    }

    /// Makes the permit irrevocable.
    #[cfg(feature = "certs")]
    pub(crate) fn settle(&self) {
        if let Some(handshake) = self.in_progress.active().all.get_mut(&self.id) {
            handshake.is_settled = true;
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        let returned = self.in_progress.active().remove(self.id);
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

    /// Results of first packets: address, and `retry` or `ignored`.
    type Fates = Arc<Mutex<Vec<(String, &'static str)>>>;

    struct FakeIncoming {
        address: SocketAddr,
        is_validated: bool,
        fates: Fates,
    }

    impl FakeIncoming {
        fn ends(self, fate: &'static str) {
            self.fates.lock().expect("the lock").push((self.address.ip().to_string(), fate));
        }
    }

    impl Incoming for FakeIncoming {
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

    /// A limiter and the permits that it issued.
    struct LimiterFixture {
        limiter: HandshakeLimiter<FakeIncoming>,
        fates: Fates,
        permits: Vec<(String, HandshakePermit)>,
        now: Instant,
    }

    impl LimiterFixture {
        fn new(at_once: usize, burst: u32) -> Self {
            let rate = RateLimit::new(burst, SECOND / 100);
            let limiter = HandshakeLimiter::new(at_once, rate);
            Self { limiter, fates: Fates::default(), permits: vec![], now: Instant::now() }
        }

        fn arrives(&mut self, address: &str, is_validated: bool) {
            let address = SocketAddr::new(address.parse().expect("an address"), 1);
            let packet = FakeIncoming { address, is_validated, fates: self.fates.clone() };
            if let Some(dropped) = self.limiter.take(packet, self.now) {
                dropped.incoming.ignore();
            }
            self.begin();
        }

        fn validated(&mut self, address: &str, count: usize) {
            (0..count).for_each(|_| self.arrives(address, true));
        }

        fn begin(&mut self) {
            let mut expired = Vec::new();
            while let Some((packet, permit)) = self.limiter.begin(self.now, &mut expired) {
                self.permits.push((packet.address.ip().to_string(), permit));
            }
            expired.into_iter().for_each(|waiting| waiting.incoming.ignore());
        }

        fn after(&mut self, time: Duration) {
            self.now += time;
            self.begin();
        }

        /// Handshakes in progress from addresses with this prefix, without those whose permit was
        /// revoked.
        fn in_progress(&self, address: &str) -> usize {
            let of = |(of, permit): &&(String, HandshakePermit)| {
                of.starts_with(address) && !permit.revoked.is_cancelled()
            };
            self.permits.iter().filter(of).count()
        }

        /// Ends one handshake of this address.
        fn ends(&mut self, address: &str) {
            let at = self
                .permits
                .iter()
                .position(|(of, permit)| of == address && !permit.revoked.is_cancelled());
            drop(self.permits.remove(at.expect("in progress")));
            self.begin();
        }

        fn fates(&self, fate: &str) -> usize {
            self.fates.lock().expect("the lock").iter().filter(|(_, of)| *of == fate).count()
        }
    }

    #[test]
    fn an_address_holds_a_quarter_a_site_three_eighths_and_a_network_half() {
        let mut fixture = LimiterFixture::new(64, 1_000);
        fixture.validated("192.0.2.1", 40);
        assert_eq!(fixture.in_progress("192.0.2.1"), 16);
        fixture.validated("192.0.2.2", 40);
        assert_eq!(fixture.in_progress("192.0.2."), 32);
        fixture.validated("192.0.2.3", 40);
        assert_eq!(fixture.in_progress("192.0.2."), 32);
        for (address, of_all) in [
            ("2001:db8::1", 16),
            ("2001:db8:0:1::1", 24),
            ("2001:db8:0:2::1", 24),
            ("2001:db8:0:100::1", 32),
            ("2001:db8:0:200::1", 32),
        ] {
            fixture.validated(address, 20);
            assert_eq!(fixture.in_progress("2001:db8:"), of_all, "{address}");
        }
        assert_eq!((fixture.fates("ignored"), fixture.fates("retry")), (0, 0));
    }

    #[test]
    fn an_address_over_its_share_waits_and_begins_when_another_has_ended() {
        let mut fixture = LimiterFixture::new(8, 1_000);
        fixture.validated("192.0.2.1", 5);
        assert_eq!((fixture.permits.len(), fixture.limiter.waiting.len()), (2, 3));
        fixture.ends("192.0.2.1");
        assert_eq!((fixture.permits.len(), fixture.limiter.waiting.len()), (2, 2));
        for _ in 0..4 {
            fixture.ends("192.0.2.1");
        }
        assert_eq!((fixture.permits.len(), fixture.fates("ignored")), (0, 0));
        assert!(fixture.limiter.in_progress.active().counts.is_empty());
    }

    #[test]
    fn an_address_over_its_rate_waits_and_others_do_not() {
        let mut fixture = LimiterFixture::new(1_000, 3);
        fixture.validated("192.0.2.1", 5);
        fixture.validated("192.0.2.2", 3);
        assert_eq!((fixture.in_progress("192.0.2.1"), fixture.in_progress("192.0.2.2")), (3, 3));
        fixture.after(SECOND / 100);
        assert_eq!(fixture.in_progress("192.0.2.1"), 4);
        fixture.after(SECOND / 100);
        assert_eq!(fixture.in_progress("192.0.2.1"), 5);
    }

    #[test]
    fn unvalidated_addresses_are_retried_beyond_their_limits() {
        let mut fixture = LimiterFixture::new(512, 1_000);
        for n in 0..=HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX {
            assert_eq!(fixture.fates("retry"), 0, "{n}");
            fixture.arrives("192.0.2.1", false);
        }
        assert_eq!(fixture.fates("retry"), 1);
        for n in HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX..=HANDSHAKES_UNVALIDATED_MAX {
            assert_eq!(fixture.fates("retry"), 1, "{n}");
            fixture.arrives(&format!("198.51.100.{n}"), false);
        }
        assert_eq!(
            (fixture.fates("retry"), fixture.permits.len()),
            (2, HANDSHAKES_UNVALIDATED_MAX)
        );
        // It neither overtakes waiting handshakes nor exceeds its rate.
        let mut busy = LimiterFixture::new(4, 1_000);
        busy.validated("192.0.2.1", 2);
        busy.arrives("198.51.100.1", false);
        let mut fast = LimiterFixture::new(512, 1);
        fast.arrives("192.0.2.1", false);
        fast.arrives("192.0.2.1", false);
        assert_eq!((busy.fates("retry"), fast.fates("retry")), (1, 1));
    }

    #[test]
    fn a_slow_handshake_is_revoked_for_one_of_its_own_block_only() {
        let mut fixture = LimiterFixture::new(64, 1_000);
        fixture.validated("198.51.100.1", 1);
        fixture.validated("192.0.2.1", 17);
        fixture.after(HANDSHAKE_GRACE - Duration::from_millis(1));
        assert_eq!(fixture.limiter.waiting.len(), 1);
        fixture.after(Duration::from_millis(1));
        // The oldest of the block is revoked, although another handshake is older.
        assert_eq!((fixture.limiter.waiting.len(), fixture.in_progress("192.0.2.1")), (0, 16));
        assert!(fixture.permits[1].1.revoked.is_cancelled());
        assert_eq!(fixture.in_progress("198.51.100.1"), 1);
        // A revoked permit that is returned changes nothing.
        fixture.permits.remove(1);
        assert_eq!(fixture.limiter.in_progress.active().all.len(), 17);
        fixture.validated("192.0.2.1", 1);
        assert_eq!((fixture.limiter.waiting.len(), fixture.in_progress("192.0.2.1")), (0, 16));
    }

    #[test]
    fn a_full_limiter_revokes_a_permit_of_the_network_with_most() {
        let mut fixture = LimiterFixture::new(8, 1_000);
        fixture.validated("203.0.113.1", 1);
        for address in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "198.51.100.2"] {
            fixture.validated(address, 2);
        }
        assert_eq!((fixture.permits.len(), fixture.limiter.waiting.len()), (8, 1));
        fixture.after(HANDSHAKE_GRACE);
        assert_eq!(fixture.in_progress("192.0.2."), 3);
        assert_eq!((fixture.in_progress("198.51.100."), fixture.in_progress("203.0.113.")), (4, 1));
    }

    #[test]
    fn a_full_limiter_revokes_the_oldest_permit_of_a_network() {
        let mut fixture = LimiterFixture::new(8, 1_000);
        for address in ["192.0.2.1", "192.0.2.2", "198.51.100.1", "203.0.113.1"] {
            fixture.validated(address, 2);
        }
        fixture.validated("203.0.113.2", 1);
        fixture.after(HANDSHAKE_GRACE);
        let revoked = fixture.permits.iter().map(|(_, permit)| permit.revoked.is_cancelled());
        assert_eq!(revoked.collect::<Vec<_>>(), std::array::from_fn::<_, 9, _>(|n| n == 0));
    }

    #[test]
    fn a_settled_handshake_is_never_revoked() {
        let mut fixture = LimiterFixture::new(4, 1_000);
        fixture.validated("192.0.2.1", 1);
        fixture.permits[0].1.settle();
        fixture.after(10 * SECOND);
        fixture.validated("192.0.2.1", 1);
        fixture.after(HANDSHAKE_GRACE);
        assert_eq!((fixture.limiter.waiting.len(), fixture.permits.len()), (1, 1));
    }

    #[test]
    fn a_handshake_that_waited_too_long_is_ignored() {
        let mut fixture = LimiterFixture::new(4, 1_000);
        fixture.validated("192.0.2.1", 1);
        fixture.permits[0].1.settle();
        fixture.validated("192.0.2.1", 1);
        fixture.now += HANDSHAKE_TURN_WAIT_MAX - Duration::from_millis(1);
        fixture.validated("198.51.100.1", 1);
        fixture.now += Duration::from_millis(1);
        fixture.ends("192.0.2.1");
        assert_eq!((fixture.fates("ignored"), fixture.in_progress("198.51.100.1")), (1, 1));
    }

    #[test]
    fn a_crowd_does_not_delay_another_network() {
        let mut fixture = LimiterFixture::new(8, 10_000);
        for n in 0..HANDSHAKES_WAITING_MAX + 100 {
            fixture.validated(&format!("2001:db8:0:{n:x}::1"), 1);
        }
        // The queue is full and has evicted the oldest of the crowd.
        assert_eq!(fixture.fates("ignored"), 100 - 4);
        fixture.validated("192.0.2.1", 1);
        assert_eq!(fixture.in_progress("192.0.2.1"), 1, "half of all is left to other networks");
        fixture.validated("192.0.2.1", 2);
        fixture.validated("198.51.100.1", 2);
        fixture.validated("203.0.113.1", 1);
        // All permits are in use; the next ones that are returned go to the networks in turns.
        assert!(fixture.limiter.in_progress.active().is_full());
        fixture.ends("192.0.2.1");
        assert_eq!(fixture.in_progress("203.0.113.1") + fixture.in_progress("192.0.2.1"), 2);
    }
}
