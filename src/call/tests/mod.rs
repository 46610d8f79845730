//! Tests of both sides of a call over a link in memory, each against a scripted peer.

mod initiator;
mod initiator_stream;
mod parts;
mod responder;
mod responder_stream;

use super::{Body, CallMeta, Request, Requester, Target};
use crate::{
    certs::Ca,
    limits::Limits,
    link::{
        CallStream, ControlStream, Dialler, FrameReader, HelloInfo, Link, LinkListener, ReadFault,
        ends,
    },
    metadata::Metadata,
    name::CallId,
    net::memory::MemoryNet,
    status::{Code, Outcome, Status},
    tls::Credentials,
    wire::{
        Batch, CallKind, Chunks, Control, Kind, PROTOCOL_VERSION, ReplyHead, RequestHead,
        RouteKind, StatusHead, StreamCode, Welcome, head_chunk, status_chunk,
    },
};
use bytes::Bytes;
use serde_bytes::ByteArray;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// The time of each call, unless a test needs another one. Links here have no heartbeat, so that
/// they end soon after.
const TIMEOUT: Duration = Duration::from_secs(5);
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Streams that each side grants to the other.
const STREAMS: usize = 4;

fn credentials(peer: &str) -> Credentials {
    static CA: LazyLock<Ca> = LazyLock::new(ends::new_ca);
    ends::credentials(&CA, peer)
}

fn limits() -> Limits {
    Limits { message_bytes_max: MESSAGE_BYTES_MAX, ..Limits::default() }
}

/// Both ends of a link: a node, which makes calls here, and an agent, which answers them.
struct Pair {
    node: Link,
    agent: Link,
    _control: [ControlStream; 2],
    _sockets: (LinkListener, Dialler, MemoryNet),
}

impl Pair {
    async fn linked() -> Self {
        let (memory, limits) = (MemoryNet::new(1), Arc::new(limits()));
        let net = memory.shared();
        let at = "192.0.2.1:4433".parse().expect("an address");
        let listener = LinkListener::bind(&net, at, &credentials("node/edge"), &limits, None);
        let listener = listener.expect("a listener");
        let info = HelloInfo { instance: [1; 16], calls_in_flight_max: STREAMS };
        let dialler = Dialler::new(&net, &credentials("agent/shop"), info, limits.clone());
        let dialler = dialler.expect("a dialler");
        let to = "edge:4433".parse().expect("an address");
        let welcomed = async {
            let incoming = listener.next_incoming().await.expect("a connection");
            let greeted = incoming.greet().await.unwrap_or_else(|not| panic!("{}", not.fault));
            let (link, mut control) = greeted.into_link(STREAMS, &limits);
            let welcome = Welcome {
                protocol: PROTOCOL_VERSION,
                node: "edge".into(),
                admission: 1,
                calls_in_flight_max: STREAMS as u32,
                message_bytes_max: MESSAGE_BYTES_MAX as u64,
                view_version: 0,
            };
            control.send(&Control::Welcome(welcome)).await.expect("sent");
            (link, control)
        };
        let (dialled, (node, node_control)) = tokio::join!(dialler.dial(&to, None), welcomed);
        let (agent, agent_control, _welcome) = dialled.expect("a welcome");
        let _control = [node_control, agent_control];
        Self { node, agent, _control, _sockets: (listener, dialler, memory) }
    }

    /// The next call that arrives at the agent, before its head was read.
    async fn accepted(&self) -> CallStream {
        self.agent.accept(MESSAGE_BYTES_MAX).await.expect("a stream")
    }

    /// A stream to the agent, on which nothing is written yet.
    async fn opened(&self) -> CallStream {
        let until = || Instant::now() + TIMEOUT;
        match self.node.open(until, MESSAGE_BYTES_MAX).await {
            Ok(stream) => stream,
            Err(_fault) => panic!("no stream"),
        }
    }
}

