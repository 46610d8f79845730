//! The tokio runtime under quinn, with drivers that let the tasks that are ready write first.
//!
//! quinn wakes the driver of a connection at every write to one of its streams. tokio runs a task
//! that was woken by a running one next, before all others that are ready, so that each small call
//! left in a datagram and a system call of its own. A driver that goes to the back of the queue
//! sends together what all of these have written. See `docs/decisions/0036`.

use super::socket::{self, BatchingSocket};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use std::{
    future::Future,
    io,
    net::UdpSocket,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

/// Runs of a connection's driver without a delay after its endpoint has read: one to take in the
/// packets, and one for the answer. A call that is alone needs no more.
const RUNS_AT_ONCE: u8 = 2;

/// Runs with a delay after a third run in a row: several calls are there, and more will be. Delays
/// of a few runs only would leave the first answer after each read alone in its packet.
const DELAYED_RUNS: u8 = 64;

/// First runs of a connection's driver, in which each packet is sent by itself. quinn makes room
/// for the largest batch when the second packet of a batch is written, and keeps it as long as the
/// connection: a link of which only the handshake needs more than one packet does without.
const UNBATCHED_RUNS: u8 = 8;

/// Checks that quinn's timers and tasks would run: an error without a tokio runtime.
pub(super) fn expect_tokio() -> io::Result<()> {
    let current = tokio::runtime::Handle::try_current();
    current.map(drop).map_err(|_| io::Error::other("no tokio runtime is running"))
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A [`TokioRuntime`] whose drivers batch their writes.
#[derive(Debug, Default)]
pub(super) struct BatchingRuntime {
    /// An endpoint spawns its own driver first; all that follow are those of its connections.
    has_endpoint: AtomicBool,
    /// The number of runs of the endpoint's driver, wrapping.
    reads: Arc<AtomicUsize>,
}

impl Runtime for BatchingRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        let reads = self.reads.clone();
        if self.has_endpoint.swap(true, Ordering::Relaxed) {
            TokioRuntime.spawn(Box::pin(ConnectionDriver::new(driver, reads)));
        } else {
            TokioRuntime.spawn(Box::pin(EndpointDriver { driver, reads }));
        }
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket).map(|socket| Arc::new(BatchingSocket(socket)) as _)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// Reads packets and hands them to the connections.
struct EndpointDriver {
    driver: Driver,
    reads: Arc<AtomicUsize>,
}

impl Future for EndpointDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.driver.as_mut().poll(context)
    }
}

/// Takes in the packets of one connection, and sends written data.
struct ConnectionDriver {
    driver: Driver,
    reads: Arc<AtomicUsize>,
    /// [`Self::reads`] when the driver last ran.
    reads_seen: usize,
    runs_at_once: u8,
    delayed_runs: u8,
    /// The number of runs that are left of the first ones, [`UNBATCHED_RUNS`].
    unbatched_runs: u8,
    /// The driver is at the back of the queue.
    waits: bool,
}

impl ConnectionDriver {
    fn new(driver: Driver, reads: Arc<AtomicUsize>) -> Self {
        let reads_seen = reads.load(Ordering::Relaxed);
        Self {
            driver,
            reads,
            reads_seen,
            runs_at_once: RUNS_AT_ONCE,
            delayed_runs: 0,
            unbatched_runs: UNBATCHED_RUNS,
            waits: false,
        }
    }

    /// Returns true if the driver runs without a delay: few calls are in flight, as it seems.
    fn runs_at_once(&mut self) -> bool {
        if self.delayed_runs > 0 {
            self.delayed_runs -= 1;
            return false;
        }
        let reads = self.reads.load(Ordering::Relaxed);
        if reads != self.reads_seen {
            (self.reads_seen, self.runs_at_once) = (reads, RUNS_AT_ONCE);
        }
        if self.runs_at_once == 0 {
            self.delayed_runs = DELAYED_RUNS;
            return false;
        }
        self.runs_at_once -= 1;
        true
    }
}

