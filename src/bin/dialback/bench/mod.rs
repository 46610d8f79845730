//! `dialback bench`: measures calls of one's own node and agent.

pub(crate) mod args;
mod gateway;
mod gateway_url;
mod histogram;
mod links;
mod load;
mod progress;
mod report;
mod result;
mod schedule;
mod tally;

use crate::{
    call::kind_of,
    credentials,
    exit::Failure,
    input::Input,
    output::{escape_json, print_aside},
    paths,
    signals::{Signals, block_on},
};
use args::{BenchArgs, Output, Plan};
use bytes::Bytes;
use dialback::{
    CallKind, Caller, Code, Credentials, GatewayClientTls, GatewayClientTlsError, Role, Status,
    config::TlsFiles, json,
};
use gateway::GatewayCall;
use gateway_url::GatewayUrl;
use links::{LinkCall, Links};
use load::{Run, Until, Way};
use result::{BenchResult, Figures, Settings, message_hash};
use std::{
    fs::File,
    io::{Seek as _, Write as _},
    path::Path,
    sync::Arc,
};
use tokio::runtime::Builder;

/// One run of the command.
struct Bench {
    args: BenchArgs,
    plan: Plan,
    earlier: Option<BenchResult>,
    /// File of the result.
    file: Option<File>,
}

pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    let plan = args.plan()?;
    let earlier = args.compare.as_deref().map(BenchResult::read).transpose()?;
    let file = match &args.json {
        Some(Output::File(path)) => Some(open(path)?),
        _ => None,
    };
    let input = args.data.as_deref().map(|data| Input::open(Some(data))).transpose()?;
    let wants_json = args.json == Some(Output::Stdout);
    let bench = Bench { args, plan, earlier, file };
    block_on(Builder::new_multi_thread(), async {
        let mut signals = Signals::listen()?;
        let Err(failure) = bench.run(&mut signals, input).await else { return Ok(()) };
        Err(signals.unless_stopped(failure.printed_as_json(wants_json)).await?)
    })
}

/// Opens the file of the result before the run, so that a wrong path costs no measurement. Its
/// contents stay until the result is there.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = File::options().write(true).create(true).truncate(false).open(path);
    opened.map_err(|why| Failure::usage(format!("cannot write {} (--json): {why}", path.display())))
}

impl Bench {
    async fn run(&self, signals: &mut Signals, input: Option<Input>) -> Result<(), Failure> {
        let message = match input {
            Some(input) => signals.unless_stopped(input.only(&self.plan.method)).await??,
            None => json::to_cbor(&"x".repeat(self.args.size()).into())
                .map_err(|why| Failure::Runtime(vec![why]))?,
        };
        match &self.args.gateway {
            Some(url) => self.through_gateway(signals, url, &message).await,
            None => self.over_links(signals, message).await,
        }
    }

    async fn over_links(&self, signals: &mut Signals, message: Bytes) -> Result<(), Failure> {
        let credentials = self.credentials()?;
        let paths = paths::settings(&self.args.reach.paths.read()?)?;
        let to = (&self.args.reach.node, &paths);
        let connecting = Links::connect(&credentials, to, self.args.links);
        let links = signals.unless_stopped(connecting).await??;
        let measured = self.measure_links(signals, &links, message).await;
        links.close().await;
        measured
    }

    async fn measure_links(
        &self,
        signals: &mut Signals,
        links: &Links,
        message: Bytes,
    ) -> Result<(), Failure> {
        let kind = signals.unless_stopped(self.kind(links.first())).await?;
        let messages = self.args.messages_of(kind)?;
        let settings = Settings {
            messages,
            kind: kind.as_str().to_owned(),
            ..self.settings("quic", self.args.reach.node.to_string(), &message)
        };
        let call = LinkCall {
            agent: self.plan.agent.clone(),
            method: self.plan.method.clone(),
            kind,
            message,
            messages,
            timeout: self.args.timeout,
        };
        let ways = links.ways(call, self.plan.in_flight)?;
        self.measure(signals, ways, settings).await
    }

