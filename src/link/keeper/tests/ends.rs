//! Tests of peers that drain and of roles that end.

use super::{
    super::fakes::{closed_with, silence},
    FakeRole, MINUTE, SECOND, draining, refused, replaced, replacing,
};
use crate::wire::CloseCode;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_successor_is_dialled_at_once_while_the_peer_drains_and_the_calls_finish() {
    let role = draining().await;
    role.link_up().await;
    role.check(&["register", "publish 2"]);
    role.pass(MINUTE).await;
    role.check(&[]);
    role.link(1).lose(closed_with(CloseCode::Drained));
    role.expect(&["drained 1", "closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_draining_link_restarts_the_dial() {
    let role = draining().await;
    role.link(1).lose(closed_with(CloseCode::Drained));
    role.expect_in_any_order(&["drained 1", "closed 1", "dial given up", "dial"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_draining_link_ends_the_wait_and_resets_it() {
    let role = draining().await;
    role.answer_dial(Err(refused()));
    role.expect(&["refused", "retry"]).await;
    role.link(1).lose(closed_with(CloseCode::Drained));
    role.expect_in_any_order(&["drained 1", "closed 1", "dial"]).await;
    role.answer_dial(Err(silence()));
    role.pass(Duration::from_millis(250)).await;
    role.check(&["retry", "down: silence", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn failed_dials_are_not_reported_while_the_peer_drains() {
    let role = draining().await;
    role.answer_dial(Err(silence()));
    role.pass(SECOND).await;
    role.check(&["retry", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_draining_link_right_after_the_first_is_kept() {
    let role = draining().await;
    role.link_up().await;
    role.check(&["register", "publish 2"]);
    role.link(2).drain();
    role.expect(&["down: draining"]).await;
    role.pass(60 * MINUTE).await;
    role.check(&[]);
    role.link(2).lose(silence());
    role.expect(&["closed 2", "retry", "down: silence"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_link_after_the_end_of_the_first_is_succeeded_like_it() {
    let role = draining().await;
    role.link_up().await;
    role.link(1).lose(silence());
    role.pass(MINUTE).await;
    role.check(&["register", "publish 2", "drained 1", "closed 1"]);
    role.link(2).drain();
    role.pass(Duration::from_millis(1)).await;
    role.check(&["down: draining", "retry", "down: draining", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_dial() {
    let role = FakeRole::start().await;
    role.signals().stop.notify();
    role.expect(&["dial given up", "stopped"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_wait_for_the_next_dial() {
    let role = FakeRole::start().await;
    role.answer_dial(Err(silence()));
    role.expect(&["retry", "down: silence"]).await;
    role.signals().stop.notify();
    role.expect(&["stopped"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_registration_finish_and_waits_for_it() {
    let role = FakeRole::start().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.signals().stop.notify();
    assert!(!role.signals().stop.done(SECOND).await);
    role.check(&[]);
    role.answer_registration(Ok(()));
    role.expect(&["publish 1"]).await;
    assert!(role.signals().stop.done(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_keeps_the_active_link_and_nothing_is_dialled_after_its_end() {
    let role = FakeRole::linked().await;
    role.signals().stop.notify();
    role.pass(MINUTE).await;
    role.check(&[]);
    role.link(1).lose(silence());
    role.expect(&["closed 1", "stopped"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_dial_of_a_replacement_and_starts_no_other() {
    let role = replacing().await;
    role.signals().stop.notify();
    role.expect(&["dial given up"]).await;
    assert!(role.signals().stop.done(SECOND).await);
    role.signals().request_reconnect();
    role.signals().request_replacement();
    role.pass(MINUTE).await;
    role.check(&[]);
    role.link(1).lose(silence());
    role.expect(&["closed 1", "stopped"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_peer_drains_ends_the_dial_of_a_successor() {
    let role = draining().await;
    role.signals().stop.notify();
    role.expect(&["dial given up", "stopped"]).await;
    role.link(1).lose(silence());
    role.expect(&["drained 1", "closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_role_closes_the_active_and_the_retiring_links() {
    let role = replaced().await;
    role.stop_tasks();
    role.expect_in_any_order(&["closed 1", "closed 2"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_role_closes_a_link_that_is_being_registered() {
    let role = FakeRole::start().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.stop_tasks();
    role.expect(&["registration given up", "closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_not_wanted_any_more_is_dialled_no_more_and_its_calls_finish() {
    let role = FakeRole::linked().await;
    role.is_unwanted().await;
    role.check(&["stopped"]);
    role.pass(60 * MINUTE).await;
    role.check(&[]);
    role.link(1).finish_calls();
    role.expect(&["closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_dial_to_an_address_that_is_not_wanted_any_more_is_given_up() {
    let role = FakeRole::start().await;
    role.is_unwanted().await;
    role.check(&["dial given up", "stopped"]);
    let role = FakeRole::start().await;
    role.answer_dial(Err(silence()));
    role.expect(&["retry", "down: silence"]).await;
    role.is_unwanted().await;
    role.check(&["stopped"]);
}

#[tokio::test(start_paused = true)]
async fn the_successor_of_an_unwanted_link_registers_to_the_end_and_finishes_its_calls_too() {
    let role = replacing().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.is_unwanted().await;
    role.check(&[]);
    role.answer_registration(Ok(()));
    role.expect(&["replace 1", "publish 2", "stopped"]).await;
    role.link(1).finish_calls();
    role.link(2).finish_calls();
    role.expect_in_any_order(&["closed 1", "closed 2"]).await;
}
