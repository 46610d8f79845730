//! The audit log of a node or an agent: opened first, reopened on SIGHUP, flushed at the end.

use crate::{exit::Failure, signals::Hangups};
use clap::{Args, builder::BoolishValueParser};
use dialback::{Audit, config::AuditFile, limits::AUDIT_FLUSH_WAIT_MAX};
use std::{
    future::Future,
    path::{Path, PathBuf},
};

/// Flags of the audit log.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Audit log")]
pub(crate) struct AuditArgs {
    /// Write links and refusals to this file as JSON lines; - is standard output. SIGHUP reopens it
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// Also write every call to the audit log
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", hide_possible_values = true, value_parser = BoolishValueParser::new())]
    pub(crate) audit_calls: Option<bool>,
}

impl From<AuditArgs> for AuditFile {
    fn from(args: AuditArgs) -> Self {
        let AuditArgs { audit, audit_calls } = args;
        Self { file: audit, calls: audit_calls }
    }
}

pub(crate) fn open(settings: AuditFile) -> Result<Audit, Failure> {
    let AuditFile { file, calls } = settings;
    let has_calls = calls.unwrap_or(false);
    let audit = match file.as_deref() {
        None if has_calls => {
            let text = "calls are to be audited, but no audit file is set; add --audit FILE, or `file` under [audit]";
            return Err(Failure::usage(text));
        }
        None => return Ok(Audit::default()),
        Some(path) if path == Path::new("-") => Audit::stdout(),
        Some(path) => Audit::file(path),
    };
    let audit = audit.map_err(|error| {
        let path = file.unwrap_or_default();
        Failure::usage(format!("cannot open the audit log {}: {error}", path.display()))
    })?;
    Ok(audit.with_calls(has_calls))
}

/// Runs a program, and reopens its audit log on each SIGHUP. Log rotation renames the file first.
pub(crate) async fn kept<T>(audit: &Audit, work: impl Future<Output = T>) -> Result<T, Failure> {
    let ended = tokio::select! {
        ended = work => Ok(ended),
        failed = reopen_on_hangup(audit) => failed,
    };
    if !audit.flush(AUDIT_FLUSH_WAIT_MAX) {
        tracing::warn!(
            wait_s = AUDIT_FLUSH_WAIT_MAX.as_secs(),
            "audit log not flushed within {AUDIT_FLUSH_WAIT_MAX:?}: its last lines are lost"
        );
    }
    ended
}

async fn reopen_on_hangup<T>(audit: &Audit) -> Result<T, Failure> {
    if !audit.is_on() {
        return std::future::pending().await;
    }
    let mut hangups = Hangups::listen()?;
    loop {
        hangups.next().await;
        audit.reopen();
    }
}
