//! A party that runs takes up what its files say now: on SIGHUP, and when they change. Checked as a
//! whole first; if anything is wrong, what was in force stays.

use crate::{
    exit::Failure,
    node::runtime,
    signals::{Hangups, Signals},
    until_valid::until_valid,
};
use dialback::{
    Applied, StartError,
    config::{Watch, read_aside},
    limits::{EXPIRY_WARNING_EVERY, RELOAD_AGAIN_EVERY, RELOAD_LOOK_EVERY},
};
use std::{convert::Infallible, future::Future, path::PathBuf, sync::Arc, time::Instant};

/// What was read, and from where.
pub(crate) struct Read<N> {
    /// To be put in force.
    pub(crate) next: N,
    /// To be watched from now on.
    pub(crate) files: Vec<PathBuf>,
    /// What has changed too and takes a restart: names of settings.
    pub(crate) needs_restart: Vec<&'static str>,
    /// Says what it is, once it is in force.
    pub(crate) announce: Box<dyn FnOnce()>,
}

/// Why what there is was not taken up. It is tried again until it is, because the remedy may lie
/// elsewhere than in a file's contents: in a mode, a clock, a file that is named and not there yet.
/// Said when it is new, and every hour.
#[derive(Default)]
pub(crate) struct Pending(Option<(Vec<String>, Instant)>);

impl Pending {
    /// The lines of a failure that are due. What the clock says does not make a line a new one.
    pub(crate) fn due(&mut self, lines: Vec<String>, now: Instant) -> Vec<String> {
        let marks: Vec<String> = lines.iter().map(|line| without_clock(line)).collect();
        let was_said = self.0.as_ref().is_some_and(|(said, when)| {
            *said == marks && now.saturating_duration_since(*when) < EXPIRY_WARNING_EVERY
        });
        if was_said {
            return Vec::new();
        }
        self.0 = Some((marks, now));
        lines
    }

    /// Ends when it is time to try again; never if all was taken up.
    async fn again(&self) {
        match self.0 {
            Some(_) => tokio::time::sleep(RELOAD_AGAIN_EVERY).await,
            None => std::future::pending().await,
        }
    }
}

/// A line without the moment at which it was made, which messages about dates have.
fn without_clock(line: &str) -> String {
    const SAYS: &str = "the clock here says ";
    let Some((before, after)) = line.split_once(SAYS) else { return line.to_owned() };
    format!("{before}{}", after.get("2026-11-29T09:01:05Z".len()..).unwrap_or_default())
}

/// How settings are read: from files, on a thread that may wait for them.
pub(crate) type Reader<S> = Arc<dyn Fn() -> Result<S, Failure> + Send + Sync>;

/// What a party that stays starts with.
pub(crate) struct Start<S> {
    pub(crate) reader: Reader<S>,
    pub(crate) settings: S,
    /// On the files where they were read.
    pub(crate) watch: Watch,
    pub(crate) signals: Signals,
    pub(crate) hangups: Hangups,
}

/// Runs a party that stays: reads its settings, waits where its certificate is not valid yet, and
/// serves.
pub(crate) fn run<S: Send + 'static, F: Future<Output = Result<(), Failure>>>(
    reader: Reader<S>,
    files: fn(&S) -> Vec<PathBuf>,
    serve: impl FnOnce(Start<S>) -> F,
) -> Result<(), Failure> {
    let read = first(&reader, files);
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let (mut signals, mut hangups) = (Signals::listen()?, Hangups::listen()?);
        let again = async || {
            let reader = reader.clone();
            aside(move || first(&reader, files)).await
        };
        match until_valid(read, again, &mut signals, async || hangups.next().await).await? {
            Some((settings, watch)) => {
                serve(Start { reader, settings, watch, signals, hangups }).await
            }
            None => Ok(()),
        }
    });
    // A resolver or a file that is still being waited for must not keep the process.
    runtime.shutdown_background();
    result
}

/// What a party starts with, and a watch on where it was read.
fn first<S>(reader: &Reader<S>, files: impl Fn(&S) -> Vec<PathBuf>) -> Result<(S, Watch), Failure> {
    // Read once to know which files these are: they are watched from before they are read for good,
    // so that no change falls between.
    let watch = Watch::new(files(&reader()?));
    Ok((reader()?, watch))
}

/// Minds files and SIGHUP for as long as it is polled. What was read is made fit for the party that
/// runs, and applied.
pub(crate) async fn mind<S: Send + 'static, N>(
    mut watch: Watch,
    mut hangups: Hangups,
    reader: Reader<S>,
    fit: impl Fn(S) -> Result<Read<N>, Failure>,
    apply: impl AsyncFn(N) -> Result<Applied, StartError>,
) -> Infallible {
    let mut pending = Pending::default();
    loop {
        tokio::select! {
            () = watch.changed() => {
                pending = Pending::default();
                tracing::info!("files have changed: reading them anew");
            }
            () = hangups.next() => {
                pending = Pending::default();
                watch.take().await;
                tracing::info!("SIGHUP: reading all files anew");
            }
            () = pending.again() => {}
        }
        let taken = async {
            let mut read = fit(read_once(&reader).await?)?;
            if watch.follow(read.files.clone()).await {
                read = fit(read_once(&reader).await?)?;
            }
            apply(read.next).await?;
            (read.announce)();
            for setting in read.needs_restart {
                tracing::warn!("{setting} has changed, which takes a restart");
            }
            Ok::<(), Failure>(())
        };
        match taken.await {
            Ok(()) => pending = Pending::default(),
            Err(failure) => {
                for line in pending.due(failure.lines(), Instant::now()) {
                    // The log escapes what it writes, each form in its own way.
                    tracing::error!("not taken up, what was in force stays: {line}");
                }
            }
        }
        // Signals that come meanwhile are one signal: a storm of them is a reading now and then.
        tokio::time::sleep(RELOAD_LOOK_EVERY).await;
    }
}

/// What the files say now.
pub(crate) async fn read_once<S: Send + 'static>(reader: &Reader<S>) -> Result<S, Failure> {
    let reader = reader.clone();
    aside(move || reader()).await
}

/// A file on a mount that does not answer holds up a thread, and not the signal that ends the
/// process.
async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    read_aside(read)
        .await
        .unwrap_or_else(|| Err(Failure::Runtime(vec!["reading the files broke off".into()])))
}

/// Whether what has been changed takes a restart: names of settings, and whether they are others
/// than those that the party has.
pub(crate) fn restarts<const N: usize>(changed: [(bool, &'static str); N]) -> Vec<&'static str> {
    changed.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_stays_is_said_once_and_again_after_an_hour_and_another_at_once() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let due =
            |pending: &mut Pending, text: &str, now| pending.due(vec![text.into()], now).len();
        assert_eq!(due(&mut pending, "a", now), 1);
        assert_eq!(due(&mut pending, "a", now + EXPIRY_WARNING_EVERY / 2), 0);
        assert_eq!(due(&mut pending, "b", now + EXPIRY_WARNING_EVERY / 2), 1);
        assert_eq!(due(&mut pending, "b", now + 2 * EXPIRY_WARNING_EVERY), 1);
    }

    #[test]
    fn a_line_is_not_new_because_the_clock_has_gone_on() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let mut due = |place: &str, at: &str| {
            let line = format!("{place} is not valid yet, and the clock here says {at}; check it");
            pending.due(vec![line.clone()], now) == [line]
        };
        assert!(due("a", "2026-11-29T09:01:05Z"));
        assert!(!due("a", "2026-11-29T09:01:10Z"));
        assert!(due("b", "2026-11-29T09:01:10Z"));
    }
}
