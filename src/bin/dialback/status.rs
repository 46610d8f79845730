//! `dialback status`: what a node or an agent on this machine is doing, by its admin listener.

use crate::{
    exit::Failure,
    output::{self, Printed, escape, print_aside, print_json_aside},
};
use bytes::Bytes;
use clap::{ArgAction, Args, builder::BoolishValueParser};
use dialback::AdminAddress;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::pin,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// `dialback status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: dialback status --watch
Asks the node or agent whose admin listener is at this address; it needs --admin ADDR or [admin] in
the file of that. No certificate is used.
Exit codes: 0 it answers; with --ready, 1 if it is not ready.")]
pub(crate) struct StatusArgs {
    /// Address of the admin listener: IP:PORT, or unix:/PATH [default: 127.0.0.1:9433, and
    /// 127.0.0.1:9434 if nothing listens there]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<AdminAddress>,
    /// Print the JSON that the listener answers
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    /// Print it again every second, until Ctrl-C
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) watch: bool,
    /// Print only whether it is ready, and fail if it is not
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new(), conflicts_with = "watch")]
    pub(crate) ready: bool,
}

/// Longest time of one answer: the check of readiness takes up to two seconds.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 16 << 20;
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Moves the cursor to the top of a terminal and clears it.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) fn run(args: StatusArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::runtime(&error))?.block_on(print_status(&args))
}

/// Where the packaged settings of a node and of an agent have their admin listeners.
const USUAL: [SocketAddr; 2] = [SocketAddr::new(LOOPBACK, 9433), SocketAddr::new(LOOPBACK, 9434)];
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The address that was named, or the first of the usual ones where something listens.
async fn admin_address(args: &StatusArgs) -> AdminAddress {
    if let Some(named) = &args.admin {
        return named.clone();
    }
    for address in USUAL {
        if TcpStream::connect(address).await.is_ok() {
            return AdminAddress::Tcp(address);
        }
    }
    AdminAddress::Tcp(USUAL[0])
}

