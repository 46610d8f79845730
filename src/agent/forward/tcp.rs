//! TCP forwards: a call becomes a connection to a local upstream, and its messages are the bytes.

use super::{Upstream, check};
use crate::{
    call::{
        Body, EndMark, Handler, Messages, Next, Reply, Request, Socket, SocketWriter, Source,
        broken, end_span,
    },
    limits::{TCP_CONNECT_WAIT_MAX, TCP_IDLE_MAX},
    metadata::Metadata,
    name::{MethodPath, Name, NameError, PeerName},
    rate_limit::LogLimits,
    serve::Service,
    status::{Code, Status},
    system,
    wire::CallKind,
};
use bytes::Bytes;
use std::{
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// A local upstream, reached through the agent as `tcp:NAME`. Read from `db=127.0.0.1:5432`.
///
/// Each call is one connection to the upstream. A half-close goes through, either way; anything
/// else that ends one side, a killed process or a lost link among it, resets the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpForward {
    name: Name,
    upstream: Upstream,
    idle_max: Duration,
    connect_wait_max: Duration,
    is_checked: bool,
}

impl TcpForward {
    /// Forwards `tcp:NAME` to the upstream.
    pub const fn new(name: Name, upstream: Upstream) -> Self {
        let (idle_max, connect_wait_max) = (TCP_IDLE_MAX, TCP_CONNECT_WAIT_MAX);
        Self { name, upstream, idle_max, connect_wait_max, is_checked: false }
    }

    /// Sets after how long without a byte in either direction a connection is reset. Default 5 min.
    #[must_use]
    pub const fn idle_max(mut self, idle_max: Duration) -> Self {
        self.idle_max = idle_max;
        self
    }

    /// Sets how long the upstream may take to accept a connection. Default 5 s.
    #[must_use]
    pub const fn connect_wait_max(mut self, wait_max: Duration) -> Self {
        self.connect_wait_max = wait_max;
        self
    }

    /// Has the upstream connected to whenever the agent's readiness is asked for.
    #[must_use]
    pub const fn checked(mut self) -> Self {
        self.is_checked = true;
        self
    }

    /// Its name: it is called as `tcp:NAME`.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Its upstream.
    pub const fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// How long a connection may be silent, and how long the upstream may take to accept one.
    #[cfg(feature = "config")]
    pub(crate) const fn times(&self) -> [Duration; 2] {
        [self.idle_max, self.connect_wait_max]
    }

    /// True if the upstream is connected to whenever readiness is asked for.
    #[cfg(feature = "config")]
    pub(crate) const fn is_checked(&self) -> bool {
        self.is_checked
    }

    pub(in crate::agent) fn into_service(self) -> Service {
        let (kind, name) = (CallKind::Tcp, self.name.to_string());
        let check = check::of_tcp(&self.upstream, self.is_checked);
        let hosted = Hosted { forward: self, unreached: LogLimits::default() };
        Service::new(kind.as_str()).raw_method_of(kind, name, hosted).checked_by(check)
    }
}

impl FromStr for TcpForward {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, upstream) = text.split_once('=').ok_or_else(|| {
            NameError::new("forward", text, "is not written NAME=ADDR, as db=127.0.0.1:5432")
        })?;
        Ok(Self::new(name.parse()?, upstream.parse()?))
    }
}

/// A forward while it is hosted.
struct Hosted {
    forward: TcpForward,
    /// Limits the log lines about an unreachable upstream, per requester.
    unreached: LogLimits<PeerName>,
}

impl Hosted {
    /// Nothing is sent to the upstream before it has accepted, so a failure here was not executed.
    async fn connect(&self, requester: &PeerName, deadline: Instant) -> Result<Socket, Status> {
        let TcpForward { name, upstream, connect_wait_max, .. } = &self.forward;
        let until = deadline.min(Instant::now() + *connect_wait_max);
        let path = MethodPath::tcp(name);
        let (cause, why) = match tokio::time::timeout_at(until, upstream.connect()).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => (system::kind(&error), system::explain(&error)),
            Err(_elapsed) => {
                let text = "it did not answer in time".to_owned();
                (text.clone(), text)
            }
        };
        // Only the agent's log has the address: callers must not learn the network behind it.
        if let Some(suppressed) = self.unreached.admit(requester.clone(), Instant::now()) {
            tracing::warn!(
                method = %path,
                address = %upstream,
                reason = why,
                "{path}: the upstream {upstream} cannot be reached: {why}{suppressed}"
            );
        }
        let text = format!("the upstream of {path} cannot be reached: {cause}");
        Err(Status::not_executed(Code::Unavailable, text))
    }
}

