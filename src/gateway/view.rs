//! What callers may look at: each its own part, as the policy lets it see.

use super::{
    answer::{Answer, Refusal, set_outcome, whole},
    route::View,
    who::Who,
};
use crate::{
    node::Door,
    status::{Code, Outcome, Status},
};
use hyper::StatusCode;
use serde_json::Value;

/// Answers a GET.
pub(super) fn answer(door: &Door, who: &Who, view: View) -> Result<Answer, Refusal> {
    let seen = seen(door, who, view)?;
    let mut answer = whole(StatusCode::OK, "application/json", seen.to_string());
    set_outcome(&mut answer, Outcome::Ok);
    Ok(answer)
}

/// What this caller sees. The views themselves come from the directory.
fn seen(_door: &Door, _who: &Who, view: View) -> Result<Value, Status> {
    let text = match view {
        View::Agents => "the list of agents is not served by this version of dialback",
        View::Services => "the list of services is not served by this version of dialback",
        View::OpenApi => "the description in OpenAPI is not served by this version of dialback",
    };
    Err(Status::not_executed(Code::Unimplemented, text))
}
