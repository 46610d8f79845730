//! The carrying of a relay: sockets, the queue of what is on its way, and the orders. What becomes
//! of a datagram is decided in `weather`.

use super::{
    Background, Order, Tally, background,
    weather::{Carried, Fate, Line, Passing, Way, Weather, fate},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};

/// Datagrams that outer sockets have received and the path has not yet looked at.
const WAITING_MAX: usize = 1_024;

async fn socket() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket"))
}

/// A socket that the node sees at another address than the one before it, where loopback has more
/// than one; at another port in any case.
async fn other_socket(rebinds: u64) -> Arc<UdpSocket> {
    let address = if rebinds % 2 == 1 { Ipv4Addr::new(127, 0, 0, 2) } else { Ipv4Addr::LOCALHOST };
    match UdpSocket::bind((address, 0)).await {
        Ok(socket) => Arc::new(socket),
        Err(_not_here) => socket().await,
    }
}

/// A datagram from the node, for one dialling party.
type FromNode = (SocketAddr, Vec<u8>);

/// The port that the node sees of one dialling party, and who listens on it.
struct Outer {
    socket: Arc<UdpSocket>,
    _listens: Background<()>,
}

impl Outer {
    fn of(socket: Arc<UdpSocket>, dialler: SocketAddr, from_node: mpsc::Sender<FromNode>) -> Self {
        let listens = background(listen(socket.clone(), dialler, from_node));
        Self { socket, _listens: listens }
    }
}

async fn listen(socket: Arc<UdpSocket>, dialler: SocketAddr, from_node: mpsc::Sender<FromNode>) {
    let mut bytes = vec![0; 65_536];
    loop {
        // An error is the news that a datagram of ours was refused: the node is not there now.
        if let Ok((count, _)) = socket.recv_from(&mut bytes).await
            && from_node.send((dialler, bytes[..count].to_vec())).await.is_err()
        {
            return;
        }
    }
}

/// A datagram that leaves later. Ordered by when, then by which came first.
type Leaving = Reverse<(Instant, u64, Parcel)>;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parcel {
    way: u8,
    dialler: SocketAddr,
    bytes: Vec<u8>,
}

/// The path. One task owns it.
pub(super) struct Path {
    near: Arc<UdpSocket>,
    node: SocketAddr,
    outers: HashMap<SocketAddr, Outer>,
    from_node: (mpsc::Sender<FromNode>, mpsc::Receiver<FromNode>),
    weather: [Weather; 2],
    lines: [Line; 2],
    numbers: [u64; 2],
    seed: u64,
    laid_at: Instant,
    leaving: BinaryHeap<Leaving>,
    sequence: u64,
    is_cut: bool,
    rebinds: Option<Interval>,
    tally: Arc<Tally>,
}

impl Path {
    pub(super) async fn lay(
        node: SocketAddr,
        weather: [Weather; 2],
        seed: u64,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            near: socket().await,
            node,
            outers: HashMap::new(),
            from_node: mpsc::channel(WAITING_MAX),
            weather,
            lines: Default::default(),
            numbers: [0; 2],
            seed,
            laid_at: Instant::now(),
            leaving: BinaryHeap::new(),
            sequence: 0,
            is_cut: false,
            rebinds: None,
            tally,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.near.local_addr().expect("an address")
    }

    pub(super) async fn carry(mut self, mut orders: mpsc::Receiver<Order>) {
        let near = self.near.clone();
        let mut bytes = vec![0; 65_536];
        loop {
            let next_leaves = self.leaving.peek().map(|Reverse((when, ..))| *when);
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = tick(self.rebinds.as_mut()) => self.rebind().await,
                () = sleep_until(next_leaves) => self.let_leave().await,
                // What cannot be carried is lost, as on any path.
                Ok((count, dialler)) = near.recv_from(&mut bytes) => {
                    self.take(Way::Up, dialler, bytes[..count].to_vec()).await;
                }
                Some((dialler, bytes)) = self.from_node.1.recv() => {
                    self.take(Way::Down, dialler, bytes).await;
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Cut => self.is_cut = true,
            Order::Mend => self.is_cut = false,
            Order::Rebind => self.rebind().await,
            Order::RebindEvery(interval) => {
                let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.rebinds = Some(ticks);
            }
            Order::Weather(weather) => self.weather = *weather,
        }
    }

    /// Every dialling party gets another address; what was on its way to the old ones is lost.
    async fn rebind(&mut self) {
        Tally::add(&self.tally.rebinds, 1);
        let rebinds = self.tally.rebinds.load(Ordering::Relaxed);
        for (dialler, outer) in &mut self.outers {
            let socket = other_socket(rebinds).await;
            *outer = Outer::of(socket, *dialler, self.from_node.0.clone());
        }
    }

    async fn take(&mut self, way: Way, dialler: SocketAddr, bytes: Vec<u8>) {
        let (weather, at) = (self.weather[way as usize], self.laid_at.elapsed());
        let number = self.numbers[way as usize];
        self.numbers[way as usize] += 1;
        let passing = Passing { way, number, at, bytes: bytes.len() };
        let carried = match fate(self.seed, &weather, passing) {
            Fate::Carried(carried) if !self.is_cut => carried,
            _ => return Tally::add(&self.tally.lost, 1),
        };
        let waits = match weather.rate {
            Some(rate) => self.lines[way as usize].takes(rate, at, bytes.len()),
            None => Some(Duration::ZERO),
        };
        let Some(waits) = waits else { return Tally::add(&self.tally.lost, 1) };
        self.count(way, &carried, bytes.len());
        self.send(Parcel { way: way as u8, dialler, bytes }, carried, waits).await;
    }

    fn count(&self, way: Way, carried: &Carried, bytes: usize) {
        let Tally { held_back, doubled, changed, .. } = &*self.tally;
        Tally::add(&self.tally.bytes[way as usize], bytes as u64);
        Tally::add(held_back, carried.is_held_back.into());
        Tally::add(doubled, carried.again_after.is_some().into());
        Tally::add(changed, carried.changed.is_some().into());
    }

    async fn send(&mut self, mut parcel: Parcel, carried: Carried, waits: Duration) {
        if let Some((at, bits)) = carried.changed {
            parcel.bytes[at] ^= bits;
        }
        if let Some(again_after) = carried.again_after {
            let Parcel { way, dialler, ref bytes } = parcel;
            let again = Parcel { way, dialler, bytes: bytes.clone() };
            self.later(again, waits + again_after).await;
        }
        self.later(parcel, waits + carried.after).await;
    }

    async fn later(&mut self, parcel: Parcel, after: Duration) {
        if after.is_zero() {
            return self.deliver(parcel).await;
        }
        self.sequence += 1;
        self.leaving.push(Reverse((Instant::now() + after, self.sequence, parcel)));
    }

    async fn let_leave(&mut self) {
        let now = Instant::now();
        while self.leaving.peek().is_some_and(|Reverse((when, ..))| *when <= now) {
            let Some(Reverse((_, _, parcel))) = self.leaving.pop() else { return };
            if !self.is_cut {
                self.deliver(parcel).await;
            }
        }
    }

    async fn deliver(&mut self, Parcel { way, dialler, bytes }: Parcel) {
        if way == Way::Down as u8 {
            return drop(self.near.send_to(&bytes, dialler).await);
        }
        if !self.outers.contains_key(&dialler) {
            Tally::add(&self.tally.diallers, 1);
            let outer = Outer::of(socket().await, dialler, self.from_node.0.clone());
            self.outers.insert(dialler, outer);
        }
        drop(self.outers[&dialler].socket.send_to(&bytes, self.node).await);
    }
}

async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