impl Handler for Hosted {
    async fn call(&self, mut request: Request) -> Result<Reply, Status> {
        let Body::Messages(requests) = request.body else {
            let text = "one message came where a stream of bytes was expected";
            return Err(Status::not_executed(Code::Internal, text));
        };
        let mut span = request.meta.forward_span("connect");
        self.forward.upstream.describe(&mut span);
        let connected = self.connect(request.requester.peer(), request.meta.deadline).await;
        let socket = match connected {
            Ok(socket) => socket,
            Err(status) => return end_span(span, Err(status)),
        };
        let connection = TcpConnection {
            socket: Some(socket),
            requests,
            writer: Some(SocketWriter::new(EndMark::End)),
            written: 0,
            has_ended: false,
            idle: IdleTimer::new(&self.forward),
        };
        // The first message: connected.
        let messages = Messages::new(connection).starting_with(Next::Message(Bytes::new()));
        end_span(span, Ok(Reply::stream(messages)))
    }
}

/// A connection to the upstream. Polling it for bytes also sends. Dropped early, it is reset.
struct TcpConnection {
    /// Taken when both directions have ended.
    socket: Option<Socket>,
    requests: Messages,
    /// Writer to the upstream; `None` after the end of the request.
    writer: Option<SocketWriter>,
    written: u64,
    /// True if the upstream has ended its direction.
    has_ended: bool,
    idle: IdleTimer,
}

impl TcpConnection {
    /// Writes available bytes to the upstream. Ready when the connection must be reset.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let (Some(way), Some(socket)) = (&mut self.writer, &mut self.socket) else {
            return self.idle.poll(cx);
        };
        let ended = way.poll(cx, &mut self.requests, socket);
        if way.bytes() != self.written {
            self.written = way.bytes();
            self.idle.moved();
        }
        match ended {
            Poll::Ready(Err(status)) => return Poll::Ready(status),
            Poll::Ready(Ok(())) => self.writer = None,
            Poll::Pending => {}
        }
        self.idle.poll(cx)
    }

    /// Next bytes of the upstream.
    fn poll_from(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let Some(socket) = self.socket.as_mut().filter(|_| !self.has_ended) else {
            return Poll::Pending;
        };
        match std::task::ready!(socket.poll_read(cx)) {
            Ok(bytes) => {
                self.idle.moved();
                self.has_ended = bytes.is_empty();
                Poll::Ready(Next::Message(bytes))
            }
            Err(error) => Poll::Ready(Next::Failed(broken(error))),
        }
    }
}

impl Source for TcpConnection {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if let Poll::Ready(status) = self.poll_write(cx) {
            return Poll::Ready(Next::Failed(status));
        }
        if let Poll::Ready(next) = self.poll_from(cx) {
            return Poll::Ready(next);
        }
        if self.writer.is_some() || !self.has_ended {
            return Poll::Pending;
        }
        if let Some(socket) = self.socket.take() {
            socket.end_well();
        }
        Poll::Ready(Next::End(Metadata::default()))
    }

    /// Runs while the initiator does not read.
    fn poll_background(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Poll::Ready(status) = self.poll_write(cx) {
            return Poll::Ready(status);
        }
        match &mut self.socket {
            Some(socket) => socket.poll_broken(cx).map(broken),
            None => Poll::Pending,
        }
    }
}

/// Timer that runs while no bytes move.
struct IdleTimer {
    name: Name,
    max: Duration,
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl IdleTimer {
    fn new(forward: &TcpForward) -> Self {
        let max = forward.idle_max;
        let timer = Box::pin(tokio::time::sleep(max));
        Self { name: forward.name.clone(), max, last: Instant::now(), timer }
    }

    /// A byte has moved. The timer is reset only when it fires.
    fn moved(&mut self) {
        self.last = Instant::now();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if self.last + self.max <= Instant::now() {
                let path = MethodPath::tcp(&self.name);
                let text = format!(
                    "no byte moved in either direction for {:?} (idle of {path})",
                    self.max
                );
                return Poll::Ready(Status::unknown(Code::DeadlineExceeded, text));
            }
            self.timer.as_mut().reset(self.last + self.max);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_written_as_a_name_and_an_upstream() {
        let forward: TcpForward = "db=127.0.0.1:5432".parse().expect("a forward");
        assert_eq!(
            (forward.name().as_str(), forward.upstream().to_string().as_str()),
            ("db", "127.0.0.1:5432")
        );
        for bad in [
            "",
            "db",
            "db=",
            "=127.0.0.1:1",
            "DB=127.0.0.1:1",
            "db=127.0.0.1",
            "a/b=x:1",
            "db=x:1=y",
        ] {
            assert!(bad.parse::<TcpForward>().is_err(), "{bad:?} was taken for a forward");
        }
    }
}
