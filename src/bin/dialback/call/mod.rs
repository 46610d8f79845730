//! `dialback call`: one call, each of its replies as a line of JSON.

mod replies;

use crate::{
    args::parse_timeout,
    caller::{self, ReachArgs},
    exit::{Failure, rejected_locally},
    input::Input,
    trace::{TraceArgs, TraceSettings},
};
use clap::{ArgAction, Args, builder::BoolishValueParser};
use dialback::{
    Call, CallId, CallKind, Callee, Caller, Code, MethodPath, Name, Outbound, ServiceInfo, Shape,
    Status,
};
use replies::{ReplyPrinter, print_result};
use std::time::{Duration, Instant};

/// `dialback call`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback call warehouse HelloService/Hello -d '\"hello\"'
  dialback call warehouse Demo/Echo -d @message.json --timeout 5s --json
  dialback call warehouse Demo/Count -d '{\"n\":5,\"interval_ms\":200}'
  seq 1 9 | jq -c '{value:.}' | dialback call warehouse Demo/Sum -d @-
  dialback call --any HelloService/Hello -d '\"hello\"'
The input is a sequence of JSON values, one per message; without -d it is a single null. A
method that takes a stream gets each message as soon as it is read. Each reply is printed as
one line of JSON when it arrives. A failure is one line on standard error,
  error: UNAVAILABLE (not_executed): agent warehouse is not attached
with --json one object on standard output.
not_executed: did not run and will not; unknown: may have run; app_error: ran and failed.
Exit code of a failed call: 64 + RPC code: 67 INVALID_ARGUMENT, 68 DEADLINE_EXCEEDED,
71 PERMISSION_DENIED, 72 RESOURCE_EXHAUSTED, 76 UNIMPLEMENTED, 77 INTERNAL, 78 UNAVAILABLE,
80 UNAUTHENTICATED. If the node does not answer: 78 after 5 s or the timeout, at once if the
port is closed.")]
pub(crate) struct CallArgs {
    /// Agent (not with --any or --all) and method, as HelloService/Hello
    #[arg(value_name = "AGENT SERVICE/METHOD", required = true, num_args = 1..=2)]
    pub(crate) what: Vec<String>,
    /// Call any agent that a [[host]] rule of the node allows to host the service
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), conflicts_with = "all")]
    pub(crate) any: bool,
    /// Call every such agent, and print one result per agent
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) all: bool,
    /// Wait for an agent to attach, within the timeout
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) wait: bool,
    /// Request a stream of replies from a forwarded method, which can be called either way
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), conflicts_with = "all")]
    pub(crate) stream: bool,
    /// Priority on the links, from -128 to 127, higher first; a node caps it at 0 [default: 0,
    /// streams -16]
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub(crate) priority: Option<i8>,
    /// Messages: JSON, @FILE, or @- for standard input
    #[arg(short, long, value_name = "JSON", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// Metadata, as 'key: value'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY: VALUE", value_parser = parse_header)]
    pub(crate) header: Vec<(String, String)>,
    /// Timeout for connecting and calling together, as 500ms, 5s, 2m [default: 30s, streams 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Print one JSON object, also for a failure
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) trace: TraceArgs,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// A call: its target, its method, and the options as they were typed.
struct CallCommand {
    /// `None` with `--any` and `--all`.
    agent: Option<Name>,
    method: MethodPath,
    args: CallArgs,
}

const UNARY_TIMEOUT: Duration = Duration::from_secs(30);

const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn run(args: CallArgs) -> Result<(), Failure> {
    let input = Input::open(args.data.as_deref())?;
    let (agent, method) = target(&args)?;
    if method.is_forward() && method.service() != "tcp" {
        return Err(Failure::usage(format!(
            "{method} is not an RPC method; it is called over the HTTP gateway of a node"
        )));
    }
    if method.is_forward() {
        let name = method.method();
        return Err(Failure::usage(format!(
            "{method} is a TCP forward, not a method; forward a local port to it with `dialback tcp AGENT {name} --listen 127.0.0.1:0`"
        )));
    }
    let timeout = args.timeout.unwrap_or(STREAM_TIMEOUT);
    let (reach, wants_json) = (args.reach.clone(), args.json);
    let traces = TraceSettings::new(args.trace.merge(None)).announced();
    let command = CallCommand { agent, method, args };
    caller::run(reach, timeout, wants_json, traces, async |caller, left| {
        command.call(caller, input, left).await.map_err(|failure| command.with_hint(failure))
    })
}

