//! Notifications to systemd: started, reloading, stopping, alive. Sends nothing unless systemd asks
//! for it with `NOTIFY_SOCKET` in the environment.

use std::{future::Future, pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// What systemd learns; texts are shown by `systemctl status`.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux has systemd"))]
pub(crate) enum Notification<'a> {
    /// It does not work yet, and retries every few seconds: the time for the start begins again.
    NotReady(&'a str),
    /// It listens or dials, or a reload has ended.
    Ready(&'a str),
    Reloading,
    Stopping,
    Alive,
}

#[cfg(target_os = "linux")]
pub(crate) fn notify(notification: &Notification<'_>) {
    use sd_notify::NotifyState as State;
    /// Three retries.
    const MORE_MICROSECONDS: u32 = 15_000_000;
    let states = match *notification {
        Notification::NotReady(text) => {
            vec![State::ExtendTimeoutUsec(MORE_MICROSECONDS), State::Status(text)]
        }
        Notification::Ready(text) => vec![State::Ready, State::Status(text)],
        // A unit of Type=notify-reload needs the time.
        Notification::Reloading => match State::monotonic_usec_now() {
            Ok(now) => vec![State::Reloading, now],
            Err(_) => return,
        },
        Notification::Stopping => vec![State::Stopping, State::Status("shutting down")],
        Notification::Alive => vec![State::Watchdog],
    };
    if let Err(error) = sd_notify::notify(&states) {
        tracing::warn!(reason = %error, "cannot notify systemd at NOTIFY_SOCKET: {error}");
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn notify(_: &Notification<'_>) {}

#[cfg(target_os = "linux")]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

#[cfg(not(target_os = "linux"))]
fn watchdog() -> Option<Duration> {
    None
}

/// Runs a command, and sends signs of life twice in the time of systemd's watchdog. The workers of
/// the runtime keep its timers: if they hang, or the command does, no sign is sent.
pub(crate) async fn with_watchdog<T>(command: impl Future<Output = T>) -> T {
    let Some(limit) = watchdog().filter(|limit| !limit.is_zero()) else { return command.await };
    let mut command = pin!(command);
    let mut ticks = interval(limit / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = command.as_mut() => return ended,
            _ = ticks.tick() => notify(&Notification::Alive),
        }
    }
}
