//! An agent process that stands still while calls come: what was over when it goes on does not start.

use super::process::{Place, Running};
use crate::world::{Relay, background, check_status, soon, until};
use dialback::{AgentInfo, Caller, Code, Credentials, Outcome};
use rustix::process::Signal;
use serde::Serialize;
use std::{
    future::IntoFuture,
    net::SocketAddr,
    time::{Duration, Instant},
};

#[derive(Serialize)]
struct Append {
    id: String,
    ms: u64,
}

fn append(id: impl ToString) -> Append {
    Append { id: id.to_string(), ms: 0 }
}

/// Stops an agent, has so many calls sent to it, and lets it go on after so long: with its path to the node dead, so that it has the
/// requests and does not hear that they were given up, or alive.
async fn calls_to_a_stopped_agent(
    calls: usize,
    timeout: Duration,
    pause: Duration,
    is_path_dead: bool,
) {
    let place = Place::new();
    let (_node, at) = place.node();
    let node: SocketAddr = at.parse().expect("an address");
    let path = Relay::to(node).await;
    let mut agent = place.agent(&path.address().to_string());
    let credentials = Credentials::from_dir(place.path("certs"), "caller-ops").expect("loaded");
    let caller = Caller::connect(&at, credentials).await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    let call = |id: String, timeout| {
        callee.call::<()>("Demo/Append", &append(id)).timeout(timeout).into_future()
    };
    assert_eq!(call("before".into(), timeout).await, Ok(()));
    agent.stop();
    let stopped = Instant::now();
    let sent: Vec<_> =
        (0..calls).map(|n| background(call(format!("stale-{n}"), timeout))).collect();
    // The node has asked the agent, which does not answer.
    let is = async |what: &str, holds: &dyn Fn(&AgentInfo) -> bool| {
        soon(what, async { while !holds(&caller.agents().await.expect("a list")[0]) {} }).await;
    };
    is("all calls are in flight", &|agent| agent.calls_in_flight == calls as u64).await;
    if is_path_dead {
        path.cut().await;
    }
    for call in sent {
        let failed = soon("a call ends", call).await;
        check_status(failed, Code::DeadlineExceeded, Outcome::Unknown);
    }
    let in_time = stopped.elapsed();
    assert!(in_time < timeout + Duration::from_secs(5), "the callers waited for {in_time:?}");
    until("the pause is over", || stopped.elapsed() >= pause).await;
    agent.signal(Signal::CONT);
    agent.said("stood still");
    path.mend().await;
    // After a long pause the node has let it go, and it comes back.
    is("the agent is attached", &|agent| agent.attached).await;
    let after = soon("a later call", call("after".into(), Duration::from_secs(40))).await;
    assert_eq!(after, Ok(()));
    assert_eq!(
        place.read("ledger.txt"),
        "started before\ndone before\nstarted after\ndone after\n"
    );
    end(agent);
}

fn end(agent: Running) {
    agent.signal(Signal::TERM);
    agent.end().expect(0, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_over_while_its_agent_stood_still_is_not_started() {
    let timeout = Duration::from_secs(2);
    calls_to_a_stopped_agent(20, timeout, Duration::from_secs(3), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_over_is_not_started_even_if_the_agent_does_not_hear_so() {
    let timeout = Duration::from_secs(2);
    calls_to_a_stopped_agent(20, timeout, Duration::from_secs(3), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_with_less_time_than_a_pause_took_are_soon_taken_again() {
    let place = Place::new();
    let (_node, at) = place.node();
    let mut agent = place.agent(&at);
    let credentials = Credentials::from_dir(place.path("certs"), "caller-ops").expect("loaded");
    let caller = Caller::connect(&at, credentials).await.expect("a caller");
    let callee = caller.agent("warehouse").expect("a name");
    agent.stop();
    let stopped = Instant::now();
    until("the pause is over", || stopped.elapsed() >= Duration::from_secs(3)).await;
    agent.signal(Signal::CONT);
    agent.said("stood still");
    // None of them has the three seconds that a call may have lain unread.
    let taken = async {
        for n in 0.. {
            let call = callee.call::<()>("Demo/Append", &append(n));
            match call.timeout(Duration::from_secs(1)).await {
                Ok(()) => return,
                late => {
                    check_status(late, Code::DeadlineExceeded, Outcome::NotExecuted);
                }
            }
        }
    };
    soon("a short call is taken", taken).await;
    end(agent);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make test-long"]
async fn a_hundred_calls_that_were_over_in_a_pause_of_twenty_seconds_are_not_started() {
    let timeout = Duration::from_secs(5);
    calls_to_a_stopped_agent(100, timeout, Duration::from_secs(20), false).await;
    calls_to_a_stopped_agent(100, timeout, Duration::from_secs(20), true).await;
}
