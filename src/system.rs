//! Errors of the operating system in the words that people search for, with the remedy where there is one.

use std::io::{self, ErrorKind};

/// Out of file descriptors: the process (EMFILE) or the machine (ENFILE). The numbers are the same on every Unix.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// Whether a file or socket could not be opened because there are too many.
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

/// Whether a datagram was larger than the interface or the path carries.
pub(crate) fn is_message_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EMSGSIZE)
}

/// What to do about an error, to be written behind it; empty where nothing helps that the error does not say already.
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

/// The error with its remedy, for a log.
pub(crate) fn explain(error: &io::Error) -> String {
    format!("{error}{}", remedy(error))
}

/// The error for somebody on another machine: its kind, without paths, addresses and numbers.
pub(crate) fn kind(error: &io::Error) -> String {
    if is_out_of_files(error) {
        return "too many open files".to_owned();
    }
    let kind = error.kind().to_string();
    // What the standard library says of every error that it does not name.
    if kind != "uncategorized error" && kind != "other error" {
        return kind;
    }
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().chars().take(120).collect()
}

/// Of two failures to connect, the one that came closer to a connection, or that has another cause than the network.
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
    fn the_address_that_came_closest_says_why() {
        let kinds = [ErrorKind::NetworkUnreachable, ErrorKind::ConnectionRefused];
        for [one, other] in [kinds, [kinds[1], kinds[0]]] {
            let told = more_telling(one.into(), other.into());
            assert_eq!(told.kind(), ErrorKind::ConnectionRefused);
        }
        let files =
            more_telling(ErrorKind::ConnectionRefused.into(), io::Error::from_raw_os_error(EMFILE));
        assert!(is_out_of_files(&files));
    }
}
