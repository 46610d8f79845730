//! Flows over one bottleneck, event by event: a queue that drops what does not fit, random losses,
//! and a pacer as quinn's.

use super::{INITIAL_WINDOW_BYTES, model::Model};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::{Duration, Instant},
};

const PACKET: u64 = 1_200;
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Path {
    mbit: f64,
    /// Round-trip time without a queue.
    rtt_ms: u64,
    loss: f64,
    /// Size of the queue, in bandwidth-delay products.
    queue: f64,
}

impl Path {
    fn bytes_per_second(self) -> f64 {
        self.mbit * 1e6 / 8.0
    }

    fn bytes(self) -> f64 {
        self.bytes_per_second() * self.rtt_ms as f64 / 1e3
    }
}

enum Sender {
    Model(Box<Model>),
    /// Halves its window at each round trip with a loss, as Reno.
    Halving {
        window: f64,
        reduced_at: Instant,
    },
}

struct Flow {
    sender: Sender,
    /// The program has at most this many bytes in flight.
    program_max: u64,
    next: u64,
    in_flight: u64,
    unacked: BTreeMap<u64, Instant>,
    tokens: f64,
    refilled_at: Instant,
    srtt: Duration,
    delivered: u64,
    dropped: u64,
    rtt_sum: Duration,
    acks: u32,
}

impl Flow {
    fn new(now: Instant, sender: Sender) -> Self {
        Self {
            sender,
            program_max: u64::MAX,
            next: 0,
            in_flight: 0,
            unacked: BTreeMap::new(),
            tokens: 0.0,
            refilled_at: now,
            srtt: Duration::from_millis(333),
            delivered: 0,
            dropped: 0,
            rtt_sum: Duration::ZERO,
            acks: 0,
        }
    }

    fn window(&self) -> u64 {
        match &self.sender {
            Sender::Model(model) => model.window(),
            Sender::Halving { window, .. } => *window as u64,
        }
    }

    fn mean_rtt(&self) -> Duration {
        self.rtt_sum / self.acks.max(1)
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Acked { flow: usize, packet: u64 },
    MaySend { flow: usize },
}

struct World {
    path: Path,
    now: Instant,
    free_at: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Step)>>,
    order: u64,
    flows: Vec<Flow>,
    random: u64,
}

impl World {
    fn new(path: Path) -> Self {
        let now = Instant::now();
        Self {
            path,
            now,
            free_at: now,
            events: BinaryHeap::new(),
            order: 0,
            flows: Vec::new(),
            random: 7,
        }
    }

    /// A world with one flow that always has something to send.
    fn with_model(path: Path) -> Self {
        let mut world = Self::new(path);
        world.add_model();
        world
    }

    fn add_model(&mut self) -> usize {
        let model = Model::new(self.now, INITIAL_WINDOW_BYTES, PACKET);
        self.add(Sender::Model(Box::new(model)))
    }

    fn add(&mut self, sender: Sender) -> usize {
        self.flows.push(Flow::new(self.now, sender));
        let flow = self.flows.len() - 1;
        self.schedule(self.now, Step::MaySend { flow });
        flow
    }

