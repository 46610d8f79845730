//! Headers that tell an upstream who calls.

use crate::{
    call::Requester,
    http_call::remove_headers,
    name::CallId,
    status::{Code, Status},
};
use hyper::header::{HeaderMap, HeaderValue};

/// Adds the requester, the node and the call id. What a caller sent under these names is gone.
pub(super) fn add_identity(
    headers: &mut HeaderMap,
    call_id: CallId,
    requester: &Requester,
) -> Result<(), Status> {
    remove_headers(headers, |name| name.starts_with("dialback-"));
    headers.insert("dialback-caller", value(&requester.peer().to_string())?);
    headers.insert("dialback-call-id", value(&call_id.to_string())?);
    if let Some(node) = requester.via() {
        headers.insert("dialback-node", value(node.as_str())?);
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_str(text).map_err(|_| {
        let text = "the name of the caller cannot be a header";
        Status::not_executed(Code::InvalidArgument, text)
    })
}
