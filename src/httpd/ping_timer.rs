//! The clock of PINGs on a connection of HTTP/2, which stops while writes stall: a client that does
//! not read cannot answer them. The limit of stalls applies meanwhile.

use super::watched::Activity;
use crate::limits::HTTP2_PING_EVERY;
use hyper::rt::{Sleep as HyperSleep, Timer};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

pub(super) struct PingTimer(pub(super) Arc<Activity>);

struct PingSleep {
    until: Pin<Box<Sleep>>,
    activity: Arc<Activity>,
}

impl Timer for PingTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn HyperSleep>> {
        self.sleep_until((Instant::now() + duration).into_std())
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn HyperSleep>> {
        let until = Box::pin(tokio::time::sleep_until(deadline.into()));
        Box::pin(PingSleep { until, activity: self.0.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn HyperSleep>>, deadline: std::time::Instant) {
        if let Some(sleep) = sleep.as_mut().downcast_mut_pin::<PingSleep>() {
            sleep.get_mut().until.as_mut().reset(deadline.into());
        }
    }
}

impl HyperSleep for PingSleep {}

impl Future for PingSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.until.as_mut().poll(cx));
            let stalled = self.activity.last_write_stall();
            let until = stalled.map(|at| at + HTTP2_PING_EVERY).filter(|at| *at > Instant::now());
            let Some(until) = until else { return Poll::Ready(()) };
            self.until.as_mut().reset(until);
        }
    }
}
