//! Leak checks: tasks, open files and permits before and after a test. Also runs tests that need
//! their own process for that.

use super::until;
use dialback::Node;
use std::{fs, process::Command};
use tokio::runtime::{Builder, Handle};

/// The resources in use while nothing happens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Baseline {
    tasks: usize,
    /// Only where no other test opens files.
    files: Option<usize>,
}

impl Baseline {
    /// Measures now.
    pub(crate) fn measure() -> Self {
        Self { tasks: tasks(), files: is_own_process().then(open_files) }
    }

    /// The same with this many more tasks, which are expected.
    pub(crate) fn with_more_tasks(self, count: u64) -> Self {
        Self { tasks: self.tasks + count as usize, ..self }
    }

    /// Waits until no more than that is in use, and no call is in flight at the node.
    pub(crate) async fn wait_until_restored(self, node: &Node) {
        let in_flight = || node.agents().iter().map(|agent| agent.calls_in_flight).sum::<u64>();
        until("every permit was returned", || in_flight() == 0).await;
        let Self { tasks: before, files } = self;
        until(&format!("at most {before} tasks are left"), || tasks() <= before).await;
        if let Some(before) = files {
            let what = format!("at most {before} files are open");
            until(&what, || open_files() <= before).await;
        }
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Memory of this process, in KiB; 0 where the system does not report it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Memory in use.
    pub(crate) resident: u64,
    /// Memory reserved, used or not.
    pub(crate) data: u64,
}

impl Memory {
    pub(crate) fn measure() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        Self { resident: kib("VmRSS:"), data: kib("VmData:") }
    }

    /// It has grown by no more than this since.
    #[track_caller]
    pub(crate) fn expect_growth(self, resident_max: u64, data_max: u64) {
        let now = Self::measure();
        println!("{self:?} before, {now:?} after");
        let [resident, data] =
            [now.resident.saturating_sub(self.resident), now.data.saturating_sub(self.data)];
        assert!(resident <= resident_max && data <= data_max, "grew by {resident} and {data} KiB");
    }
}

/// Marks a process that runs a single test.
const OWN_PROCESS: &str = "DIALBACK_TEST_ALONE";

fn is_own_process() -> bool {
    std::env::var_os(OWN_PROCESS).is_some()
}

/// Runs a test in its own process, whose files and memory belong to it. `name` is the full path of
/// the test.
#[track_caller]
pub(crate) fn run_in_own_process(name: &str, test: impl Future<Output = ()>) {
    if is_own_process() {
        let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(test);
    }
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args([name, "--exact", "--include-ignored", "--nocapture"]).env(OWN_PROCESS, "1");
    // Freed memory returns to the system at once, also where the C library would keep it, so that
    // the measurement shows memory in use.
    command.envs([("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_TRIM_THRESHOLD_", "262144")]);
    let ended = command.output().expect("started");
    let [stdout, stderr] =
        [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(ended.status.success(), "{name} failed in its own process:\n{stdout}\n{stderr}");
    assert!(stdout.contains("1 passed"), "no test has the name {name}:\n{stdout}");
    println!("{stdout}");
}
