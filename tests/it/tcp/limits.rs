//! Limits of forwarded connections: idle timeouts, permits, deadlines, paused readers, and draining
//! nodes.

use super::setup::{ForwardSetup, TcpUpstream, expect_reset, opened, read_all, status_of, write};
use crate::{
    audit::AuditLog,
    world::{World, attached, check_status, soon, spawn, until},
};
use dialback::{
    AllowRule, CallKind, Code, Handler, Limits, Messages, NodeEvent, NodePolicy, Outcome, Reply,
    Request, Service, Status,
};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_reset_after_its_timeout_and_an_active_one_is_not() {
    let setup = ForwardSetup::with(Limits::default(), |forward| forward.idle_max(SHORT)).await;
    let (mut idle, mut idle_upstream) = setup.connect().await;
    let (mut busy, mut busy_upstream) = setup.connect().await;
    let began = Instant::now();
    let (ended, ()) = tokio::join!(read_all(&mut idle), async {
        let mut byte = [0];
        // One end sends, then the other: either direction counts.
        while began.elapsed() < 4 * SHORT {
            write(&mut busy, b"x").await;
            soon("data arrives", busy_upstream.read_exact(&mut byte)).await.expect("read");
            tokio::time::sleep(SHORT / 10).await;
            write(&mut busy_upstream, b"y").await;
            soon("data arrives", busy.read_exact(&mut byte)).await.expect("read");
        }
    });
    let error = expect_reset(ended);
    let status = status_of(&error);
    assert_eq!((status.code(), status.outcome()), (Code::DeadlineExceeded, Outcome::Unknown));
    assert!(status.message().contains("(idle of tcp:db)"), "{status}");
    expect_reset(read_all(&mut idle_upstream).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_timeout_applies_when_the_caller_does_not_read() {
    let setup = ForwardSetup::with(Limits::default(), |forward| forward.idle_max(SHORT)).await;
    let (stream, mut upstream) = setup.connect().await;
    let failure = stream.failure();
    let filling = spawn(async move {
        let chunk = vec![7; 64 << 10];
        while upstream.write_all(&chunk).await.is_ok() {}
    });
    let status = soon("it is closed", failure).await;
    assert_eq!((status.code(), status.outcome()), (Code::Aborted, Outcome::Unknown), "{status}");
    soon("the upstream is reset", filling).await;
    until("its permits are returned", || setup.node.agents()[0].calls_in_flight == 0).await;
    drop(stream);
}

/// Longer than a message stream may stall (`STALL_WAIT_MAX`), in both directions.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 12 s"]
async fn a_reader_of_a_connection_may_pause_and_resume() {
    let setup = ForwardSetup::open().await;
    let (stream, upstream) = setup.connect().await;
    // More than each hop may hold of a connection whose reader kept up before.
    let bytes = vec![7_u8; 64 << 20];
    let (mut from_agent, mut to_agent) = tokio::io::split(stream);
    let (mut from_caller, mut to_caller) = tokio::io::split(upstream);
    let (out, back) = (bytes.clone(), bytes.clone());
    let sending =
        spawn(async move { to_agent.write_all(&out).await.and(to_agent.shutdown().await) });
    let answering =
        spawn(async move { to_caller.write_all(&back).await.and(to_caller.shutdown().await) });
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(!sending.is_finished() && !answering.is_finished(), "there was no back-pressure");
    let (here, there) = tokio::join!(read_all(&mut from_agent), read_all(&mut from_caller));
    assert!(here.expect("a clean end") == bytes && there.expect("a clean end") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_holds_a_permit_as_long_as_it_is_open() {
    let limits = Limits {
        caller_calls_in_flight_max: 2,
        queue_wait_max: Duration::from_millis(50),
        ..Limits::default()
    };
    let setup = ForwardSetup::with(limits, |forward| forward).await;
    let callee = setup.by_caller();
    let (first, _upstream) = setup.connect().await;
    let (second, _other_upstream) = setup.connect().await;
    let refused = opened(callee.tcp("db")).await;
    let status = check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(status.message().contains("the limit of 2 calls in flight"), "{status}");
    drop(first);
    until("its permit is returned", || setup.node.agents()[0].calls_in_flight == 1).await;
    let (third, _third_upstream) = setup.connect().await;
    drop((second, third));
}

#[tokio::test(flavor = "multi_thread")]
async fn message_limits_do_not_apply_to_the_chunks_of_a_connection() {
    let (world, upstream) = (World::new(), TcpUpstream::open().await);
    let small = || Limits { message_bytes_max: 1_024, ..Limits::default() };
    let mut rule = AllowRule::parse("ops", "**", "tcp:*").expect("a rule");
    rule.message_bytes_max = Some(1_024);
    let node = world.node().policy(NodePolicy::default().allow(rule)).limits(small());
    let node = node.start().await.expect("a node");
    let agent = world.agent("warehouse", node.local_addr()).limits(small());
    let _agent = attached(agent.tcp(upstream.forward("db"))).await;
    let caller = world.caller("ops", node.local_addr()).limits(small()).connect().await;
    let callee = caller.expect("a caller").agent("warehouse").expect("a name");
    let (stream, far) = tokio::join!(opened(callee.tcp("db")), upstream.next());
    let (mut from_agent, mut to_agent) = tokio::io::split(stream.expect("a connection"));
    let (mut from_caller, mut to_caller) = tokio::io::split(far);
    let bytes = vec![7; 1 << 20];
    let (here, there, (), ()) = tokio::join!(
        read_all(&mut from_agent),
        read_all(&mut from_caller),
        async {
            write(&mut to_agent, &bytes).await;
            to_agent.shutdown().await.expect("a half-close");
        },
        async {
            write(&mut to_caller, &bytes).await;
            to_caller.shutdown().await.expect("a half-close");
        },
    );
    assert!(here.expect("a clean end") == bytes && there.expect("a clean end") == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_of_open_connections_do_not_count_as_call_resets() {
    let limits = Limits { resets_max: 3, ..Limits::default() };
    let setup = ForwardSetup::with(limits, |forward| forward).await;
    let mut linked = setup.node.events();
    for _ in 0..20 {
        let (mut stream, mut upstream) = setup.connect().await;
        write(&mut stream, b"x").await;
        drop(stream);
        expect_reset(read_all(&mut upstream).await);
    }
    let (_stream, _upstream) = setup.connect().await;
    drop(setup);
    // The first event of a link since then is the end of the setup.
    let first = soon("something happens", linked.next()).await;
    assert!(!matches!(first, Some(NodeEvent::CallerLinked { .. })), "{first:?}");
}

/// The program's own end of a connection, which sends this many bytes in one chunk.
struct Sender(usize);

impl Handler for Sender {
    async fn call(&self, _: Request) -> Result<Reply, Status> {
        let (sender, messages) = Messages::channel(4);
        for piece in [vec![], vec![7; self.0], vec![]] {
            sender.send(piece.into()).await?;
        }
        sender.finish().await?;
        Ok(Reply::stream(messages))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_64_kib_passes_and_one_byte_more_does_not() {
    let setup = ForwardSetup::open().await;
    let own =
        |name: &str, bytes| Service::new("tcp").raw_method_of(CallKind::Tcp, name, Sender(bytes));
    let agent = setup.world.agent("own", setup.node.local_addr());
    let agent = agent.serve(own("fits", 64 << 10)).serve(own("exceeds", (64 << 10) + 1));
    let _agent = attached(agent).await;
    let callee = setup.caller.agent("own").expect("a name");
    let mut fits = opened(callee.tcp("fits")).await.expect("a connection");
    assert_eq!(read_all(&mut fits).await.expect("a clean end").len(), 64 << 10);
    let mut exceeds = opened(callee.tcp("exceeds")).await.expect("a connection");
    let error = expect_reset(read_all(&mut exceeds).await);
    assert_eq!(status_of(&error).code(), Code::ResourceExhausted, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_of_the_call_resets_the_connection() {
    let setup = ForwardSetup::open().await;
    let callee = setup.by_caller();
    let call = callee.tcp("db").timeout(Duration::from_millis(500));
    let (stream, mut upstream) = tokio::join!(opened(call), setup.upstream.next());
    let mut stream = stream.expect("a connection");
    let error = expect_reset(read_all(&mut stream).await);
    assert_eq!(status_of(&error).code(), Code::DeadlineExceeded, "{error}");
    expect_reset(read_all(&mut upstream).await);
    let zero = opened(callee.tcp("db").timeout(Duration::ZERO)).await;
    check_status(zero, Code::InvalidArgument, Outcome::NotExecuted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_wait_for_its_agent() {
    let setup = ForwardSetup::open().await;
    let callee = setup.caller.agent("late").expect("a name");
    check_status(opened(callee.tcp("db")).await, Code::Unavailable, Outcome::NotExecuted);
    let waiting = spawn(opened(callee.tcp("db").wait(true)));
    let agent = setup.world.agent("late", setup.node.local_addr());
    let _agent = attached(agent.tcp(setup.upstream.forward("db"))).await;
    let _upstream = setup.upstream.next().await;
    assert!(waiting.await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_lets_connections_end_and_resets_the_rest() {
    let limits = Limits { drain_max: Duration::from_millis(700), ..Limits::default() };
    let setup = ForwardSetup::with(limits, |forward| forward).await;
    let (mut ends, mut ends_upstream) = setup.connect().await;
    let (mut stays, mut stays_upstream) = setup.connect().await;
    let ForwardSetup { node, agent: _agent, caller: _caller, .. } = setup;
    let leaving = spawn(node.shutdown());
    write(&mut ends, b"last").await;
    ends.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut ends_upstream).await.expect("a clean end"), b"last");
    drop(ends_upstream);
    assert_eq!(read_all(&mut ends).await.expect("a clean end"), b"");
    expect_reset(read_all(&mut stays).await);
    expect_reset(read_all(&mut stays_upstream).await);
    soon("the node has closed", leaving).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_the_bytes_of_a_connection() {
    let setup = ForwardSetup::open().await;
    let audit_log = AuditLog::default();
    let agent = setup.world.agent("noted", setup.node.local_addr());
    let agent = agent.tcp(setup.upstream.forward("db")).audit(audit_log.audit().with_calls(true));
    let _agent = attached(agent).await;
    let callee = setup.caller.agent("noted").expect("a name");
    let (stream, mut upstream) = tokio::join!(opened(callee.tcp("db")), setup.upstream.next());
    let mut stream = stream.expect("a connection");
    write(&mut stream, b"question").await;
    stream.shutdown().await.expect("a half-close");
    read_all(&mut upstream).await.expect("a clean end");
    write(&mut upstream, b"answer").await;
    drop(upstream);
    read_all(&mut stream).await.expect("a clean end");
    let line =
        audit_log.wait_for("call", &[("method", "tcp:db"), ("kind", "tcp"), ("code", "OK")]).await;
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&8.into(), &6.into()), "{line}");
}
