//! Dials the nodes of an agent or a caller, and gathers the findings for their checks.

use super::{
    check::{Check, CheckState, Report},
    dialled::{AddressFound, Answered, NodeFound, TunnelFound},
    files, machine,
};
use crate::{
    caller::{CONNECT_WAIT_MAX, dial as dial_as_caller},
    exit::Failure,
    output::count,
};
use dialback::{
    CredentialFiles, Credentials, LinkFault, NodeAddress, PathSettings, Role,
    diagnostic::{DiagnosticConnection, DiagnosticDialler, link_buffers},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::JoinSet;

/// Time to close the link of a caller.
const CLOSE_WAIT_MAX: Duration = Duration::from_millis(100);

/// Settings of an agent or a caller, as far as they are examined.
pub(super) struct Dialling {
    pub(super) role: Role,
    pub(super) nodes: Vec<NodeAddress>,
    pub(super) paths: Result<PathSettings, Failure>,
    pub(super) files: Result<CredentialFiles, Failure>,
}

impl Dialling {
    pub(super) async fn examine(self, report: &mut Report) -> Result<(), Failure> {
        let Self { role, nodes, paths, files } = self;
        let files = files::examine(role, files);
        report.add(files.checks)?;
        report.add([machine::buffers(&link_buffers())])?;
        let paths = match paths {
            Ok(paths) => Some(paths),
            Err(failure) => {
                report.add([Check::of_failure("proxy", &failure)])?;
                None
            }
        };
        let (mut readings, mut is_not_valid_yet) = (Vec::new(), files.is_not_valid_yet);
        for node in nodes {
            let found = examine_node(&node, paths.as_ref(), files.credentials.as_ref()).await;
            readings.extend(found.clock_reading());
            is_not_valid_yet |= found.is_not_valid_yet();
            report.add(found.checks(SystemTime::now()))?;
            if role == Role::Caller {
                let usable = files.credentials.as_ref().zip(paths.as_ref());
                report.add([permits(&node, usable.filter(|_| found.is_up())).await])?;
            }
        }
        report.add([machine::clock(&readings, is_not_valid_yet, SystemTime::now())])
    }
}

/// Dials every address of a node by UDP and its tunnel at once. Without settings of paths, which
/// could not be read, only UDP is tried.
async fn examine_node(
    node: &NodeAddress,
    paths: Option<&PathSettings>,
    credentials: Option<&Credentials>,
) -> NodeFound {
    let settings = paths.cloned().unwrap_or_else(PathSettings::udp);
    let dialler = Arc::new(DiagnosticDialler::new(settings.clone()));
    let by_udp = async {
        let addresses = dialler.resolve(node).await?;
        let credentials = credentials.filter(|_| settings.uses_udp());
        Ok(examine_addresses(&dialler, node, addresses, credentials).await)
    };
    let by_tunnel = async {
        if !settings.uses_tunnels() {
            return None;
        }
        let (url, proxy) = dialler.tunnel_of(node);
        let answer = match dialler.by_tunnel(credentials, node).await {
            Ok(Some(connection)) => answered(connection).await.map(Some),
            Ok(None) => Ok(None),
            Err(fault) => Err(fault),
        };
        Some(TunnelFound { url, proxy, answer })
    };
    let (addresses, tunnel) = tokio::join!(by_udp, by_tunnel);
    let uses_udp = settings.uses_udp();
    let node = node.clone();
    NodeFound { node, uses_udp, has_credentials: credentials.is_some(), addresses, tunnel }
}

async fn examine_addresses(
    dialler: &Arc<DiagnosticDialler>,
    node: &NodeAddress,
    addresses: Vec<SocketAddr>,
    credentials: Option<&Credentials>,
) -> Vec<AddressFound> {
    let mut dials = JoinSet::new();
    for (at, to) in addresses.into_iter().enumerate() {
        let (dialler, node, credentials) = (dialler.clone(), node.clone(), credentials.cloned());
        dials.spawn(async move {
            let source = dialler.source_address(&node, to);
            let answer = match credentials.filter(|_| source.is_ok()) {
                Some(credentials) => Some(dial(&dialler, &credentials, &node, to).await),
                None => None,
            };
            // After the dial: the system learns from ICMP what a route carries.
            let interface_bytes = dialler.datagram_bytes_max(to);
            (at, AddressFound { to, source, answer, interface_bytes })
        });
    }
    let mut found = dials.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, found)| found).collect()
}

async fn dial(
    dialler: &DiagnosticDialler,
    credentials: &Credentials,
    node: &NodeAddress,
    to: SocketAddr,
) -> Result<Answered, LinkFault> {
    answered(dialler.by_udp(credentials, node, to).await?).await
}

async fn answered(connection: DiagnosticConnection) -> Result<Answered, LinkFault> {
    let path = connection.measure().await?;
    let answered = Answered {
        peer: connection.peer().to_string(),
        protocol: connection.protocol(),
        ends: connection.ends().at(),
        path,
        server_time: connection.server_time(),
    };
    connection.close().await;
    Ok(answered)
}

/// Makes a whole link as a caller, and asks which agents it may call.
async fn permits(node: &NodeAddress, usable: Option<(&Credentials, &PathSettings)>) -> Check {
    let check = "permits";
    let Some((credentials, paths)) = usable else {
        return Check::skipped(check, format!("{node} was not reached"));
    };
    let name = credentials.peer_name().name.clone();
    let dialled = dial_as_caller(credentials.clone(), (node, paths.clone()), CONNECT_WAIT_MAX);
    let listed = match dialled.await {
        Ok(caller) => {
            let listed = caller.agents().await;
            drop(tokio::time::timeout(CLOSE_WAIT_MAX, caller.close()).await);
            listed
        }
        Err(error) => Err(error.to_status()),
    };
    match listed {
        Ok(agents) if agents.is_empty() => Check::warning(
            check,
            format!("{node}: no agent that caller {name} may call"),
            "add an [[allow]] rule for it at the node, or start the agent",
        ),
        Ok(agents) => {
            let agents = count(agents.len(), "agent");
            Check::ok(check, format!("{node}: caller {name} may call {agents}"))
        }
        Err(status) => {
            Check::of_text(check, CheckState::Failure, &format!("{node}: {}", status.message()))
        }
    }
}
