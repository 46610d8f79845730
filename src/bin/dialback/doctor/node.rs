//! Checks of a node: its files, addresses, rules and limits.

use super::{
    check::{Check, CheckState, Report},
    files::{self, FilesFound, days_left},
    machine,
};
use crate::{
    admin, credentials,
    exit::Failure,
    gateway::{self, GatewaySettings},
    node::NodeFlags,
    output::show_path,
    policy::{count_rules, rules_of},
    status,
    tunnel::{self, TunnelSettings},
    writable,
};
use dialback::{
    AdminAddress, AdminError, BindError, CertificateInfo, CredentialFiles, GatewayError,
    NodePolicy, Role, TunnelListenError, Utc,
    config::{AdminConfig, NodeConfig},
    diagnostic::{link_buffers, listen_udp},
    limits::HTTP_CONNECTIONS_MAX,
};
use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::SystemTime,
};

/// Files that a node has open without its TCP listeners: sockets, logs, state.
const OPEN_FILES_BASE: u64 = 64;

pub(super) async fn examine(
    report: &mut Report,
    flags: &NodeFlags,
    file: NodeConfig,
) -> Result<(), Failure> {
    let located = credentials::locate(Role::Node, flags.tls.clone().into(), file.tls);
    let hosts = located.as_ref().ok().map(hosts);
    let FilesFound { checks, credentials, is_not_valid_yet } = files::examine(Role::Node, located);
    report.add(checks)?;
    report.add(hosts.filter(|_| credentials.is_some()))?;
    report.add([machine::clock(&[], is_not_valid_yet, SystemTime::now())])?;
    let listen = flags.listen(file.listen);
    report.add(listening(listen))?;
    report.add([policy(rules_of(flags.policy.as_deref(), file.policy))])?;
    report.add(flags.state.as_ref().or(file.state.as_ref()).map(|dir| state(dir)))?;
    let gateway = gateway::merge(flags, file.gateway, !file.sites.is_empty())
        .and_then(|config| GatewaySettings::read(config, file.sites));
    let has_gateway = !matches!(gateway, Ok(None));
    let tunnel =
        tunnel::merge(flags.tunnel, file.tunnel, has_gateway).and_then(TunnelSettings::read);
    let gateway_listen = gateway.as_ref().ok().and_then(|it| Some(it.as_ref()?.listen()));
    let tunnel_listen = tunnel.as_ref().ok().and_then(|it| it.as_ref()?.listen());
    let of_gateway = gateway.iter().flatten().flat_map(GatewaySettings::files);
    let of_tunnel = tunnel.iter().flatten().flat_map(TunnelSettings::files);
    let served: Vec<_> = of_gateway.chain(of_tunnel).collect();
    report.add(served.iter().filter_map(|file| served_certificate(file, SystemTime::now())))?;
    report.add(gateway.err().map(|failure| Check::of_failure("gateway", &failure)))?;
    report.add(tunnel.err().map(|failure| Check::of_failure("tunnel", &failure)))?;
    report.add(gateway_listen.map(|address| {
        let fault = |source| GatewayError::Socket { address, source }.to_string();
        listening_tcp("gateway", address, fault)
    }))?;
    report.add(tunnel_listen.map(|address| {
        let fault = |source| TunnelListenError::Socket { address, source }.to_string();
        listening_tcp("tunnel", address, fault)
    }))?;
    if let Some(settings) = admin::settings(flags.admin.clone(), file.admin) {
        report.add([admin_listener(&settings).await])?;
    }
    let listeners = [gateway_listen, tunnel_listen].into_iter().flatten().count();
    report.add(open_files(listeners))
}

/// Checks the certificate in a file of the gateway or the tunnel listener; `None` for other files.
fn served_certificate(file: &Path, now: SystemTime) -> Option<Check> {
    let chain = CertificateInfo::all_from_pem(&fs::read(file).ok()?).ok()?;
    let CertificateInfo { not_before, not_after, .. } = chain.into_iter().next()?;
    let (check, shown, end) = ("served certificate", show_path(file), Utc(not_after));
    let remedy = "install a newer one; it is loaded without a restart";
    let life = not_after.duration_since(not_before).unwrap_or_default();
    Some(match not_after.duration_since(now) {
        Err(_past) => Check::failure(check, format!("{shown} has expired: {end}"), remedy),
        Ok(left) if left < life / 3 => {
            Check::warning(check, format!("{shown} ends soon: {end}"), remedy)
        }
        Ok(_) => Check::ok(check, format!("{shown}, {}", days_left(not_after, now))),
    })
}

/// Checks the names and addresses under which a node's certificate is valid.
fn hosts(files: &CredentialFiles) -> Check {
    let read = fs::read(&files.cert).ok();
    let chain = read.and_then(|pem| CertificateInfo::all_from_pem(&pem).ok()).unwrap_or_default();
    let leaf = chain.into_iter().next();
    let hosts = leaf.map(|leaf| {
        let addresses = leaf.ip_sans.iter().map(ToString::to_string);
        leaf.dns_sans.iter().cloned().chain(addresses).collect::<Vec<_>>()
    });
    match hosts.unwrap_or_default() {
        hosts if hosts.is_empty() => Check::failure(
            "host names",
            "the certificate contains no host name or address, so no agent or caller accepts it",
            "issue it again with `dialback certs issue node NAME --san HOST`, where HOST is what is dialled",
        ),
        hosts => Check::ok("host names", format!("may be dialled as {}", hosts.join(", "))),
    }
}