    async fn through_gateway(
        &self,
        signals: &mut Signals,
        url: &GatewayUrl,
        message: &Bytes,
    ) -> Result<(), Failure> {
        let settings = self.settings("gateway", url.to_string(), message);
        let text = json::cbor_to_text(message).map_err(|why| Failure::Runtime(vec![why]))?;
        let target = (self.plan.agent.as_ref(), &self.plan.method);
        let call = GatewayCall::new(
            (url.clone(), self.gateway_tls(url)?),
            target,
            self.args.token.as_deref(),
            text,
            self.args.timeout,
        );
        let ways = call.map_err(Failure::usage)?.ways(self.plan.in_flight);
        self.measure(signals, ways, settings).await
    }

    /// The trust of a gateway, and the certificate that is shown to it.
    fn gateway_tls(&self, url: &GatewayUrl) -> Result<Option<GatewayClientTls>, Failure> {
        if !url.is_tls {
            return Ok(None);
        }
        let tls = match &self.args.gateway_ca {
            None => GatewayClientTls::of_node(&url.host, &self.credentials()?),
            Some(path) => {
                let fault = |why: &dyn std::fmt::Display| {
                    Failure::usage(format!("{} (--gateway-ca): {why}", path.display()))
                };
                let cas = std::fs::read(path).map_err(|why| fault(&why))?;
                // A token takes precedence over a certificate, so none is needed with it.
                let own = match self.args.token {
                    Some(_) => None,
                    None => Some(self.credentials()?),
                };
                match GatewayClientTls::of_cas(&url.host, &cas, own.as_ref()) {
                    Err(GatewayClientTlsError::Cas(why)) => return Err(fault(&why)),
                    made => made,
                }
            }
        };
        tls.map(Some).map_err(|error| Failure::local(&error))
    }

    fn credentials(&self) -> Result<Credentials, Failure> {
        credentials::load(Role::Caller, self.args.reach.tls.clone(), TlsFiles::default())
    }

    /// Settings of a run of unary calls.
    fn settings(&self, way: &str, address: String, message: &[u8]) -> Settings {
        let Plan { agent, method, in_flight, until, warm_up } = &self.plan;
        Settings {
            address,
            length: match until {
                Until::Calls(calls) => format!("{calls} calls"),
                Until::Elapsed(duration) => format!("{}s", duration.as_secs_f64()),
            },
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            way: way.to_owned(),
            agent: agent.as_ref().map(ToString::to_string),
            method: method.to_string(),
            kind: CallKind::Unary.as_str().to_owned(),
            message_bytes: message.len(),
            messages: 1,
            in_flight: *in_flight,
            links: self.args.links,
            rate: self.args.rate.map(schedule::Rate::per_second),
            timeout_seconds: Some(self.args.timeout.as_secs_f64()),
            warm_up_seconds: Some(warm_up.as_secs_f64()),
            message_hash: Some(message_hash(message)),
        }
    }

    /// Kind of the method, from the directory of the node. If unknown, the first call fails with
    /// the reason.
    async fn kind(&self, caller: &Caller) -> CallKind {
        let services = async {
            let agent = match &self.plan.agent {
                Some(agent) => Some(agent.clone()),
                None => caller.hosts(&self.plan.method).await?.into_iter().next(),
            };
            match agent {
                Some(agent) => caller.services(agent.as_str()).await,
                None => Ok(Vec::new()),
            }
        };
        let known = services
            .await
            .map_or(CallKind::Unary, |services: Vec<_>| kind_of(&services, &self.plan.method));
        match known {
            CallKind::Unary if self.args.stream => CallKind::ServerStream,
            known => known,
        }
    }

