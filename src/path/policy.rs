//! Decides when a link of the dialling side changes its path. Takes the time and chance as
//! arguments; acts on nothing.

use std::time::Duration;
use tokio::time::Instant;

/// A link by UDP without an acknowledgement for this long is asked for one.
const ASK_AFTER: Duration = Duration::from_millis(1_500);

/// It moves to a tunnel after this: well before an idle timeout, and after the gaps that Wi-Fi and
/// mobile networks make.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// A link that has left its tunnel is on trial for this long: then a path that is gone again is
/// noticed in half of the time.
const TRIAL: Duration = Duration::from_secs(15);

/// The first probe of UDP after a move to a tunnel, and the longest time between two.
const PROBE_FIRST: Duration = Duration::from_secs(5);
const PROBE_MAX: Duration = Duration::from_secs(30);

/// A link that stayed on UDP for this long has a path that works; one that did not counts as
/// flapping, and its next probe is later.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// The first wait before a tunnel is opened again, and the longest.
const REOPEN_FIRST: Duration = Duration::from_millis(500);
const REOPEN_MAX: Duration = Duration::from_secs(15);

/// What QUIC has counted on a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Acknowledgements that came.
    pub(crate) acks: u64,
    /// Datagrams that were sent.
    pub(crate) sent: u64,
}

/// The next thing to do for a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathAction {
    /// Ask the peer for an acknowledgement; the path may have to change soon.
    Ask,
    /// Open a tunnel for this reason, and send through it. Reported by [`PathPolicy::on_tunnel`].
    OpenTunnel(TunnelReason),
    /// Probe UDP, and send by it if that works. Reported by [`PathPolicy::on_udp`].
    ProbeUdp,
}

/// The reason why a link needs a tunnel, or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TunnelReason {
    /// Nothing was acknowledged for a while on the present path.
    Silent,
    /// The tunnel in use has ended.
    Ended,
    /// The network has changed below the tunnel in use.
    NetworkChanged,
}

/// The state of one link's path.
#[derive(Debug)]
pub(crate) struct PathPolicy {
    traffic: Traffic,
    /// When a datagram was first seen to be without an acknowledgement.
    unanswered_since: Option<Instant>,
    has_asked: bool,
    is_tunnel: bool,
    /// The link came to UDP at this time.
    udp_since: Instant,
    trial_until: Option<Instant>,
    probe_at: Instant,
    probe_wait: Duration,
    /// The tunnel is to be replaced, because the network has changed.
    wants_tunnel: bool,
    reopen_at: Option<Instant>,
    reopen_wait: Duration,
}

impl PathPolicy {
    pub(crate) fn new(now: Instant, is_tunnel: bool, chance: f64) -> Self {
        let mut policy = Self {
            traffic: Traffic::default(),
            unanswered_since: None,
            has_asked: false,
            is_tunnel,
            udp_since: now,
            trial_until: None,
            probe_at: now,
            probe_wait: PROBE_FIRST,
            wants_tunnel: false,
            reopen_at: None,
            reopen_wait: REOPEN_FIRST,
        };
        policy.plan_probe(now, chance);
        policy
    }

