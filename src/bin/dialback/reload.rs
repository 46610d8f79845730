//! Reload of a long-running command's files: on SIGHUP, and when they change. They are checked as a
//! whole first; on any error the previous settings stay in effect.

use crate::{
    exit::Failure,
    output::escape,
    service_manager::{Notification, notify, with_watchdog},
    signals::{Hangups, Signals, block_on},
    until_valid::until_valid,
};
use dialback::{
    config::{Watch, read_aside},
    limits::{EXPIRY_WARNING_EVERY, RELOAD_CHECK_EVERY, RELOAD_RETRY_EVERY},
};
use std::{convert::Infallible, future::Future, path::PathBuf, sync::Arc, time::Instant};
use tokio::runtime::Builder;

/// The failure of the last reload. It is retried until it succeeds, because the remedy may not be
/// in a file's contents: a mode, a clock, a missing file. Logged when it is new, and every hour.
#[derive(Default)]
pub(crate) struct Pending(Option<(Vec<String>, Instant)>);

impl Pending {
    /// The lines of a failure that are due. A new clock reading does not make a line a new one.
    pub(crate) fn due(&mut self, lines: Vec<String>, now: Instant) -> Vec<String> {
        let marks: Vec<String> = lines.iter().map(|line| without_clock(line)).collect();
        let was_logged = self.0.as_ref().is_some_and(|(logged, when)| {
            *logged == marks && now.saturating_duration_since(*when) < EXPIRY_WARNING_EVERY
        });
        if was_logged {
            return Vec::new();
        }
        self.0 = Some((marks, now));
        lines
    }

    /// Completes when it is time to retry; never if nothing failed.
    async fn again(&self) {
        match self.0 {
            Some(_) => tokio::time::sleep(RELOAD_RETRY_EVERY).await,
            None => std::future::pending().await,
        }
    }
}

/// A line without the clock reading that messages about dates contain.
fn without_clock(line: &str) -> String {
    const CLOCK: &str = "the local clock says ";
    let Some((before, after)) = line.split_once(CLOCK) else { return line.to_owned() };
    format!("{before}{}", after.get("2026-11-29T09:01:05Z".len()..).unwrap_or_default())
}

/// Reads settings from files, on a thread that may block.
pub(crate) type Reader<S> = Arc<dyn Fn() -> Result<S, Failure> + Send + Sync>;

pub(crate) struct Start<S> {
    pub(crate) settings: S,
    pub(crate) signals: Signals,
    pub(crate) reloads: Reloads<S>,
}

/// Reads settings again when their files change, and on SIGHUP.
pub(crate) struct Reloads<S> {
    pub(crate) reader: Reader<S>,
    files: fn(&S) -> Vec<PathBuf>,
    watch: Watch,
    pub(crate) hangups: Hangups,
}

/// Runs a long-running command: reads settings, waits for a valid certificate, serves.
pub(crate) fn run<S: Send + 'static, F: Future<Output = Result<(), Failure>>>(
    read: impl Fn() -> Result<S, Failure> + Send + Sync + 'static,
    files: fn(&S) -> Vec<PathBuf>,
    serve: impl FnOnce(Start<S>) -> F,
) -> Result<(), Failure> {
    let reader: Reader<S> = Arc::new(read);
    let first_read = first(&reader, files);
    let command = async {
        let (mut signals, mut hangups) = (Signals::listen()?, Hangups::listen()?);
        let again = async || {
            let reader = reader.clone();
            aside(move || first(&reader, files)).await
        };
        match until_valid(first_read, again, &mut signals, async || hangups.next().await).await? {
            Some((settings, watch)) => {
                let reloads = Reloads { reader, files, watch, hangups };
                serve(Start { settings, signals, reloads }).await
            }
            None => Ok(()),
        }
    };
    block_on(Builder::new_multi_thread(), with_watchdog(command))
}

/// Initial settings, and a watch on their files.
fn first<S>(reader: &Reader<S>, files: impl Fn(&S) -> Vec<PathBuf>) -> Result<(S, Watch), Failure> {
    // Read once to learn the files, which are watched before the read that counts.
    let watch = Watch::new(files(&reader()?));
    Ok((reader()?, watch))
}

