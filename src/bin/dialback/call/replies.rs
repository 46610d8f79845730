//! Output of the replies of a call: JSON, one line each, or one object.

use crate::{
    exit::{FailedCall, Failure},
    metadata::{self, MetadataMap},
    output::{Printed, escape_json, print_aside, print_json_aside},
};
use dialback::{Code, Inbound, Metadata, Name, Outcome, Reply, Status, json};
use serde::Serialize;
use serde_json::value::RawValue;

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

    pub(super) async fn take_reply(mut self, reply: &Reply) -> Result<(), Failure> {
        self.take(reply.message()?).await?;
        self.end(&reply.metadata, &reply.trailing).await
    }

    async fn take(&mut self, message: &[u8]) -> Result<Printed, Failure> {
        let value = in_json(message)?;
        if self.wants_json {
            self.seen.push(value);
            return Ok(Printed::Written);
        }
        print_aside(escape_json(Box::<str>::from(value).into())).await
    }

    /// Prints each reply when it arrives.
    pub(super) async fn take_all(mut self, mut inbound: Inbound<()>) -> Result<(), Failure> {
        while let Some(message) = inbound.next_encoded().await {
            let message = message?;
            let printed = tokio::time::timeout_at(self.until, self.take(&message)).await;
            let printed = printed.map_err(|_elapsed| {
                let text = "deadline exceeded while standard output was not read";
                Status::unknown(Code::DeadlineExceeded, text)
            })?;
            // Returning drops the call, which cancels its handler.
            if printed? == Printed::ReaderGone {
                return Err(Failure::READER_GONE);
            }
        }
        self.end(inbound.metadata(), inbound.trailing()).await
    }

    async fn end(self, metadata: &Metadata, trailing: &Metadata) -> Result<(), Failure> {
        if !self.wants_json {
            metadata::print(metadata, trailing).await;
            return Ok(());
        }
        let outcome = Outcome::Ok.as_str();
        let [metadata, trailers] = [metadata, trailing].map(metadata::map_of);
        let answer = JsonSuccess { ok: true, outcome, replies: &self.seen, metadata, trailers };
        print_json_aside(&answer).await.map(drop)
    }
}

fn in_json(message: &[u8]) -> Result<Box<RawValue>, Status> {
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

#[derive(Serialize)]
struct JsonSuccess<'a> {
    ok: bool,
    outcome: &'static str,
    replies: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "MetadataMap::is_empty")]
    metadata: MetadataMap<'a>,
    #[serde(skip_serializing_if = "MetadataMap::is_empty")]
    trailers: MetadataMap<'a>,
}

/// Prints the result of the call of one agent among several.
pub(super) async fn print_result(
    agent: &Name,
    result: Result<Reply, Status>,
) -> Result<Printed, Failure> {
    let agent = agent.as_str();
    match result.and_then(|reply| in_json(reply.message()?)) {
        Ok(reply) => {
            let result = AgentReply { ok: true, outcome: Outcome::Ok.as_str(), reply };
            print_json_aside(&AgentResult { agent, result }).await
        }
        Err(status) => {
            let result = FailedCall::new(&status, None);
            print_json_aside(&AgentResult { agent, result }).await
        }
    }
}

#[derive(Serialize)]
struct AgentResult<'a, T> {
    agent: &'a str,
    #[serde(flatten)]
    result: T,
}

#[derive(Serialize)]
struct AgentReply {
    ok: bool,
    outcome: &'static str,
    reply: Box<RawValue>,
}
