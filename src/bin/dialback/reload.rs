//! A party that runs takes up what its files say now: on SIGHUP, and when they change. Checked as a whole first; if anything is wrong, what
//! was in force stays.

use crate::{exit::Failure, output::escape, signals::Hangups};
use dialback::{
    Applied, StartError,
    config::Watch,
    limits::{RELOAD_AGAIN_EVERY, WORRY_AGAIN_AFTER},
};
use std::{convert::Infallible, path::PathBuf, time::Instant};

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

/// Why what there is was not taken up. It is tried again until it is, because the remedy may lie elsewhere than in a file's contents: in a
/// mode, a clock, a file that is named and not there yet. Said when it is new, and every hour.
#[derive(Default)]
struct Pending(Option<(Vec<String>, Instant)>);

impl Pending {
    /// The lines of a failure that are due.
    fn due(&mut self, lines: Vec<String>, now: Instant) -> Vec<String> {
        let was_said = self.0.as_ref().is_some_and(|(said, when)| {
            *said == lines && now.saturating_duration_since(*when) < WORRY_AGAIN_AFTER
        });
        if was_said {
            return Vec::new();
        }
        self.0 = Some((lines.clone(), now));
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

/// Minds files and SIGHUP for as long as it is polled.
pub(crate) async fn mind<N>(
    mut watch: Watch,
    mut hangups: Hangups,
    read: impl Fn() -> Result<Read<N>, Failure>,
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
                watch.take();
                tracing::info!("SIGHUP: reading all files anew");
            }
            () = pending.again() => {}
        }
        let taken = match read() {
            Ok(Read { next, files, needs_restart, announce }) => {
                watch.follow(files);
                apply(next).await.map_err(Failure::from).map(|_applied| {
                    announce();
                    for setting in needs_restart {
                        tracing::warn!("{setting} has changed, which takes a restart");
                    }
                })
            }
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(()) => pending = Pending::default(),
            Err(failure) => {
                for line in pending.due(failure.lines(), Instant::now()) {
                    tracing::error!("not taken up, what was in force stays: {}", escape(&line));
                }
            }
        }
    }
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
        assert_eq!(due(&mut pending, "a", now + WORRY_AGAIN_AFTER / 2), 0);
        assert_eq!(due(&mut pending, "b", now + WORRY_AGAIN_AFTER / 2), 1);
        assert_eq!(due(&mut pending, "b", now + 2 * WORRY_AGAIN_AFTER), 1);
    }
}
