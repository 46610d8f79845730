//! Measures all ways, interleaved, and prints a table of medians with ratios.

use crate::{
    load::{Load, Round},
    pki, plot,
    processes::{self, Way},
};
use anyhow::{Context, bail};
use serde::Serialize;
use std::{fs, path::PathBuf, process::Command};

const LOADS: &str = "32x1,32x64,32x512,1024x16,65536x16,1048576x16";

struct Options {
    rounds: usize,
    millis: u64,
    loads: Vec<Load>,
    /// Parts of the names of the ways to measure.
    ways: Option<String>,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: Vec<String>) -> anyhow::Result<Self> {
        let mut options = Self {
            rounds: 9,
            millis: 1_000,
            loads: parse_loads(LOADS)?,
            ways: None,
            json: None,
            svg: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse()?,
                "--millis" => options.millis = value.parse()?,
                "--loads" => options.loads = parse_loads(&value)?,
                "--ways" => options.ways = Some(value),
                "--json" => options.json = Some(std::path::absolute(value)?),
                "--svg" => options.svg = Some(std::path::absolute(value)?),
                _ => bail!("unknown option {name}: --rounds --millis --loads --ways --json --svg"),
            }
        }
        Ok(options)
    }
}

/// Parses loads such as `32x64,32x1+4`: bytes of a message, calls in flight, and calls of 1 MiB
/// beside them.
fn parse_loads(text: &str) -> anyhow::Result<Vec<Load>> {
    let parse = |load: &str| {
        let (bytes, calls) = load.split_once('x').context("a load is BYTESxCALLS")?;
        let (in_flight, bulk) = calls.split_once('+').unwrap_or((calls, "0"));
        let (bytes, in_flight, bulk) = (bytes.parse()?, in_flight.parse()?, bulk.parse()?);
        Ok(Load { bytes, in_flight, bulk, millis: 0 })
    };
    text.split(',').map(parse).collect()
}

/// The measurements of one way with one load, all rounds.
#[derive(Serialize)]
pub struct Row {
    pub way: &'static str,
    pub median: Round,
    /// Median of the ratios of the rates, round by round: dialback's to this way's.
    pub direct_to_this: Option<f64>,
    pub through_to_this: Option<f64>,
}

/// All ways with one load.
#[derive(Serialize)]
pub struct Table {
    pub bytes: usize,
    pub in_flight: usize,
    pub bulk: usize,
    pub rows: Vec<Row>,
}

/// Circumstances of a run.
#[derive(Serialize)]
pub struct Run {
    machine: String,
    commit: String,
    date: String,
    load_average: String,
    rounds: usize,
    millis: u64,
}

impl Run {
    /// Prints the circumstances of a run that begins.
    pub fn begin(rounds: usize, millis: u64) -> Self {
        let run = Self {
            machine: machine(),
            commit: output("git", &["describe", "--always", "--dirty"]),
            date: output("date", &["-u", "+%Y-%m-%d %H:%M"]),
            load_average: fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned(),
            rounds,
            millis,
        };
        println!("{}, commit {}, {} UTC", run.machine, run.commit, run.date);
        println!("load before: {}", run.load_average);
        println!("{rounds} interleaved rounds of {millis} ms, medians\n");
        run
    }
}

/// A whole run.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    run: Run,
    tables: Vec<Table>,
}

/// Runs the comparison.
pub fn run(arguments: Vec<String>) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    let mut report = Report { run: Run::begin(options.rounds, options.millis), tables: Vec::new() };
    let dir = tempfile::tempdir()?;
    pki::write(dir.path())?;
    std::env::set_current_dir(dir.path())?;
    let mut ways = processes::start_all()?;
    if let Some(names) = &options.ways {
        ways.retain(|way| names.split(',').any(|name| way.name.contains(name)));
    }
    for load in options.loads {
        let load = Load { millis: options.millis, ..load };
        let table = measure(&mut ways, load, options.rounds)?;
        print(&table);
        report.tables.push(table);
    }
    drop(ways);
    if let Some(path) = options.json {
        fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    if let Some(path) = options.svg {
        fs::write(path, plot::svg(&report.tables))?;
    }
    std::env::set_current_dir("/")?;
    Ok(())
}

fn measure(ways: &mut [Way], load: Load, rounds: usize) -> anyhow::Result<Table> {
    let mut ways: Vec<_> = ways.iter_mut().filter(|way| (way.takes)(load)).collect();
    for way in &mut ways {
        way.round(Load { millis: load.millis.min(200), ..load })?;
    }
    let mut all = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for (way, rounds) in ways.iter_mut().zip(&mut all) {
            rounds.push(way.round(load)?);
        }
    }
    let rounds_of = |name: &str| {
        let at = ways.iter().position(|way| way.name == name)?;
        Some(all[at].clone())
    };
    let (direct, through) = (rounds_of("dialback direct"), rounds_of("dialback through a node"));
    let rows = ways.iter().zip(&all).map(|(way, rounds)| Row {
        way: way.name,
        median: median_round(rounds),
        direct_to_this: ratio(direct.as_deref(), rounds),
        through_to_this: ratio(through.as_deref(), rounds),
    });
    let Load { bytes, in_flight, bulk, .. } = load;
    Ok(Table { bytes, in_flight, bulk, rows: rows.collect() })
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

pub fn median_round(rounds: &[Round]) -> Round {
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick));
    Round {
        calls: of(|round| round.calls),
        calls_per_second: of(|round| round.calls_per_second),
        p50_us: of(|round| round.p50_us),
        p99_us: of(|round| round.p99_us),
        p999_us: of(|round| round.p999_us),
        cpu_us: of(|round| round.cpu_us),
    }
}

fn ratio(of: Option<&[Round]>, to: &[Round]) -> Option<f64> {
    let pairs = of?.iter().zip(to);
    Some(median(pairs.map(|(one, other)| one.calls_per_second / other.calls_per_second)))
}

fn print(table: &Table) {
    let Table { bytes, in_flight, bulk, .. } = table;
    println!("{bytes} B, {in_flight} in flight, {bulk} of 1 MiB beside");
    println!(
        "| way | calls/s | MB/s | p50 us | p99 us | p99.9 us | CPU us a call | direct / this | through a node / this |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for Row { way, median, direct_to_this, through_to_this, .. } in &table.rows {
        let ratio = |ratio: &Option<f64>| ratio.map_or_else(String::new, |x| format!("{x:.2}"));
        let megabytes = median.calls_per_second * table.bytes as f64 / 1e6;
        println!(
            "| {way} | {:.0} | {megabytes:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} |",
            median.calls_per_second,
            median.p50_us,
            median.p99_us,
            median.p999_us,
            median.cpu_us,
            ratio(direct_to_this),
            ratio(through_to_this)
        );
    }
    println!();
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, {}", model.unwrap_or("unknown processor"))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}
