//! Shared by the tests of forwards: an upstream on loopback, and a setup that forwards to it.

use crate::world::{World, attached, soon};
use dialback::{
    Agent, AllowRule, ByteStream, Call, Callee, Caller, Limits, Node, NodePolicy, Status, Tcp,
    TcpForward,
};
use std::{future::IntoFuture, io};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A listener that accepts connections on request of the test.
pub(super) struct TcpUpstream(pub(super) TcpListener);

impl TcpUpstream {
    pub(super) async fn open() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    pub(super) fn forward(&self, name: &str) -> TcpForward {
        let address = self.0.local_addr().expect("an address");
        format!("{name}={address}").parse().expect("a forward")
    }

    /// The next connection.
    pub(super) async fn next(&self) -> TcpStream {
        soon("the upstream is connected", self.0.accept()).await.expect("a connection").0
    }
}

/// Every caller may call every method and every TCP forward.
pub(super) fn allow_all_with_tcp() -> NodePolicy {
    NodePolicy::allow_all().allow(AllowRule::parse("**", "**", "tcp:**").expect("a rule"))
}

/// A node, an agent with the forward `db`, and the caller `ops`.
pub(super) struct ForwardSetup {
    pub(super) world: World,
    pub(super) node: Node,
    pub(super) agent: Agent,
    pub(super) caller: Caller,
    pub(super) upstream: TcpUpstream,
}

impl ForwardSetup {
    pub(super) async fn open() -> Self {
        Self::with(Limits::default(), |forward| forward).await
    }

    /// The limits are the node's.
    pub(super) async fn with(limits: Limits, edit: fn(TcpForward) -> TcpForward) -> Self {
        let (world, upstream) = (World::new(), TcpUpstream::open().await);
        let node =
            world.node().policy(allow_all_with_tcp()).limits(limits).start().await.expect("a node");
        let at = node.local_addr();
        let agent = world.agent("warehouse", at).tcp(edit(upstream.forward("db")));
        let agent = attached(agent).await;
        let caller = world.caller("ops", at).connect().await.expect("a caller");
        Self { world, node, agent, caller, upstream }
    }

    /// The agent as the node's own program and as the remote caller call it.
    pub(super) fn callees(&self) -> [Callee; 2] {
        let handle = self.node.agent("warehouse").handle().expect("a name");
        let by_node: &Callee = handle.as_ref();
        [by_node.clone(), self.by_caller()]
    }

    pub(super) fn by_caller(&self) -> Callee {
        self.caller.agent("warehouse").expect("a name")
    }

    /// Both ends of a connection.
    pub(super) async fn connect(&self) -> (ByteStream, TcpStream) {
        self.connect_by(&self.by_caller()).await
    }

    pub(super) async fn connect_by(&self, callee: &Callee) -> (ByteStream, TcpStream) {
        let (opened, upstream) = tokio::join!(opened(callee.tcp("db")), self.upstream.next());
        (opened.expect("a connection"), upstream)
    }
}

/// The result of opening a connection.
pub(super) async fn opened(call: Call<(), Tcp>) -> Result<ByteStream, Status> {
    soon("the connection opens or fails", call.into_future()).await
}

/// Reads to the end.
pub(super) async fn read_all(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    soon("the stream ends", stream.read_to_end(&mut bytes)).await.map(|_| bytes)
}

pub(super) async fn write(stream: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) {
    soon("the bytes are written", stream.write_all(bytes)).await.expect("written");
}

/// The connection was reset and did not end cleanly.
#[track_caller]
pub(super) fn expect_reset<T: std::fmt::Debug>(result: io::Result<T>) -> io::Error {
    let error = result.expect_err("it ended cleanly");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    error
}

/// The status within an error.
pub(super) fn status_of(error: &io::Error) -> &Status {
    error.get_ref().and_then(|inner| inner.downcast_ref()).expect("a status")
}