async fn print_status(args: &StatusArgs) -> Result<(), Failure> {
    let admin = &admin_address(args).await;
    if args.ready {
        return print_readiness(admin, args).await;
    }
    loop {
        let (_, report) = get(admin, "/api/v1/status").await?;
        let printed = match args.json {
            true => print_json_aside(&report).await?,
            false => {
                let shown = Report::deserialize(&report).map_err(|fault| unknown(admin, &fault))?;
                let clear = if args.watch { CLEAR } else { "" };
                print_aside(format!("{clear}{}", text(&shown))).await?
            }
        };
        if printed == Printed::ReaderGone {
            return Err(Failure::READER_GONE);
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn print_readiness(admin: &AdminAddress, args: &StatusArgs) -> Result<(), Failure> {
    let (status, answer) = get(admin, "/readyz").await?;
    if args.json {
        print_json_aside(&answer).await?;
    } else {
        let readiness = Readiness::deserialize(&answer).map_err(|fault| unknown(admin, &fault))?;
        print_aside(readiness_lines(&readiness).join("\n")).await?;
    }
    if status == StatusCode::OK { Ok(()) } else { Err(Failure::Reported(1)) }
}

fn unknown(admin: &AdminAddress, fault: &dyn Error) -> Failure {
    Failure::Runtime(vec![format!(
        "{admin} answers otherwise than an admin listener of this version: {fault}"
    )])
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Asks an admin listener whether its node or agent is ready, and why not.
pub(crate) async fn readiness(admin: &AdminAddress) -> Result<(bool, Vec<String>), Failure> {
    let (status, answer) = get(admin, "/readyz").await?;
    let readiness = Readiness::deserialize(&answer).map_err(|fault| unknown(admin, &fault))?;
    Ok((status == StatusCode::OK, readiness.reasons))
}

/// Asks an admin listener for JSON.
async fn get(admin: &AdminAddress, path: &str) -> Result<(StatusCode, Value), Failure> {
    let asked = tokio::time::timeout(ANSWER_WAIT_MAX, ask(admin, path)).await;
    let answered = asked.unwrap_or_else(|_elapsed| Err("it does not answer in time".into()));
    answered.map_err(|fault| {
        Failure::Runtime(vec![
            format!("no status of {admin}: {fault}"),
            format!(
                "start the node or agent with --admin {admin}, or name the address of its admin listener with --admin"
            ),
        ])
    })
}

async fn ask(
    admin: &AdminAddress,
    path: &str,
) -> Result<(StatusCode, Value), Box<dyn Error + Send + Sync>> {
    let stream: Box<dyn Stream> = match admin {
        AdminAddress::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        #[cfg(unix)]
        AdminAddress::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
        _ => return Err("this system has no such addresses".into()),
    };
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        let answer = serde_json::from_slice(&body).map_err(|_| {
            format!("it answers HTTP {} and not as an admin listener does", head.status.as_u16())
        })?;
        Ok((head.status, answer))
    };
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        biased;
        answered = answer.as_mut() => answered,
        // A server may close as soon as it has answered.
        ended = connection.as_mut() => match ended {
            Ok(()) => answer.await,
            Err(fault) => Err(fault.into()),
        },
    }
}

/// The report, as far as it is shown.
#[derive(Debug, Deserialize)]
struct Report {
    role: String,
    name: String,
    version: String,
    started_at: String,
    state: String,
    readiness: Readiness,
    certificate: Certificate,
    warnings: Vec<String>,
    calls_in_flight: u64,
    last_minute: Rates,
    links: Vec<Link>,
    last_failures: Vec<FailedCall>,
    link_changes: Vec<LinkChange>,
    refusals: Vec<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Readiness {
    ready: bool,
    reasons: Vec<String>,
    /// A service has none.
    #[serde(default)]
    services: BTreeMap<String, Self>,
}

#[derive(Debug, Deserialize)]
struct Certificate {
    days_left: i64,
    ends_at: String,
    crl_ends_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Rates {
    seconds: f64,
    ended: u64,
    failed: u64,
    per_second: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    failures: Vec<FailureRate>,
}

#[derive(Debug, Deserialize)]
struct FailureRate {
    code: String,
    outcome: String,
    count: u64,
}

#[derive(Debug, Deserialize)]
struct Link {
    peer: String,
    address: String,
    path: String,
    since: String,
    state: String,
    rtt_ms: f64,
    loss_percent: f64,
    calls_in_flight: u64,
    certificate_days_left: i64,
}

#[derive(Debug, Deserialize)]
struct FailedCall {
    at: String,
    caller: String,
    agent: Option<String>,
    method: String,
    code: String,
    outcome: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
struct LinkChange {
    at: String,
    peer: String,
    change: String,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    what: String,
    who: String,
    reason: String,
    count: u64,
}

/// Lines of each list that the text shows; the JSON has all.
const LINES_MAX: usize = 10;
/// Links that the text shows.
const LINKS_MAX: usize = 50;

fn text(report: &Report) -> String {
    let mut sections = vec![head(report)];
    if !report.warnings.is_empty() {
        sections.push(section("WARNINGS", report.warnings.iter().map(|line| escape(line))));
    }
    sections.push(links(&report.links));
    let failures = report.last_failures.iter().take(LINES_MAX).map(|call| {
        let agent = call.agent.as_deref().unwrap_or("any agent");
        let FailedCall { at, caller, method, code, outcome, reason, .. } = call;
        escape(&format!("{at} {caller} -> {agent} {method}: {code} ({outcome}): {reason}"))
    });
    sections.push(section("LAST FAILED CALLS", failures));
    let changes = report.link_changes.iter().take(LINES_MAX).map(|change| {
        let reason = change.reason.as_ref().map(|reason| format!(": {reason}"));
        let LinkChange { at, peer, change, .. } = change;
        escape(&format!("{at} {peer} {change}{}", reason.unwrap_or_default()))
    });
    sections.push(section("LAST CHANGES OF LINKS", changes));
    let refusals = report.refusals.iter().take(LINES_MAX).map(|refusal| {
        let Refusal { what, who, reason, count } = refusal;
        escape(&format!("{count} x {what} of {who}: {reason}"))
    });
    sections.push(section("REFUSED MOST", refusals));
    sections.retain(|section| !section.is_empty());
    sections.join("\n\n")
}

fn head(report: &Report) -> String {
    let Report { role, name, version, started_at, state, certificate, last_minute, .. } = report;
    let crl = certificate.crl_ends_at.as_ref().map(|end| format!("; revocation list until {end}"));
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    let Rates { seconds, ended, failed, per_second, p50_ms, p99_ms, failures } = last_minute;
    let mut lines = vec![
        format!("{role} {name}, version {version}, {state}; started {started_at}"),
        format!(
            "certificate: {} days left, until {}{}",
            certificate.days_left,
            certificate.ends_at,
            crl.unwrap_or_default()
        ),
        format!(
            "calls: {} in flight; last {seconds:.0} s: {per_second:.1} a second, {ended} ended, {failed} failed, p50 {}, p99 {}",
            report.calls_in_flight,
            ms(*p50_ms),
            ms(*p99_ms)
        ),
    ];
    lines.extend(failures.iter().take(LINES_MAX).map(|failure| {
        let FailureRate { code, outcome, count } = failure;
        format!("  {count} x {code} ({outcome})")
    }));
    lines.extend(readiness_lines(&report.readiness));
    lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("\n")
}

fn readiness_lines(readiness: &Readiness) -> Vec<String> {
    let state = |ready| if ready { "ready" } else { "NOT READY" };
    let mut lines = vec![state(readiness.ready).to_owned()];
    lines.extend(readiness.reasons.iter().map(|reason| format!("  {}", escape(reason))));
    for (name, service) in &readiness.services {
        let reasons: Vec<_> = service.reasons.iter().map(|reason| escape(reason)).collect();
        let reasons = match reasons.is_empty() {
            true => String::new(),
            false => format!(": {}", reasons.join("; ")),
        };
        lines.push(format!("  service {}: {}{reasons}", escape(name), state(service.ready)));
    }
    lines
}

fn links(links: &[Link]) -> String {
    if links.is_empty() {
        return "no links".to_owned();
    }
    let head = ["LINK", "STATE", "SINCE", "ADDRESS", "PATH", "RTT", "LOSS", "CALLS", "CERTIFICATE"];
    let row = |link: &Link| {
        vec![
            escape(&link.peer),
            escape(&link.state),
            escape(&link.since),
            escape(&link.address),
            escape(&link.path),
            format!("{:.1} ms", link.rtt_ms),
            format!("{:.2} %", link.loss_percent),
            link.calls_in_flight.to_string(),
            format!("{} days", link.certificate_days_left),
        ]
    };
    let mut shown = output::table(&head, links.iter().take(LINKS_MAX).map(row));
    if let Some(more) = links.len().checked_sub(LINKS_MAX).filter(|more| *more > 0) {
        shown.push_str(&format!("\nand {more} more, with --json"));
    }
    shown
}

/// A title and its lines; nothing without lines.
fn section(title: &str, lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<_> = lines.map(|line| format!("\n  {line}")).collect();
    if lines.is_empty() { String::new() } else { format!("{title}{}", lines.concat()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_what_is_wrong_and_no_control_characters() {
        let report = serde_json::json!({
            "role": "agent", "name": "warehouse", "version": "0.1.0", "state": "running",
            "started_at": "2026-11-30T10:00:00Z",
            "readiness": {"ready": true, "reasons": [], "services": {
                "http:web": {"ready": false, "reasons": ["refused"]},
            }},
            "certificate": {"days_left": 3, "ends_at": "2026-12-03T10:00:00Z", "crl_ends_at": null},
            "warnings": ["the certificate ends in 3 days"],
            "calls_in_flight": 1,
            "last_minute": {"seconds": 60.0, "ended": 5, "failed": 2, "per_second": 0.1,
                "p50_ms": 1.5, "p99_ms": null,
                "failures": [{"code": "UNAVAILABLE", "outcome": "not_executed", "count": 2}]},
            "links": [{"peer": "node/edge", "address": "192.0.2.1:4433", "path": "udp",
                "since": "2026-11-30T10:00:01Z", "state": "up", "rtt_ms": 40.0,
                "loss_percent": 1.0, "calls_in_flight": 1, "certificate_days_left": 30}],
            "last_failures": [{"at": "t", "caller": "caller/ops", "agent": null,
                "method": "http:web", "code": "UNAVAILABLE", "outcome": "not_executed",
                "reason": "refused\u{1b}[2J"}],
            "link_changes": [], "refusals": [],
        });
        let report = Report::deserialize(&report).expect("a report");
        let shown = text(&report);
        for part in [
            "agent warehouse, version 0.1.0, running; started 2026",
            "certificate: 3 days left",
            "2 x UNAVAILABLE (not_executed)",
            "service http:web: NOT READY: refused",
            "the certificate ends in 3 days",
            "40.0 ms",
            "t caller/ops -> any agent http:web: UNAVAILABLE (not_executed): refused\\u{1b}[2J",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains('\u{1b}') && !shown.contains("REFUSED MOST"), "{shown}");
    }
}