impl<S: Send + 'static> Reloads<S> {
    /// Reads the settings again while it is polled, and notifies systemd of the start, with this
    /// status, and of each reload by SIGHUP. `check` refuses them, or names the changed ones
    /// that take a restart; `apply` applies and logs the others.
    pub(crate) async fn run(
        mut self,
        status: impl Fn() -> String,
        check: impl Fn(&S) -> Result<Vec<&'static str>, Failure>,
        apply: impl AsyncFn(S) -> Result<(), Failure>,
    ) -> Infallible {
        notify(&Notification::Ready(&status()));
        let mut pending = Pending::default();
        loop {
            tokio::select! {
                () = self.watch.changed() => {
                    pending = Pending::default();
                    tracing::info!("files have changed: reloading");
                }
                () = self.hangups.next() => {
                    notify(&Notification::Reloading);
                    pending = Pending::default();
                    self.watch.take().await;
                    tracing::info!(signal = "SIGHUP", "SIGHUP received: reloading all files");
                }
                () = pending.again() => {}
            }
            match self.reload(&check, &apply).await {
                Ok(()) => {
                    pending = Pending::default();
                    notify(&Notification::Ready(&status()));
                }
                Err(failure) => {
                    let lines = escape(&failure.lines().join("; "));
                    let text = format!("{}; reload failed: {lines}", status());
                    notify(&Notification::Ready(&text));
                    for line in pending.due(failure.lines(), Instant::now()) {
                        // The log escapes its lines itself.
                        tracing::error!(
                            reason = line,
                            "reload failed, keeping the previous settings: {line}"
                        );
                    }
                }
            }
            // Signals that arrive meanwhile are merged, so that a storm of them is a bounded load.
            tokio::time::sleep(RELOAD_CHECK_EVERY).await;
        }
    }

    async fn reload(
        &mut self,
        check: impl Fn(&S) -> Result<Vec<&'static str>, Failure>,
        apply: impl AsyncFn(S) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut next = read_once(&self.reader).await?;
        let mut needs_restart = check(&next)?;
        if self.watch.follow((self.files)(&next)).await {
            next = read_once(&self.reader).await?;
            needs_restart = check(&next)?;
        }
        apply(next).await?;
        for setting in needs_restart {
            tracing::warn!(setting, "{setting} has changed: restart to apply");
        }
        Ok(())
    }
}

pub(crate) async fn read_once<S: Send + 'static>(reader: &Reader<S>) -> Result<S, Failure> {
    let reader = reader.clone();
    aside(move || reader()).await
}

/// Reads on a thread: an unresponsive mount must not block the signal that ends the process.
async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    read_aside(read)
        .await
        .unwrap_or_else(|| Err(Failure::Runtime(vec!["reading the files was interrupted".into()])))
}

/// Names of the settings that have changed and take a restart.
pub(crate) fn restarts<const N: usize>(changed: [(bool, &'static str); N]) -> Vec<&'static str> {
    changed.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialback::{CredentialsError, Utc};
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_persistent_failure_is_logged_once_and_again_after_an_hour_and_a_new_one_at_once() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let due =
            |pending: &mut Pending, text: &str, now| pending.due(vec![text.into()], now).len();
        assert_eq!(due(&mut pending, "a", now), 1);
        assert_eq!(due(&mut pending, "a", now + EXPIRY_WARNING_EVERY / 2), 0);
        assert_eq!(due(&mut pending, "b", now + EXPIRY_WARNING_EVERY / 2), 1);
        assert_eq!(due(&mut pending, "b", now + 2 * EXPIRY_WARNING_EVERY), 1);
    }

    #[test]
    fn a_new_clock_reading_does_not_make_a_line_new() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let mut due = |location: &str, seconds: u64| {
            let at = |seconds| Utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
            let (location, since, now_there) = (location.to_owned(), at(0), at(seconds));
            let error = CredentialsError::NotValidYet { location, since, now: now_there };
            pending.due(vec![error.to_string()], now).len() == 1
        };
        assert!(due("a", 1_000_000));
        assert!(!due("a", 1_000_005));
        assert!(due("b", 1_000_005));
    }
}