    /// Makes the first call, warms up, measures and prints the result.
    async fn measure<W: Way>(
        &self,
        signals: &mut Signals,
        mut ways: Vec<W>,
        settings: Settings,
    ) -> Result<(), Failure> {
        self.check_comparable(&settings)?;
        if let Some(way) = ways.first_mut() {
            let first = signals.unless_stopped(way.call()).await?;
            first.map_err(|status| self.with_hint(status))?;
        }
        if !self.plan.warm_up.is_zero() {
            let run = Run::new(Until::Elapsed(self.plan.warm_up), self.args.rate);
            ways = watch(signals, &run, ways, "warming up").await?;
        }
        let run = Run::new(self.plan.until, self.args.rate);
        let stopped = watch(signals, &run, ways, "measuring").await.err();
        let (elapsed, tally, interrupted) = (run.elapsed(), run.tally(), stopped.is_some());
        let span = run.span(&tally, elapsed, interrupted);
        let missed = run.missed(elapsed);
        let figures = Figures::new(&tally, span, missed, interrupted);
        let figures = figures.with_cut_off(run.cut_off(elapsed));
        self.print(&BenchResult::new(settings, figures)).await?;
        let failed = tally.failures.first().map(|kind| Failure::reported(kind.code));
        let overloaded = run.has_missed_many(missed).then(|| overloaded(missed));
        stopped.or(failed).or(overloaded).map_or(Ok(()), Err)
    }

    fn check_comparable(&self, settings: &Settings) -> Result<(), Failure> {
        let earlier = self.earlier.as_ref().filter(|_| !self.args.other_settings);
        let differences = earlier.map(|earlier| settings.differences(&earlier.settings));
        match differences.unwrap_or_default().join("; ") {
            same if same.is_empty() => Ok(()),
            different => Err(Failure::usage(format!(
                "the earlier result has other settings: {different}; compare all the same with --other-settings"
            ))),
        }
    }

    /// Adds to the failure of the first call what was not given, which the other side cannot know.
    fn with_hint(&self, status: Status) -> Failure {
        let method = &self.plan.method;
        let has_no_data = self.args.data.is_none();
        let hint = match status.code() {
            Code::Unimplemented if self.args.is_default_method() => format!(
                "{method} is hosted by `dialback agent --demo`: for another agent name a method and a message, as `dialback bench AGENT SERVICE/METHOD -d JSON`"
            ),
            Code::InvalidArgument if has_no_data && !self.args.is_default_method() => format!(
                "no message was given, so a string of {} bytes was sent: pass a message with -d JSON",
                self.args.size()
            ),
            _ => return status.into(),
        };
        let text = format!("{}; {hint}", status.message());
        Status::with_outcome(status.code(), status.outcome(), text).into()
    }

    async fn print(&self, result: &BenchResult) -> Result<(), Failure> {
        let json = result.to_json()?;
        if let Some(mut file) = self.file.as_ref() {
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(format!("{json}\n").as_bytes()));
            written.map_err(|why| Failure::runtime(&why))?;
        }
        let text = match self.args.json {
            Some(Output::Stdout) => escape_json(json),
            _ => report::text(result, self.earlier.as_ref()),
        };
        print_aside(text).await.map(drop)
    }
}

/// The calls of an open loop were not those that `--rate` asked for.
fn overloaded(missed: u64) -> Failure {
    Failure::Runtime(vec![format!(
        "missed {missed} calls, more than 1 % of those that were due: lower --rate or raise --in-flight"
    )])
}

/// Runs to the end with progress on a terminal, or until a signal.
async fn watch<W: Way>(
    signals: &mut Signals,
    run: &Arc<Run>,
    ways: Vec<W>,
    phase: &str,
) -> Result<Vec<W>, Failure> {
    let watched = async {
        tokio::select! {
            ways = run.complete(ways) => ways,
            never = progress::show(run, phase) => match never {},
        }
    };
    let ended = signals.unless_stopped(watched).await;
    progress::clear().await;
    ended
}
