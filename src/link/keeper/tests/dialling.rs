//! Tests of dials, of the waits between them and of requests to reconnect.

use super::{
    super::fakes::{closed_with, silence},
    FakeRole, MINUTE, SECOND, refused, replacing,
};
use crate::wire::CloseCode;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_dialled_link_is_registered_and_then_published() {
    let role = FakeRole::start().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.answer_registration(Ok(()));
    role.expect(&["publish 1"]).await;
    role.pass(MINUTE).await;
    role.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_dial_is_repeated_after_the_first_wait() {
    let role = FakeRole::start().await;
    role.answer_dial(Err(silence()));
    role.expect(&["retry", "down: silence"]).await;
    role.pass(Duration::from_millis(249)).await;
    role.check(&[]);
    role.pass(Duration::from_millis(2)).await;
    role.check(&["dial"]);
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_silent_peer_double_up_to_three_seconds() {
    let role = FakeRole::start().await;
    (0..7).for_each(|_| role.answer_dial(Err(silence())));
    role.pass(20 * SECOND).await;
    let expected = [0, 250, 750, 1_750, 3_750, 6_750, 9_750, 12_750].map(Duration::from_millis);
    assert_eq!(role.dialled_at(), expected);
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_silent_peer_grow_to_thirty_seconds_after_ten_minutes() {
    let role = FakeRole::start().await;
    (0..400).for_each(|_| role.answer_dial(Err(silence())));
    role.pass(20 * MINUTE).await;
    let dialled = role.dialled_at();
    let waits: Vec<_> = dialled.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let last_dial = dialled.last().expect("a dial");
    assert!(waits.iter().rev().take(3).all(|wait| *wait == 30 * SECOND), "{last_dial:?}");
    assert!(waits[100] == 3 * SECOND, "{:?}", waits[100]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_dial_is_reported_and_repeated_after_fifteen_seconds() {
    let role = FakeRole::start().await;
    role.answer_dial(Err(refused()));
    role.expect(&["refused", "retry", "down: UNAUTHORIZED"]).await;
    role.pass(14 * SECOND).await;
    role.check(&[]);
    role.pass(2 * SECOND).await;
    role.check(&["dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_registration_closes_the_link_and_is_repeated() {
    let role = FakeRole::start().await;
    role.answer_dial(Ok(()));
    role.answer_registration(Err(silence()));
    role.expect(&["register", "closed 1", "retry", "down: silence"]).await;
    role.pass(SECOND).await;
    role.check(&["dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_reported() {
    let role = FakeRole::start().await;
    role.answer_dial(Ok(()));
    role.answer_registration(Err(refused()));
    role.expect(&["register", "closed 1", "refused", "retry", "down: UNAUTHORIZED"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_the_peer_ends_with_a_refusal_is_not_reported_as_a_refused_dial() {
    let role = FakeRole::linked().await;
    role.link(1).lose(refused());
    role.expect(&["closed 1", "retry", "down: UNAUTHORIZED"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_reason_is_logged_once_in_thirty_seconds() {
    let role = FakeRole::start().await;
    (0..100).for_each(|_| role.answer_dial(Err(silence())));
    role.pass(29 * SECOND).await;
    let logged = |lines: Vec<String>| lines.iter().filter(|line| *line == "retry").count();
    assert_eq!(logged(role.happened()), 1);
    role.pass(5 * SECOND).await;
    assert_eq!(logged(role.happened()), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_dialled_again() {
    let role = FakeRole::linked().await;
    role.link(1).lose(silence());
    role.expect(&["closed 1", "retry", "down: silence"]).await;
    role.pass(SECOND).await;
    role.check(&["dial"]);
    role.link_up().await;
    role.check(&["register", "publish 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_the_peer_has_drained_to_its_end_is_dialled_again_at_once() {
    let role = FakeRole::linked().await;
    role.link(1).lose(closed_with(CloseCode::Drained));
    role.pass(Duration::from_millis(1)).await;
    role.check(&["closed 1", "retry", "down: DRAINED", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_lasted_resets_the_waits() {
    let role = FakeRole::start().await;
    (0..4).for_each(|_| role.answer_dial(Err(silence())));
    role.pass(4 * SECOND).await;
    role.link_up().await;
    role.pass(MINUTE).await;
    let lost_at = role.elapsed();
    role.link(1).lose(silence());
    role.pass(SECOND).await;
    assert_eq!(role.dialled_at().last(), Some(&(lost_at + Duration::from_millis(250))));
}

#[tokio::test(start_paused = true)]
async fn links_that_are_lost_at_once_make_the_waits_grow() {
    let role = FakeRole::start().await;
    for number in 1..=4 {
        role.link_up().await;
        role.link(number).lose(silence());
        role.pass(Duration::from_millis(250 << (number - 1))).await;
    }
    let expected = [0, 250, 750, 1_750, 3_750].map(Duration::from_millis);
    assert_eq!(role.dialled_at(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_link_waits_equally_long_each_time() {
    let role = FakeRole::start().await;
    for number in 1..=3 {
        role.link_up().await;
        role.link(number).lose(closed_with(CloseCode::Superseded));
        role.pass(15 * SECOND).await;
    }
    assert_eq!(role.dialled_at(), [0, 15, 30, 45].map(Duration::from_secs));
}

#[tokio::test(start_paused = true)]
async fn a_request_to_reconnect_ends_the_wait_at_once() {
    let role = FakeRole::start().await;
    role.answer_dial(Err(refused()));
    role.expect(&["refused", "retry", "down: UNAUTHORIZED"]).await;
    role.signals().request_reconnect();
    role.expect(&["dial"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_to_reconnect_resets_the_waits() {
    let role = FakeRole::start().await;
    (0..4).for_each(|_| role.answer_dial(Err(silence())));
    role.pass(2 * SECOND).await;
    role.signals().request_reconnect();
    role.answer_dial(Err(silence()));
    let requested_at = role.elapsed();
    role.pass(SECOND).await;
    let last = [0, 250].map(|ms| requested_at + Duration::from_millis(ms));
    assert_eq!(role.dialled_at()[4..], last);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_reconnect_during_a_dial_is_not_lost() {
    let role = FakeRole::start().await;
    role.signals().request_reconnect();
    role.expect(&[]).await;
    role.answer_dial(Err(refused()));
    role.expect(&["refused", "retry", "down: UNAUTHORIZED", "dial"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_to_reconnect_while_the_link_is_up_changes_nothing() {
    let role = FakeRole::linked().await;
    role.signals().request_reconnect();
    role.pass(MINUTE).await;
    role.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_reconnect_ends_the_wait_of_a_replacement() {
    let role = replacing().await;
    role.answer_dial(Err(refused()));
    role.pass(SECOND).await;
    role.check(&[]);
    role.signals().request_reconnect();
    role.expect(&["dial"]).await;
}
