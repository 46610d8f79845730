//! `dialback tcp`: forwards a local port to an agent's TCP forward, one call per connection.

use crate::{
    args::parse_timeout,
    caller::{self, CONNECT_WAIT_MAX, ReachArgs},
    credentials::{self, Locator},
    exit::Failure,
    listener::{From, Listen, Listener, files_hint, parse_listen_or_path},
    output::print,
    paths,
    reload::{self, Start},
    until_valid::until_valid,
};
use clap::Args;
use dialback::{
    Callee, Caller, Code, ConnectError, Credentials, Limits, Name, NameError, NodeAddress,
    PathSettings, Role, Socket, Status, config::TlsFiles,
};
use std::{convert::Infallible, fmt, path::PathBuf, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// `dialback tcp`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, with [[tcp]] name = \"db\" in the config file of the agent:
  dialback tcp warehouse db --listen 127.0.0.1:5432
  psql -h 127.0.0.1 stock
It prints `listening on IP:PORT` when it is ready; with port 0 the system chooses one. Each
connection is a call of tcp:db over one link, which reconnects automatically. A connection
that fails is reset, and the log says why. Anyone who can connect to the port uses the forward
in the name of this caller: listen on loopback.
SIGINT or SIGTERM: accepts no connections, lets open ones end (25 s at most), exits 0. A second
signal aborts them and exits 1. If it cannot connect to the node: 78 or 80, as `call`.")]
pub(crate) struct TcpArgs {
    /// Name of the agent
    pub(crate) agent: Name,
    /// Name of the forward: db, or tcp:db as in rules
    #[arg(value_parser = parse_tcp_name)]
    pub(crate) name: Name,
    /// Address to listen on: IP:PORT, or unix:/PATH
    #[arg(long, value_name = "ADDR", value_parser = parse_listen_or_path)]
    pub(crate) listen: Listen,
    /// Maximum concurrent connections; caller_calls_in_flight_max of the node limits them too
    #[arg(long, value_name = "N", default_value = "128", value_parser = parse_connections)]
    pub(crate) connections_max: usize,
    /// Maximum lifetime of a connection [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

/// Time to look up at the start whether the forward exists, which only serves an early warning.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(2);

/// Pause between two attempts to accept when the system refuses a connection.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);

const CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Credentials and their files. A port stays open for longer than a certificate is valid.
struct Settings {
    credentials: Credentials,
    files: Vec<PathBuf>,
}

impl Settings {
    fn read(flags: &TlsFiles, locator: &Locator) -> Result<Self, Failure> {
        let located = locator.locate(flags.clone(), TlsFiles::default())?;
        let credentials = credentials::load_from(Role::Caller, &located)?;
        Ok(Self { credentials, files: credentials::paths(&located) })
    }
}

pub(crate) fn run(args: TcpArgs) -> Result<(), Failure> {
    let TcpArgs { agent, name, listen, connections_max, timeout, reach } = args;
    let (flags, locator) = (reach.tls.into(), Locator::new(Role::Caller));
    let read = move || Settings::read(&flags, &locator);
    let local = Local { way: Way { agent, name, timeout }, listen, connections_max };
    let to = (reach.node, paths::settings(&reach.paths.read()?)?);
    reload::run(read, |settings| settings.files.clone(), |start| local.serve(to, start))
}

struct Local {
    way: Way,
    listen: Listen,
    connections_max: usize,
}

#[derive(Clone)]
struct Way {
    agent: Name,
    name: Name,
    timeout: Option<Duration>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp:{} of agent {}", self.name, self.agent)
    }
}

impl Local {
    async fn serve(
        &self,
        (node, paths): (NodeAddress, PathSettings),
        start: Start<Settings>,
    ) -> Result<(), Failure> {
        let Start { settings, mut signals, mut reloads } = start;
        let listener = Listener::bind(&self.listen).await?;
        let dial = async |settings: Settings| {
            let to = (&node, paths.clone());
            let dialled = caller::dial(settings.credentials, to, CONNECT_WAIT_MAX).await;
            dialled.map_err(|error| match error {
                ConnectError::Link(fault) if fault.is_not_valid_yet() => {
                    Failure::NotValidYet(format!("node {node}: {fault}"), None)
                }
                other => other.into(),
            })
        };
        let first = signals.unless_stopped(dial(settings)).await?;
        let again = async || dial(reload::read_once(&reloads.reader).await?).await;
        let hangup = async || reloads.hangups.next().await;
        let dialled = until_valid(first, again, &mut signals, hangup).await?;
        let Some(caller) = dialled else { return Ok(()) };
        let callee = caller.agent(self.way.agent.as_str())?;
        self.announce(&caller, &listener).await?;
        let status = format!("listens on {}", listener.address);
        let apply = async |next: Settings| {
            caller.apply(next.credentials.clone()).await?;
            credentials::announce(&next.credentials);
            Ok(())
        };
        let mut connections = JoinSet::new();
        let first = {
            let background = async {
                tokio::select! {
                    never = self.take(&callee, listener, &mut connections) => never,
                    never = reloads.run(|| status.clone(), |_| Ok(Vec::new()), apply) => never,
                }
            };
            signals.first(background).await
        };
        let finish = async {
            let ended = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout(Limits::default().drain_max, ended).await.is_err() {
                let count = connections.len();
                tracing::warn!(count, "drain time is over: closing {count} connections");
            }
        };
        let finish_unless = async |abort: CancellationToken| {
            tokio::select! {
                () = finish => {}
                () = abort.cancelled() => {}
            }
        };
        let stopped = signals.stop(first, finish_unless).await;
        // Remaining connections are reset here; GOODBYE makes the agent reset its upstream at once.
        connections.shutdown().await;
        drop(tokio::time::timeout(CLOSE_WAIT_MAX, caller.close()).await);
        stopped
    }

    async fn announce(&self, caller: &Caller, listener: &Listener) -> Result<(), Failure> {
        let (way, address) = (&self.way, &listener.address);
        look(caller, way).await;
        print(&format!("listening on {address}"))?;
        let agent = &way.agent;
        let method = format!("tcp:{}", way.name);
        tracing::info!(%address, %agent, method, "listening on {address}; forwarding connections to {way}");
        if listener.is_remote() {
            tracing::warn!(
                %address,
                %agent,
                method,
                "{address} is not a loopback address: anyone who can connect to it uses {way} in the name of this caller"
            );
        }
        Ok(())
    }

    /// Accepts connections while it is polled, one task each. It waits for none of them.
    async fn take(
        &self,
        callee: &Callee,
        listener: Listener,
        connections: &mut JoinSet<()>,
    ) -> Infallible {
        // Logged once until a connection is accepted again: it is tried ten times a second.
        let mut is_failing = false;
        loop {
            tokio::select! {
                Some(_ended) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((_refused, from)) if connections.len() >= self.connections_max => tracing::warn!(
                        address = from.address(),
                        "refused connection{from}: limit of {} connections reached (--connections-max)",
                        self.connections_max
                    ),
                    Ok((socket, from)) => {
                        is_failing = false;
                        connections.spawn(lead(callee.clone(), self.way.clone(), socket, from));
                    }
                    Err(error) => {
                        let hint = files_hint(&error);
                        if !std::mem::replace(&mut is_failing, true) {
                            tracing::warn!(reason = %error, "cannot accept connection: {error}{hint}");
                        }
                        tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                    }
                },
            }
        }
    }
}