fn meta(kind: CallKind) -> CallMeta {
    let method = if kind == CallKind::Tcp { "tcp:db" } else { "S/M" };
    let (call_id, deadline) = (CallId::from_bytes([7; 16]), Instant::now() + TIMEOUT);
    CallMeta::new(method.parse().expect("a method"), kind, Target::Here, call_id, deadline)
}

fn request(kind: CallKind, body: Body) -> Request {
    let requester = Requester::Verified("caller/ops".parse().expect("a peer"));
    Request { meta: meta(kind), requester, body }
}

fn unary(message: &'static [u8]) -> Request {
    request(CallKind::Unary, Body::Message(Bytes::from_static(message)))
}

fn pairs(key: &str, value: &str) -> Metadata {
    let mut metadata = Metadata::default();
    metadata.insert(key, value);
    metadata
}

/// Frames as a peer writes them, also in orders that the protocol forbids.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn head(self, metadata: &Metadata) -> Self {
        let batch = Batch::starting_with(Some(&ReplyHead::new(metadata))).expect("a head");
        self.add(batch.into_chunks())
    }

    fn message(self, message: &[u8]) -> Self {
        let mut batch = Batch::default();
        batch.push(Bytes::copy_from_slice(message));
        self.add(batch.into_chunks())
    }

    fn end(mut self) -> Self {
        self.0.extend_from_slice(&[Kind::End.byte(), 0]);
        self
    }

    fn ok(self, trailing: &Metadata) -> Self {
        self.status(&StatusHead::ok(trailing))
    }

    fn failed(self, status: &Status) -> Self {
        self.status(&StatusHead::failed(status))
    }

    fn status(self, status: &StatusHead<'_>) -> Self {
        self.add(status_chunk(status).expect("a status"))
    }

    fn add(mut self, mut chunks: Chunks) -> Self {
        chunks.as_mut().iter().for_each(|piece| self.0.extend_from_slice(piece));
        self
    }

    /// Head of a request with this timeout.
    fn request_head(self, method: &str, kind: CallKind, timeout: Duration) -> Self {
        self.add(head_chunk(&request_head(method, kind, timeout)).expect("a head"))
    }

    /// Without its last bytes.
    fn without_last(mut self, bytes: usize) -> Self {
        self.0.truncate(self.0.len() - bytes);
        self
    }

    /// Writes them and leaves the stream open.
    async fn write(self, stream: &mut CallStream) {
        let mut chunks = status_chunk(&StatusHead::ok(&Metadata::default())).expect("a status");
        chunks.as_mut()[0] = self.0.into();
        // A peer that has stopped the stream takes no more.
        drop(stream.sender.write(&mut chunks).await);
    }

    /// Writes them and ends the stream.
    async fn finish(self, stream: &mut CallStream) {
        self.write(stream).await;
        stream.sender.finish();
    }
}

fn request_head(method: &str, kind: CallKind, timeout: Duration) -> RequestHead<'_> {
    RequestHead {
        method,
        route: RouteKind::Here,
        agent: None,
        kind,
        timeout_ms: timeout.as_millis() as u64,
        call_id: ByteArray::new([7; 16]),
        attempt: 1,
        priority: 0,
        caller: None,
        traceparent: None,
        metadata: Vec::new(),
        content_type: None,
        caller_signature: None,
        wait: false,
        http: (kind == CallKind::Http).then_some(("GET", "/")),
    }
}

/// Reads frames up to one of this kind.
async fn read_to(reader: &mut FrameReader, kind: Kind) {
    while reader.next().await.expect("a frame").expect("no end").kind != kind {}
}

/// Reads frames until the peer resets the stream, and with which code it does.
async fn reset_code(reader: &mut FrameReader) -> Option<StreamCode> {
    loop {
        match reader.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(ReadFault::Reset(code)) => return code,
            Err(fault) => panic!("{fault:?}"),
        }
    }
}

#[track_caller]
fn check<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, outcome: Outcome, text: &str) {
    let status = result.expect_err(text);
    assert_eq!((status.code(), status.outcome()), (code, outcome), "{status}");
    assert!(status.message().contains(text), "{status}");
}
