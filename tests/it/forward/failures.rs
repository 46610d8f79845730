//! Upstreams that are absent, disconnect or hang: the outcome of each failure, and that nothing is
//! sent twice.

use super::upstream::{HttpUpstream, ServerAction, joined, json, process_socket_events, reply};
use crate::world::{Rng, check_status, seed, soon, spawn};
use dialback::{Code, Forward, Outcome};
use std::time::Duration;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_call_to_an_absent_upstream_is_not_executed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = listener.local_addr().expect("bound");
    drop(listener);
    for url in [format!("http://{gone}"), "http://no-such-host.invalid".into()] {
        let callee = joined(Forward::to(url).expect("a URL").service("HelloService"));
        let failed = callee.call::<String>("HelloService/Hello", "x").await;
        let status = check_status(failed, Code::Unavailable, Outcome::NotExecuted);
        assert!(status.message().contains("the upstream of HelloService cannot be reached"));
        assert!(!status.message().contains("127.0.0.1"), "the address is not disclosed: {status}");
    }
}

#[tokio::test]
async fn a_call_whose_upstream_closes_before_its_reply_is_unknown_and_not_retried() {
    for some in ["", "HTTP/1.1 200 O"] {
        let upstream = HttpUpstream::start(|_| ServerAction::AnswersAndCloses(some.into())).await;
        let failed = upstream.callee().call::<String>("HelloService/Hello", "x").await;
        check_status(failed, Code::Unavailable, Outcome::Unknown);
        assert_eq!(upstream.only().connection, 0);
    }
}

#[tokio::test]
async fn a_connection_closed_by_the_upstream_is_not_reused() {
    let upstream = HttpUpstream::start(|_| ServerAction::AnswersAndCloses(json("1"))).await;
    let callee = upstream.callee();
    for round in 1..=3 {
        assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
        upstream.until("it has closed", move |server_log| server_log.closed == round).await;
        process_socket_events().await;
    }
    let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 2]);
}