fn target(args: &CallArgs) -> Result<(Option<Name>, MethodPath), Failure> {
    match (args.what.as_slice(), args.any || args.all) {
        ([method], true) => Ok((None, method.parse()?)),
        ([agent, method], false) => Ok((Some(agent.parse()?), method.parse()?)),
        ([_], false) => Err(Failure::usage(
            "expected an agent and a method, as `warehouse HelloService/Hello`, or a method with --any or --all",
        )),
        _ => Err(Failure::usage("--any and --all take a method and no agent")),
    }
}

impl CallCommand {
    async fn call(&self, caller: &Caller, input: Input, left: Duration) -> Result<(), Failure> {
        let began = Instant::now();
        let kind = match self.args.stream {
            true => CallKind::ServerStream,
            false => self.kind(caller, left).await?,
        };
        let left = left.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
        let timeout = match (self.args.timeout, kind) {
            (None, CallKind::Unary) => left.min(UNARY_TIMEOUT),
            _ => left,
        };
        match &self.agent {
            _ if self.args.all => self.call_all(caller, input, kind, timeout).await,
            None => self.exchange(&caller.any(), input, kind, timeout).await,
            Some(name) => self.exchange(&caller.agent(name.as_str())?, input, kind, timeout).await,
        }
    }

    async fn exchange(
        &self,
        callee: &Callee,
        input: Input,
        kind: CallKind,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let method = &self.method;
        let replies = ReplyPrinter::new(self.args.json, tokio::time::Instant::now() + timeout);
        let (call_id, ended) = match kind {
            CallKind::Unary => {
                let message = input.only(method).await?;
                let call = callee.call_encoded::<()>(method, message);
                let (call, call_id) = self.with(call, timeout);
                (call_id, async { replies.take_reply(&call.raw().await?).await }.await)
            }
            CallKind::ServerStream => {
                let message = input.only(method).await?;
                let call = callee.server_stream_encoded::<()>(method, message);
                let (call, call_id) = self.with(call, timeout);
                (call_id, async { replies.take_all(call.await?).await }.await)
            }
            CallKind::ClientStream => {
                let (call, call_id) = self.with(callee.client_stream::<(), ()>(method), timeout);
                let ended = async {
                    let (outbound, answer) = call.await?;
                    let answered = async { Ok(answer.raw().await?) };
                    replies.take_reply(&both(send(input, outbound), answered).await?).await
                };
                (call_id, ended.await)
            }
            _ => {
                let (call, call_id) = self.with(callee.bidirectional::<(), ()>(method), timeout);
                let ended = async {
                    let (outbound, inbound) = call.await?;
                    both(send(input, outbound), replies.take_all(inbound)).await
                };
                (call_id, ended.await)
            }
        };
        ended.map_err(|failure| failure.of_call(call_id))
    }

    /// Kind of the method, from the directory of the node. If unknown, the call itself fails with
    /// the reason. Fails if the call was to wait for an agent, and none attached in time.
    async fn kind(&self, caller: &Caller, left: Duration) -> Result<CallKind, Failure> {
        match tokio::time::timeout(left, self.services(caller)).await {
            Ok(Ok(services)) => Ok(kind_of(&services, &self.method)),
            Err(_elapsed) if self.args.wait => {
                let absent = match &self.agent {
                    Some(name) => format!("agent {name} is not attached"),
                    None => format!("no attached agent may host {}", self.method.service()),
                };
                let text = format!("{absent}: no agent attached within --timeout (--wait)");
                Err(Status::not_executed(Code::Unavailable, text).into())
            }
            _ => Ok(CallKind::Unary),
        }
    }

