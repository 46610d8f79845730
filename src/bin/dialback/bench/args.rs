//! Arguments of `dialback bench`, and the plan that they make.

use super::{gateway_url::GatewayUrl, load::Until, schedule::Rate};
use crate::{args::parse_timeout, caller::ReachArgs, exit::Failure};
use clap::{ArgAction, Args, builder::BoolishValueParser};
use dialback::{
    CallKind, MethodPath, Name,
    config::{parse_bytes, parse_duration},
    limits::TIMEOUT_CEILING,
};
use std::{path::PathBuf, time::Duration};

/// `dialback bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback bench warehouse
  dialback bench warehouse --in-flight 64 --size 4KiB --duration 30s --json before.json
  dialback bench warehouse --in-flight 64 --size 4KiB --duration 30s --compare before.json
  dialback bench warehouse --rate 500 --in-flight 128
  dialback bench warehouse --stream --messages 1000 --in-flight 4
  dialback bench warehouse Stock/Get -d '{\"id\":7}' --calls 1000
  dialback bench warehouse --gateway http://127.0.0.1:8080 --token TOKEN
Demo/Echo and Demo/Chat are hosted by `dialback agent --demo`. For other agents name a method,
which should be one that may run many times, and a message.
Without --rate each slot calls again as soon as its call has ended, so a node that stalls gets
fewer calls and the stall hardly shows. With --rate calls are due at even intervals whatever
happens, and the latency of each counts from the time when it was due (no coordinated omission).
One call is made first and does not count; if it fails, nothing else is sent. Later failures are
counted by code and outcome, and have no part in latencies and rates. After one, a slot without
--rate waits 100 ms. Calls in flight at the end may finish. Ctrl-C ends the run early and prints
the result. On a terminal, standard error shows the progress.
A link has caller_calls_in_flight_max calls in flight, 128 by default; further ones wait, which
counts as latency. The limits of rules apply.
Exit codes: 0 all calls succeeded; 64 + RPC code of the most frequent failure, as `call`;
1 runtime failure, or more than 1 % of the calls that were due with --rate found no slot (missed);
2 bad usage or files, or an earlier result of other settings; 130 on Ctrl-C.")]
pub(crate) struct BenchArgs {
    /// Agent (not with --any) and method [default: Demo/Echo, with --stream Demo/Chat]
    #[arg(value_name = "AGENT SERVICE/METHOD", num_args = 0..=2)]
    pub(super) what: Vec<String>,
    /// Call any agent that a [[host]] rule of the node allows to host the service
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(super) any: bool,
    /// Open a stream for each call; a forwarded method is then called for a stream of replies
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), conflicts_with = "gateway")]
    pub(super) stream: bool,
    /// Message: JSON, @FILE, or @- for standard input [default: a string of --size]
    #[arg(short, long, value_name = "JSON", allow_hyphen_values = true)]
    pub(super) data: Option<String>,
    /// Length of the string that is sent, as 100, 64KiB or 1MiB [default: 32]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "data")]
    pub(super) size: Option<usize>,
    /// Messages sent in each call to a method that takes a stream [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), conflicts_with = "gateway")]
    pub(super) messages: Option<u64>,
    /// Calls in flight at once, over all links; with --rate the maximum [default: 16, with --rate
    /// 128]
    #[arg(long, value_name = "N", value_parser = parse_in_flight, help_heading = "Load")]
    pub(super) in_flight: Option<usize>,
    /// Links to the node, each with a socket of its own
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse_links, help_heading = "Load", conflicts_with = "gateway")]
    pub(super) links: usize,
    /// Calls per second that are due, whatever the node takes; latency counts from the due time
    #[arg(long, value_name = "CALLS_PER_S", help_heading = "Load")]
    pub(super) rate: Option<Rate>,
    /// Time to measure [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout, help_heading = "Load")]
    pub(super) duration: Option<Duration>,
    /// Calls to measure, however long they take
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Load", conflicts_with = "duration")]
    pub(super) calls: Option<u64>,
    /// Time to call before the measurement [default: 1s, with --calls 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, help_heading = "Load")]
    pub(super) warm_up: Option<Duration>,
    /// Timeout of each call
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_call_timeout, help_heading = "Load")]
    pub(super) timeout: Duration,
    /// Write the result as JSON to a file, or with - to standard output in place of the text
    #[arg(long, value_name = "FILE", value_parser = parse_output, help_heading = "Result")]
    pub(super) json: Option<Output>,
    /// Compare with the JSON of an earlier run of the same settings
    #[arg(long, value_name = "FILE", help_heading = "Result")]
    pub(super) compare: Option<PathBuf>,
    /// Compare also with a run of other settings, and name them
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), help_heading = "Result")]
    pub(super) other_settings: bool,
    /// Call through the HTTP gateway at this URL: HTTP/1.1, JSON, a connection for each call in
    /// flight
    #[arg(long, value_name = "URL", help_heading = "HTTP gateway")]
    pub(super) gateway: Option<GatewayUrl>,
    /// Bearer token; prefer DIALBACK_TOKEN, which other users of this machine cannot see [default:
    /// with https the caller's certificate]
    #[arg(long, value_name = "TOKEN", hide_env_values = true, help_heading = "HTTP gateway")]
    pub(super) token: Option<String>,
    /// CA certificates to trust for an https gateway [default: as for nodes]
    #[arg(long, value_name = "FILE", help_heading = "HTTP gateway")]
    pub(super) gateway_ca: Option<PathBuf>,
    #[command(flatten)]
    pub(super) reach: ReachArgs,
}

