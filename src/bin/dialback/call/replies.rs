//! Output of the replies of a call: JSON, one line each, or one object.

use crate::{
    exit::Failure,
    metadata::{self, MetadataMap},
    output::{Printed, escape_json, print_aside, print_json_aside},
};
use dialback::{CallId, Code, Inbound, Metadata, Name, Outcome, Reply, Status, json};
use serde::Serialize;
use serde_json::value::RawValue;

/// Prints replies to standard output.
pub(super) struct ReplyPrinter {
    wants_json: bool,
    seen: Vec<Box<RawValue>>,
    /// The deadline of the call, which also applies while standard output is not read.
    until: tokio::time::Instant,
}

impl ReplyPrinter {
    /// None printed yet.
    pub(super) const fn new(wants_json: bool, until: tokio::time::Instant) -> Self {
        Self { wants_json, seen: Vec::new(), until }
    }

    pub(super) async fn take_reply(
        &mut self,
        reply: &Reply,
        call_id: CallId,
    ) -> Result<(), Failure> {
        let message = reply.message().map_err(|status| failed(status, call_id))?;
        self.take(message, call_id).await.map(drop)
    }

    async fn take(&mut self, message: &[u8], call_id: CallId) -> Result<Printed, Failure> {
        let value = in_json(message).map_err(|status| failed(status, call_id))?;
        if self.wants_json {
            self.seen.push(value);
            return Ok(Printed::Written);
        }
        print_aside(escape_json(Box::<str>::from(value).into())).await
    }

    pub(super) async fn take_all(
        mut self,
        mut inbound: Inbound<()>,
        call_id: CallId,
    ) -> Result<(), Failure> {
        while let Some(message) = inbound.next_encoded().await {
            let message = message.map_err(|status| failed(status, call_id))?;
            let until = self.until;
            let printed = tokio::time::timeout_at(until, self.take(&message, call_id)).await;
            let printed = printed.map_err(|_elapsed| {
                let text = "deadline exceeded while standard output was not read";
                failed(Status::unknown(Code::DeadlineExceeded, text), call_id)
            })?;
            // Returning drops the call, which cancels its handler.
            if printed? == Printed::ReaderGone {
                return Err(Failure::READER_GONE);
            }
        }
        self.end(inbound.metadata(), inbound.trailing()).await
    }

    pub(super) async fn end(self, metadata: &Metadata, trailing: &Metadata) -> Result<(), Failure> {
        if !self.wants_json {
            return metadata::print(metadata, trailing).await;
        }
        let outcome = Outcome::Ok.as_str();
        let [metadata, trailers] = [metadata, trailing].map(MetadataMap::of);
        let answer = JsonSuccess { ok: true, outcome, replies: &self.seen, metadata, trailers };
        print_json_aside(&answer).await.map(drop)
    }
}

/// A reply as JSON.
pub(super) fn in_json(message: &[u8]) -> Result<Box<RawValue>, Status> {
    let text = json::cbor_to_text(message).and_then(|text| {
        // Written by this program, so it is valid.
        let text = String::from_utf8(text.into()).map_err(|fault| fault.to_string())?;
        RawValue::from_string(text).map_err(|fault| fault.to_string())
    });
    text.map_err(|why| {
        let text = format!("the reply is not valid CBOR: {why}");
        Status::with_outcome(Code::Internal, Outcome::Unknown, text)
    })
}

/// Failure of the call with this id.
pub(super) fn failed(status: Status, call_id: CallId) -> Failure {
    Failure::Call(status, Some(call_id))
}

/// A call that went well, as `--json` shows it.
#[derive(Serialize)]
struct JsonSuccess<'a> {
    ok: bool,
    outcome: &'static str,
    replies: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "MetadataMap::is_empty")]
    metadata: MetadataMap,
    #[serde(skip_serializing_if = "MetadataMap::is_empty")]
    trailers: MetadataMap,
}

/// Result of the call of one agent among several.
#[derive(Serialize)]
pub(super) struct AgentResult {
    agent: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    #[serde(skip_serializing_if = "MetadataMap::is_empty")]
    metadata: MetadataMap,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Box<RawValue>>,
}

impl AgentResult {
    pub(super) fn new(agent: &Name, result: Result<Box<RawValue>, Status>) -> Self {
        let agent = agent.to_string();
        match result {
            Ok(reply) => Self {
                agent,
                ok: true,
                code: None,
                outcome: Outcome::Ok.as_str(),
                message: None,
                details: None,
                metadata: MetadataMap::default(),
                reply: Some(reply),
            },
            Err(status) => Self {
                agent,
                ok: false,
                code: Some(status.code().as_str()),
                outcome: status.outcome().as_str(),
                message: Some(status.message().to_owned()),
                details: metadata::details(&status),
                metadata: MetadataMap::of(status.metadata()),
                reply: None,
            },
        }
    }
}
