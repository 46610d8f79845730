//! Tests of make-before-break and of retiring links.

use super::{
    super::fakes::{DRAIN_MAX, closed_with, silence},
    FakeRole, MINUTE, SECOND, refused, replaced, replacing,
};
use crate::{link::fault::LinkFault, wire::CloseCode};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_replacement_is_published_before_the_calls_on_the_retiring_link_end() {
    let role = replaced().await;
    role.pass(60 * MINUTE).await;
    role.check(&[]);
    role.link(1).finish_calls();
    role.expect(&["closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_is_marked_as_replaced_only_when_the_next_one_is_registered() {
    let role = replacing().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.answer_registration(Ok(()));
    role.expect(&["replace 1", "publish 2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_requested_during_a_dial_is_not_lost() {
    let role = FakeRole::start().await;
    role.signals().request_replacement();
    role.link_up().await;
    role.check(&["register", "publish 1", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_requested_during_a_registration_is_not_lost() {
    let role = FakeRole::start().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.signals().request_replacement();
    role.answer_registration(Ok(()));
    role.expect(&["publish 1", "dial"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_requested_during_the_dial_of_another_is_not_lost() {
    let role = replacing().await;
    role.signals().request_replacement();
    role.link_up().await;
    role.check(&["register", "replace 1", "publish 2", "dial"]);
    role.link_up().await;
    role.check(&["register", "replace 2", "publish 3"]);
}

#[tokio::test(start_paused = true)]
async fn requests_at_one_moment_make_one_replacement() {
    let role = FakeRole::linked().await;
    (0..5).for_each(|_| role.signals().request_replacement());
    role.expect(&["dial"]).await;
    role.link_up().await;
    role.check(&["register", "replace 1", "publish 2"]);
    role.pass(MINUTE).await;
    role.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_was_requested_without_a_link_is_the_next_link() {
    let role = FakeRole::start().await;
    role.answer_dial(Err(silence()));
    role.expect(&["retry", "down: silence"]).await;
    role.signals().request_replacement();
    role.pass(SECOND).await;
    role.check(&["dial"]);
    role.link_up().await;
    role.check(&["register", "publish 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_fails_is_repeated_and_the_active_link_stays() {
    let role = replacing().await;
    role.answer_dial(Err(silence()));
    role.answer_dial(Ok(()));
    role.answer_registration(Err(silence()));
    role.pass(600 * SECOND / 1_000).await;
    role.check(&["dial", "register", "closed 2"]);
    role.pass(SECOND).await;
    role.check(&["dial"]);
    role.link_up().await;
    role.check(&["register", "replace 1", "publish 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_to_reconnect_ends_and_resets_the_wait_for_a_replacement() {
    let role = replacing().await;
    for _ in 0..4 {
        role.answer_dial(Err(refused()));
        role.expect(&[]).await;
        role.signals().request_reconnect();
        role.expect(&["dial"]).await;
    }
    role.answer_dial(Err(refused()));
    role.pass(16 * SECOND).await;
    role.check(&["dial"]);
}

#[tokio::test(start_paused = true)]
async fn an_active_link_that_is_lost_ends_the_dial_of_its_replacement() {
    let role = replacing().await;
    role.link(1).lose(silence());
    role.expect(&["dial given up", "closed 1", "retry", "down: silence"]).await;
    role.pass(SECOND).await;
    role.check(&["dial"]);
}

#[tokio::test(start_paused = true)]
async fn an_active_link_that_is_lost_ends_the_wait_for_its_replacement() {
    let role = replacing().await;
    role.answer_dial(Err(refused()));
    role.expect(&[]).await;
    role.link(1).lose(silence());
    role.expect(&["closed 1", "retry", "down: silence"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_continues_when_the_active_link_is_lost_meanwhile() {
    let role = replacing().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.link(1).lose(silence());
    role.expect(&[]).await;
    role.answer_registration(Ok(()));
    role.expect(&["replace 1", "publish 2", "closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_fails_after_the_active_link_was_lost_counts_as_that_loss() {
    let role = replacing().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.link(1).lose(silence());
    role.answer_registration(Err(refused()));
    role.expect(&["closed 2", "closed 1", "retry", "down: silence"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_during_a_registration_that_fails_is_not_lost() {
    let role = replacing().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.link(1).drain();
    role.expect(&[]).await;
    role.answer_registration(Err(silence()));
    role.pass(Duration::from_millis(1)).await;
    role.check(&["closed 2", "down: draining", "retry", "down: draining", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_drained_during_the_registration_of_the_next_is_replaced_by_it() {
    let role = replacing().await;
    role.answer_dial(Ok(()));
    role.expect(&["register"]).await;
    role.link(1).drain();
    role.answer_registration(Ok(()));
    role.expect(&["replace 1", "publish 2"]).await;
    role.pass(MINUTE).await;
    role.check(&[]);
    role.link(1).finish_calls();
    role.expect(&["closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drains_ends_the_dial_of_a_replacement() {
    let role = replacing().await;
    role.link(1).drain();
    role.pass(Duration::from_millis(1)).await;
    role.check(&["dial given up", "down: draining", "retry", "down: draining", "dial"]);
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_replaced_link_is_not_a_loss_of_the_active_one() {
    let role = replaced().await;
    role.link(1).lose(silence());
    role.expect(&["closed 1"]).await;
    role.pass(MINUTE).await;
    role.check(&[]);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_link_outlives_the_loss_of_the_active_one() {
    let role = replaced().await;
    role.link(2).lose(silence());
    role.expect(&["closed 2", "retry", "down: silence"]).await;
    role.pass(SECOND).await;
    role.link_up().await;
    role.check(&["dial", "register", "publish 3"]);
    role.link(1).finish_calls();
    role.expect(&["closed 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_is_near_its_end_is_replaced_by_a_newer_one() {
    let role = FakeRole::linked().await;
    role.link(1).expire_soon();
    role.expect(&["dial for a newer certificate"]).await;
    role.link_up().await;
    role.check(&["register", "replace 1", "publish 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_certificate_is_looked_for_at_equal_intervals() {
    let role = FakeRole::linked().await;
    role.link(1).expire_soon();
    (0..3).for_each(|_| role.answer_dial(Err(LinkFault::NotNewer)));
    role.pass(25 * SECOND).await;
    let milliseconds = [0, 0, 7_500, 15_000, 22_500];
    assert_eq!(role.dialled_at(), milliseconds.map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_certificate_ends_without_a_newer_one_is_dialled_like_a_lost_one() {
    let role = FakeRole::linked().await;
    role.link(1).expire_soon();
    role.expect(&["dial for a newer certificate"]).await;
    role.link(1).lose(closed_with(CloseCode::Expired));
    role.pass(16 * SECOND).await;
    role.check(&["dial given up", "closed 1", "retry", "down: EXPIRED", "dial"]);
}

/// A role with four links: the first three are retiring, and a fourth replacement is requested.
async fn without_a_slot() -> FakeRole {
    let role = replaced().await;
    for number in 2..=3 {
        role.signals().request_replacement();
        role.expect(&["dial"]).await;
        role.link_up().await;
        let (replaced, published) =
            (format!("replace {number}"), format!("publish {}", number + 1));
        role.check(&["register", &replaced, &published]);
    }
    role.signals().request_replacement();
    role.expect(&[]).await;
    role
}

#[tokio::test(start_paused = true)]
async fn a_fourth_replacement_waits_until_a_retiring_link_has_ended() {
    let role = without_a_slot().await;
    role.pass(10 * SECOND).await;
    role.check(&[]);
    role.link(2).finish_calls();
    role.expect(&["closed 2", "dial"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fourth_replacement_closes_the_oldest_link_after_drain_max() {
    let role = without_a_slot().await;
    role.pass(DRAIN_MAX - SECOND).await;
    role.check(&[]);
    role.pass(2 * SECOND).await;
    role.check(&["closed 1", "dial"]);
    role.link_up().await;
    role.check(&["register", "replace 4", "publish 5"]);
}

#[tokio::test(start_paused = true)]
async fn requests_while_a_replacement_waits_for_a_slot_are_served_by_it() {
    let role = without_a_slot().await;
    role.signals().request_replacement();
    role.link(1).finish_calls();
    role.expect(&["closed 1", "dial"]).await;
    role.link_up().await;
    role.check(&["register", "replace 4", "publish 5"]);
    role.link(2).finish_calls();
    role.pass(MINUTE).await;
    role.check(&["closed 2"]);
}

#[tokio::test(start_paused = true)]
async fn an_active_link_that_is_lost_ends_the_wait_for_a_slot() {
    let role = without_a_slot().await;
    role.link(4).lose(silence());
    role.expect(&["closed 4", "retry", "down: silence"]).await;
    role.pass(SECOND).await;
    role.check(&["dial"]);
}