    /// Services of the target agent; of several the first. With `--wait`, waits for one.
    async fn services(&self, caller: &Caller) -> Result<Vec<ServiceInfo>, Status> {
        loop {
            let agent = match &self.agent {
                Some(name) => Some(name.clone()),
                None => caller.hosts(&self.method).await?.into_iter().next(),
            };
            let services = match agent {
                Some(agent) => caller.services(agent.as_str()).await,
                None => Err(Status::not_executed(Code::Unavailable, "no agent may answer")),
            };
            match services {
                Err(status) if self.args.wait && status.code() == Code::Unavailable => {
                    // The directory is polled: it has no method by which a caller could wait.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                services => return services,
            }
        }
    }

    /// Adds to a refusal that no message was given, which the other side cannot know.
    fn with_hint(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Call(status, call_id)
                if self.args.data.is_none() && status.code() == Code::InvalidArgument =>
            {
                let text = format!(
                    "{}; no message was given, so null was sent: pass a message with -d JSON, as -d '\"hello\"'",
                    status.message()
                );
                let hinted = Status::with_outcome(status.code(), status.outcome(), text)
                    .with_details(status.details().clone())
                    .with_metadata(status.metadata().clone());
                Failure::Call(hinted, call_id)
            }
            failure => failure,
        }
    }

    fn with<R, S: Shape>(&self, call: Call<R, S>, timeout: Duration) -> (Call<R, S>, CallId) {
        let mut call = call.timeout(timeout).wait(self.args.wait);
        if let Some(priority) = self.args.priority {
            call = call.priority(priority);
        }
        for (key, value) in &self.args.header {
            call = call.metadata(key, value);
        }
        let call_id = call.call_id();
        (call, call_id)
    }

    async fn call_all(
        &self,
        caller: &Caller,
        input: Input,
        kind: CallKind,
        timeout: Duration,
    ) -> Result<(), Failure> {
        if kind != CallKind::Unary {
            let text =
                format!("{} is a {kind} method; --all takes unary methods only", self.method);
            return Err(rejected_locally(text));
        }
        let message = input.only(&self.method).await?;
        let outcomes = caller.call_all_encoded(&self.method, message, timeout).await?;
        if outcomes.is_empty() {
            let service = self.method.service();
            let text = format!("no attached agent may host {service}");
            return Err(Status::not_executed(Code::Unavailable, text).into());
        }
        let first_failure =
            outcomes.iter().find_map(|(_, result)| result.as_ref().err().map(Status::code));
        for (agent, result) in outcomes {
            print_result(&agent, result).await?;
        }
        first_failure.map_or(Ok(()), |code| Err(Failure::reported(code)))
    }
}

/// Kind of a method among the services of an agent; of an unknown one unary.
pub(crate) fn kind_of(services: &[ServiceInfo], method: &MethodPath) -> CallKind {
    let service = services.iter().find(|service| service.name == method.service());
    let methods = service.map(|service| service.methods.as_slice()).unwrap_or_default();
    let named = methods.iter().find(|info| info.name == method.method());
    let found = named.or_else(|| methods.iter().find(|info| info.is_any()));
    found.map_or(CallKind::Unary, |info| info.kind)
}

/// Sends all input, then closes this half. A peer that accepts no more shows at the call's end.
async fn send(mut input: Input, mut outbound: Outbound<()>) -> Result<(), Failure> {
    loop {
        let next = tokio::select! {
            next = input.next() => next,
            () = outbound.closed() => return Ok(()),
        };
        match next {
            Some(message) => {
                if outbound.send_encoded(message?).await.is_err() {
                    return Ok(());
                }
            }
            None => {
                drop(outbound.finish().await);
                return Ok(());
            }
        }
    }
}

/// Sends and receives at once. Unreadable input ends the call; otherwise the replies decide.
async fn both<T>(
    sending: impl Future<Output = Result<(), Failure>>,
    receiving: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut sending, mut receiving) = (std::pin::pin!(sending), std::pin::pin!(receiving));
    let mut is_sent = false;
    loop {
        tokio::select! {
            sent = sending.as_mut(), if !is_sent => {
                sent?;
                is_sent = true;
            }
            received = receiving.as_mut() => return received,
        }
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected 'key: value'".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_a_key_and_a_value() {
        assert_eq!(parse_header("key: a: b "), Ok(("key".into(), "a: b".into())));
        assert_eq!(parse_header("key:"), Ok(("key".into(), String::new())));
        for bad in ["", "key", ": value"] {
            assert!(parse_header(bad).is_err(), "{bad:?} was taken for a header");
        }
    }
}
