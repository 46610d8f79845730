//! Tests of the keeper with fake links on paused time.

mod dialling;
mod ends;
mod replacement;

use super::fakes::{FakeRole, closed_with};
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