    /// Returns what to do now. Called a few times a second.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        traffic: Traffic,
        is_tunnel_lost: bool,
    ) -> Option<PathAction> {
        let before = std::mem::replace(&mut self.traffic, traffic);
        if traffic.acks != before.acks {
            (self.unanswered_since, self.has_asked) = (None, false);
            if !self.is_tunnel {
                (self.reopen_at, self.reopen_wait) = (None, REOPEN_FIRST);
            }
        } else if traffic.sent != before.sent {
            self.unanswered_since.get_or_insert(now);
        }
        let silent = self.unanswered_since.map_or(Duration::ZERO, |since| now - since);
        let divisor = if self.is_on_trial(now) { 2 } else { 1 };
        let [ask_after, silent_after] = [ASK_AFTER, SILENT_AFTER].map(|wait| wait / divisor);
        let needs_tunnel = match (is_tunnel_lost, silent >= silent_after) {
            (true, _) => Some(TunnelReason::Ended),
            (false, true) => Some(TunnelReason::Silent),
            (false, false) => self.wants_tunnel.then_some(TunnelReason::NetworkChanged),
        };
        if let Some(reason) = needs_tunnel
            && self.reopen_at.is_none_or(|at| now >= at)
        {
            return Some(PathAction::OpenTunnel(reason));
        }
        if self.is_tunnel && now >= self.probe_at {
            return Some(PathAction::ProbeUdp);
        }
        let asks = silent >= ask_after && !self.has_asked;
        self.has_asked |= asks;
        asks.then_some(PathAction::Ask)
    }

    /// Returns true if the link has just come from a tunnel to UDP.
    pub(crate) fn is_on_trial(&self, now: Instant) -> bool {
        !self.is_tunnel && self.trial_until.is_some_and(|until| now < until)
    }

    /// Returns true if something has been without an acknowledgement for a while.
    pub(crate) fn is_silent(&self) -> bool {
        self.has_asked
    }

    /// The network has changed: a tunnel in use is replaced by a new one.
    pub(crate) fn renew_tunnel(&mut self) {
        self.wants_tunnel = self.is_tunnel;
    }

    /// A tunnel was opened, and the link uses it.
    pub(crate) fn on_tunnel(&mut self, now: Instant, chance: f64) {
        if !std::mem::replace(&mut self.is_tunnel, true) {
            let was_stable = now.saturating_duration_since(self.udp_since) >= STABLE_AFTER;
            self.probe_wait =
                if was_stable { PROBE_FIRST } else { (self.probe_wait * 2).min(PROBE_MAX) };
            self.plan_probe(now, chance);
        }
        (self.wants_tunnel, self.reopen_at, self.reopen_wait) = (false, None, REOPEN_FIRST);
        (self.unanswered_since, self.has_asked) = (None, false);
    }

    /// A tunnel could not be opened; after a refusal the next attempt is late. Returns true if it
    /// was the first time in a row.
    pub(crate) fn no_tunnel(&mut self, now: Instant, chance: f64, is_refusal: bool) -> bool {
        if is_refusal {
            self.reopen_wait = REOPEN_MAX;
        }
        let is_first = self.reopen_at.is_none();
        // There is no path at all: UDP is worth a look.
        self.probe_at = self.probe_at.min(now + REOPEN_FIRST);
        self.reopen_at = Some(now + self.reopen_wait.mul_f64(0.5 + chance / 2.0));
        self.reopen_wait = (self.reopen_wait * 2).min(REOPEN_MAX);
        is_first
    }

    /// UDP was probed and works, and the link uses it.
    pub(crate) fn on_udp(&mut self, now: Instant) {
        (self.is_tunnel, self.wants_tunnel) = (false, false);
        (self.udp_since, self.reopen_at) = (now, None);
        self.trial_until = Some(now + TRIAL);
        (self.unanswered_since, self.has_asked) = (None, false);
    }

    /// UDP was probed and does not work.
    pub(crate) fn no_udp(&mut self, now: Instant, chance: f64) {
        self.probe_wait = (self.probe_wait * 2).min(PROBE_MAX);
        self.plan_probe(now, chance);
    }

    fn plan_probe(&mut self, now: Instant, chance: f64) {
        self.probe_at = now + self.probe_wait.mul_f64(0.75 + chance / 2.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PathAction::{Ask, OpenTunnel, ProbeUdp};

    const STEP: Duration = Duration::from_millis(500);

    /// A link whose policy looks every half a second.
    struct TestLink {
        policy: PathPolicy,
        now: Instant,
        traffic: Traffic,
        is_tunnel_lost: bool,
    }

    impl TestLink {
        fn new(is_tunnel: bool) -> Self {
            let now = Instant::now();
            let policy = PathPolicy::new(now, is_tunnel, 0.5);
            Self { policy, now, traffic: Traffic::default(), is_tunnel_lost: false }
        }

        /// Sends in each step, and is answered or not. Returns what is done and when.
        fn run(&mut self, lasts: Duration, is_answered: bool) -> Vec<(Duration, PathAction)> {
            let began = self.now;
            let mut done = Vec::new();
            while self.now - began < lasts {
                self.now += STEP;
                self.traffic.sent += 1;
                self.traffic.acks += u64::from(is_answered);
                let action = self.policy.look(self.now, self.traffic, self.is_tunnel_lost);
                let Some(action) = action else { continue };
                done.push((self.now - began, action));
                match action {
                    Ask => {}
                    OpenTunnel(_) => {
                        self.is_tunnel_lost = false;
                        self.policy.on_tunnel(self.now, 0.5);
                    }
                    ProbeUdp => self.policy.no_udp(self.now, 0.5),
                }
            }
            done
        }
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_link_that_is_answered_or_silent_itself_stays_on_udp() {
        let mut link = TestLink::new(false);
        assert!(link.run(secs(60), true).is_empty());
        // It sends nothing, so nothing is to be acknowledged.
        for _ in 0..100 {
            link.now += STEP;
            assert_eq!(link.policy.look(link.now, link.traffic, false), None);
        }
    }

    #[test]
    fn a_link_without_acknowledgements_asks_and_moves_after_three_seconds() {
        let mut link = TestLink::new(false);
        link.run(secs(5), true);
        let done = link.run(secs(4), false);
        assert_eq!(done, [(secs(2), Ask), (secs(3) + STEP, OpenTunnel(TunnelReason::Silent))]);
        // One acknowledgement in time is enough.
        let mut link = TestLink::new(false);
        assert_eq!(link.run(secs(2), false), [(secs(2), Ask)]);
        assert!(link.run(STEP, true).is_empty());
        assert_eq!(link.run(secs(2), false), [(secs(2), Ask)]);
    }

    #[test]
    fn a_link_that_has_just_left_its_tunnel_moves_again_in_half_of_the_time() {
        let mut link = TestLink::new(true);
        link.policy.on_udp(link.now);
        let silent = OpenTunnel(TunnelReason::Silent);
        assert_eq!(link.run(secs(2), false), [(STEP * 3, Ask), (secs(2), silent)]);
        link.policy.on_udp(link.now);
        link.run(TRIAL, true);
        assert_eq!(link.run(secs(4), false), [(secs(2), Ask), (secs(3) + STEP, silent)]);
    }

    #[test]
    fn probes_of_udp_come_less_and_less_often_but_within_half_a_minute() {
        let mut link = TestLink::new(true);
        let at: Vec<_> = link.run(secs(100), true).iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(at, [5, 15, 35, 65, 95]);
    }

    #[test]
    fn a_path_that_flaps_is_probed_later_each_time_and_a_stable_one_soon() {
        let mut link = TestLink::new(false);
        for (on_udp, expected) in [(20, 10), (20, 20), (20, 30), (20, 30), (61, 5)] {
            link.policy.on_udp(link.now);
            link.run(secs(on_udp), true);
            link.policy.on_tunnel(link.now, 0.5);
            let moved = link.now;
            while link.policy.look(link.now, link.traffic, false) != Some(ProbeUdp) {
                link.now += STEP;
            }
            assert_eq!((link.now - moved).as_secs(), expected, "{on_udp} s on UDP");
        }
    }

    #[test]
    fn tunnels_that_failed_during_one_silence_do_not_delay_that_of_the_next() {
        let mut link = TestLink::new(false);
        for _ in 0..2 {
            link.run(secs(1), true);
            for _ in 0..7 {
                link.now += STEP;
                link.traffic.sent += 1;
                link.policy.look(link.now, link.traffic, false);
            }
            assert!(link.policy.no_tunnel(link.now, 1.0, true), "the first of this silence");
        }
    }

    #[test]
    fn a_change_of_the_network_replaces_a_tunnel_and_does_not_open_one() {
        let replaced = Some(OpenTunnel(TunnelReason::NetworkChanged));
        for (is_tunnel, expected) in [(true, replaced), (false, None)] {
            let mut link = TestLink::new(is_tunnel);
            link.policy.renew_tunnel();
            assert_eq!(link.policy.look(link.now, link.traffic, false), expected);
            link.policy.on_tunnel(link.now, 0.5);
            assert_eq!(link.policy.look(link.now, link.traffic, false), None, "once");
        }
    }

    #[test]
    fn a_tunnel_that_breaks_is_opened_again_and_one_that_cannot_is_tried_less_often() {
        let mut link = TestLink::new(true);
        link.is_tunnel_lost = true;
        assert_eq!(link.run(STEP, true), [(STEP, OpenTunnel(TunnelReason::Ended))]);
        link.is_tunnel_lost = true;
        let (mut failed, began) = (Vec::new(), link.now);
        while link.now - began < secs(60) {
            link.now += STEP;
            if let Some(OpenTunnel(_)) = link.policy.look(link.now, link.traffic, true) {
                failed.push((link.now - began).as_secs());
                assert_eq!(link.policy.no_tunnel(link.now, 1.0, false), failed.len() == 1);
            }
        }
        assert_eq!(failed, [0, 1, 2, 4, 8, 16, 31, 46]);
    }
}
