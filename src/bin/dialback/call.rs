//! `dialback call`: one call, its reply as a line of JSON.

use crate::{
    args::CallArgs,
    caller::Reach,
    exit::{Failure, refused_here},
    input,
    output::print_json,
};
use dialback::{Caller, Code, MethodPath, Name, Outcome, Status, json};
use serde::Serialize;
use serde_json::Value;
use std::time::Duration;

/// What is to be called, with what.
struct Order {
    agent: Name,
    method: MethodPath,
    metadata: Vec<(String, String)>,
    messages: Vec<Value>,
}

/// A call that went well, as `--json` shows it.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    outcome: &'static str,
    replies: &'a [Value],
}

/// Runs the command.
pub(crate) fn run(args: CallArgs) -> Result<(), Failure> {
    let messages = input::messages(args.data.as_deref())?;
    let order = Order { agent: args.agent, method: args.method, metadata: args.header, messages };
    let reach = Reach::new(args.reach, args.timeout)?;
    let wants_json = args.json;
    let told = order.only_message().and_then(|message| {
        reach.run(async |caller, left| {
            let reply = order.call(caller, message, left).await?;
            tell(&[reply], wants_json)
        })
    });
    told.map_err(|failure| failure.told_as_json(wants_json))
}

impl Order {
    /// Every method of this version is unary: one message, no more and no fewer.
    fn only_message(&self) -> Result<&Value, Failure> {
        match self.messages.as_slice() {
            [message] => Ok(message),
            other => Err(refused_here(format!(
                "{} takes one message, and {} were given",
                self.method,
                other.len()
            ))),
        }
    }

    async fn call(
        &self,
        caller: &Caller,
        message: &Value,
        timeout: Duration,
    ) -> Result<Value, Failure> {
        let message = json::to_cbor(message).map_err(refused_here)?;
        let callee = caller.agent(self.agent.as_str()).map_err(|error| Failure::local(&error))?;
        let mut call = callee.call_encoded::<()>(&self.method, message).timeout(timeout);
        for (key, value) in &self.metadata {
            call = call.metadata(key, value);
        }
        let call_id = call.call_id();
        let failed = |status| Failure::Call(status, Some(call_id));
        let reply = call.raw().await.map_err(failed)?;
        json::from_cbor(&reply.message).map_err(|why| {
            let text = format!("the reply is not well-formed: {why}");
            failed(Status::with_outcome(Code::Internal, Outcome::Unknown, text))
        })
    }
}

fn tell(replies: &[Value], wants_json: bool) -> Result<(), Failure> {
    if wants_json {
        return print_json(&Answer { ok: true, outcome: Outcome::Ok.as_str(), replies });
    }
    replies.iter().try_for_each(print_json)
}