/// Where the JSON goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    File(PathBuf),
}

/// What is called, and how often.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// `None`: any agent.
    pub(super) agent: Option<Name>,
    pub(super) method: MethodPath,
    pub(super) in_flight: usize,
    pub(super) until: Until,
    pub(super) warm_up: Duration,
}

const IN_FLIGHT_DEFAULT: usize = 16;

/// As many as a node takes on one link by default.
const IN_FLIGHT_DEFAULT_WITH_RATE: usize = 128;

const SIZE_DEFAULT: usize = 32;

const MESSAGES_DEFAULT: u64 = 100;

impl BenchArgs {
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let (agent, method) = self.target()?;
        if method.is_forward() {
            let remedy = if method.service() == "tcp" {
                "is a TCP forward, not a method; measure a program over `dialback tcp`"
            } else {
                "is called over the HTTP gateway of a node; measure it with a program for HTTP"
            };
            return Err(Failure::usage(format!("{method} {remedy}")));
        }
        let in_flight_default =
            if self.rate.is_some() { IN_FLIGHT_DEFAULT_WITH_RATE } else { IN_FLIGHT_DEFAULT };
        let in_flight = self.in_flight.unwrap_or_else(|| in_flight_default.max(self.links));
        if self.links > in_flight {
            return Err(Failure::usage(format!(
                "--links {} is more than --in-flight {in_flight}: links without a call measure nothing",
                self.links
            )));
        }
        let (until, warm_up_default) = match self.calls {
            Some(calls) => (Until::Calls(calls), Duration::ZERO),
            None => {
                let duration = self.duration.unwrap_or(Duration::from_secs(10));
                (Until::Elapsed(duration), Duration::from_secs(1))
            }
        };
        let warm_up = self.warm_up.unwrap_or(warm_up_default);
        self.check_gateway()?;
        if self.other_settings && self.compare.is_none() {
            return Err(Failure::usage(
                "--other-settings is about --compare FILE, which is missing",
            ));
        }
        Ok(Plan { agent, method, in_flight, until, warm_up })
    }

    fn target(&self) -> Result<(Option<Name>, MethodPath), Failure> {
        let by_default = if self.stream { "Demo/Chat" } else { "Demo/Echo" };
        match (self.what.as_slice(), self.any) {
            ([], true) => Ok((None, by_default.parse()?)),
            ([method], true) => Ok((None, method.parse()?)),
            ([agent], false) if !agent.contains('/') => {
                Ok((Some(agent.parse()?), by_default.parse()?))
            }
            ([agent, method], false) => Ok((Some(agent.parse()?), method.parse()?)),
            (_, false) => Err(Failure::usage(
                "expected an agent, and a method if it is not Demo/Echo, as `warehouse HelloService/Hello`, or a method with --any",
            )),
            _ => Err(Failure::usage("--any takes a method and no agent")),
        }
    }

    fn check_gateway(&self) -> Result<(), Failure> {
        match (&self.gateway, &self.gateway_ca) {
            (None, Some(_)) => {
                Err(Failure::usage("--gateway-ca is about --gateway URL, which is missing"))
            }
            (None, None) if self.token.is_some() => Err(Failure::usage(
                "--token (or DIALBACK_TOKEN) is about --gateway URL, which is missing; links show the caller's certificate",
            )),
            (Some(url), Some(_)) if !url.is_tls => {
                Err(Failure::usage(format!("--gateway-ca is for https, and {url} is http")))
            }
            _ => Ok(()),
        }
    }

    /// Returns `true` if the method was not named.
    pub(super) fn is_default_method(&self) -> bool {
        self.what.len() == usize::from(!self.any)
    }

    pub(super) fn size(&self) -> usize {
        self.size.unwrap_or(SIZE_DEFAULT)
    }

    /// Messages that a call sends to a method of this kind.
    pub(super) fn messages_of(&self, kind: CallKind) -> Result<u64, Failure> {
        match (kind, self.messages) {
            (CallKind::ClientStream | CallKind::Bidirectional, messages) => {
                Ok(messages.unwrap_or(MESSAGES_DEFAULT))
            }
            (_, None) => Ok(1),
            (_, Some(_)) => Err(Failure::usage(format!(
                "--messages is for methods that take a stream, and this one is {kind}"
            ))),
        }
    }
}

