//! The task of a relay: sockets, the queue of delayed datagrams, and the commands. `conditions`
//! decides about each datagram.

use super::{
    Background, PathCommand, PathStats,
    conditions::{Bottleneck, Datagram, Decision, Delivery, Direction, PathConditions, decide},
    spawn,
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

/// Datagrams that node sockets have received and the path has not yet handled.
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

/// A datagram from the node, for one dialler.
type FromNode = (SocketAddr, Vec<u8>);

/// The port that the node sees of one dialler, and its receiving task.
struct NodeSocket {
    socket: Arc<UdpSocket>,
    _listens: Background<()>,
}

impl NodeSocket {
    fn of(socket: Arc<UdpSocket>, dialler: SocketAddr, from_node: mpsc::Sender<FromNode>) -> Self {
        let listens = spawn(listen(socket.clone(), dialler, from_node));
        Self { socket, _listens: listens }
    }
}

async fn listen(socket: Arc<UdpSocket>, dialler: SocketAddr, from_node: mpsc::Sender<FromNode>) {
    let mut bytes = vec![0; 65_536];
    loop {
        // An error reports that a datagram of ours was refused: the node is not there now.
        if let Ok((count, _)) = socket.recv_from(&mut bytes).await
            && from_node.send((dialler, bytes[..count].to_vec())).await.is_err()
        {
            return;
        }
    }
}

/// A delayed datagram. Ordered by time, then by arrival.
type Queued = Reverse<(Instant, u64, QueuedDatagram)>;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct QueuedDatagram {
    direction: u8,
    dialler: SocketAddr,
    bytes: Vec<u8>,
}

/// The path. One task owns it.
pub(super) struct Path {
    dialler_socket: Arc<UdpSocket>,
    node: SocketAddr,
    node_sockets: HashMap<SocketAddr, NodeSocket>,
    from_node: (mpsc::Sender<FromNode>, mpsc::Receiver<FromNode>),
    conditions: [PathConditions; 2],
    bottlenecks: [Bottleneck; 2],
    numbers: [u64; 2],
    seed: u64,
    started_at: Instant,
    queue: BinaryHeap<Queued>,
    sequence: u64,
    is_blocked: bool,
    rebinds: Option<Interval>,
    stats: Arc<PathStats>,
}

impl Path {
    pub(super) async fn new(
        node: SocketAddr,
        conditions: [PathConditions; 2],
        seed: u64,
        stats: Arc<PathStats>,
    ) -> Self {
        Self {
            dialler_socket: socket().await,
            node,
            node_sockets: HashMap::new(),
            from_node: mpsc::channel(WAITING_MAX),
            conditions,
            bottlenecks: Default::default(),
            numbers: [0; 2],
            seed,
            started_at: Instant::now(),
            queue: BinaryHeap::new(),
            sequence: 0,
            is_blocked: false,
            rebinds: None,
            stats,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.dialler_socket.local_addr().expect("an address")
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<PathCommand>) {
        let dialler_socket = self.dialler_socket.clone();
        let mut bytes = vec![0; 65_536];
        loop {
            let next_due = self.queue.peek().map(|Reverse((when, ..))| *when);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.handle(command).await,
                    None => return,
                },
                () = tick(self.rebinds.as_mut()) => self.rebind().await,
                () = sleep_until(next_due) => self.send_due().await,
                // Undeliverable datagrams are lost, as on any path.
                Ok((count, dialler)) = dialler_socket.recv_from(&mut bytes) => {
                    self.receive(Direction::Up, dialler, bytes[..count].to_vec()).await;
                }
                Some((dialler, bytes)) = self.from_node.1.recv() => {
                    self.receive(Direction::Down, dialler, bytes).await;
                }
            }
        }
    }

    async fn handle(&mut self, command: PathCommand) {
        match command {
            PathCommand::Block => self.is_blocked = true,
            PathCommand::Restore => self.is_blocked = false,
            PathCommand::Rebind => self.rebind().await,
            PathCommand::RebindEvery(interval) => {
                let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.rebinds = Some(ticks);
            }
            PathCommand::PathConditions(conditions) => self.conditions = *conditions,
        }
    }

    /// Every dialler gets another address; datagrams in flight to the old ones are lost.
    async fn rebind(&mut self) {
        PathStats::add(&self.stats.rebinds, 1);
        let rebinds = self.stats.rebinds.load(Ordering::Relaxed);
        for (dialler, node_socket) in &mut self.node_sockets {
            let socket = other_socket(rebinds).await;
            *node_socket = NodeSocket::of(socket, *dialler, self.from_node.0.clone());
        }
    }

    async fn receive(&mut self, direction: Direction, dialler: SocketAddr, bytes: Vec<u8>) {
        let (conditions, at) = (self.conditions[direction as usize], self.started_at.elapsed());
        let number = self.numbers[direction as usize];
        self.numbers[direction as usize] += 1;
        let datagram = Datagram { direction, number, at, bytes: bytes.len() };
        let delivery = match decide(self.seed, &conditions, datagram) {
            Decision::Delivered(delivery) if !self.is_blocked => delivery,
            _ => return PathStats::add(&self.stats.lost, 1),
        };
        let waits = match conditions.rate {
            Some(rate) => self.bottlenecks[direction as usize].admit(rate, at, bytes.len()),
            None => Some(Duration::ZERO),
        };
        let Some(waits) = waits else { return PathStats::add(&self.stats.lost, 1) };
        self.count(direction, &delivery, bytes.len());
        self.send(QueuedDatagram { direction: direction as u8, dialler, bytes }, delivery, waits)
            .await;
    }

    fn count(&self, direction: Direction, delivery: &Delivery, bytes: usize) {
        let PathStats { reordered, duplicated, corrupted, .. } = &*self.stats;
        PathStats::add(&self.stats.bytes[direction as usize], bytes as u64);
        PathStats::add(reordered, delivery.is_reordered.into());
        PathStats::add(duplicated, delivery.duplicate_after.is_some().into());
        PathStats::add(corrupted, delivery.corrupted.is_some().into());
    }

    async fn send(&mut self, mut queued: QueuedDatagram, delivery: Delivery, waits: Duration) {
        if let Some((at, bits)) = delivery.corrupted {
            queued.bytes[at] ^= bits;
        }
        if let Some(duplicate_after) = delivery.duplicate_after {
            let QueuedDatagram { direction, dialler, ref bytes } = queued;
            let again = QueuedDatagram { direction, dialler, bytes: bytes.clone() };
            self.send_later(again, waits + duplicate_after).await;
        }
        self.send_later(queued, waits + delivery.after).await;
    }

    async fn send_later(&mut self, queued: QueuedDatagram, after: Duration) {
        if after.is_zero() {
            return self.deliver(queued).await;
        }
        self.sequence += 1;
        self.queue.push(Reverse((Instant::now() + after, self.sequence, queued)));
    }

    async fn send_due(&mut self) {
        let now = Instant::now();
        while self.queue.peek().is_some_and(|Reverse((when, ..))| *when <= now) {
            let Some(Reverse((_, _, queued))) = self.queue.pop() else { return };
            if !self.is_blocked {
                self.deliver(queued).await;
            }
        }
    }

    async fn deliver(&mut self, QueuedDatagram { direction, dialler, bytes }: QueuedDatagram) {
        if direction == Direction::Down as u8 {
            return drop(self.dialler_socket.send_to(&bytes, dialler).await);
        }
        if !self.node_sockets.contains_key(&dialler) {
            PathStats::add(&self.stats.diallers, 1);
            let node_socket = NodeSocket::of(socket().await, dialler, self.from_node.0.clone());
            self.node_sockets.insert(dialler, node_socket);
        }
        drop(self.node_sockets[&dialler].socket.send_to(&bytes, self.node).await);
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