/// Logs early what would otherwise show at the first connection.
async fn look(caller: &Caller, way: &Way) {
    let services = caller.services(way.agent.as_str());
    match tokio::time::timeout(LOOK_WAIT_MAX, services).await {
        Ok(Ok(services)) => {
            let path = format!("tcp:{}", way.name);
            let mut hosted = services.iter().flat_map(|service| {
                service.methods.iter().map(|method| method.path(&service.name))
            });
            if !hosted.any(|hosted| hosted == path) {
                let agent = &way.agent;
                tracing::warn!(
                    %agent,
                    method = path,
                    "connections will be refused: agent {agent} hosts no {path} that this caller may use; check [[tcp]] of the agent and the [[allow]] rules for {path}"
                );
            }
        }
        Ok(Err(status)) => {
            tracing::warn!(agent = %way.agent, reason = %status, "connections will be refused for now: {status}");
        }
        Err(_elapsed) => {}
    }
}

/// Relays one connection through a call, until both have ended.
async fn lead(callee: Callee, way: Way, socket: Socket, from: From) {
    let mut call = callee.tcp(way.name.as_str());
    if let Some(timeout) = way.timeout {
        call = call.timeout(timeout);
    }
    let call_id = call.call_id();
    // Dropped early, the socket is reset: its other end gets an error, not a clean end.
    let stream = match call.await {
        Ok(stream) => stream,
        Err(status) => {
            return tracing::warn!(
                address = from.address(),
                %call_id,
                agent = %way.agent,
                code = status.code().as_str(),
                "connection{from} to {way} failed: {status} (call {call_id})"
            );
        }
    };
    match stream.relay(socket).await {
        Ok([out, back]) => {
            tracing::debug!("connection{from} closed: {out} bytes sent, {back} bytes received")
        }
        Err(status) if is_reset(&status) => {
            tracing::debug!("connection{from} to {way} reset: {status}");
        }
        Err(status) => {
            tracing::warn!(
                address = from.address(),
                %call_id,
                agent = %way.agent,
                code = status.code().as_str(),
                "connection{from} to {way} aborted: {status} (call {call_id})"
            );
        }
    }
}

/// Returns `true` if one end of the TCP connection reset it.
fn is_reset(status: &Status) -> bool {
    status.code() == Code::Aborted
}

/// Reads the name of a TCP forward, also as rules and listings write it.
fn parse_tcp_name(text: &str) -> Result<Name, NameError> {
    text.strip_prefix("tcp:").unwrap_or(text).parse()
}

fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=10_000) => Ok(count),
        _ => Err("expected a number from 1 to 10000".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_named_with_and_without_its_kind() {
        for text in ["db", "tcp:db"] {
            assert_eq!(parse_tcp_name(text).map(|name| name.to_string()), Ok("db".into()));
        }
        for bad in ["tcp:", "http:db", "tcp:tcp:db"] {
            assert!(parse_tcp_name(bad).is_err(), "{bad} was taken");
        }
    }
}