fn parse_count(text: &str, max: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => Err(format!("expected a number from 1 to {max}")),
    }
}

fn parse_in_flight(text: &str) -> Result<usize, String> {
    parse_count(text, 10_000)
}

fn parse_call_timeout(text: &str) -> Result<Duration, String> {
    match parse_timeout(text)? {
        timeout if timeout <= TIMEOUT_CEILING => Ok(timeout),
        _ => Err(format!(
            "the timeout of a call is at most {} days",
            TIMEOUT_CEILING.as_secs() / (24 * 3600)
        )),
    }
}

fn parse_links(text: &str) -> Result<usize, String> {
    parse_count(text, 1_000)
}

/// `true` is what DIALBACK_JSON says for other commands.
fn parse_output(text: &str) -> Result<Output, String> {
    match text {
        "" => Err("expected a file, or - for standard output".into()),
        "-" | "true" => Ok(Output::Stdout),
        path => Ok(Output::File(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn read(line: &str) -> Result<BenchArgs, clap::Error> {
        Line::try_parse_from(format!("bench {line}").split_whitespace()).map(|line| line.args)
    }

    fn plan(line: &str) -> Result<Plan, Failure> {
        read(line).expect("arguments").plan()
    }

    #[test]
    fn the_agent_is_enough() {
        let plan = plan("warehouse").expect("a plan");
        assert_eq!(plan.agent.as_ref().map(Name::as_str), Some("warehouse"));
        assert_eq!((plan.method.as_str(), plan.in_flight), ("Demo/Echo", 16));
        let (end, warm_up) = (Until::Elapsed(Duration::from_secs(10)), Duration::from_secs(1));
        assert_eq!((plan.until, plan.warm_up), (end, warm_up));
    }

    #[test]
    fn the_target_is_an_agent_or_any_with_or_without_a_method() {
        let target = |line: &str| {
            let plan = plan(line).expect("a plan");
            (plan.agent.map(|name| name.to_string()), plan.method.to_string())
        };
        let of = |agent: &str, method: &str| (Some(agent.to_owned()), method.to_owned());
        assert_eq!(target("a --stream"), of("a", "Demo/Chat"));
        assert_eq!(target("a B/c --stream"), of("a", "B/c"));
        assert_eq!(target("--any B/c"), (None, "B/c".to_owned()));
        assert_eq!(target("--any"), (None, "Demo/Echo".to_owned()));
        for bad in ["", "Demo/Echo", "a B/c --any", "a b c/d", "a tcp:db", "A! B/c"] {
            let refused = read(bad).map(|args| args.plan());
            assert!(matches!(refused, Ok(Err(Failure::Local(_))) | Err(_)), "{bad}: {refused:?}");
        }
        assert!(read("a").expect("arguments").is_default_method());
        assert!(!read("a B/c").expect("arguments").is_default_method());
        assert!(!read("--any B/c").expect("arguments").is_default_method());
    }

    #[test]
    fn a_number_of_calls_has_no_warm_up_unless_one_is_given() {
        let counted = plan("a --calls 5").expect("a plan");
        assert_eq!((counted.until, counted.warm_up), (Until::Calls(5), Duration::ZERO));
        let warm = plan("a --calls 5 --warm-up 2s").expect("a plan");
        assert_eq!(warm.warm_up, Duration::from_secs(2));
        let cold = plan("a --duration 500ms --warm-up 0s").expect("a plan");
        assert_eq!(cold.until, Until::Elapsed(Duration::from_millis(500)));
        assert_eq!(cold.warm_up, Duration::ZERO);
    }

    #[test]
    fn an_open_loop_and_many_links_have_more_calls_in_flight_by_default() {
        let in_flight = |line: &str| plan(line).map(|plan| plan.in_flight);
        assert_eq!(in_flight("a --rate 500").ok(), Some(128));
        assert_eq!(in_flight("a --links 20").ok(), Some(20));
        assert_eq!(in_flight("a --links 20 --in-flight 20").ok(), Some(20));
        assert!(matches!(in_flight("a --links 20 --in-flight 19"), Err(Failure::Local(_))));
    }

    #[test]
    fn wrong_values_and_pairs_are_refused() {
        for bad in [
            "a --in-flight 0",
            "a --in-flight 10001",
            "a --links 0",
            "a --links 1001",
            "a --rate 0",
            "a --calls 0",
            "a --calls 5 --duration 5s",
            "a --duration 0s",
            "a --duration 10",
            "a --size 1KB",
            "a --size 1 -d 1",
            "a --messages 0",
            "a --timeout 0s",
            "a --timeout 8761h",
            "a --gateway localhost:8080",
            "a --gateway http://a --stream",
            "a --gateway http://a --links 2",
            "a --gateway http://a --messages 2",
        ] {
            assert!(read(bad).is_err(), "{bad} was taken");
        }
        for bad in [
            "a --gateway-ca x.pem",
            "a --token t",
            "a --gateway http://a --gateway-ca x.pem",
            "a --other-settings",
        ] {
            assert!(matches!(plan(bad), Err(Failure::Local(_))), "{bad} was taken");
        }
        assert!(plan("a --gateway https://a --gateway-ca x.pem --token t").is_ok());
        assert!(plan("a --gateway http://a --token t --timeout 8760h").is_ok());
    }

    #[test]
    fn messages_are_for_methods_that_take_a_stream() {
        let messages = |line: &str, kind| read(line).expect("arguments").messages_of(kind);
        assert_eq!(messages("a", CallKind::Unary).ok(), Some(1));
        assert_eq!(messages("a", CallKind::ServerStream).ok(), Some(1));
        assert_eq!(messages("a", CallKind::Bidirectional).ok(), Some(100));
        assert_eq!(messages("a --messages 7", CallKind::ClientStream).ok(), Some(7));
        assert!(matches!(messages("a --messages 7", CallKind::Unary), Err(Failure::Local(_))));
    }

    #[test]
    fn json_goes_to_a_file_or_to_standard_output() {
        assert_eq!(parse_output("-"), Ok(Output::Stdout));
        assert_eq!(parse_output("true"), Ok(Output::Stdout));
        assert_eq!(parse_output("a.json"), Ok(Output::File("a.json".into())));
        assert!(parse_output("").is_err());
    }
}
