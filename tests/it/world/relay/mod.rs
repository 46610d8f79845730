//! A path between diallers and a node: it can be blocked, restored, change the address that the
//! node sees, and have any conditions.

mod path;
mod conditions;
mod tcp;

pub(crate) use conditions::{Burst, Dead, Direction, PathConditions, Rate};

use super::{Background, rng, spawn};
use dialback::PathChoice;
use path::Path;
use std::{
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// Changes the behaviour of the path.
enum PathCommand {
    /// Drop everything.
    Block,
    /// Deliver again.
    Restore,
    /// Send from other ports, and other addresses where there are any, as after a NAT has lost its
    /// bindings.
    Rebind,
    /// The same repeatedly.
    RebindEvery(Duration),
    /// Other conditions, up and down.
    PathConditions(Box<[PathConditions; 2]>),
}

/// Counts of datagrams so far, for tests that check that the conditions had an effect.
#[derive(Debug, Default)]
pub(crate) struct PathStats {
    /// By direction: bytes that arrived and were not lost.
    pub(crate) bytes: [AtomicU64; 2],
    pub(crate) lost: AtomicU64,
    pub(crate) reordered: AtomicU64,
    pub(crate) duplicated: AtomicU64,
    pub(crate) corrupted: AtomicU64,
    pub(crate) rebinds: AtomicU64,
    /// Addresses that have dialled; the relay has a task for each. A peer that opens a new socket
    /// is one more.
    pub(crate) diallers: AtomicU64,
}

impl PathStats {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes delivered in this direction.
    pub(crate) fn delivered(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].load(Ordering::Relaxed)
    }
}

/// Carries datagrams between diallers and the node behind it. Each dialler has its own port towards
/// the node.
pub(crate) struct Relay {
    address: SocketAddr,
    commands: mpsc::Sender<PathCommand>,
    stats: Arc<PathStats>,
    blocks_tcp: watch::Sender<bool>,
    _tasks: Vec<Background<()>>,
}

impl Relay {
    /// A perfect path.
    pub(crate) async fn to(node: SocketAddr) -> Self {
        Self::with_conditions(node, PathConditions::default()).await
    }

    /// A path with these conditions in both directions, with the seed of the run.
    pub(crate) async fn with_conditions(node: SocketAddr, conditions: PathConditions) -> Self {
        Self::by_seed(node, [conditions; 2], rng::seed()).await
    }

    /// A path with these conditions up and down, with a seed.
    pub(crate) async fn by_seed(
        node: SocketAddr,
        conditions: [PathConditions; 2],
        seed: u64,
    ) -> Self {
        let stats = Arc::new(PathStats::default());
        let path = Path::new(node, conditions, seed, stats.clone()).await;
        let address = path.address();
        let (commands, received) = mpsc::channel(8);
        let blocks_tcp = watch::Sender::new(false);
        let mut tasks = vec![spawn(path.run(received))];
        if super::is_tunnelled() {
            let [at, to] = [address, node].map(|end| super::tunnel_at(end.port()));
            tasks.push(tcp::start(at, to, blocks_tcp.subscribe()).await);
        }
        if super::path_choice() == PathChoice::Auto {
            tasks.push(spawn(come_and_go(commands.clone())));
        }
        Self { address, commands, stats, blocks_tcp, _tasks: tasks }
    }

    /// The address to dial.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts of the datagrams so far.
    pub(crate) fn stats(&self) -> &PathStats {
        &self.stats
    }

    pub(crate) async fn block(&self) {
        self.blocks_tcp.send_replace(true);
        self.command(PathCommand::Block).await;
    }

    pub(crate) async fn restore(&self) {
        self.blocks_tcp.send_replace(false);
        self.command(PathCommand::Restore).await;
    }

    pub(crate) async fn rebind(&self) {
        self.command(PathCommand::Rebind).await;
    }

    pub(crate) async fn rebind_every(&self, interval: Duration) {
        self.command(PathCommand::RebindEvery(interval)).await;
    }

    /// Changes the conditions, up and down.
    pub(crate) async fn conditions(&self, conditions: [PathConditions; 2]) {
        self.command(PathCommand::PathConditions(Box::new(conditions))).await;
    }

    async fn command(&self, command: PathCommand) {
        assert!(self.commands.send(command).await.is_ok(), "the relay has ended");
    }
}

/// Drops all datagrams for five seconds of ten, all relays at the same times.
async fn come_and_go(commands: mpsc::Sender<PathCommand>) {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    const EVERY: Duration = Duration::from_secs(5);
    loop {
        let period = BEGAN.elapsed().as_secs() / EVERY.as_secs();
        let command = if period % 2 == 1 { PathCommand::Block } else { PathCommand::Restore };
        if commands.send(command).await.is_err() {
            return;
        }
        tokio::time::sleep_until(*BEGAN + EVERY * (period as u32 + 1)).await;
    }
}
