//! Figures of this process, under the names that Prometheus' client libraries give them.

use std::fs;

/// What the system says of this process, as far as it does.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ProcessStats {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl ProcessStats {
    /// Reads them from `/proc`, which only Linux has.
    pub(super) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let fds = fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
            resident_bytes: kib(&text("/proc/self/status"), "VmRSS:").map(|kib| kib * 1024),
            // Not the one that reads the directory.
            open_fds: fds.map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: max_fds(&text("/proc/self/limits")),
        }
    }
}

/// Ticks of `/proc` per second: the same on all of Linux for programs (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time, the 14th and 15th field; the name of the process, the second, may have
/// spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11).map(str::parse::<f64>);
    Some((times.next()?.ok()? + times.next()?.ok()?) / TICKS_PER_SECOND)
}

fn kib(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_files_of_linux() {
        let stat = "12 (a ) b) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(kib("Name:\ta\nVmRSS:\t   42 kB\n", "VmRSS:"), Some(42));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(max_fds(limits), Some(1024));
        assert_eq!((cpu_seconds(""), kib("", "VmRSS:"), max_fds("")), (None, None, None));
    }

    #[test]
    fn this_process_has_them_on_linux() {
        let stats = ProcessStats::read();
        if cfg!(target_os = "linux") {
            assert!(stats.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{stats:?}");
            assert!(stats.open_fds <= stats.max_fds && stats.open_fds > Some(0), "{stats:?}");
            assert!(stats.cpu_seconds.is_some(), "{stats:?}");
        } else {
            assert_eq!(stats, ProcessStats::default());
        }
    }
}
