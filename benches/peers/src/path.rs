//! Emulates a long path between two TUN devices: delay, loss, rate and a queue that drops what does
//! not fit. For kernels without netem.

use anyhow::Context;
use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tun_rs::{DeviceBuilder, SyncDevice};

/// The same in both directions.
#[derive(Clone, Copy)]
pub struct Path {
    /// One way.
    delay: Duration,
    /// Part of the packets that is lost at random.
    loss: f64,
    bits_per_second: f64,
    queue_bytes: f64,
}

impl Path {
    /// Parses `DELAY_MS LOSS_PERCENT RATE_MBIT QUEUE_KB`.
    pub fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let number = |at: usize, name: &str| {
            let text = arguments.get(at).with_context(|| format!("{name} is missing"))?;
            text.parse::<f64>().with_context(|| format!("{name}: {text:?}"))
        };
        Ok(Self {
            delay: Duration::from_secs_f64(number(0, "the delay in ms")? / 1e3),
            loss: number(1, "the loss in percent")? / 100.0,
            bits_per_second: number(2, "the rate in Mbit/s")? * 1e6,
            queue_bytes: number(3, "the queue in KB")? * 1e3,
        })
    }
}

/// Packets of one direction on their way.
struct Direction {
    path: Path,
    /// When each packet arrives, in order.
    packets: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    added: Condvar,
    lost: AtomicU64,
    dropped: AtomicU64,
}

/// Runs until standard input ends, and then prints the counts of packets that were lost at random
/// and of those that the queues dropped.
pub fn run(names: [&str; 2], path: Path) -> anyhow::Result<()> {
    let open = |name: &str| {
        let device = DeviceBuilder::new().name(name).mtu(1500).build_sync();
        device.map(Arc::new).with_context(|| format!("the TUN device {name}"))
    };
    let ends = [open(names[0])?, open(names[1])?];
    let directions = [0, 1].map(|from| {
        let direction = Arc::new(Direction {
            path,
            packets: Mutex::default(),
            added: Condvar::new(),
            lost: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let (source, sink) = (ends[from].clone(), ends[1 - from].clone());
        let (take, deliver) = (direction.clone(), direction.clone());
        thread::spawn(move || take.take(&source, from as u64 + 1));
        thread::spawn(move || deliver.deliver(&sink));
        direction
    });
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    for (direction, name) in directions.iter().zip(["forth", "back"]) {
        let (lost, dropped) =
            (direction.lost.load(Ordering::Relaxed), direction.dropped.load(Ordering::Relaxed));
        writeln!(io::stderr(), "path {name}: {lost} packets lost at random, {dropped} dropped")?;
    }
    Ok(())
}

impl Direction {
    fn take(&self, source: &SyncDevice, seed: u64) {
        let mut random = seed;
        let mut free_at = Instant::now();
        let mut buffer = vec![0; 65_536];
        while let Ok(bytes) = source.recv(&mut buffer) {
            if next_unit(&mut random) < self.path.loss {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let now = Instant::now();
            free_at = free_at.max(now);
            let waiting = (free_at - now).as_secs_f64() * self.path.bits_per_second / 8.0;
            if waiting + bytes as f64 > self.path.queue_bytes {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            free_at += Duration::from_secs_f64(bytes as f64 * 8.0 / self.path.bits_per_second);
            let packet = (free_at + self.path.delay, buffer[..bytes].to_vec());
            self.packets.lock().expect("no panic").push_back(packet);
            self.added.notify_one();
        }
    }

    fn deliver(&self, sink: &SyncDevice) {
        loop {
            let mut packets = self.packets.lock().expect("no panic");
            let (at, packet) = loop {
                match packets.pop_front() {
                    Some(packet) => break packet,
                    None => packets = self.added.wait(packets).expect("no panic"),
                }
            };
            drop(packets);
            let wait = at.saturating_duration_since(Instant::now());
            if wait > Duration::from_micros(50) {
                thread::sleep(wait);
            }
            // A device that is down takes nothing.
            drop(sink.send(&packet));
        }
    }
}

/// A number from 0 to 1 (xorshift64*).
fn next_unit(state: &mut u64) -> f64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
}
