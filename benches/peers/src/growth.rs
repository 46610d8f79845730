//! Measures dialback with more and more calls in flight, and with more and more agents at one node,
//! and prints a table of medians.

use crate::{
    compare::{Run, median, median_round},
    curves,
    load::{Load, Round},
    pki,
    processes::{self, BY_SERVICE, IN_TURN, NODE},
};
use anyhow::{Context, bail};
use serde::Serialize;
use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const BYTES: usize = 32;

/// Calls in flight while the number of agents grows.
const IN_FLIGHT: usize = 64;

struct Options {
    rounds: usize,
    millis: u64,
    in_flight: Vec<usize>,
    agents: Vec<usize>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: Vec<String>) -> anyhow::Result<Self> {
        let counts = vec![1, 10, 100, 1_000, 10_000];
        let mut options = Self {
            rounds: 5,
            millis: 1_000,
            in_flight: counts.clone(),
            agents: counts,
            json: None,
            svg: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse()?,
                "--millis" => options.millis = value.parse()?,
                "--in-flight" => options.in_flight = parse_counts(&value)?,
                "--agents" => options.agents = parse_counts(&value)?,
                "--json" => options.json = Some(std::path::absolute(value)?),
                "--svg" => options.svg = Some(std::path::absolute(value)?),
                _ => bail!(
                    "unknown option {name}: --rounds --millis --in-flight --agents --json --svg"
                ),
            }
        }
        Ok(options)
    }
}

/// Parses counts such as `1,10,100`; `0` measures nothing.
fn parse_counts(text: &str) -> anyhow::Result<Vec<usize>> {
    let counts: Result<Vec<_>, _> = text.split(',').map(str::parse).collect();
    Ok(counts?.into_iter().filter(|count| *count > 0).collect())
}

/// What grows.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    CallsInFlight,
    Agents,
}

impl Axis {
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallsInFlight => "calls in flight",
            Self::Agents => "agents",
        }
    }
}

/// The measurements of one way of calling with one count, all rounds.
#[derive(Serialize)]
pub struct Point {
    pub axis: Axis,
    pub way: &'static str,
    pub count: usize,
    pub median: Round,
    #[serde(skip)]
    rounds: Vec<Round>,
}

/// A node with this many agents, without calls.
#[derive(Serialize)]
struct Idle {
    agents: usize,
    /// Share of one core.
    cpu_percent: f64,
    node_cpu_percent: f64,
    /// Time until all were attached, from the start of their processes.
    attached_s: f64,
    #[serde(skip)]
    rounds: Vec<[f64; 3]>,
}

/// A whole run.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    run: Run,
    points: Vec<Point>,
    idle: Vec<Idle>,
}

/// Runs the measurement.
pub fn run(arguments: Vec<String>) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    let run = Run::begin(options.rounds, options.millis);
    let mut report = Report { run, points: Vec::new(), idle: Vec::new() };
    let dir = tempfile::tempdir()?;
    pki::write(dir.path())?;
    std::env::set_current_dir(dir.path())?;
    measure_calls_in_flight(&options, &mut report)?;
    measure_agents(&options, &mut report)?;
    report.settle();
    print(&report);
    if let Some(path) = options.json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(path) = options.svg {
        fs::write(path, curves::svg(&report.points))?;
    }
    std::env::set_current_dir("/")?;
    Ok(())
}

fn measure_calls_in_flight(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if options.in_flight.is_empty() {
        return Ok(());
    }
    let mut ways = processes::start_links()?;
    for _ in 0..options.rounds {
        for &in_flight in &options.in_flight {
            let load = Load { bytes: BYTES, in_flight, bulk: 0, millis: options.millis };
            for way in &mut ways {
                way.round(Load { millis: load.millis.min(200), ..load })?;
                report.add(Axis::CallsInFlight, way.name, in_flight, way.round(load)?);
            }
        }
    }
    Ok(())
}

fn measure_agents(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let load = Load { bytes: BYTES, in_flight: IN_FLIGHT, bulk: 0, millis: options.millis };
    for _ in 0..options.rounds {
        for &count in &options.agents {
            let began = Instant::now();
            let mut way = processes::start_agents(count)?;
            let attached_s = began.elapsed().as_secs_f64();
            for (name, process) in [("by name", IN_TURN), ("by service", BY_SERVICE)] {
                // Until each agent has been called.
                way.round_of(process, load)?;
                report.add(Axis::Agents, name, count, way.round_of(process, load)?);
            }
            let cpu_us = || [way.cpu_us(), way.cpu_us_of(NODE)];
            let (before, length) = (cpu_us(), Duration::from_secs(6));
            thread::sleep(length);
            let [all, node] =
                [0, 1].map(|of| (cpu_us()[of] - before[of]) / length.as_micros() as f64);
            report.add_idle(count, [all * 100.0, node * 100.0, attached_s]);
        }
    }
    Ok(())
}

impl Report {
    fn add(&mut self, axis: Axis, way: &'static str, count: usize, round: Round) {
        let is_it = |one: &&mut Point| one.axis == axis && one.way == way && one.count == count;
        match self.points.iter_mut().find(is_it) {
            Some(point) => point.rounds.push(round),
            None => {
                self.points.push(Point { axis, way, count, median: round, rounds: vec![round] })
            }
        }
    }

    fn add_idle(&mut self, agents: usize, round: [f64; 3]) {
        match self.idle.iter_mut().find(|idle| idle.agents == agents) {
            Some(idle) => idle.rounds.push(round),
            None => self.idle.push(Idle {
                agents,
                cpu_percent: 0.0,
                node_cpu_percent: 0.0,
                attached_s: 0.0,
                rounds: vec![round],
            }),
        }
    }

    /// Calculates the medians, and orders the points by way and count.
    fn settle(&mut self) {
        for point in &mut self.points {
            point.median = median_round(&point.rounds);
        }
        self.points.sort_by_key(|point| (point.axis as u8, point.way, point.count));
        for idle in &mut self.idle {
            let of = |at: usize| median(idle.rounds.iter().map(|round| round[at]));
            let [all, node, attached] = [0, 1, 2].map(of);
            (idle.cpu_percent, idle.node_cpu_percent, idle.attached_s) = (all, node, attached);
        }
    }
}

fn print(report: &Report) {
    for axis in [Axis::CallsInFlight, Axis::Agents] {
        println!(
            "| {} | way | calls/s | p50, us | p99, us | p99.9, us | CPU a call, us |",
            axis.name()
        );
        println!("|---|---|---|---|---|---|---|");
        for Point { way, count, median, .. } in report.points.iter().filter(|p| p.axis == axis) {
            println!(
                "| {count} | {way} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} |",
                median.calls_per_second,
                median.p50_us,
                median.p99_us,
                median.p999_us,
                median.cpu_us
            );
        }
        println!();
    }
    println!("| idle agents | attached after, s | CPU of all, % of a core | of the node |");
    println!("|---|---|---|---|");
    for Idle { agents, attached_s, cpu_percent, node_cpu_percent, .. } in &report.idle {
        println!("| {agents} | {attached_s:.1} | {cpu_percent:.1} | {node_cpu_percent:.1} |");
    }
}