fn listening(address: SocketAddr) -> [Check; 2] {
    match listen_udp(address) {
        Ok(buffers) => {
            [Check::ok("listen", format!("UDP {address} is free")), machine::buffers(&Ok(buffers))]
        }
        Err(error) => {
            let check = match &error {
                BindError::Socket { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                    in_use("listen", &format!("UDP {address}"), "--listen")
                }
                error => Check::of_text("listen", CheckState::Failure, &error.to_string()),
            };
            [check, machine::buffers(&link_buffers())]
        }
    }
}

fn in_use(check: &'static str, address: &str, flag: &str) -> Check {
    let text = format!("{address} is in use: a node seems to run here");
    let remedy = format!("if it is another process, stop it or choose another address with {flag}");
    Check::warning(check, text, remedy)
}

fn listening_tcp(
    check: &'static str,
    address: SocketAddr,
    fault: impl FnOnce(io::Error) -> String,
) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(check, format!("TCP {address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            in_use(check, &format!("TCP {address}"), &format!("--{check}"))
        }
        Err(error) => Check::of_text(check, CheckState::Failure, &fault(error)),
    }
}

fn policy(rules: Result<NodePolicy, Failure>) -> Check {
    match rules {
        Ok(rules) if rules.allow.is_empty() => Check::warning(
            "policy",
            "no [[allow]] rule: every remote call is denied",
            "add [[allow]] to the config file, or name a file of rules with --policy",
        ),
        Ok(rules) => Check::ok("policy", count_rules(&rules)),
        Err(failure) => Check::of_failure("policy", &failure),
    }
}

/// Checks that a node can write to its directory, or create it.
fn state(dir: &Path) -> Check {
    let shown = show_path(dir);
    match writable::state_fault(dir) {
        Some([text, remedy]) => Check::failure("state", text, remedy),
        None if dir.exists() => Check::ok("state", format!("{shown} is writable")),
        None => Check::ok("state", format!("{shown} does not exist, and can be created")),
    }
}

async fn admin_listener(settings: &AdminConfig) -> Check {
    let address = &settings.listen;
    let failure =
        |error: AdminError| Check::of_text("admin", CheckState::Failure, &error.to_string());
    if let AdminAddress::Tcp(at) = address {
        if !address.is_local() && settings.callers.is_empty() {
            return failure(AdminError::NotLoopback { address: *at });
        }
        match TcpListener::bind(at) {
            Ok(_) => return Check::ok("admin", format!("TCP {at} is free; no node runs here")),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return failure(AdminError::Socket { address: address.clone(), source }),
        }
        if !settings.callers.is_empty() {
            let text = format!("TCP {at} is in use; what answers there asks for a certificate");
            return Check::ok("admin", text);
        }
    }
    match status::readiness(address).await {
        Ok((true, _)) => Check::ok("admin", format!("the node that runs at {address} is ready")),
        Ok((false, reasons)) => Check::failure(
            "admin",
            format!("the node that runs at {address} is not ready: {}", reasons.join(", ")),
            "`dialback status` shows more",
        ),
        Err(failure) => {
            let text = failure.lines().join(", ");
            Check::warning("admin", text, "another process listens there, or the node hangs")
        }
    }
}

/// Checks the limit of open files against the connections of this many TCP listeners.
fn open_files(listeners: usize) -> Option<Check> {
    let needed = OPEN_FILES_BASE + (listeners * HTTP_CONNECTIONS_MAX) as u64;
    Some(open_files_of(files_limit()?, needed))
}

fn open_files_of(limit: u64, needed: u64) -> Check {
    match limit < needed {
        true => Check::warning(
            "open files",
            format!(
                "this process may have {limit} files open, and the connections that a node accepts over TCP need up to {needed}"
            ),
            "raise the limit (ulimit -n, LimitNOFILE in systemd)",
        ),
        false => Check::ok("open files", format!("{limit}, up to {needed} are needed")),
    }
}

/// The number of files that this process may have open; `None` without a limit.
#[cfg(unix)]
fn files_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current
}

#[cfg(not(unix))]
fn files_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_files_than_the_listeners_need_are_a_warning() {
        assert_eq!(open_files_of(64, 64).state, CheckState::Ok);
        assert_eq!(open_files_of(63, 64).state, CheckState::Warning);
    }

    #[test]
    fn a_served_certificate_near_its_end_is_a_warning_and_one_after_it_a_failure() {
        use dialback::certs::Ca;
        use std::time::Duration;
        let (dir, now) = (tempfile::tempdir().expect("a directory"), SystemTime::now());
        let file = dir.path().join("gateway.pem");
        let ca = Ca::generate("dialback.local", now).expect("a CA");
        fs::write(&file, ca.pem()).expect("written");
        let end = CertificateInfo::all_from_pem(ca.pem().as_bytes()).expect("read")[0].not_after;
        let state_at = |now| served_certificate(&file, now).expect("a check").state;
        let hour = Duration::from_secs(3_600);
        assert_eq!(state_at(now), CheckState::Ok);
        assert_eq!(state_at(end - hour), CheckState::Warning);
        assert_eq!(state_at(end + hour), CheckState::Failure);
        fs::write(&file, "tokens").expect("written");
        assert!(served_certificate(&file, now).is_none());
    }

    #[test]
    fn a_state_directory_may_be_missing_and_not_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(state(dir.path()).state, CheckState::Ok);
        assert_eq!(state(&dir.path().join("a/b")).state, CheckState::Ok);
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        assert_eq!(state(&file).state, CheckState::Failure);
    }
}
