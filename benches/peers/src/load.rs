//! The load of one way to call: a number of calls in flight for a while, on command.

use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::io::{AsyncBufReadExt, BufReader};

/// One implementation of an echo call.
pub trait Echo: Clone + Send + Sync + 'static {
    /// Sends a message and checks that as many bytes come back.
    fn echo(&self, message: &[u8]) -> impl Future<Output = ()> + Send;

    /// Called before each round: connections that were idle since the last one may be closed.
    fn begin(&self) {}
}

/// A command to a process with a load.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Load {
    pub bytes: usize,
    pub in_flight: usize,
    /// Calls of [`BULK_BYTES`] in flight at the same time, which are not measured.
    pub bulk: usize,
    pub millis: u64,
}

/// Bytes of a message of the calls beside the measured ones.
const BULK_BYTES: usize = 1 << 20;

/// The measurements of one round, as seen by the process with the load.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Round {
    /// More than rate and length give: the last calls end after it.
    pub calls: f64,
    pub calls_per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    /// CPU time of all processes of this way for each call, which the driver adds.
    #[serde(default)]
    pub cpu_us: f64,
}

/// Reads one command a line from standard input, and writes the measurements of each as a line of
/// JSON. Ends with standard input.
pub async fn serve<E: Echo>(echo: E) -> anyhow::Result<()> {
    println!("ready");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (echo, load) = (echo.clone(), serde_json::from_str(&line)?);
        // In a task of its own: the thread that blocks on the main future is not a worker, and
        // every wake-up of it costs microseconds.
        let round = tokio::spawn(round(echo, load)).await?;
        println!("{}", serde_json::to_string(&round)?);
    }
    Ok(())
}

/// Answers until standard input ends, as it does when the driver ends.
pub async fn until_closed() -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

async fn round<E: Echo>(echo: E, load: Load) -> Round {
    echo.begin();
    let (began, length) = (Instant::now(), Duration::from_millis(load.millis));
    let in_flight = load.in_flight;
    let start = |bytes: usize| {
        let echo = echo.clone();
        tokio::spawn(async move {
            let message = vec![b'x'; bytes];
            // Some MiB for all together.
            let mut times = Vec::with_capacity(4096.min((1 << 22) / in_flight));
            while began.elapsed() < length {
                let began = Instant::now();
                echo.echo(&message).await;
                times.push(began.elapsed());
            }
            times
        })
    };
    let bulk: Vec<_> = (0..load.bulk).map(|_| start(BULK_BYTES)).collect();
    let callers: Vec<_> = (0..load.in_flight).map(|_| start(load.bytes)).collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("a caller panicked"));
    }
    let seconds = began.elapsed().as_secs_f64();
    for caller in bulk {
        caller.await.expect("a caller panicked");
    }
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, |t| t.as_secs_f64() * 1e6)
    };
    Round {
        calls: times.len() as f64,
        calls_per_second: times.len() as f64 / seconds,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        cpu_us: 0.0,
    }
}
