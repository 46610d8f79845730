//! Tests of the keeper with fake links on paused time.

use super::fakes::{DRAIN_MAX, FakeRole, closed_with, silence};
use crate::{link::fault::LinkFault, wire::CloseCode};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A role that replaces its first link and has dialled the next one.
async fn replacing() -> FakeRole {
    let role = FakeRole::linked().await;
    role.signals().request_replacement();
    role.expect(&["dial"]).await;
    role
}

/// A role whose second link has replaced the first, on which calls are running.
async fn replaced() -> FakeRole {
    let role = replacing().await;
    role.link_up().await;
    role.check(&["register", "replace 1", "publish 2"]);
    role
}

/// A role whose first link is drained by its peer, and that has dialled a successor.
async fn draining() -> FakeRole {
    let role = FakeRole::linked().await;
    role.link(1).drain();
    role.pass(Duration::from_millis(1)).await;
    role.check(&["down: draining", "retry", "down: draining", "dial"]);
    role
}

fn refused() -> LinkFault {
    closed_with(CloseCode::Unauthorized)
}

// Dialling and waiting.

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

// Requests to reconnect: new credentials.

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

// Replacement: make before break.

#[tokio::test(start_paused = true)]
async fn a_replacement_is_published_before_the_calls_on_the_former_link_end() {
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
async fn a_registration_goes_on_when_the_active_link_is_lost_meanwhile() {
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

// Certificates of peers that are near their end.

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

// Slots of retiring links.

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

// Peers that drain.

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
async fn failed_dials_are_no_news_while_the_peer_drains() {
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

// The end of the role.

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