/// Eight callers with this many sequential calls each. Returns whether each was answered.
async fn all_at_once(upstream: &HttpUpstream, calls: usize) -> Vec<Result<u64, dialback::Status>> {
    let callee = upstream.callee();
    let callers = (0..8).map(|_| {
        let callee = callee.clone();
        spawn(async move {
            let mut answers = Vec::new();
            for _ in 0..calls {
                answers.push(callee.call::<u64>("HelloService/Hello", "x").await);
            }
            answers
        })
    });
    let mut answers = Vec::new();
    for caller in callers.collect::<Vec<_>>() {
        answers.extend(soon("the calls end", caller).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_unknown_with_an_upstream_that_closes_unannounced_after_each_answer() {
    let upstream = HttpUpstream::start(|_| ServerAction::AnswersAndCloses(json("1"))).await;
    let answers = all_at_once(&upstream, 50).await;
    let failed: Vec<_> = answers.iter().filter(|answer| **answer != Ok(1)).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), answers.len());
    assert_eq!(upstream.seen().len(), answers.len(), "each was sent once");
}

#[tokio::test]
async fn a_connection_is_not_reused_if_the_upstream_announces_its_close() {
    let with = |name, value| {
        let headers = [("content-type", "application/json"), (name, value)];
        reply("200 OK", &headers, "1")
    };
    let old = [&b"HTTP/1.0"[..], &json("1")["HTTP/1.1".len()..]].concat();
    for answer in [
        with("connection", "close"),
        with("connection", "x, Close"),
        with("keep-alive", "timeout=5, max=0"),
        with("keep-alive", "timeout=0"),
        old,
    ] {
        let upstream = HttpUpstream::answering(answer.clone()).await;
        let callee = upstream.callee();
        for _ in 0..2 {
            assert_eq!(callee.call::<u64>("HelloService/Hello", "x").await, Ok(1));
        }
        let connections: Vec<_> = upstream.seen().iter().map(|seen| seen.connection).collect();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(connections, [0, 1], "{answer}");
        upstream.disconnected(2).await;
    }
}

#[tokio::test]
async fn a_call_whose_upstream_dies_on_a_reused_connection_is_unknown() {
    let upstream_dies = |seen: &super::upstream::Seen| match seen.text() {
        "1" => ServerAction::Answers(json("1")),
        _ => ServerAction::AnswersAndCloses(vec![]),
    };
    let upstream = HttpUpstream::start(upstream_dies).await;
    let callee = upstream.callee();
    assert_eq!(callee.call::<u64>("HelloService/Hello", &1).await, Ok(1));
    let failed = callee.call::<u64>("HelloService/Hello", &2).await;
    check_status(failed, Code::Unavailable, Outcome::Unknown);
    let requests: Vec<_> = upstream.seen().iter().map(|seen| seen.text().to_owned()).collect();
    assert_eq!(requests, ["1", "2"], "nothing is repeated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_sent_twice_and_every_outcome_is_true_whatever_the_upstream_does() {
    let (seed, calls) = (seed(), 400);
    let does = move |seen: &super::upstream::Seen| {
        let id: u64 = seen.text().parse().expect("a number");
        match Rng::new(seed, id).below(5) {
            0 | 1 => ServerAction::Answers(json(seen.text())),
            // The close was not announced, so the next call may already be using the connection.
            2 => ServerAction::AnswersAndCloses(json(seen.text())),
            3 => ServerAction::AnswersAndCloses(vec![]),
            _ => ServerAction::AnswersAndCloses(
                b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1".to_vec(),
            ),
        }
    };
    let upstream = HttpUpstream::start(does).await;
    let callee = upstream.callee();
    let mut outcomes = Vec::new();
    for first in (0..calls).step_by(8) {
        let at_once = (first..first + 8)
            .map(|id| spawn(callee.call::<u64>("HelloService/Hello", &id).into_future()));
        for (id, call) in (first..).zip(at_once.collect::<Vec<_>>()) {
            outcomes.push((id, soon("a call ends", call).await));
        }
    }
    let seen = upstream.seen();
    let mut counts = [0; 3];
    for (id, answered) in outcomes {
        let requests = seen.iter().filter(|seen| seen.text() == id.to_string()).count();
        assert!(requests <= 1, "{id} was sent {requests} times");
        match answered {
            Ok(back) => {
                assert_eq!((back, requests), (id, 1));
                counts[0] += 1;
            }
            Err(status) if status.outcome() == Outcome::NotExecuted => {
                assert_eq!(requests, 0, "{id}: {status}");
                counts[1] += 1;
            }
            Err(status) => {
                assert_eq!(status.outcome(), Outcome::Unknown, "{id}: {status}");
                counts[2] += 1;
            }
        }
    }
    println!("{counts:?} ok, not_executed, unknown");
    assert!(counts[0] > calls / 4 && counts[2] > calls / 8, "{counts:?} of the seed {seed}");
}

#[tokio::test]
async fn the_upstream_connection_is_closed_at_the_deadline() {
    for some in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\"x"] {
        let upstream = HttpUpstream::start(|_| ServerAction::Hangs(some.into())).await;
        let call = upstream.callee().call::<String>("HelloService/Hello", "x");
        let failed = call.timeout(Duration::from_millis(300)).await;
        check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
        upstream.disconnected(1).await;
    }
}

#[tokio::test]
async fn dropping_a_call_closes_the_upstream_connection() {
    for some in ["", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\"x"] {
        let upstream = HttpUpstream::start(|_| ServerAction::Hangs(some.into())).await;
        let call = upstream.callee().call::<String>("HelloService/Hello", "x");
        let calling = spawn(call.timeout(Duration::from_secs(600)).into_future());
        upstream.until("it is called", |server_log| server_log.seen.len() == 1).await;
        calling.cancel().await;
        upstream.disconnected(1).await;
    }
}

#[tokio::test]
async fn a_call_whose_upstream_does_not_accept_before_the_deadline_is_not_executed() {
    // No TLS handshake takes place here, and the client waits for it.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let world = crate::world::World::new();
    let forward = Forward::to_tls(url, world.ca().pem()).expect("a URL");
    let callee = joined(forward.service("HelloService"));
    let call = callee.call::<String>("HelloService/Hello", "x");
    let failed = soon("it ends", call.timeout(Duration::from_millis(300)).into_future()).await;
    check_status(failed, Code::DeadlineExceeded, Outcome::NotExecuted);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_upstream_does_not_accept_within_five_seconds_is_not_executed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("bound"));
    let world = crate::world::World::new();
    let forward = Forward::to_tls(url, world.ca().pem()).expect("a URL");
    let callee = joined(forward.service("HelloService"));
    let call = callee.call::<String>("HelloService/Hello", "x").timeout(Duration::from_secs(30));
    let status = check_status(call.await, Code::Unavailable, Outcome::NotExecuted);
    assert!(status.message().contains("within 5s"), "{status}");
}
