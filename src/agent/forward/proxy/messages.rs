//! Messages of the request of an HTTP call.

use crate::{
    call::{Messages, Next},
    http_call::HttpRequest,
    status::{Code, Status},
};

/// Reads the head, the first message.
pub(in crate::agent::forward) async fn read_head(
    messages: &mut Messages,
) -> Result<HttpRequest, Status> {
    match messages.next_event().await {
        Next::Message(head) => {
            HttpRequest::decode(&head).map_err(|fault| malformed(&fault.to_string()))
        }
        Next::Failed(status) => Err(Status::not_executed(status.code(), status.message())),
        Next::Head(_) | Next::End(_) => Err(malformed("it has no head")),
    }
}

/// Reads the end of a request without a body.
pub(in crate::agent::forward) async fn expect_end(messages: &mut Messages) -> Result<(), Status> {
    match messages.next_event().await {
        Next::End(_) => Ok(()),
        Next::Failed(status) => Err(Status::not_executed(status.code(), status.message())),
        Next::Head(_) | Next::Message(_) => Err(malformed("its body was not announced")),
    }
}

/// Nothing of the request was sent to the upstream.
pub(in crate::agent::forward) fn malformed(why: &str) -> Status {
    Status::not_executed(Code::InvalidArgument, format!("the HTTP request is malformed: {why}"))
}
