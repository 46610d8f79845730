//! Calls whose message is still coming.

use super::*;
use crate::{
    call::{MessageParts, Next, Source},
    metadata::Metadata,
};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Sleep;

/// A source that ends after some time.
struct Delayed(Pin<Box<Sleep>>, Option<Status>);

impl Source for Delayed {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        ready!(self.0.as_mut().poll(cx));
        Poll::Ready(self.1.take().map_or_else(|| Next::End(Metadata::default()), Next::Failed))
    }
}

/// A call of any agent whose message is whole after this time, or fails then.
fn coming(time: Duration, fault: Option<Status>) -> Request {
    let source = Delayed(Box::pin(tokio::time::sleep(time)), fault);
    Request { body: Body::Parts(MessageParts::new(7, source)), ..for_any() }
}

fn coming_soon() -> Request {
    coming(2 * SECOND, None)
}

/// Routes of the attempts, and whether the message of each was still coming.
fn attempts(dispatch: &Dispatch<FakeRoutes>) -> Vec<(&'static str, bool)> {
    let state = dispatch.routes.state();
    state.attempts.iter().map(|attempt| (attempt.route, attempt.was_coming)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_coming_is_passed_on_at_once() {
    let dispatch = dispatch(&["a", "b"], []);
    let began = Instant::now();
    assert!(dispatch.answer(coming_soon(), granted(false)).await.is_ok());
    assert_eq!(attempts(&dispatch), [("a", true)]);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_stored_first_where_its_agent_has_no_permits_to_spare() {
    let dispatch = dispatch(&["a"], []);
    dispatch.change(|state| state.busy = vec!["a"]);
    let began = Instant::now();
    assert!(dispatch.answer(coming_soon(), granted(false)).await.is_ok());
    assert_eq!(attempts(&dispatch), [("a", false)]);
    assert_eq!(began.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_late_is_stored_and_sent_in_the_same_attempt() {
    let dispatch = dispatch(&["a"], []);
    dispatch.change(|state| state.passes_for = Some(SECOND));
    assert!(dispatch.answer(coming_soon(), granted(false)).await.is_ok());
    assert_eq!(attempts(&dispatch), [("a", true), ("a", false)]);
    assert!(dispatch.routes.state().attempts.iter().all(|attempt| attempt.number == 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_message_takes_the_route_that_is_there_when_it_is_whole() {
    let dispatch = dispatch(&["a"], []);
    dispatch.change(|state| state.passes_for = Some(SECOND));
    let (answer, ()) = tokio::join!(dispatch.answer(coming_soon(), granted(false)), async {
        tokio::time::sleep(SECOND + SECOND / 2).await;
        dispatch.change(|state| state.routes = vec!["b"]);
    });
    assert!(answer.is_ok());
    assert_eq!(attempts(&dispatch), [("a", true), ("b", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_stored_is_sent_with_the_deadline_that_its_call_has_by_then() {
    for busy in [&["a"][..], &[]] {
        let dispatch = dispatch(&["a"], []);
        dispatch.change(|state| {
            state.busy = busy.to_vec();
            state.passes_for = Some(SECOND);
        });
        let mut request = coming_soon();
        let deadline = request.meta.deadline - 3 * SECOND;
        let parts = request.body.coming().expect("parts");
        parts.check_end(Box::pin(async move { Ok(deadline) }));
        assert!(dispatch.forward(&mut request, granted(false), &mut None).await.is_ok());
        let attempts = dispatch.routes.state().attempts.clone();
        assert_eq!(attempts.last().expect("an attempt").deadline, deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_agent_is_replaced_while_the_message_is_coming() {
    let dispatch = dispatch(&["a", "b"], [unavailable()]);
    assert!(dispatch.answer(coming_soon(), granted(false)).await.is_ok());
    assert_eq!(attempts(&dispatch), [("a", true), ("b", true)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_stored_for_a_retry_does_not_go_to_the_agent_that_failed() {
    let dispatch = dispatch(&["a", "b"], [unavailable()]);
    dispatch.change(|state| state.busy = vec!["b"]);
    assert!(dispatch.answer(coming_soon(), granted(false)).await.is_ok());
    assert_eq!(attempts(&dispatch), [("a", true), ("b", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_ends_its_call_without_a_retry() {
    for is_busy in [false, true] {
        let dispatch = dispatch(&["a", "b"], []);
        dispatch.change(|state| {
            state.passes_for = Some(5 * SECOND);
            state.busy = if is_busy { vec!["a", "b"] } else { Vec::new() };
        });
        // The link of its sender was lost: the same code as for a lost agent.
        let call = coming(SECOND, Some(unavailable()));
        let answer = dispatch.answer(call, granted(true)).await;
        check(answer, Code::Unavailable, Outcome::NotExecuted);
        assert_eq!(attempts(&dispatch).len(), usize::from(!is_busy));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_stored_while_its_call_waits_for_an_agent() {
    let dispatch = dispatch(&[], []);
    let (answer, ()) =
        tokio::join!(dispatch.answer(waiting(coming_soon()), granted(false)), async {
            tokio::time::sleep(5 * SECOND).await;
            dispatch.change(|state| state.routes = vec!["a"]);
        });
    assert!(answer.is_ok());
    assert_eq!(attempts(&dispatch), [("a", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_of_its_rule_is_refused_while_it_comes() {
    let dispatch = dispatch(&["a"], []);
    let limited = CallGrant { message_bytes_max: Some(6), ..CallGrant::IN_PROCESS };
    let answer = dispatch.answer(coming_soon(), limited).await;
    check(answer, Code::ResourceExhausted, Outcome::NotExecuted);
    assert!(dispatch.attempts().is_empty());
}
