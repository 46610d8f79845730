//! Calls over QUIC: one or more links to the node, each a caller of its own.

use super::{load::Way, tally::Traffic};
use crate::{
    caller::{self, CONNECT_WAIT_MAX},
    exit::Failure,
};
use bytes::Bytes;
use dialback::{
    Call, CallKind, Callee, Caller, Credentials, Inbound, MethodPath, Name, NodeAddress, Outbound,
    PathSettings, Shape, Status,
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

/// Time to close the links at the end.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// What each call of a run does.
#[derive(Debug)]
pub(super) struct LinkCall {
    /// `None`: any agent.
    pub(super) agent: Option<Name>,
    pub(super) method: MethodPath,
    pub(super) kind: CallKind,
    pub(super) message: Bytes,
    /// Messages that a call sends if its method takes a stream.
    pub(super) messages: u64,
    pub(super) timeout: Duration,
}

pub(super) struct Links(Vec<Caller>);

impl Links {
    pub(super) async fn connect(
        credentials: &Credentials,
        (node, paths): (&NodeAddress, &PathSettings),
        count: usize,
    ) -> Result<Self, Failure> {
        let mut links = Self(Vec::with_capacity(count));
        for _ in 0..count {
            match caller::dial(credentials.clone(), (node, paths.clone()), CONNECT_WAIT_MAX).await {
                Ok(caller) => links.0.push(caller),
                Err(error) => {
                    links.close().await;
                    return Err(error.into());
                }
            }
        }
        Ok(links)
    }

    pub(super) fn first(&self) -> &Caller {
        &self.0[0]
    }

    /// Ways for this number of calls in flight, over the links in turn.
    pub(super) fn ways(&self, call: LinkCall, in_flight: usize) -> Result<Vec<LinkWay>, Failure> {
        let call = Arc::new(call);
        let callee = |caller: &Caller| match &call.agent {
            Some(name) => caller.agent(name.as_str()),
            None => Ok(caller.any()),
        };
        let callees = self.0.iter().map(callee).collect::<Result<Vec<_>, _>>()?;
        let way = |callee: &Callee| LinkWay { callee: callee.clone(), call: call.clone() };
        Ok(callees.iter().cycle().take(in_flight).map(way).collect())
    }

    pub(super) async fn close(self) {
        let mut closing = JoinSet::new();
        for caller in self.0 {
            closing.spawn(tokio::time::timeout(CLOSE_WAIT_MAX, caller.close()));
        }
        drop(closing.join_all().await);
    }
}

/// One slot's way over a link.
pub(super) struct LinkWay {
    callee: Callee,
    call: Arc<LinkCall>,
}

impl Way for LinkWay {
    async fn call(&mut self) -> Result<Traffic, Status> {
        let LinkCall { method, message, .. } = &*self.call;
        match self.call.kind {
            CallKind::Unary => {
                let call = self.timed(self.callee.call_encoded::<()>(method, message.clone()));
                let reply = call.raw().await?;
                Ok(Traffic::unary(message.len(), reply.message()?.len()))
            }
            CallKind::ServerStream => self.server_stream().await,
            CallKind::ClientStream => self.client_stream().await,
            _ => self.bidirectional().await,
        }
    }
}

impl LinkWay {
    fn timed<R, S: Shape>(&self, call: Call<R, S>) -> Call<R, S> {
        call.timeout(self.call.timeout)
    }

    async fn server_stream(&self) -> Result<Traffic, Status> {
        let LinkCall { method, message, .. } = &*self.call;
        let call = self.callee.server_stream_encoded::<()>(method, message.clone());
        let received = receive(self.timed(call).await?).await?;
        let sent = Traffic { messages_sent: 1, bytes_sent: message.len() as u64, ..received };
        Ok(sent)
    }

    async fn client_stream(&self) -> Result<Traffic, Status> {
        let call = self.callee.client_stream::<(), ()>(&self.call.method);
        let (outbound, answer) = self.timed(call).await?;
        let (sent, reply) = tokio::join!(self.send(outbound), answer.raw());
        let bytes_received = reply?.message()?.len() as u64;
        Ok(Traffic { messages_received: 1, bytes_received, ..sent })
    }

    async fn bidirectional(&self) -> Result<Traffic, Status> {
        let call = self.callee.bidirectional::<(), ()>(&self.call.method);
        let (outbound, inbound) = self.timed(call).await?;
        let (sent, received) = tokio::join!(self.send(outbound), receive(inbound));
        let Traffic { messages_sent, bytes_sent, .. } = sent;
        Ok(Traffic { messages_sent, bytes_sent, ..received? })
    }

    /// Sends all messages. A peer that accepts no more shows at the call's end.
    async fn send(&self, mut outbound: Outbound<()>) -> Traffic {
        let LinkCall { message, messages, .. } = &*self.call;
        let mut sent = Traffic::default();
        for _ in 0..*messages {
            if outbound.send_encoded(message.clone()).await.is_err() {
                return sent;
            }
            sent.messages_sent += 1;
            sent.bytes_sent += message.len() as u64;
        }
        drop(outbound.finish().await);
        sent
    }
}

/// Receives all replies.
async fn receive(mut inbound: Inbound<()>) -> Result<Traffic, Status> {
    let mut received = Traffic::default();
    while let Some(message) = inbound.next_encoded().await {
        received.messages_received += 1;
        received.bytes_received += message?.len() as u64;
    }
    Ok(received)
}