    fn schedule(&mut self, at: Instant, event: Step) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Runs for a while with fresh counts.
    fn run(&mut self, length: Duration) {
        for flow in &mut self.flows {
            (flow.delivered, flow.dropped, flow.acks, flow.rtt_sum) = (0, 0, 0, Duration::ZERO);
        }
        let end = self.now + length;
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > end {
                self.schedule(at, event);
                break;
            }
            self.now = at;
            match event {
                Step::Acked { flow, packet } => {
                    self.acked(flow, packet);
                    self.send(flow);
                }
                Step::MaySend { flow } => self.send(flow),
            }
        }
        self.now = end;
    }

    fn send(&mut self, index: usize) {
        loop {
            let (now, path) = (self.now, self.path);
            let flow = &mut self.flows[index];
            let window = flow.window();
            if flow.in_flight + PACKET > window.min(flow.program_max) {
                return;
            }
            let capacity = (window as f64 * 0.002 / flow.srtt.as_secs_f64())
                .clamp((10 * PACKET) as f64, (256 * PACKET) as f64);
            let per_second = 1.25 * window as f64 / flow.srtt.as_secs_f64();
            let refill = (now - flow.refilled_at).as_secs_f64() * per_second;
            (flow.tokens, flow.refilled_at) = ((flow.tokens + refill).min(capacity), now);
            if flow.tokens < PACKET as f64 {
                let wait = Duration::from_secs_f64((capacity - flow.tokens) / per_second);
                return self.schedule(now + wait, Step::MaySend { flow: index });
            }
            flow.tokens -= PACKET as f64;
            let packet = flow.next;
            flow.next += 1;
            flow.in_flight += PACKET;
            flow.unacked.insert(packet, now);
            if let Sender::Model(model) = &mut flow.sender {
                model.sent(now, PACKET);
            }
            if self.chance() < path.loss {
                continue;
            }
            self.free_at = self.free_at.max(now);
            let waiting = (self.free_at - now).as_secs_f64() * path.bytes_per_second();
            if waiting + PACKET as f64 > (path.queue * path.bytes()).max(3.0 * PACKET as f64) {
                self.flows[index].dropped += 1;
                continue;
            }
            self.free_at += Duration::from_secs_f64(PACKET as f64 / path.bytes_per_second());
            let back = self.free_at + Duration::from_millis(path.rtt_ms);
            self.schedule(back, Step::Acked { flow: index, packet });
        }
    }

    fn acked(&mut self, index: usize, packet: u64) {
        let (now, flow) = (self.now, &mut self.flows[index]);
        let Some(sent_at) = flow.unacked.remove(&packet) else { return };
        let rtt = now - sent_at;
        flow.srtt = if flow.acks == 0 { rtt } else { (flow.srtt * 7 + rtt) / 8 };
        (flow.rtt_sum, flow.acks) = (flow.rtt_sum + rtt, flow.acks + 1);
        (flow.in_flight, flow.delivered) = (flow.in_flight - PACKET, flow.delivered + PACKET);
        let kept = flow.unacked.split_off(&packet.saturating_sub(2));
        let lost = std::mem::replace(&mut flow.unacked, kept).len() as u64 * PACKET;
        flow.in_flight -= lost;
        let is_limited =
            flow.in_flight + PACKET > flow.program_max && flow.program_max < flow.window();
        match &mut flow.sender {
            Sender::Model(model) => {
                model.acked(now, sent_at, PACKET);
                if lost > 0 {
                    model.lost(lost);
                }
                model.end_acks(now, flow.in_flight, is_limited);
            }
            Sender::Halving { window, reduced_at } => {
                if lost > 0 && sent_at > *reduced_at {
                    (*window, *reduced_at) = ((*window / 2.0).max(4.0 * PACKET as f64), now);
                } else if lost == 0 {
                    *window += PACKET as f64 * PACKET as f64 / *window;
                }
            }
        }
    }

    /// Part of the path that a flow used in the last run.
    fn share(&self, flow: usize, of: Duration) -> f64 {
        self.flows[flow].delivered as f64 / (self.path.bytes_per_second() * of.as_secs_f64())
    }
}

const LONG: Path = Path { mbit: 20.0, rtt_ms: 40, loss: 0.01, queue: 1.0 };

/// Returns the part of the path that its only flow uses, and the part of its packets that the queue
/// drops, once it has started.
fn settled(world: &mut World) -> (f64, f64) {
    world.run(5 * SECOND);
    world.run(5 * SECOND);
    let flow = &world.flows[0];
    (world.share(0, 5 * SECOND), flow.dropped as f64 * PACKET as f64 / flow.delivered as f64)
}

