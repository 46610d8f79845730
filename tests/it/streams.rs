//! Streaming calls: the three kinds, their ends, back-pressure, and aborts.

use crate::world::{Setup, Stage, World, attached, check_status, soon, spawn, until};
use dialback::{
    Agent, Callee, Caller, Code, Context, Inbound, Node, Outbound, Outcome, Service, Status,
};
use serde_bytes::ByteBuf;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

dialback::contract! {
    /// Streams in every direction.
    service Meter {
        fn watch(from: u32, to: u32) -> stream u32;
        fn sum(values: stream u64) -> u64;
        fn double(values: stream u64) -> stream u64;
        fn plain(value: u64) -> u64;
    }
}

struct Host;

impl Meter for Host {
    async fn watch(
        &self,
        from: u32,
        to: u32,
        mut replies: Outbound<u32>,
        ctx: &Context,
    ) -> Result<(), Status> {
        ctx.add_reply_metadata("unit", "tick");
        for tick in from..to {
            replies.send(&tick).await?;
        }
        ctx.add_trailing_metadata("last", to.to_string());
        if from > to { Err(Status::new(Code::OutOfRange, "backwards")) } else { Ok(()) }
    }

    async fn sum(&self, mut values: Inbound<u64>, ctx: &Context) -> Result<u64, Status> {
        ctx.add_trailing_metadata("kind", "sum");
        let mut sum = 0;
        while let Some(value) = values.next().await {
            sum += value?;
        }
        Ok(sum)
    }

    async fn double(
        &self,
        mut values: Inbound<u64>,
        mut replies: Outbound<u64>,
        _ctx: &Context,
    ) -> Result<(), Status> {
        while let Some(value) = values.next().await {
            match value? {
                0 => return Err(Status::new(Code::InvalidArgument, "zero")),
                99 => return Ok(()),
                value => replies.send(&(2 * value)).await?,
            }
        }
        Ok(())
    }

    async fn plain(&self, value: u64, _ctx: &Context) -> Result<u64, Status> {
        Ok(value)
    }
}

/// An agent with the contract and with [`Pipe`], and both callees for it.
struct Streams {
    _world: World,
    node: Node,
    _agent: Agent,
    caller: Caller,
    pipe: Pipe,
}

/// Streams that count their messages, so that tests see back-pressure and the running handlers.
#[derive(Clone, Default)]
struct Pipe {
    sent: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
}

struct ActiveHandler(Arc<AtomicUsize>);

