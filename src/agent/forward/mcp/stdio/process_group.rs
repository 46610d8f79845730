//! The processes that a command has started: they end with it.

/// Group of a process that was started as the leader of its own. Dropping it kills what is left.
pub(super) struct ProcessGroup {
    #[cfg(target_os = "linux")]
    group: Option<rustix::process::Pid>,
}

#[cfg(target_os = "linux")]
impl ProcessGroup {
    pub(super) fn of(leader: Option<u32>) -> Self {
        let leader = leader.and_then(|id| i32::try_from(id).ok());
        Self { group: leader.and_then(rustix::process::Pid::from_raw) }
    }

    /// Asks all of them to end (SIGTERM).
    pub(super) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(group) = self.group {
            // An error only says that none is left.
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

#[cfg(not(target_os = "linux"))]
impl ProcessGroup {
    pub(super) const fn of(_leader: Option<u32>) -> Self {
        Self {}
    }

    /// Elsewhere the leader alone is ended.
    pub(super) const fn terminate(&self) {}
}
