//! Dispatch with scripted routes, on tokio's paused clock.

mod parts;

use super::{
    fake::{FakeRoutes, dispatch},
    *,
};
use crate::{
    call::{Body, CallMeta, Requester},
    limits::RETRIES_SAVED_MAX,
    name::{CallId, Name},
    wire::CallKind,
};
use bytes::Bytes;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn granted(is_idempotent: bool) -> CallGrant {
    CallGrant { is_idempotent, ..CallGrant::IN_PROCESS }
}

/// A call of any agent, with a timeout of ten seconds.
fn for_any() -> Request {
    to(Target::Service)
}

/// The same for one agent.
fn for_agent() -> Request {
    let name: Name = "shop".parse().expect("a name");
    to(Target::Agent(name))
}

fn to(target: Target) -> Request {
    let method = "Stage/Echo".parse().expect("a method");
    let (call_id, deadline) = (CallId::from_bytes([7; 16]), Instant::now() + 10 * SECOND);
    Request {
        meta: CallMeta::new(method, CallKind::Unary, target, call_id, deadline),
        requester: Requester::Verified("caller/ops".parse().expect("a name")),
        body: Body::Message(Bytes::from_static(b"request")),
    }
}

fn waiting(mut request: Request) -> Request {
    request.meta.wait = true;
    request
}

fn unavailable() -> Status {
    Status::not_executed(Code::Unavailable, "lost")
}

fn lost() -> Status {
    Status::unknown(Code::Unavailable, "lost")
}

fn full() -> Status {
    Status::not_executed(Code::ResourceExhausted, "full")
}

#[track_caller]
fn check<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, outcome: Outcome) {
    let status = answer.expect_err("a failure");
    assert_eq!((status.code(), status.outcome()), (code, outcome));
}