#[test]
fn a_flow_fills_its_path_in_spite_of_random_losses_and_leaves_the_queue_nearly_empty() {
    for rtt_ms in [20, 40, 200] {
        for loss in [0.0, 0.001, 0.03] {
            for queue in [0.5, 4.0] {
                let path = Path { rtt_ms, loss, queue, ..LONG };
                let mut world = World::with_model(path);
                let (share, dropped) = settled(&mut world);
                let stretch = world.flows[0].mean_rtt().as_secs_f64() * 1e3 / rtt_ms as f64;
                assert!(share / (1.0 - loss) > 0.9, "{path:?}: {share:.2}");
                assert!(dropped < 0.001 && stretch < 1.2, "{path:?}: {dropped:.3}, {stretch:.2}");
            }
        }
    }
}

#[test]
fn a_flow_on_a_path_with_hardly_a_queue_fills_most_of_it() {
    for rtt_ms in [20, 80] {
        let (share, dropped) =
            settled(&mut World::with_model(Path { queue: 0.05, rtt_ms, ..LONG }));
        assert!(share > 0.8 && dropped < 0.08, "{rtt_ms}: {share:.2}, {dropped:.3}");
    }
}

#[test]
fn a_flow_has_found_the_rate_of_its_path_after_twenty_round_trips() {
    for (rtt_ms, queue) in [(20, 0.5), (40, 1.0), (200, 4.0)] {
        let mut world = World::with_model(Path { rtt_ms, queue, ..LONG });
        let trips = Duration::from_millis(20 * rtt_ms);
        world.run(trips);
        world.run(trips);
        assert!(world.share(0, trips) > 0.9, "{rtt_ms}: {:.2}", world.share(0, trips));
    }
}

#[test]
fn a_flow_follows_a_rate_that_changes() {
    let mut world = World::with_model(LONG);
    for mbit in [20.0, 2.0, 20.0] {
        world.path.mbit = mbit;
        let (share, dropped) = settled(&mut world);
        assert!(share > 0.8 && dropped < 0.1, "{mbit}: {share:.2}, {dropped:.3}");
    }
}

#[test]
fn flows_share_a_path() {
    for queue in [0.5, 2.0] {
        let mut world = World::with_model(Path { queue, ..LONG });
        world.run(5 * SECOND);
        let late = world.add_model();
        world.run(10 * SECOND);
        world.run(20 * SECOND);
        let shares = [world.share(0, 20 * SECOND), world.share(late, 20 * SECOND)];
        assert!(shares.iter().all(|share| *share > 0.2), "{queue}: {shares:.2?}");
    }
}

#[test]
fn a_flow_shares_a_path_with_one_that_fills_the_queue() {
    for queue in [0.5, 1.0, 3.0] {
        let mut world = World::with_model(Path { loss: 0.0, queue, ..LONG });
        let now = world.now;
        let other = world.add(Sender::Halving { window: 40_000.0, reduced_at: now });
        world.run(10 * SECOND);
        world.run(20 * SECOND);
        let shares = [world.share(0, 20 * SECOND), world.share(other, 20 * SECOND)];
        assert!(shares.iter().all(|share| *share > 0.2), "{queue}: {shares:.2?}");
    }
}

#[test]
fn the_window_does_not_bound_a_program_that_fills_half_of_the_path() {
    let mut world = World::with_model(LONG);
    world.flows[0].program_max = (LONG.bytes() / 2.0) as u64;
    let (share, _) = settled(&mut world);
    assert!(share > 0.47, "{share}");
}

#[test]
fn a_path_that_delivers_nothing_starts_again_with_four_packets() {
    let mut world = World::with_model(LONG);
    world.run(SECOND);
    let Sender::Model(model) = &mut world.flows[0].sender else { unreachable!() };
    assert!(model.window() > 8 * PACKET);
    model.restart(world.now);
    assert_eq!(model.window(), 4 * PACKET);
    assert!(settled(&mut world).0 > 0.9);
}
