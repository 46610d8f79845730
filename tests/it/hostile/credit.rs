//! Agents that grant no stream, or one at a time: calls end in time, wait in order, and return
//! their permits.

use super::{Ledger, node, raw_agent};
use crate::raw_peer::{Cbor, Issuer, Settings, kind, message, soon, status};
use dialback::{AgentHandle, Code, Limits, Node, Outcome, Status};
use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

/// Queue and credit together.
const QUEUE_WAIT: Duration = Duration::from_secs(2);

async fn handle(node: &Node) -> AgentHandle {
    soon("the agent", node.agent("raw").connected()).await.expect("a name")
}

fn echo(
    agent: &AgentHandle,
    text: &str,
    timeout: Duration,
) -> Pin<Box<dyn Future<Output = Result<String, Status>> + Send>> {
    Box::pin(agent.call("Echo/Echo", text).timeout(timeout).into_future())
}

fn in_flight(node: &Node) -> u64 {
    node.agents().iter().map(|agent| agent.calls_in_flight).sum()
}

#[tokio::test]
async fn calls_on_an_agent_without_stream_credit_end_in_time_and_return_their_permits() {
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let settings = Settings { streams: 0, ..Settings::default() };
    let (link, _control) = raw_agent(&issuer, &node, settings, 16).await;
    let agent = handle(&node).await;
    let began = Instant::now();
    let minute = Duration::from_secs(60);
    let mut calls =
        [echo(&agent, "1", minute), echo(&agent, "2", minute), echo(&agent, "3", minute)];
    let [one, two, three] = &mut calls;
    let busy = async {
        soon("the calls to wait", async {
            while in_flight(&node) < 3 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    let (one, two, three, ()) = tokio::join!(one, two, three, busy);
    for result in [one, two, three] {
        let status = result.expect_err("no stream was granted");
        let have = (status.code(), status.outcome());
        assert_eq!(have, (Code::ResourceExhausted, Outcome::NotExecuted), "{status}");
    }
    let took = began.elapsed();
    assert!(took >= QUEUE_WAIT && took < QUEUE_WAIT + Duration::from_secs(3), "it took {took:?}");
    assert_eq!(in_flight(&node), 0, "permits were not returned");
    // A shorter deadline is not extended.
    let short = echo(&agent, "4", Duration::from_millis(50)).await.expect_err("no stream");
    assert_eq!((short.code(), short.outcome()), (Code::DeadlineExceeded, Outcome::NotExecuted));
    // For comparison: the same link, now with credit.
    link.connection.set_max_concurrent_bi_streams(1u32.into());
    let answered = async {
        let mut stream = link.accept().await;
        answer(&mut stream).await;
        stream
    };
    let (result, _stream) = tokio::join!(echo(&agent, "5", minute), answered);
    assert_eq!(result, Ok("5".into()));
}

/// Reads a request and echoes its message; returns the text.
async fn answer(stream: &mut crate::raw_peer::RawStream) -> String {
    stream.expect(kind::HEAD).await;
    let text = Cbor::decode(&stream.expect(kind::MESSAGE).await);
    stream.expect(kind::END).await;
    stream.send(&[message(text.as_text()), status(0, 0)].concat()).await;
    stream.finish();
    text.as_text().into()
}

#[tokio::test]
async fn the_waits_for_a_permit_and_for_a_stream_share_one_timeout() {
    // Longer than the default, so that one wait and two are clearly different on a busy machine
    // too.
    const QUEUE_WAIT: Duration = Duration::from_secs(4);
    let issuer = Issuer::new();
    let node = Node::builder(issuer.credentials("node/edge-1"))
        .listen("127.0.0.1:0")
        .limits(Limits { queue_wait_max: QUEUE_WAIT, ..Limits::default() })
        .start()
        .await
        .expect("a node");
    let settings = Settings { streams: 0, ..Settings::default() };
    let (_link, _control) = raw_agent(&issuer, &node, settings, 1).await;
    let agent = handle(&node).await;
    let began = Instant::now();
    // The first has the only permit until its deadline; the second gets it late in its own wait.
    let (first, second) = tokio::join!(
        echo(&agent, "1", QUEUE_WAIT * 7 / 8),
        echo(&agent, "2", Duration::from_secs(60)),
    );
    let took = began.elapsed();
    assert_eq!(first.expect_err("no stream").code(), Code::DeadlineExceeded);
    assert_eq!(second.expect_err("no stream").code(), Code::ResourceExhausted);
    // Two consecutive waits would be 7.5 s.
    assert!(took >= QUEUE_WAIT && took < QUEUE_WAIT * 7 / 4, "it took {took:?}");
    assert_eq!(in_flight(&node), 0);
}

#[tokio::test]
async fn calls_on_an_agent_with_one_stream_run_one_by_one_in_order() {
    const CALLS: usize = 20;
    let issuer = Issuer::new();
    let node = node(&issuer, &Ledger::default()).await;
    let settings = Settings { streams: 1, ..Settings::default() };
    let (link, _control) = raw_agent(&issuer, &node, settings, 64).await;
    let agent = handle(&node).await;
    let mut calls: Vec<_> = (0..CALLS)
        .map(|n| Box::pin(echo(&agent, &n.to_string(), Duration::from_secs(60))))
        .collect();
    // Each is queued when it is polled first.
    for call in &mut calls {
        let first = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(first.is_pending());
    }
    let answered = async {
        let mut order = Vec::new();
        for _ in 0..CALLS {
            let mut stream = link.accept().await;
            order.push(answer(&mut stream).await);
            // The next one may be opened only after this one has ended.
            drop(soon("the end of the stream", stream.send.stopped()).await);
        }
        order
    };
    let results = async {
        let mut running = tokio::task::JoinSet::new();
        for (n, call) in calls.into_iter().enumerate() {
            running.spawn(async move { (n, call.await) });
        }
        let mut results = running.join_all().await;
        results.sort_by_key(|(n, _)| *n);
        results.into_iter().map(|(_, result)| result).collect::<Vec<_>>()
    };
    let (order, results) = tokio::join!(answered, results);
    let wanted: Vec<_> = (0..CALLS).map(|n| n.to_string()).collect();
    assert_eq!(order, wanted);
    assert_eq!(results.into_iter().collect::<Result<Vec<_>, _>>(), Ok(wanted));
    assert_eq!(in_flight(&node), 0);
}
