//! Time limits of a streamed reply: its deadline, and the longest time without a message.

use super::{reply_parts::ReplyStreamError, request_faults::StreamActivity, stall::StallPolicy};
use crate::status::Code;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

/// Bounds the waits for the messages of one reply. All share one timer, which is set again only
/// when it has fired: a small message does not pay for one.
pub(super) struct MessageTimer {
    deadline: Instant,
    /// Longest time without activity in either direction; the ends of a TCP connection have a limit
    /// of their own.
    idle_max: Option<Duration>,
    /// Created at the first wait.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The start of a wait without activity.
struct Quiet {
    since: Instant,
    count: u64,
}

impl MessageTimer {
    pub(super) fn new(deadline: Instant, policy: StallPolicy, stream_idle_max: Duration) -> Self {
        let idle_max = (policy == StallPolicy::Reset).then_some(stream_idle_max);
        Self { deadline, idle_max, timer: None }
    }

    /// Awaits work, and counts it as activity.
    pub(super) async fn wait<T>(
        &mut self,
        activity: &StreamActivity,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, ReplyStreamError> {
        let mut quiet = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                activity.add();
                return Poll::Ready(Ok(output));
            }
            self.poll_late(cx, activity, &mut quiet).map(Err)
        })
        .await
    }

    /// Ready when the wait has taken too long.
    fn poll_late(
        &mut self,
        cx: &mut Context<'_>,
        activity: &StreamActivity,
        quiet: &mut Option<Quiet>,
    ) -> Poll<ReplyStreamError> {
        let start = || Quiet { since: Instant::now(), count: activity.count() };
        loop {
            let until = match self.idle_max {
                Some(idle_max) => quiet.get_or_insert_with(start).since + idle_max,
                None => self.deadline,
            };
            let until = until.min(self.deadline);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.deadline {
                let text = "the deadline passed";
                return Poll::Ready(ReplyStreamError::unknown(Code::DeadlineExceeded, text));
            }
            if now >= until {
                let count = activity.count();
                if quiet.as_ref().is_some_and(|quiet| quiet.count == count) {
                    return Poll::Ready(self.idle());
                }
                *quiet = None;
            } else {
                timer.as_mut().reset(until);
            }
        }
    }

    fn idle(&self) -> ReplyStreamError {
        let idle_max = self.idle_max.unwrap_or_default();
        let text =
            format!("nothing was sent in either direction for {idle_max:?} (stream_idle_max)");
        ReplyStreamError::unknown(Code::DeadlineExceeded, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{future::pending, pin::pin};
    use tokio::time::sleep;

    const IDLE: Duration = Duration::from_secs(4);
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Awaits work, and returns whether it was done and how long it took.
    async fn wait(
        timer: &mut MessageTimer,
        activity: &StreamActivity,
        work: impl Future<Output = ()>,
    ) -> (bool, Duration) {
        let began = Instant::now();
        let is_done = timer.wait(activity, pin!(work)).await.is_ok();
        (is_done, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_the_whole_idle_time_although_they_share_a_timer() {
        let activity = StreamActivity::default();
        let mut timer = MessageTimer::new(Instant::now() + DEADLINE, StallPolicy::Reset, IDLE);
        for _ in 0..3 {
            let work = sleep(IDLE * 3 / 4);
            assert_eq!(wait(&mut timer, &activity, work).await, (true, IDLE * 3 / 4));
        }
        assert_eq!(wait(&mut timer, &activity, pending()).await, (false, IDLE));
    }

    #[tokio::test(start_paused = true)]
    async fn activity_of_the_other_direction_extends_a_wait() {
        let activity = StreamActivity::default();
        let mut timer = MessageTimer::new(Instant::now() + DEADLINE, StallPolicy::Reset, IDLE);
        let work = async {
            sleep(IDLE / 2).await;
            activity.add();
            pending().await
        };
        assert_eq!(wait(&mut timer, &activity, work).await, (false, IDLE * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_a_wait_and_is_the_only_limit_of_a_tcp_connection() {
        let activity = StreamActivity::default();
        let mut timer = MessageTimer::new(Instant::now() + DEADLINE, StallPolicy::Wait(IDLE), IDLE);
        assert_eq!(wait(&mut timer, &activity, sleep(IDLE * 2)).await, (true, IDLE * 2));
        let left = DEADLINE - IDLE * 2;
        assert_eq!(wait(&mut timer, &activity, pending()).await, (false, left));
        let mut timer = MessageTimer::new(Instant::now() + IDLE / 2, StallPolicy::Reset, IDLE);
        assert_eq!(wait(&mut timer, &activity, pending()).await, (false, IDLE / 2));
    }
}
