//! `dialback tcp`: a local port that ends at an agent's forward. Every connection is a call of its own, over one link.

use crate::{
    args::{Listen, TcpArgs},
    caller::Reach,
    exit::Failure,
    node::runtime,
    output::print,
    signals::Signals,
};
use dialback::{Callee, Caller, Code, Limits, Name, Socket, Status, limits::TIMEOUT_CEILING};
use std::{fmt, io, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};

/// Looking up whether the forward is there is a kindness to whoever starts this, and may take no longer.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(2);

/// Between two tries to accept when the system has no room for a connection.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The goodbye to the node.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Runs the command.
pub(crate) fn run(args: TcpArgs) -> Result<(), Failure> {
    let TcpArgs { agent, name, listen, connections_max, timeout, reach } = args;
    let reach = Reach::new(reach, TIMEOUT_CEILING)?;
    let way = Way { agent, name, timeout };
    let runtime = runtime()?;
    let result = runtime.block_on(serve(&way, &listen, connections_max, reach));
    // A resolver that still hangs in its thread must not keep the process.
    runtime.shutdown_background();
    result
}

/// Where connections lead.
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

async fn serve(
    way: &Way,
    listen: &Listen,
    connections_max: usize,
    reach: Reach,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let listener = Listener::bind(listen).await?;
    let caller = reach.connect(&mut signals).await?;
    look(&caller, way).await;
    print(&format!("listening on {listener}"))?;
    tracing::info!("listening on {listener}; connections lead to {way}");
    listener.warn_of_strangers(way);
    let callee = caller.agent(way.agent.as_str()).map_err(|error| Failure::local(&error))?;
    let mut connections = JoinSet::new();
    let first = loop {
        tokio::select! {
            biased;
            stop = signals.next() => break stop,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((_refused, from)) if connections.len() >= connections_max => tracing::warn!(
                    "refused a connection{from}: the limit of {connections_max} connections (--connections-max) is reached"
                ),
                Ok((socket, from)) => {
                    connections.spawn(lead(callee.clone(), way.clone(), socket, from));
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            },
        }
    };
    drop(listener);
    let finish = async {
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(Limits::default().drain_max, ended).await.is_err() {
            tracing::warn!("{} connections are cut off, the drain time is over", connections.len());
        }
    };
    let stopped = signals.stop(first, finish).await;
    // Whatever is left is reset here, and the goodbye has the agent reset its upstream at once.
    connections.shutdown().await;
    drop(tokio::time::timeout(CLOSE_WAIT_MAX, caller.close()).await);
    stopped
}

/// Says early what would otherwise be seen at the first connection.
async fn look(caller: &Caller, way: &Way) {
    let services = caller.services(way.agent.as_str());
    match tokio::time::timeout(LOOK_WAIT_MAX, services).await {
        Ok(Ok(services)) => {
            let path = format!("tcp:{}", way.name);
            let mut hosted = services.iter().flat_map(|service| {
                service.methods.iter().map(|method| method.path(&service.name))
            });
            if !hosted.any(|hosted| hosted == path) {
                tracing::warn!(
                    "agent {} hosts no {path} now; connections will be refused",
                    way.agent
                );
            }
        }
        Ok(Err(status)) => tracing::warn!("connections will be refused for now: {status}"),
        Err(_elapsed) => {}
    }
}

/// Leads one connection through a call, until both have ended.
async fn lead(callee: Callee, way: Way, socket: Socket, from: From) {
    let mut call = callee.tcp(way.name.as_str());
    if let Some(timeout) = way.timeout {
        call = call.timeout(timeout);
    }
    let call_id = call.call_id();
    // Dropped on the way, the socket is reset: whoever is at its other end gets an error, and no clean end.
    let stream = match call.await {
        Ok(stream) => stream,
        Err(status) => {
            return tracing::warn!("a connection{from} to {way} failed: {status} (call {call_id})");
        }
    };
    match stream.relay(socket).await {
        Ok([out, back]) => {
            tracing::debug!("a connection{from} ended: {out} bytes out, {back} back")
        }
        Err(status) if is_reset(&status) => {
            tracing::debug!("a connection{from} to {way} was reset: {status}");
        }
        Err(status) => {
            tracing::warn!("a connection{from} to {way} was cut off: {status} (call {call_id})");
        }
    }
}

/// One of its ends did that, as ends of TCP do.
fn is_reset(status: &Status) -> bool {
    status.code() == Code::Aborted
}

/// Who connected, as the end of a sentence: ` from 127.0.0.1:40000`, or nothing for a Unix socket.
struct From(Option<SocketAddr>);

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, " from {address}"))
    }
}

/// A local port. Dropping it closes it, and removes a Unix socket's file.
enum Listener {
    Tcp(TcpListener, SocketAddr),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener, std::path::PathBuf),
}

impl Listener {
    async fn bind(listen: &Listen) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::Runtime(vec![format!("cannot listen on {listen}: {error}")])
        };
        match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                Ok(Self::Tcp(listener, address))
            }
            #[cfg(unix)]
            Listen::Unix(path) => {
                let listener = tokio::net::UnixListener::bind(path).map_err(|error| {
                    let hint = match error.kind() {
                        io::ErrorKind::AddrInUse => "; remove the file if no process uses it",
                        _ => "",
                    };
                    Failure::Runtime(vec![format!("cannot listen on {listen}: {error}{hint}")])
                })?;
                Ok(Self::Unix(listener, path.clone()))
            }
            #[cfg(not(unix))]
            Listen::Unix(_) => Err(failed(io::ErrorKind::Unsupported.into())),
        }
    }

    async fn accept(&self) -> io::Result<(Socket, From)> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, from) = listener.accept().await?;
                Ok((stream.into(), From(Some(from))))
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => Ok((listener.accept().await?.0.into(), From(None))),
        }
    }

    /// Whoever reaches the port is let in as this caller.
    fn warn_of_strangers(&self, way: &Way) {
        match self {
            Self::Tcp(_, address) if !address.ip().is_loopback() => tracing::warn!(
                "{address} is open beyond this machine: whoever reaches it reaches {way} in the name of this caller"
            ),
            _ => {}
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(_, address) => address.fmt(f),
            #[cfg(unix)]
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Self::Unix(_, path) = self {
            drop(std::fs::remove_file(path));
        }
    }
}
