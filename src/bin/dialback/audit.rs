//! The audit log of a node or an agent: opened before anything else starts, opened again on SIGHUP,
//! written to its end.

use crate::exit::Failure;
use clap::{Args, builder::BoolishValueParser};
use dialback::{Audit, config::AuditFile, limits::AUDIT_FLUSH_WAIT_MAX};
use std::{
    future::Future,
    path::{Path, PathBuf},
};

/// The audit log, as flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Audit log")]
pub(crate) struct AuditArgs {
    /// Write links and refusals to this file as JSON lines; - is standard output. SIGHUP opens it
    /// again
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// Write every call there too
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

/// Opens what flags and file name.
pub(crate) fn open(settings: AuditFile) -> Result<Audit, Failure> {
    let AuditFile { file, calls } = settings;
    let has_calls = calls.unwrap_or(false);
    let audit = match file.as_deref() {
        None if has_calls => {
            let text = "the audit log is to have calls and has no file; add --audit FILE, or `file` under [audit]";
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

/// Runs a program, and opens its audit log again on each SIGHUP. Whoever rotates logs renames the
/// file first.
pub(crate) async fn kept<T>(audit: &Audit, work: impl Future<Output = T>) -> Result<T, Failure> {
    let ended = tokio::select! {
        ended = work => Ok(ended),
        failed = reopen_on_hangup(audit) => failed,
    };
    if !audit.flush(AUDIT_FLUSH_WAIT_MAX) {
        tracing::warn!(
            "the last lines of the audit log were not written within {AUDIT_FLUSH_WAIT_MAX:?}"
        );
    }
    ended
}

/// Never ends well.
#[cfg(unix)]
async fn reopen_on_hangup<T>(audit: &Audit) -> Result<T, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    if audit.is_on() {
        let mut hangups = signal(SignalKind::hangup()).map_err(|error| Failure::runtime(&error))?;
        while hangups.recv().await.is_some() {
            audit.reopen();
        }
    }
    std::future::pending().await
}

/// Elsewhere nobody can ask for it.
#[cfg(not(unix))]
async fn reopen_on_hangup<T>(_: &Audit) -> Result<T, Failure> {
    std::future::pending().await
}
