//! Long-running commands wait for a certificate that is not valid yet, as before a clock is set.

use crate::{
    exit::Failure,
    output::escape,
    reload::Pending,
    service_manager::{Notification, notify},
    signals::Signals,
};
use dialback::limits::RELOAD_RETRY_EVERY;
use std::{
    future::ready,
    time::{Duration, Instant, SystemTime},
};

/// Minimum pause between two reads of the files.
const WAIT_MIN: Duration = Duration::from_millis(100);

/// Returns the result of the first attempt or of a retry; `None` if a signal has ended the wait.
///
/// Retries while a certificate is not valid yet: when it is by the clock, at SIGHUP, and every few
/// seconds, because the clock may be set and files may change. Once it waits, other failures do not
/// end it: files that are being replaced do not match for a moment.
pub(crate) async fn until_valid<T>(
    first: Result<T, Failure>,
    again: impl AsyncFn() -> Result<T, Failure>,
    signals: &mut Signals,
    mut hangup: impl AsyncFnMut(),
) -> Result<Option<T>, Failure> {
    let mut failure = match first {
        Err(failure @ Failure::NotValidYet(..)) => failure,
        other => return other.map(Some),
    };
    let mut pending = Pending::default();
    loop {
        notify(&Notification::NotReady(&escape(&failure.lines().join("; "))));
        for line in pending.due(failure.lines(), Instant::now()) {
            tracing::warn!(reason = line, "not started yet, retrying: {line}");
        }
        let next = async {
            tokio::select! {
                () = hangup() => tracing::info!("SIGHUP received: retrying"),
                () = tokio::time::sleep(wait(&failure, SystemTime::now())) => {}
            }
            again().await
        };
        let next = tokio::select! {
            biased;
            stop = signals.next() => {
                return signals.stop(stop, |_abort| ready(())).await.map(|()| None);
            }
            next = next => next,
        };
        failure = match next {
            Ok(done) => return Ok(Some(done)),
            Err(failure) => failure,
        };
    }
}

/// Time until the certificate is valid, if known, and never long: the clock may be set meanwhile.
fn wait(failure: &Failure, now: SystemTime) -> Duration {
    match failure {
        Failure::NotValidYet(_, Some(since)) => {
            let left = since.duration_since(now).unwrap_or_default();
            left.clamp(WAIT_MIN, RELOAD_RETRY_EVERY)
        }
        _ => RELOAD_RETRY_EVERY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_ends_with_the_start_of_the_certificate_and_is_never_long() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let second = Duration::from_secs(1);
        let from = |since| wait(&Failure::NotValidYet("x".into(), Some(since)), now);
        assert_eq!(from(now + 3 * second), 3 * second);
        assert_eq!(from(now + 3_600 * second), RELOAD_RETRY_EVERY);
        assert_eq!((from(now), from(now - second)), (WAIT_MIN, WAIT_MIN));
        assert_eq!(wait(&Failure::NotValidYet("x".into(), None), now), RELOAD_RETRY_EVERY);
        assert_eq!(wait(&Failure::usage("x"), now), RELOAD_RETRY_EVERY);
    }
}