impl Drop for ActiveHandler {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const CHUNK: usize = 64 * 1024;

impl Pipe {
    fn enter(&self) -> ActiveHandler {
        self.running.fetch_add(1, Ordering::SeqCst);
        ActiveHandler(self.running.clone())
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    fn service(&self) -> Service {
        let (send_until_blocked, read_nothing, wait, broken) =
            (self.clone(), self.clone(), self.clone(), self.clone());
        Service::new("Pipe")
            .server_stream("Pour", move |count: usize, replies: Outbound<ByteBuf>, _: Context| {
                send_until_blocked.clone().send_until_blocked(count, replies)
            })
            .client_stream("Swallow", move |values: Inbound<ByteBuf>, _: Context| {
                read_nothing.clone().read_nothing(values)
            })
            .bidirectional(
                "Wait",
                move |values: Inbound<u64>, replies: Outbound<u64>, ctx: Context| {
                    wait.clone().wait(values, replies, ctx)
                },
            )
            .server_stream("Panic", move |first: u64, mut replies: Outbound<u64>, _: Context| {
                let running = broken.enter();
                async move {
                    replies.send(&first).await?;
                    drop(running);
                    // The first reply is sent before.
                    tokio::task::yield_now().await;
                    panic_on_purpose()
                }
            })
    }

    async fn send_until_blocked(
        self,
        count: usize,
        mut replies: Outbound<ByteBuf>,
    ) -> Result<(), Status> {
        let _running = self.enter();
        for _ in 0..count {
            replies.send(&ByteBuf::from(vec![7; CHUNK])).await?;
            self.sent.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Reads one message, and no more before the call ends.
    async fn read_nothing(self, mut values: Inbound<ByteBuf>) -> Result<(), Status> {
        let _running = self.enter();
        drop(values.next().await);
        std::future::pending().await
    }

    /// Answers the first message, then waits forever.
    async fn wait(
        self,
        mut values: Inbound<u64>,
        mut replies: Outbound<u64>,
        _ctx: Context,
    ) -> Result<(), Status> {
        let _running = self.enter();
        if let Some(Ok(value)) = values.next().await {
            replies.send(&value).await?;
        }
        std::future::pending().await
    }
}

#[expect(clippy::panic, reason = "that is what the method is for")]
fn panic_on_purpose() -> Result<(), Status> {
    panic!("a streaming handler panics on purpose")
}

impl Streams {
    async fn open() -> Self {
        let (world, pipe) = (World::new(), Pipe::default());
        let node = world.node().start().await.expect("a node");
        let agent = world.agent("meter", node.local_addr());
        let agent = attached(agent.serve(Host.into_service()).serve(pipe.service())).await;
        let caller = world.caller("ops", node.local_addr()).connect().await.expect("a caller");
        Self { _world: world, node, _agent: agent, caller, pipe }
    }

    fn callees(&self) -> [Callee; 2] {
        let handle = self.node.agent("meter").handle().expect("a name");
        let local: &Callee = handle.as_ref();
        [local.clone(), self.caller.agent("meter").expect("a name")]
    }

    fn in_flight(&self) -> u64 {
        self.node.agents().iter().map(|agent| agent.calls_in_flight).sum()
    }
}

async fn collect<T: serde::de::DeserializeOwned>(
    inbound: &mut Inbound<T>,
) -> Result<Vec<T>, Status> {
    let mut all = Vec::new();
    while let Some(next) = soon("a reply arrives", inbound.next()).await {
        all.push(next?);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stream_gives_every_reply_in_order_with_metadata_before_and_after() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let meter = MeterCaller::new(&way);
        let mut ticks = meter.watch(3, 1_003).await.expect("a stream");
        assert_eq!(ticks.metadata().get("unit"), Some("tick"));
        assert_eq!(collect(&mut ticks).await, Ok((3..1_003).collect::<Vec<u32>>()));
        assert_eq!(ticks.trailing().get("last"), Some("1003"));
        let mut none = meter.watch(3, 3).await.expect("a stream");
        assert_eq!(collect(&mut none).await, Ok(vec![]));
        check_status(meter.watch(2, 1).await.map(drop), Code::OutOfRange, Outcome::AppError);
        assert_eq!(meter.plain(7).await, Ok(7));
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_stream_is_answered_once_it_was_finished() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let meter = MeterCaller::new(&way);
        let (mut values, sum) = meter.sum().await.expect("a call");
        for value in 1..=1_000 {
            values.send(&value).await.expect("room");
        }
        values.finish().await.expect("room");
        let reply = soon("the answer", sum.raw()).await.expect("a reply");
        assert_eq!(reply.trailing.get("kind"), Some("sum"));
        let (values, sum) = meter.sum().await.expect("a call");
        values.finish().await.expect("room");
        assert_eq!(soon("the answer", sum).await, Ok(0), "a stream without messages is a stream");
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_of_a_call_flow_at_once_and_end_separately() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let meter = MeterCaller::new(&way);
        let (mut values, mut doubles) = meter.double().await.expect("a call");
        for value in 1..=90 {
            values.send(&value).await.expect("room");
            assert_eq!(soon("the echo", doubles.next()).await, Some(Ok(2 * value)));
        }
        values.finish().await.expect("room");
        assert_eq!(soon("the end", doubles.next()).await, None);
        // The handler may end before the initiator has finished.
        let (mut values, mut doubles) = meter.double().await.expect("a call");
        values.send(&99).await.expect("room");
        assert_eq!(soon("the end", doubles.next()).await, None);
        soon("the outbound side closes", values.closed()).await;
        assert!(values.send(&1).await.is_err());
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_sent_before_a_failure_arrive_before_it() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let meter = MeterCaller::new(&way);
        let (mut values, mut doubles) = meter.double().await.expect("a call");
        for value in [1, 2, 0] {
            values.send(&value).await.expect("room");
        }
        assert_eq!(soon("a reply", doubles.next()).await, Some(Ok(2)));
        assert_eq!(soon("a reply", doubles.next()).await, Some(Ok(4)));
        let failed = soon("the failure", doubles.next()).await.expect("a failure");
        check_status(failed, Code::InvalidArgument, Outcome::AppError);
        assert_eq!(doubles.next().await, None, "nothing follows a failure");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_middle_of_a_stream_ends_only_that_call_as_unknown() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let mut replies = way.server_stream::<u64, u64>("Pipe/Panic", &5).await.expect("a stream");
        assert_eq!(soon("a reply", replies.next()).await, Some(Ok(5)));
        let failed = soon("the failure", replies.next()).await.expect("a failure");
        check_status(failed, Code::Internal, Outcome::Unknown);
        assert_eq!(way.call::<u64>("Meter/Plain", &7).await, Ok(7));
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_throttles_the_writer_through_the_node() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let before = streams.pipe.sent();
        let stream = way.server_stream::<usize, ByteBuf>("Pipe/Pour", &4_000);
        let mut replies = stream.await.expect("a stream");
        // The writer fills every window on the path and blocks: the windows bound what it sends,
        // not the stream.
        let mut last = 0;
        soon("the writer blocks", async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                let now = streams.pipe.sent() - before;
                if now > 0 && now == last {
                    return;
                }
                last = now;
            }
        })
        .await;
        assert!(last < 500, "{last} of 4,000 chunks were sent and none was read");
        assert_eq!(way.call::<u64>("Meter/Plain", &7).await, Ok(7), "other calls continue");
        let mut count = 0;
        while let Some(chunk) = soon("a chunk", replies.next()).await {
            assert_eq!(chunk.expect("a chunk").len(), CHUNK);
            count += 1;
        }
        assert_eq!(count, 4_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_reads_nothing_throttles_the_initiator() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let (mut values, answer) =
            way.client_stream::<ByteBuf, ()>("Pipe/Swallow").await.expect("a call");
        let chunk = ByteBuf::from(vec![7; CHUNK]);
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let sending = spawn(async move {
            for _ in 0..4_000 {
                if values.send(&chunk).await.is_err() {
                    return;
                }
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        until("the handler runs", || streams.pipe.running() == 1).await;
        let mut last = 0;
        soon("the sender blocks", async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                let now = sent.load(Ordering::SeqCst);
                if now > 0 && now == last {
                    return;
                }
                last = now;
            }
        })
        .await;
        assert!(last < 500, "{last} of 4,000 chunks were sent and none was read");
        drop(answer);
        until("the handler is dropped", || streams.pipe.running() == 0).await;
        soon("the sender is notified", sending).await;
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_either_end_of_a_call_drops_its_handler() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        for which in ["in", "out", "server stream"] {
            if which == "server stream" {
                let call = way.server_stream::<usize, ByteBuf>("Pipe/Pour", &4_000);
                let replies = call.await.expect("a stream");
                assert_eq!(streams.pipe.running(), 1);
                drop(replies);
            } else {
                let call = way.bidirectional::<u64, u64>("Pipe/Wait");
                let (mut values, mut replies) = call.await.expect("a call");
                values.send(&7).await.expect("room");
                assert_eq!(soon("a reply", replies.next()).await, Some(Ok(7)));
                assert_eq!(streams.pipe.running(), 1);
                if which == "in" {
                    drop(replies);
                } else {
                    drop(values);
                    let broken = soon("the end", replies.next()).await.expect("a failure");
                    check_status(broken, Code::Cancelled, Outcome::Unknown);
                }
            }
            until("the handler is dropped", || streams.pipe.running() == 0).await;
        }
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handler_starts_before_the_first_message_and_earlier_ends_are_not_executed() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let call = way.bidirectional::<u64, u64>("Pipe/Wait");
        let short = std::time::Duration::from_millis(100);
        let (values, mut replies) = call.timeout(short).await.expect("a call");
        let late = soon("the deadline", replies.next()).await.expect("a failure");
        check_status(late, Code::DeadlineExceeded, Outcome::NotExecuted);
        drop(values);
        // After a first message it may have run.
        let call = way.bidirectional::<u64, u64>("Pipe/Wait");
        let (mut values, mut replies) = call.timeout(5 * short).await.expect("a call");
        values.send(&7).await.expect("room");
        assert_eq!(soon("a reply", replies.next()).await, Some(Ok(7)));
        let late = soon("the deadline", replies.next()).await.expect("a failure");
        check_status(late, Code::DeadlineExceeded, Outcome::Unknown);
        until("the handler is dropped", || streams.pipe.running() == 0).await;
    }
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_called_as_another_kind_is_refused_by_name() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        let unary = way.call::<u64>("Meter/Watch", &(1, 2)).await;
        let unary = check_status(unary, Code::Unimplemented, Outcome::NotExecuted);
        assert!(unary.message().contains("server_stream"), "{unary}");
        let stream = way.server_stream::<u64, u64>("Meter/Plain", &1).await.map(drop);
        check_status(stream, Code::Unimplemented, Outcome::NotExecuted);
        let (values, sum) = way.client_stream::<u64, u64>("Meter/None").await.expect("a call");
        drop(values.finish().await);
        let none = soon("a refusal", sum).await;
        check_status(none, Code::Unimplemented, Outcome::NotExecuted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_ends_its_streams_unknown() {
    let streams = Streams::open().await;
    let Streams { node, _agent: agent, .. } = &streams;
    let mut open = Vec::new();
    for way in streams.callees() {
        let (mut values, mut replies) =
            way.bidirectional::<u64, u64>("Pipe/Wait").await.expect("a call");
        values.send(&7).await.expect("room");
        assert_eq!(soon("a reply", replies.next()).await, Some(Ok(7)));
        open.push((values, replies));
    }
    assert_eq!(agent.nodes().len(), 1);
    node.agent("meter").handle().expect("a name").disconnect();
    for (_values, mut replies) in open {
        let lost = soon("the end", replies.next()).await.expect("a failure");
        check_status(lost, Code::Unavailable, Outcome::Unknown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapper_sees_every_call_of_its_service() {
    struct Counts(dialback::SharedHandler, Arc<AtomicUsize>);
    impl dialback::Handler for Counts {
        async fn call(&self, request: dialback::Request) -> Result<dialback::Reply, Status> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.clone().call_boxed(request).await
        }
    }
    let (world, seen) = (World::new(), Arc::new(AtomicUsize::new(0)));
    let node = world.node().start().await.expect("a node");
    let counted = seen.clone();
    let service = Host.into_service().wrap(|inner| Arc::new(Counts(inner, counted.clone())));
    let _agent = attached(world.agent("meter", node.local_addr()).serve(service)).await;
    let handle = node.agent("meter").handle().expect("a name");
    let meter = MeterCaller::new(&handle);
    assert_eq!(meter.plain(1).await, Ok(1));
    let mut ticks = meter.watch(0, 2).await.expect("a stream");
    assert_eq!(collect(&mut ticks).await, Ok(vec![0, 1]));
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_initiator_leaves_no_stream_behind() {
    let setup = Setup::open().await;
    let stage: &Stage = &setup.stage;
    for _ in 0..60 {
        let call = setup.by_caller().bidirectional::<String, String>("Stage/Hold");
        drop(call.await.expect("a call"));
    }
    stage.open();
    let after = setup.by_caller().call::<String>("Stage/Hold", "after");
    assert!(soon("the call ends", after.into_future()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_stalled_readers_end_as_slow_and_disturb_no_other() {
    let streams = Streams::open().await;
    for way in streams.callees() {
        // All begin at once, so that none has given up when the last begins.
        let begin =
            |_| spawn(way.server_stream::<usize, ByteBuf>("Pipe/Pour", &4_000).into_future());
        let begun: Vec<_> = (0..64).map(begin).collect();
        let mut stalled = Vec::new();
        for stream in begun {
            stalled.push(soon("it begins", stream).await.expect("a stream"));
        }
        assert_eq!(streams.pipe.running(), 64);
        // Other streams continue at every moment until the last handler is released.
        let mut other_calls = 0;
        soon("the writers give up", async {
            while streams.pipe.running() > 0 {
                let call =
                    way.call::<u64>("Meter/Plain", &7).timeout(std::time::Duration::from_secs(5));
                assert_eq!(
                    call.await,
                    Ok(7),
                    "after {other_calls} calls next to the stalled streams"
                );
                other_calls += 1;
            }
        })
        .await;
        assert!(other_calls > 10);
        for mut replies in stalled {
            let slow = soon("the end", async {
                loop {
                    match replies.next().await {
                        Some(Ok(_)) => {}
                        ended => return ended,
                    }
                }
            });
            let slow = slow.await.expect("not the end of a whole stream");
            check_status(slow, Code::ResourceExhausted, Outcome::Unknown);
        }
    }
    assert_eq!(streams._agent.nodes().len(), 1);
    until("permits return", || streams.in_flight() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_is_ended_before_and_after_its_first_message() {
    let (world, pipe) = (World::new(), Pipe::default());
    let node = world.node().start().await.expect("a node");
    let idle = std::time::Duration::from_millis(300);
    let limits = dialback::Limits { stream_idle_max: idle, ..dialback::Limits::default() };
    let agent = world.agent("meter", node.local_addr()).limits(limits);
    let _agent = attached(agent.serve(pipe.service())).await;
    let handle = node.agent("meter").handle().expect("a name");
    let callee: &Callee = handle.as_ref();
    let (_values, mut replies) =
        callee.bidirectional::<u64, u64>("Pipe/Wait").await.expect("a call");
    let silent = soon("the end", replies.next()).await.expect("a failure");
    check_status(silent, Code::DeadlineExceeded, Outcome::NotExecuted);
    let (mut values, mut replies) =
        callee.bidirectional::<u64, u64>("Pipe/Wait").await.expect("a call");
    values.send(&7).await.expect("room");
    assert_eq!(soon("a reply", replies.next()).await, Some(Ok(7)));
    let still = soon("the end", replies.next()).await.expect("a failure");
    check_status(still, Code::DeadlineExceeded, Outcome::Unknown);
    until("the handler is dropped", || pipe.running() == 0).await;
}
