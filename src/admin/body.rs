//! Body of a response of the admin listener: a text, or a stream of server-sent events.

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Interval;

/// Makes the next event; `None` ends the stream.
type Making = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;

pub(super) enum AdminBody {
    Text(Full<Bytes>),
    Events(EventStream),
}

/// Events at an interval, for as long as they are read.
pub(super) struct EventStream {
    ticks: Interval,
    make: Box<dyn Fn() -> Making + Send>,
    making: Option<Making>,
    has_ended: bool,
}

impl AdminBody {
    /// Sends what `make` returns, the first at once and then at every tick, until that is `None`.
    pub(super) fn events<F>(ticks: Interval, make: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<Bytes>> + Send + 'static,
    {
        let make = Box::new(move || -> Making { Box::pin(make()) });
        Self::Events(EventStream { ticks, make, making: None, has_ended: false })
    }
}

impl EventStream {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.has_ended {
            if let Some(making) = &mut self.making {
                let event = ready!(making.as_mut().poll(cx));
                self.making = None;
                self.has_ended = event.is_none();
                return Poll::Ready(event);
            }
            ready!(self.ticks.poll_tick(cx));
            self.making = Some((self.make)());
        }
        Poll::Ready(None)
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Text(text) => Pin::new(text).poll_frame(cx),
            Self::Events(events) => {
                events.poll_event(cx).map(|event| event.map(|event| Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Events(events) => events.has_ended,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Events(_) => http_body::SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };
    use tokio::time::{Instant, interval};

    #[tokio::test(start_paused = true)]
    async fn events_come_at_once_and_then_at_their_interval() {
        let second = Duration::from_secs(1);
        let count = Arc::<AtomicU64>::default();
        let mut body = AdminBody::events(interval(second), move || {
            let number = count.fetch_add(1, Ordering::Relaxed);
            async move { (number < 3).then(|| Bytes::from(number.to_string())) }
        });
        let began = Instant::now();
        for expected in ["0", "1", "2"] {
            let frame = body.frame().await.expect("an event").expect("no error");
            assert_eq!(frame.into_data().expect("data"), expected.as_bytes());
        }
        assert_eq!(began.elapsed(), 2 * second);
        assert!(body.frame().await.is_none() && body.is_end_stream());
    }

    #[tokio::test]
    async fn a_text_comes_whole_with_its_length() {
        let body = AdminBody::Text(Full::new(Bytes::from_static(b"ok\n")));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.expect("no error").to_bytes(), "ok\n");
    }
}