impl Future for ConnectionDriver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.waits && !self.runs_at_once() {
            self.waits = true;
            // A task that wakes itself while it runs goes to the back of the queue.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.waits = false;
        socket::send_one_by_one(self.unbatched_runs > 0);
        self.unbatched_runs = self.unbatched_runs.saturating_sub(1);
        self.driver.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::poll_fn, sync::Mutex, task::Waker};

    /// A runtime with an endpoint and a connection whose drivers only log that they run.
    struct TestDrivers {
        log: Arc<Mutex<Vec<&'static str>>>,
        endpoint: Arc<Mutex<Option<Waker>>>,
        connection: Arc<Mutex<Option<Waker>>>,
    }

    impl TestDrivers {
        async fn start() -> Self {
            let world =
                Self { log: Arc::default(), endpoint: Arc::default(), connection: Arc::default() };
            let runtime = BatchingRuntime::default();
            runtime.spawn(world.driver("read", &world.endpoint));
            runtime.spawn(world.driver("send", &world.connection));
            world.settled().await;
            world
        }

        fn driver(&self, name: &'static str, waker: &Arc<Mutex<Option<Waker>>>) -> Driver {
            let (log, waker) = (self.log.clone(), waker.clone());
            Box::pin(poll_fn(move |context| {
                log.lock().expect("a log").push(name);
                *waker.lock().expect("a waker") = Some(context.waker().clone());
                Poll::Pending
            }))
        }

        /// Returns the drivers and tasks that ran until nothing was ready any more.
        async fn settled(&self) -> Vec<&'static str> {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            std::mem::take(&mut self.log.lock().expect("a log"))
        }

        /// Packets come, and the connection's driver takes them in.
        async fn read(&self) {
            wake(&self.endpoint);
            assert_eq!(self.settled().await, ["read"]);
            wake(&self.connection);
            assert_eq!(self.settled().await, ["send"]);
        }

        /// This many tasks that are ready at once write to the connection.
        async fn written_by(&self, tasks: usize) -> Vec<&'static str> {
            let mut writers = tokio::task::JoinSet::new();
            for _ in 0..tasks {
                let (connection, log) = (self.connection.clone(), self.log.clone());
                writers.spawn(async move {
                    log.lock().expect("a log").push("write");
                    wake(&connection);
                });
            }
            self.settled().await
        }
    }

    fn wake(waker: &Mutex<Option<Waker>>) {
        waker.lock().expect("a waker").as_ref().expect("it has run").wake_by_ref();
    }

    /// On the only worker of tokio's scheduler for several, where a task that is woken by a running
    /// one runs next.
    fn on_one_worker<F: Future<Output = ()> + Send + 'static>(test: F) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).build().expect("a runtime");
        runtime.block_on(runtime.spawn(test)).expect("the test");
    }

    #[test]
    fn the_answer_to_a_read_goes_at_once_and_more_of_them_together() {
        on_one_worker(async {
            let world = TestDrivers::start().await;
            for _ in 0..2 * DELAYED_RUNS {
                world.read().await;
                assert_eq!(world.written_by(1).await, ["write", "send"]);
            }
            world.read().await;
            let sent = world.written_by(4).await;
            assert_eq!(sent, ["write", "send", "write", "write", "write", "send"]);
        });
    }

    #[test]
    fn where_answers_were_many_the_next_ones_go_together_from_the_first() {
        on_one_worker(async {
            let world = TestDrivers::start().await;
            world.read().await;
            world.written_by(2).await;
            // Taking in what was read is a run as well.
            for _ in 0..DELAYED_RUNS / 2 {
                world.read().await;
                assert_eq!(world.written_by(3).await, ["write", "write", "write", "send"]);
            }
            world.read().await;
            assert_eq!(world.written_by(2).await, ["write", "send", "write", "send"]);
        });
    }

    #[tokio::test]
    async fn a_connection_sends_batches_after_its_first_runs() {
        let bind = || UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
        let reference = TokioRuntime.wrap_udp_socket(bind()).expect("a socket");
        let socket = BatchingRuntime::default().wrap_udp_socket(bind()).expect("a socket");
        let (sizes, mut context) = (Arc::default(), Context::from_waker(Waker::noop()));
        let log = Arc::<Mutex<Vec<usize>>>::clone(&sizes);
        let driver = Box::pin(poll_fn(move |_| {
            log.lock().expect("a log").push(socket.max_transmit_segments());
            Poll::Pending
        }));
        let mut driver = ConnectionDriver::new(driver, Arc::default());
        while sizes.lock().expect("a log").len() < usize::from(UNBATCHED_RUNS) + 2 {
            assert!(Pin::new(&mut driver).poll(&mut context).is_pending());
        }
        let sizes = sizes.lock().expect("a log");
        let (first, later) = sizes.split_at(UNBATCHED_RUNS.into());
        assert!(first.iter().all(|size| *size == 1), "{first:?}");
        assert_eq!(later, [reference.max_transmit_segments(); 2]);
    }

    #[test]
    fn a_waiting_driver_runs_without_another_wake() {
        on_one_worker(async {
            let world = TestDrivers::start().await;
            for _ in 0..5 {
                assert_eq!(world.written_by(1).await, ["write", "send"]);
            }
        });
    }
}
