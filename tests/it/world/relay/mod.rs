//! A path between dialling parties and a node: it can go dead, be mended, change the address that
//! the node sees, and have any weather.

mod path;
mod weather;

pub(crate) use weather::{Burst, Dead, Rate, Way, Weather};

use super::{Background, background, dice};
use path::Path;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;

/// What the path is to do from now on.
enum Order {
    /// Swallow everything.
    Cut,
    /// Carry again.
    Mend,
    /// Carry from other ports, and other addresses where there are any, as after a NAT has
    /// forgotten its bindings.
    Rebind,
    /// The same again and again.
    RebindEvery(Duration),
    /// Another weather, up and down.
    Weather(Box<[Weather; 2]>),
}

/// What has become of the datagrams so far, for tests that want to know that the weather was bad.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By way: bytes that came and were not lost.
    pub(crate) bytes: [AtomicU64; 2],
    pub(crate) lost: AtomicU64,
    pub(crate) held_back: AtomicU64,
    pub(crate) doubled: AtomicU64,
    pub(crate) changed: AtomicU64,
    pub(crate) rebinds: AtomicU64,
    /// Addresses that have dialled; the relay has a task for each. A party that takes a new socket
    /// is one more.
    pub(crate) diallers: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Bytes that were carried this way.
    pub(crate) fn carried(&self, way: Way) -> u64 {
        self.bytes[way as usize].load(Ordering::Relaxed)
    }
}

/// Carries datagrams between whoever dials it and the node behind it. Each dialling party has a
/// port of its own towards the node.
pub(crate) struct Relay {
    address: SocketAddr,
    orders: mpsc::Sender<Order>,
    tally: Arc<Tally>,
    _task: Background<()>,
}

impl Relay {
    /// A path in fair weather.
    pub(crate) async fn to(node: SocketAddr) -> Self {
        Self::in_weather(node, Weather::default()).await
    }

    /// A path with this weather both ways, by the seed of the run.
    pub(crate) async fn in_weather(node: SocketAddr, weather: Weather) -> Self {
        Self::by_seed(node, [weather; 2], dice::seed()).await
    }

    /// A path with this weather up and down, by a seed.
    pub(crate) async fn by_seed(node: SocketAddr, weather: [Weather; 2], seed: u64) -> Self {
        let tally = Arc::new(Tally::default());
        let path = Path::lay(node, weather, seed, tally.clone()).await;
        let address = path.address();
        let (orders, heard) = mpsc::channel(8);
        Self { address, orders, tally, _task: background(path.carry(heard)) }
    }

    /// Where to dial.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has become of the datagrams so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) async fn cut(&self) {
        self.order(Order::Cut).await;
    }

    pub(crate) async fn mend(&self) {
        self.order(Order::Mend).await;
    }

    pub(crate) async fn rebind(&self) {
        self.order(Order::Rebind).await;
    }

    pub(crate) async fn rebind_every(&self, interval: Duration) {
        self.order(Order::RebindEvery(interval)).await;
    }

    /// The weather changes, up and down.
    pub(crate) async fn weather(&self, weather: [Weather; 2]) {
        self.order(Order::Weather(Box::new(weather))).await;
    }

    async fn order(&self, order: Order) {
        assert!(self.orders.send(order).await.is_ok(), "the relay has ended");
    }
}
