//! A party that runs takes up what its files say now: on SIGHUP, and when they change. Checked as a whole first; if anything is wrong, what
//! was in force stays.

use crate::{exit::Failure, output::escape, signals::Hangups};
use dialback::{Applied, Generation, StartError, config::Watch};
use std::{convert::Infallible, path::PathBuf};

/// What was read, and from where.
pub(crate) struct Read<P> {
    /// To be put in force.
    pub(crate) next: Generation<P>,
    /// To be watched from now on.
    pub(crate) files: Vec<PathBuf>,
    /// What has changed too and takes a restart: names of settings.
    pub(crate) needs_restart: Vec<&'static str>,
}

/// Minds files and SIGHUP for as long as it is polled.
pub(crate) async fn mind<P>(
    mut watch: Watch,
    mut hangups: Hangups,
    read: impl Fn() -> Result<Read<P>, Failure>,
    apply: impl AsyncFn(Generation<P>) -> Result<Applied, StartError>,
) -> Infallible {
    loop {
        tokio::select! {
            () = watch.changed() => tracing::info!("files have changed: reading them anew"),
            () = hangups.next() => {
                watch.take();
                tracing::info!("SIGHUP: reading all files anew");
            }
        }
        let taken = match read() {
            Ok(Read { next, files, needs_restart }) => {
                watch.follow(files);
                for setting in needs_restart {
                    tracing::warn!("{setting} has changed, which takes a restart");
                }
                apply(next).await.map(drop).map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = taken {
            for line in failure.lines() {
                tracing::error!("not taken up, what was in force stays: {}", escape(&line));
            }
        }
    }
}