#[tokio::test(start_paused = true)]
async fn a_reply_ends_the_call_after_one_attempt() {
    let dispatch = dispatch(&["a", "b"], []);
    let reply = dispatch.answer(for_any(), granted(true)).await.expect("a reply");
    assert_eq!(reply.message().expect("one message").as_ref(), b"ok");
    assert_eq!(dispatch.attempts(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_not_executed_is_retried_on_another_route() {
    for (request, name) in [(for_any(), "any"), (for_agent(), "one")] {
        let dispatch = dispatch(&["a", "b"], [unavailable()]);
        assert!(dispatch.answer(request, granted(false)).await.is_ok(), "{name}");
        assert_eq!(dispatch.attempts(), ["a", "b"], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_not_retried_over_the_same_link() {
    let one = dispatch(&["a"], [unavailable()]);
    check(one.answer(for_agent(), granted(true)).await, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(one.attempts(), ["a"]);
    // A call of a service with one agent is retried: another agent may have been lost meanwhile.
    let any = dispatch(&["a"], [unavailable()]);
    assert!(any.answer(for_any(), granted(false)).await.is_ok());
    assert_eq!(any.attempts(), ["a", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_has_three_numbered_attempts() {
    let dispatch = dispatch(&["a", "b"], std::iter::repeat_with(unavailable).take(9));
    let answer = dispatch.answer(for_any(), granted(false)).await;
    check(answer, Code::Unavailable, Outcome::NotExecuted);
    let numbers: Vec<_> =
        dispatch.routes.state().attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, (1..=ATTEMPTS_MAX).collect::<Vec<_>>());
    assert_eq!(dispatch.attempts(), ["a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_retried_only_if_idempotent() {
    for (is_idempotent, attempts) in [(false, 1), (true, 2)] {
        let dispatch = dispatch(&["a", "b"], [lost()]);
        let answer = dispatch.answer(for_any(), granted(is_idempotent)).await;
        assert_eq!(answer.is_ok(), is_idempotent);
        assert_eq!(dispatch.attempts().len(), attempts);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_after_later_attempts() {
    for ends in [vec![lost(), unavailable()], vec![lost(), unavailable(), unavailable()]] {
        let count = ends.len();
        let dispatch = dispatch(&["a"], ends);
        dispatch.change(|state| {
            state.ends.push_back(Status::not_executed(Code::PermissionDenied, "no"));
        });
        let answer = dispatch.answer(for_any(), granted(true)).await;
        assert_eq!(answer.expect_err("a failure").outcome(), Outcome::Unknown, "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_returned() {
    let denied = Status::not_executed(Code::PermissionDenied, "the owner says no");
    let dispatch = dispatch(&["a", "b"], [unavailable(), denied.clone()]);
    let answer = dispatch.answer(for_any(), granted(false)).await;
    assert_eq!(answer.expect_err("a failure"), denied);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_handler_is_never_retried() {
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::NotFound] {
        let dispatch = dispatch(&["a", "b"], [Status::new(code, "the handler's own")]);
        let answer = dispatch.answer(for_any(), granted(true)).await;
        check(answer, code, Outcome::AppError);
        assert_eq!(dispatch.attempts(), ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn only_lost_links_and_full_agents_are_retried() {
    for code in (0..=16).filter_map(Code::from_number) {
        let dispatch = dispatch(&["a", "b"], [Status::not_executed(code, "no")]);
        let answer = dispatch.answer(for_any(), granted(true)).await;
        let is_worth_it = matches!(code, Code::Unavailable | Code::ResourceExhausted);
        assert_eq!((answer.is_ok(), dispatch.attempts().len() == 2), (is_worth_it, is_worth_it));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_agent_is_replaced_only_for_a_call_of_the_service() {
    let any = dispatch(&["a", "b"], [full()]);
    assert!(any.answer(for_any(), granted(false)).await.is_ok());
    assert_eq!(any.attempts(), ["a", "b"]);
    let one = dispatch(&["a", "b"], [full()]);
    let answer = one.answer(for_agent(), granted(false)).await;
    check(answer, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!(one.attempts(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_found_no_room_is_not_retried() {
    let too_large = Status::unknown(Code::ResourceExhausted, "the reply");
    let dispatch = dispatch(&["a", "b"], [too_large]);
    let answer = dispatch.answer(for_any(), granted(true)).await;
    check(answer, Code::ResourceExhausted, Outcome::Unknown);
    assert_eq!(dispatch.attempts(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn no_call_is_retried_past_the_deadline() {
    for (takes, attempts) in [(9 * SECOND, 2), (10 * SECOND, 1)] {
        let dispatch = dispatch(&["a", "b"], [unavailable()]);
        dispatch.change(|state| state.takes = takes);
        let _answer = dispatch.answer(for_any(), granted(false)).await;
        assert_eq!(dispatch.attempts().len(), attempts, "{takes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_stay_within_their_budget() {
    let dispatch = dispatch(&["a", "b"], []);
    let retried = async |count: usize| {
        let mut retried = 0;
        for _ in 0..count {
            dispatch.change(|state| {
                state.ends = [unavailable()].into();
                state.attempts.clear();
            });
            let answer = dispatch.answer(for_any(), granted(false)).await;
            retried += usize::from(answer.is_ok());
            assert_eq!(dispatch.attempts().len(), if answer.is_ok() { 2 } else { 1 });
        }
        retried
    };
    let saved = RETRIES_SAVED_MAX as usize;
    let first = retried(2 * saved).await;
    assert!((saved..=saved + saved / 2).contains(&first), "{first}");
    assert_eq!(retried(100).await, 10, "a tenth of the calls");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_requests_is_sent_once() {
    let dispatch = dispatch(&["a", "b"], [unavailable()]);
    let mut request = for_any();
    request.meta.kind = CallKind::ClientStream;
    let (sender, messages) = crate::call::Messages::channel(1);
    drop(sender);
    request.body = Body::Messages(messages);
    let answer = dispatch.answer(request, granted(true)).await;
    check(answer, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(dispatch.attempts(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_route_a_call_ends_at_once() {
    let dispatch = dispatch(&[], []);
    let began = Instant::now();
    let answer = dispatch.answer(for_any(), granted(true)).await;
    check(answer, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!((dispatch.attempts().len(), began.elapsed()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_takes_the_first_new_route() {
    let dispatch = dispatch(&[], []);
    let began = Instant::now();
    let comes = async {
        tokio::time::sleep(3 * SECOND).await;
        // A change without a new route wakes it without effect.
        dispatch.change(|_| ());
        tokio::time::sleep(SECOND).await;
        dispatch.change(|state| state.routes.push("a"));
    };
    let (answer, ()) = tokio::join!(dispatch.answer(waiting(for_any()), granted(false)), comes);
    assert!(answer.is_ok());
    assert_eq!((dispatch.attempts(), began.elapsed()), (vec!["a"], 4 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_ends_at_its_deadline_and_names_the_absent_agent() {
    let dispatch = dispatch(&[], []);
    let began = Instant::now();
    let answer = dispatch.answer(waiting(for_any()), granted(false)).await;
    let status = answer.expect_err("nobody came");
    assert_eq!((status.code(), status.outcome()), (Code::Unavailable, Outcome::NotExecuted));
    assert!(status.message().contains("nobody is there"), "{status}");
    assert_eq!(began.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_waits_again_when_its_only_route_is_lost() {
    let dispatch = dispatch(&["a"], [unavailable()]);
    dispatch.change(|state| state.takes = SECOND);
    let leaves_and_comes = async {
        tokio::time::sleep(SECOND / 2).await;
        dispatch.change(|state| state.routes.clear());
        tokio::time::sleep(3 * SECOND).await;
        dispatch.change(|state| state.routes.push("b"));
    };
    let answer = dispatch.answer(waiting(for_any()), granted(false));
    let (answer, ()) = tokio::join!(answer, leaves_and_comes);
    assert!(answer.is_ok());
    assert_eq!(dispatch.attempts(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_ends_waiting_calls_and_refuses_new_ones() {
    let waits = dispatch(&[], []);
    let began = Instant::now();
    let stops = async {
        tokio::time::sleep(SECOND).await;
        waits.change(|state| state.is_stopping = true);
    };
    let (answer, ()) = tokio::join!(waits.answer(waiting(for_any()), granted(false)), stops);
    check(answer, Code::Unavailable, Outcome::NotExecuted);
    assert_eq!(began.elapsed(), SECOND);
    waits.change(|state| state.routes.push("a"));
    let answer = waits.answer(for_any(), granted(false)).await;
    assert!(answer.expect_err("it stops").message().contains("the node is stopping"));
    assert!(waits.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_names_no_agent_is_refused() {
    let dispatch = dispatch(&["a"], []);
    let answer = dispatch.answer(to(Target::Here), granted(false)).await;
    check(answer, Code::InvalidArgument, Outcome::NotExecuted);
    assert!(dispatch.attempts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_of_its_rule_is_refused_and_one_at_the_limit_passes() {
    for (message_bytes_max, is_within) in [(6, false), (7, true)] {
        let dispatch = dispatch(&["a"], []);
        let limited =
            CallGrant { message_bytes_max: Some(message_bytes_max), ..CallGrant::IN_PROCESS };
        let answer = dispatch.answer(for_any(), limited).await;
        assert_eq!(answer.is_ok(), is_within);
        assert_eq!(dispatch.attempts().len(), usize::from(is_within));
        if let Err(status) = answer {
            assert!(status.message().contains("message_max"), "{status}");
            assert_eq!(status.outcome(), Outcome::NotExecuted);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_shortens_a_deadline_and_does_not_extend_it() {
    for (timeout_max, seconds) in [(3 * SECOND, 3), (30 * SECOND, 10)] {
        let dispatch = dispatch(&[], []);
        let limited = CallGrant { timeout_max: Some(timeout_max), ..CallGrant::IN_PROCESS };
        let began = Instant::now();
        assert!(dispatch.answer(waiting(for_any()), limited).await.is_err());
        assert_eq!(began.elapsed().as_secs(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn the_route_of_the_last_attempt_is_returned_on_success_and_failure() {
    let last_route = async |dispatch: Dispatch<FakeRoutes>| {
        let mut route = None;
        drop(dispatch.forward(&mut for_any(), granted(false), &mut route).await);
        route
    };
    assert_eq!(last_route(dispatch(&["a", "b"], [unavailable()])).await, Some("b"));
    assert_eq!(last_route(dispatch(&["a"], [lost()])).await, Some("a"));
    assert_eq!(last_route(dispatch(&[], [])).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_drops_its_attempt() {
    let dispatch = dispatch(&["a"], []);
    dispatch.change(|state| state.takes = 5 * SECOND);
    let dropped = tokio::time::timeout(SECOND, dispatch.answer(for_any(), granted(false))).await;
    assert!(dropped.is_err());
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!((dispatch.attempts(), dispatch.routes.state().ended), (vec!["a"], 0));
}
