//! Floods by unauthenticated clients: first packets from many addresses whose handshakes never
//! continue, garbage, and handshakes of one address that stall. Calls continue, an honest agent
//! gets a link, and no address gets back more than three times what it sent.

use crate::{
    raw_peer::{InitialFactory, InitialKind, Issuer, LongHeader, RawLink, soon},
    world::{
        Memory, Stage, World, attached, logged, run_in_own_process, seed, spawn, take_turn, until,
    },
};
use dialback::{ALPN, Callee, Node, limits::HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Source addresses: so many that none exceeds its rate.
const SOURCES: u8 = 250;

/// Of eight packets: mostly stalled handshakes, and some of everything else.
const MIX: [InitialKind; 8] = [
    InitialKind::StalledHello,
    InitialKind::StalledHello,
    InitialKind::NotTls,
    InitialKind::StalledHello,
    InitialKind::RandomBytes,
    InitialKind::StalledHello,
    InitialKind::Damaged,
    InitialKind::StalledHello,
];

/// The traffic in each direction between the clients and the node.
#[derive(Debug, Default)]
struct Traffic {
    packets: AtomicU64,
    sent: AtomicU64,
    answered: AtomicU64,
    /// Retry packets, with which the node validates an address.
    retries: AtomicU64,
    is_over: AtomicBool,
}

impl Traffic {
    fn get(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// A socket of this address.
fn open(address: [u8; 4]) -> UdpSocket {
    UdpSocket::bind(SocketAddr::from((address, 0))).expect("a socket")
}

/// A thread that sends packets at a rate until it is dropped.
struct Flood {
    traffic: Arc<Traffic>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    /// The packets are built in advance: building one costs more than refusing it.
    fn start(to: SocketAddr, packets: Vec<Vec<u8>>, per_second: u32) -> Self {
        let traffic = Arc::<Traffic>::default();
        let shared = traffic.clone();
        let thread = thread::spawn(move || send(&shared, to, &packets, per_second));
        Self { traffic, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.traffic.is_over.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

fn send(traffic: &Traffic, to: SocketAddr, packets: &[Vec<u8>], per_second: u32) {
    let sockets: Vec<UdpSocket> = (1..=SOURCES)
        .map(|n| {
            let socket = open([127, 9, n, 1]);
            socket.set_nonblocking(true).expect("set");
            socket
        })
        .collect();
    let began = Instant::now();
    for (n, packet) in packets.iter().cycle().enumerate() {
        let due = began + Duration::from_secs(1) * n as u32 / per_second;
        while Instant::now() < due {
            if traffic.is_over.load(Ordering::Relaxed) {
                return;
            }
            thread::park_timeout(Duration::from_micros(500));
        }
        let socket = &sockets[n % sockets.len()];
        if socket.send_to(packet, to).is_ok() {
            traffic.packets.fetch_add(1, Ordering::Relaxed);
            traffic.sent.fetch_add(packet.len() as u64, Ordering::Relaxed);
        }
        receive(traffic, socket);
    }
}

fn receive(traffic: &Traffic, socket: &UdpSocket) {
    let mut buffer = [0; 2_048];
    while let Ok(bytes) = socket.recv(&mut buffer) {
        traffic.answered.fetch_add(bytes as u64, Ordering::Relaxed);
        // A long header of the type Retry.
        if buffer[0] & 0xf0 == 0xf0 {
            traffic.retries.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Makes calls one after the other until it is stopped; returns the duration of each.
async fn call_on(
    callee: &Callee,
    name: &str,
    mut is_enough: impl FnMut(usize) -> bool,
) -> Vec<Duration> {
    let mut took = Vec::new();
    while !is_enough(took.len()) {
        let began = Instant::now();
        let id = format!("{name}-{}", took.len());
        let called = callee.call::<String>("Stage/Note", &id).await;
        assert_eq!(called.as_ref(), Ok(&id), "after {:?}", began.elapsed());
        took.push(began.elapsed());
    }
    took.sort();
    took
}

fn p99(took: &[Duration]) -> Duration {
    took[took.len() * 99 / 100]
}

/// Floods a node for this long; an honest link is called all the while, and another agent links in
/// the middle of it.
async fn check_flood(per_second: u32, lasts: Duration, packets: usize) {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let _agent = attached(world.agent("warehouse", at).serve(stage.service())).await;
    let caller = world.caller("ops", at).connect().await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let tls = world.credentials("caller/ops").dialling_config(ALPN).expect("TLS");
    let mut initials = InitialFactory::new(&tls, seed());
    let packets = (0..packets).map(|n| initials.datagram(MIX[n % MIX.len()])).collect();

    let before = call_on(&callee, "before", |calls| calls == 500).await;
    let (memory, began) = (Memory::measure(), Instant::now());
    let flood = Flood::start(at, packets, per_second);
    until("the node requires address validation", || Traffic::get(&flood.traffic.retries) > 0)
        .await;
    let called = callee.clone();
    let during = spawn(async move {
        call_on(&called, "during", |calls| calls >= 100 && began.elapsed() >= lasts).await
    });
    let started_at = Instant::now();
    let _late = attached(world.agent("late", at).serve(stage.service())).await;
    let joined = started_at.elapsed();
    let during = during.await;
    let (took, traffic) = (began.elapsed(), flood.traffic.clone());
    memory.expect_growth(64 * 1024, u64::MAX);
    drop(flood);
    let [count, sent, answered, retries] =
        [&traffic.packets, &traffic.sent, &traffic.answered, &traffic.retries].map(Traffic::get);
    println!(
        "{count} packets in {took:?} ({:.0} a second), {sent} bytes, {answered} back, {retries} retries\n\
         calls before: {}, p99 {:?}; during: {}, p99 {:?}, the longest {:?}\n\
         an honest agent joined after {joined:?}",
        count as f64 / took.as_secs_f64(),
        before.len(),
        p99(&before),
        during.len(),
        p99(&during),
        during.last().expect("a call"),
    );
    assert!(joined < Duration::from_secs(10), "an honest agent joined after {joined:?}");
    assert!(answered <= 3 * sent, "{answered} bytes for {sent}");
    assert_eq!(stage.all_runs(), before.len() + during.len(), "each call ran once");
    assert_eq!(node.agents().len(), 2, "an unauthenticated client is in the registry");
}

#[test]
fn a_handshake_flood_delays_neither_calls_nor_an_honest_agent() {
    let name =
        "hostile::unauthenticated::a_handshake_flood_delays_neither_calls_nor_an_honest_agent";
    run_in_own_process(name, check_flood(1_000, Duration::from_millis(1_500), 4_000));
}

#[test]
#[ignore = "the long form; `make test-long` runs it"]
fn five_thousand_handshakes_a_second_delay_neither_calls_nor_an_honest_agent() {
    let name = "hostile::unauthenticated::five_thousand_handshakes_a_second_delay_neither_calls_nor_an_honest_agent";
    // Each repeats after eight seconds, when its handshake was given up.
    run_in_own_process(name, check_flood(5_000, Duration::from_secs(20), 40_000));
}

/// Forwards the packets of a dialler and drops the answers: the address is never validated.
struct ReplyDropper {
    at: SocketAddr,
    outside: SocketAddr,
    traffic: Arc<Traffic>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ReplyDropper {
    fn start(to: SocketAddr) -> Self {
        let [inside, outside] = [[127, 0, 0, 1], [127, 8, 0, 1]].map(|address| {
            let socket = open(address);
            socket.set_read_timeout(Some(Duration::from_millis(5))).expect("set");
            socket
        });
        let [at, own] = [&inside, &outside].map(|socket| socket.local_addr().expect("an address"));
        let (traffic, mut buffer) = (Arc::<Traffic>::default(), [0; 2_048]);
        let shared = traffic.clone();
        let thread = thread::spawn(move || {
            while !shared.is_over.load(Ordering::Relaxed) {
                if let Ok(bytes) = inside.recv(&mut buffer) {
                    shared.sent.fetch_add(bytes as u64, Ordering::Relaxed);
                    outside.send_to(&buffer[..bytes], to).expect("sent");
                }
                receive(&shared, &outside);
            }
        });
        Self { at, outside: own, traffic, thread: Some(thread) }
    }
}

impl Drop for ReplyDropper {
    fn drop(&mut self) {
        self.traffic.is_over.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(thread::JoinHandle::join));
    }
}

/// Dials through the reply dropper until it is dropped.
fn dial_unanswered(issuer: &Issuer, to: SocketAddr) -> crate::world::Background<()> {
    let credentials = issuer.credentials("caller/raw");
    spawn(async move { drop(RawLink::dial(to, &credentials).await) })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unvalidated_address_gets_at_most_three_times_what_it_sent() {
    // Creating a world starts the log recorder.
    let (_world, issuer) = (World::new(), Issuer::new());
    let node = Node::builder(issuer.credentials("node/edge-1")).listen("127.0.0.1:0");
    let node = node.start().await.expect("a node");
    let reply_dropper = ReplyDropper::start(node.local_addr());
    let dial = dial_unanswered(&issuer, reply_dropper.at);
    // The node has retransmitted as long as it does.
    logged(&[&format!("refused link from {}", reply_dropper.outside), "did not end in time"]).await;
    drop(dial);
    let [sent, answered] =
        [&reply_dropper.traffic.sent, &reply_dropper.traffic.answered].map(Traffic::get);
    println!("{sent} bytes sent, {answered} answered");
    assert!(answered > 2 * 1_200, "the node did not try to send its certificate: {answered}");
    assert!(answered <= 3 * sent, "{answered} bytes for {sent}");
}

/// One address that stalls many handshakes, and answers a Retry if it validates.
struct Staller {
    socket: UdpSocket,
    initials: InitialFactory,
    to: SocketAddr,
    /// Handshakes that the node has accepted, by our connection ids.
    taken_up: BTreeSet<Vec<u8>>,
    asked_to_prove: usize,
}

impl Staller {
    fn start(from: [u8; 4], to: SocketAddr, initials: InitialFactory) -> Self {
        let socket = open(from);
        socket.set_nonblocking(true).expect("set");
        Self { socket, initials, to, taken_up: BTreeSet::new(), asked_to_prove: 0 }
    }

    fn begin(&mut self, handshakes: u64) {
        self.begin_from(0, handshakes);
    }

    fn begin_from(&mut self, first: u64, handshakes: u64) {
        for n in first..first + handshakes {
            let packet = self.initials.stalled(n.to_be_bytes(), None);
            self.socket.send_to(&packet, self.to).expect("sent");
        }
    }

    /// Reads the received packets, and answers each Retry if it validates.
    fn read(&mut self, proves: bool) {
        let mut buffer = [0; 2_048];
        while let Ok(bytes) = self.socket.recv(&mut buffer) {
            let Some(answer) = LongHeader::read(&buffer[..bytes]) else { continue };
            if !answer.is_retry {
                self.taken_up.insert(answer.to);
                continue;
            }
            self.asked_to_prove += 1;
            if proves {
                let own = answer.to.as_slice().try_into().expect("our connection id");
                let packet = self.initials.stalled(own, Some(&answer));
                self.socket.send_to(&packet, self.to).expect("sent");
            }
        }
    }
}

/// Handshakes that one address begins at once: more than allowed without validation, and no more
/// than the socket of an idle node buffers.
const BEGUN: usize = 60;

/// Without validation.
const UNVALIDATED: usize = HANDSHAKES_UNVALIDATED_PER_ADDRESS_MAX;

/// A node, and one address that stalls many handshakes there.
async fn check_address_limit(proves: bool, taken_up: usize, address: [u8; 4]) {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let tls = world.credentials("caller/ops").dialling_config(ALPN).expect("TLS");
    let mut staller = Staller::start(address, at, InitialFactory::new(&tls, seed()));
    staller.begin(BEGUN as u64);
    until("the address is at its limit and must validate for the rest", || {
        staller.read(proves);
        (staller.taken_up.len(), staller.asked_to_prove) == (taken_up, BEGUN - UNVALIDATED)
    })
    .await;
    // Another address is accepted, and sooner than the five seconds of a handshake; earlier packets
    // have been handled by then.
    let started_at = Instant::now();
    let _agent = attached(world.agent("warehouse", at).serve(stage.service())).await;
    assert!(
        started_at.elapsed() < Duration::from_secs(3),
        "it waited for {:?}",
        started_at.elapsed()
    );
    soon("a caller is accepted", world.caller("ops", at).connect()).await.expect("a caller");
    staller.read(false);
    assert_eq!(staller.taken_up.len(), taken_up, "more than its limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unvalidated_address_gets_half_of_its_limit_and_delays_no_other() {
    check_address_limit(false, UNVALIDATED, [127, 8, 0, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validated_address_gets_its_whole_limit_and_delays_no_other() {
    check_address_limit(true, BEGUN, [127, 8, 0, 3]).await;
}

/// Stalls this many handshakes a second, of each address in turn, until it is stopped. Counts the
/// accepted ones.
fn stall(
    mut stallers: Vec<Staller>,
    handshakes: usize,
    taken_up: &AtomicU64,
    is_over: &AtomicBool,
) {
    let (began, each) = (Instant::now(), handshakes as f64 / stallers.len() as f64);
    let mut begun = 0;
    while !is_over.load(Ordering::Relaxed) {
        let wanted = (each * began.elapsed().as_secs_f64()) as usize;
        // No more at once than the socket of a node buffers.
        let count = wanted.saturating_sub(begun).min(1);
        for staller in &mut stallers {
            staller.begin_from(begun as u64, count as u64);
            staller.read(true);
        }
        begun += count;
        let count = stallers.iter().map(|staller| staller.taken_up.len() as u64).sum();
        taken_up.store(count, Ordering::Relaxed);
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// The time that honest agents take to link, one after the other, next to this many stalled
/// handshakes a second, after this many were accepted.
async fn join_during_flood(
    addresses: &[[u8; 4]],
    handshakes: usize,
    taken_up_before: u64,
) -> Vec<Duration> {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let at = node.local_addr();
    let tls = world.credentials("caller/ops").dialling_config(ALPN).expect("TLS");
    let start = |(n, address): (u64, &[u8; 4])| {
        Staller::start(*address, at, InitialFactory::new(&tls, seed() + n))
    };
    let stallers = (0..).zip(addresses).map(start).collect();
    let (taken_up, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let (taken, over) = (taken_up.clone(), is_over.clone());
    let stalling = thread::spawn(move || stall(stallers, handshakes, &taken, &over));
    until("handshakes stall", || taken_up.load(Ordering::Relaxed) >= taken_up_before).await;
    let mut joined = Vec::new();
    for n in 0..5 {
        let started_at = Instant::now();
        let agent = world.agent(&format!("honest-{n}"), at).serve(stage.service());
        drop(attached(agent).await);
        joined.push(started_at.elapsed());
    }
    is_over.store(true, Ordering::Relaxed);
    stalling.join().expect("no panic");
    let taken_up = taken_up.load(Ordering::Relaxed);
    println!(
        "next to {handshakes} stalled a second ({taken_up} accepted) agents linked after {joined:?}"
    );
    joined
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_agent_links_soon_while_many_networks_stall_handshakes() {
    let _turn = take_turn().await;
    let addresses: Vec<_> = (0..16).map(|n| [127, 40, n, 1]).collect();
    // The last case: more than the limit in progress, so that some have been evicted.
    for (handshakes, taken_up) in [(8, 8), (64, 64), (512, 120), (640, 600)] {
        let addresses = &addresses[..handshakes.min(16)];
        let joined = join_during_flood(addresses, handshakes, taken_up).await;
        // A first packet that a busy machine loses is repeated after 1 s and 3 s. If stalled
        // handshakes kept their slots for 5 s, the five links would take 20 s and more.
        let all: Duration = joined.iter().sum();
        assert!(all < Duration::from_secs(12), "{joined:?}");
    }
}
