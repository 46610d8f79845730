//! A call through dialback next to the same echo on raw quinn, one stream per call, interleaved in
//! one run: only the ratios count.
//!
//! `cargo bench --features cli --bench calls` prints the table; `-- quick` runs fewer rounds. The
//! initiator (with the load) and the responder have a runtime of one thread each, like two
//! processes; `-- shared` puts both on one runtime of two threads, where a call may or may not wake
//! the other thread and single calls take one of two times. Both use mutual TLS and the same
//! transport settings, and dialback's calls are typed, with head, permit and deadline.

#![expect(
    clippy::disallowed_methods,
    reason = "a bench ends with its process: nobody has to wait for its tasks"
)]

#[path = "calls/raw.rs"]
mod raw;
#[path = "calls/world.rs"]
mod world;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::runtime::{Handle, Runtime};

/// One implementation of an echo call.
trait Echo: Clone + Send + Sync + 'static {
    fn echo(&self, message: &serde_bytes::ByteBuf) -> impl Future<Output = ()> + Send;
}

/// A load: message size and concurrency.
#[derive(Clone, Copy)]
struct Load {
    bytes: usize,
    in_flight: usize,
}

const LOADS: [Load; 6] = [
    Load { bytes: 32, in_flight: 1 },
    Load { bytes: 32, in_flight: 64 },
    Load { bytes: 32, in_flight: 512 },
    Load { bytes: 1024, in_flight: 16 },
    Load { bytes: 64 * 1024, in_flight: 16 },
    Load { bytes: 1024 * 1024, in_flight: 16 },
];

/// The measurements of one round.
#[derive(Clone, Copy, Default)]
struct Round {
    per_second: f64,
    p50_us: f64,
    /// Both ends and the load together.
    cpu_us: f64,
}

/// Keeps `in_flight` calls in progress for a while.
async fn round<E: Echo>(echo: &E, load: Load, length: Duration) -> Round {
    let end = Instant::now() + length;
    let count = Arc::new(AtomicU64::new(0));
    let (began, cpu_began) = (Instant::now(), cpu_us());
    let callers: Vec<_> = (0..load.in_flight)
        .map(|_| {
            let (echo, count) = (echo.clone(), count.clone());
            tokio::spawn(async move {
                let message = serde_bytes::ByteBuf::from(vec![7; load.bytes]);
                let mut times = Vec::with_capacity(4096);
                while Instant::now() < end {
                    let began = Instant::now();
                    echo.echo(&message).await;
                    times.push(began.elapsed());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.expect("a caller panicked"));
    }
    let elapsed = began.elapsed();
    times.sort_unstable();
    let p50_us = times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e6);
    let calls = count.load(Ordering::Relaxed) as f64;
    Round {
        per_second: calls / elapsed.as_secs_f64(),
        p50_us,
        cpu_us: (cpu_us() - cpu_began) / calls,
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn row(name: &str, load: Load, rounds: &[Round], raw: &[Round]) {
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick));
    let ratio = |pick: fn(&Round) -> f64| {
        median(rounds.iter().zip(raw).map(|(one, raw)| pick(one) / pick(raw)))
    };
    let rate = |round: &Round| round.per_second;
    let p50 = |round: &Round| round.p50_us;
    let cpu = |round: &Round| round.cpu_us;
    println!(
        "{:>7} B {:>3} in flight  {name:<21} {:>8.0} calls/s {:>7.1} MB/s each way  p50 {:>8.1} us  cpu {:>7.1} us   rate x {:.2}  p50 x {:.2}  cpu x {:.2}",
        load.bytes,
        load.in_flight,
        of(rate),
        of(rate) * load.bytes as f64 / 1e6,
        of(p50),
        of(cpu),
        ratio(rate),
        ratio(p50),
        ratio(cpu),
    );
}

/// For profilers: one implementation only, for a while.
async fn alone(way: String, load: Load, responder: Handle) {
    let world = world::World::start(&responder).await;
    let length = Duration::from_secs(5);
    let result = match way.as_str() {
        "raw" => round(&raw::RawEcho::start(&responder).await, load, length).await,
        "direct" => round(&world.in_process(), load, length).await,
        _ => round(&world.through_node(), load, length).await,
    };
    println!("{way}: {:.0} calls/s, {:.2} us of CPU a call", result.per_second, result.cpu_us);
}

/// User and system time of this process so far, in microseconds: fields 14 and 15 of
/// `/proc/self/stat`, in ticks of 10 ms.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok());
    ticks.sum::<f64>() * 10_000.0
}

async fn compare(load: Load, rounds: usize, length: Duration, responder: Handle) {
    let raw = raw::RawEcho::start(&responder).await;
    let world = world::World::start(&responder).await;
    let (direct, through) = (world.in_process(), world.through_node());
    for warm_up in [Duration::from_millis(200)] {
        round(&raw, load, warm_up).await;
        round(&direct, load, warm_up).await;
        round(&through, load, warm_up).await;
    }
    let (mut raws, mut directs, mut throughs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        raws.push(round(&raw, load, length).await);
        directs.push(round(&direct, load, length).await);
        throughs.push(round(&through, load, length).await);
    }
    row("raw quinn", load, &raws, &raws);
    row("dialback in process", load, &directs, &raws);
    row("dialback through node", load, &throughs, &raws);
    world.stop().await;
}

/// The argument after `name` on the command line.
fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|argument| argument != name).nth(1)
}

fn runtime(name: &str, threads: usize) -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name(name).worker_threads(threads).enable_all().build().expect("a runtime")
}

fn main() {
    let has = |name: &str| std::env::args().any(|argument| argument == name);
    let only = argument("only").and_then(|text| text.parse::<usize>().ok());
    let (rounds, length) =
        if has("quick") { (5, Duration::from_millis(400)) } else { (9, Duration::from_secs(1)) };
    let (initiator, separate) = if has("shared") {
        (runtime("both", 2), None)
    } else {
        (runtime("initiator", 1), Some(runtime("responder", 1)))
    };
    let responder = separate.as_ref().unwrap_or(&initiator).handle().clone();
    if let Some(way) = argument("alone") {
        let task = alone(way, LOADS[only.unwrap_or(1)], responder);
        return initiator.block_on(async move { tokio::spawn(task).await.expect("no panic") });
    }
    println!(
        "{rounds} interleaved rounds of {length:?}, medians; ratios are to raw quinn, round by round"
    );
    for (index, load) in LOADS.into_iter().enumerate() {
        if only.is_none_or(|only| only == index) {
            let task = compare(load, rounds, length, responder.clone());
            // In a spawned task: the thread that blocks here is not a worker, and every wake-up of
            // it costs microseconds.
            initiator.block_on(async move { tokio::spawn(task).await.expect("a round panicked") });
        }
    }
}
