//! Errors of the operating system in plain English, with a remedy where there is one.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

/// Out of file descriptors, of the process (EMFILE) or machine (ENFILE). Equal on every Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// True if a file or socket could not be opened because too many are open.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

/// A datagram is larger than the path carries (EMSGSIZE).
const EMSGSIZE: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
    90
} else if cfg!(windows) {
    10_040
} else {
    40
};

/// True if a datagram was larger than the interface or the path carries.
pub(crate) fn is_message_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EMSGSIZE)
}

/// Remedy of an error, to append to its text; empty if there is none.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(EMFILE) if cfg!(unix) => {
            "; this process is at its limit of file descriptors, raise it (ulimit -n, LimitNOFILE in systemd)"
        }
        Some(ENFILE) if cfg!(unix) => {
            "; this machine is at its limit of file descriptors (fs.file-max)"
        }
        _ => "",
    }
}

/// Remedy of an error of listening on a TCP address that this flag sets, to append to its text.
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(crate) fn listen_remedy(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "; another process listens there, stop it or choose another address with {flag}"
            )
        }
        ErrorKind::AddrNotAvailable => "; no interface of this machine has that address".into(),
        ErrorKind::PermissionDenied => "; ports below 1024 need a privilege".into(),
        _ => remedy(error).into(),
    }
}

/// Who may not read a file, to append to its path; empty if the error is another one.
pub(crate) fn reader_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            ", which this user may not read (chgrp, then chmod 640, let a group read it)"
        }
        _ => "",
    }
}

/// Text of an error with its remedy, for a log.
pub(crate) fn explain(error: &io::Error) -> String {
    format!("{error}{}", remedy(error))
}

/// Kind of an error for a peer on another machine, without paths, addresses and numbers.
pub(crate) fn kind(error: &io::Error) -> String {
    if is_out_of_files(error) {
        return "too many open files".to_owned();
    }
    let kind = error.kind().to_string();
    // The standard library's text for every error that it does not name.
    if kind != "uncategorized error" && kind != "other error" {
        return kind;
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().chars().take(120).collect()
}

/// Selects the failed attempt that came closer to a connection or failed outside the network.
pub(crate) fn more_telling(one: io::Error, other: io::Error) -> io::Error {
    let rank = |error: &io::Error| match error.kind() {
        _ if is_out_of_files(error) => 4,
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => 3,
        ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable => 0,
        ErrorKind::HostUnreachable => 1,
        _ => 2,
    };
    if rank(&other) > rank(&one) { other } else { one }
}

/// Bytes of memory that this process may use: the lowest limit of its cgroup and the cgroups above
/// it, and the memory of the machine. `None` if unknown.
pub(crate) fn memory_bytes() -> Option<usize> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let cgroups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let machine = read(Path::new("/proc/meminfo")).as_deref().and_then(machine_bytes);
    cgroup_bytes(&cgroups, read).into_iter().chain(machine).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn machine_bytes(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Lowest memory limit of `/proc/self/cgroup`, version 1 or 2; a limit applies to all groups below.
fn cgroup_bytes(cgroups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let mut least = None;
    for line in cgroups.lines() {
        let Some((_, (controllers, group))) =
            line.split_once(':').and_then(|(id, rest)| Some((id, rest.split_once(':')?)))
        else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|it| it == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // In a container the group may have its outside name, and its limit is then at the root.
        let within = Path::new(group.trim_start_matches('/'));
        let limits = within.ancestors().filter_map(|group| {
            read(&Path::new(root).join(group).join(file))?.trim().parse::<usize>().ok()
        });
        least = limits.chain(least).min();
    }
    least
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_is_named_with_its_remedy() {
        let error = io::Error::from_raw_os_error(EMFILE);
        assert_eq!(kind(&error), "too many open files");
        assert!(explain(&error).contains("ulimit -n"), "{}", explain(&error));
        assert!(explain(&io::Error::from_raw_os_error(ENFILE)).contains("fs.file-max"));
        assert_eq!(remedy(&ErrorKind::ConnectionRefused.into()), "");
    }

    #[test]
    fn no_error_is_shown_as_uncategorized() {
        for number in 1..134 {
            let text = kind(&io::Error::from_raw_os_error(number));
            assert!(!text.contains("uncategorized") && !text.is_empty(), "{number}: {text}");
            assert!(!text.contains("os error"), "{number}: {text}");
        }
        let unresolved = io::Error::other("failed to lookup address information: unknown name");
        assert_eq!(kind(&unresolved), "failed to lookup address information: unknown name");
        assert_eq!(kind(&ErrorKind::ConnectionRefused.into()), "connection refused");
    }

    #[test]
    fn the_error_closest_to_a_connection_is_selected() {
        let kinds = [ErrorKind::NetworkUnreachable, ErrorKind::ConnectionRefused];
        for [one, other] in [kinds, [kinds[1], kinds[0]]] {
            let told = more_telling(one.into(), other.into());
            assert_eq!(told.kind(), ErrorKind::ConnectionRefused);
        }
        let files =
            more_telling(ErrorKind::ConnectionRefused.into(), io::Error::from_raw_os_error(EMFILE));
        assert!(is_out_of_files(&files));
    }

    #[test]
    fn the_lowest_limit_of_a_cgroup_and_its_parents_applies() {
        let files = [
            ("/sys/fs/cgroup/system.slice/memory.max", "1000"),
            ("/sys/fs/cgroup/system.slice/a.service/memory.max", "max"),
            ("/sys/fs/cgroup/system.slice/b.service/memory.max", "268435456\n"),
            ("/sys/fs/cgroup/big.slice/memory.max", "500"),
            ("/sys/fs/cgroup/big.slice/c/memory.max", "700"),
            ("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "300"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ];
        let read = |path: &Path| {
            let found = files.iter().find(|(file, _)| Path::new(file) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        for (cgroups, expected) in [
            ("0::/system.slice/a.service\n", Some(1_000)),
            ("0::/system.slice/b.service\n", Some(1_000)),
            ("0::/big.slice/c\n", Some(500)),
            ("0::/\n", None),
            ("0::/elsewhere\n", None),
            ("5:cpu,cpuacct:/x\n4:memory:/docker/x\n0::/\n", Some(300)),
            ("4:hugetlb,memory:/not/mounted/here\n", Some(9_223_372_036_854_771_712)),
            ("damaged\n\n::\n", None),
            ("", None),
        ] {
            assert_eq!(cgroup_bytes(cgroups, read), expected, "{cgroups:?}");
        }
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let text = "MemTotal:       24689856 kB\nMemFree:  1 kB\n";
        assert_eq!(machine_bytes(text), Some(24_689_856 * 1024));
        assert_eq!(machine_bytes("MemTotal: x kB\n"), None);
        assert_eq!(machine_bytes(""), None);
        if cfg!(target_os = "linux") {
            assert!(memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
}
/// Lets the end of a connection be a reset, so that its peer sees an error. What was not sent yet
/// is lost.
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(crate) fn reset_on_close(stream: &tokio::net::TcpStream) {
    drop(socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)));
}

/// Limits the bytes that wait unsent in the operating system, which would be a second queue. Not
/// available on every system.
#[cfg(any(feature = "gateway", feature = "tunnel"))]
pub(crate) fn limit_unsent(stream: &tokio::net::TcpStream, bytes: u32) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    drop(socket2::SockRef::from(stream).set_tcp_notsent_lowat(bytes));
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, bytes);
}
