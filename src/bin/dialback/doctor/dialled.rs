//! Decides the checks of one node by the findings of its dials.

use super::{
    check::{Check, CheckState},
    files::days_left,
    machine::ClockReading,
};
use dialback::{
    LinkFault, NodeAddress, TunnelFault, diagnostic::PathMeasurement, limits::DATAGRAM_BYTES_USUAL,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

/// Findings about one node.
pub(super) struct NodeFound {
    pub(super) node: NodeAddress,
    /// True if links may take UDP.
    pub(super) uses_udp: bool,
    pub(super) has_credentials: bool,
    pub(super) addresses: Result<Vec<AddressFound>, LinkFault>,
    /// `None`: links may not take tunnels.
    pub(super) tunnel: Option<TunnelFound>,
}

/// Findings about one address.
pub(super) struct AddressFound {
    pub(super) to: SocketAddr,
    pub(super) source: Result<IpAddr, LinkFault>,
    /// `None`: it was not dialled.
    pub(super) answer: Option<Result<Answered, LinkFault>>,
    /// Bytes of the largest UDP payload on the interface, as the system knows the route.
    pub(super) interface_bytes: u16,
}

/// Findings about a tunnel.
pub(super) struct TunnelFound {
    pub(super) url: String,
    pub(super) proxy: Option<String>,
    /// `None`: it opens, and nothing was dialled inside.
    pub(super) answer: Result<Option<Answered>, LinkFault>,
}

/// A node that has answered.
pub(super) struct Answered {
    pub(super) peer: String,
    pub(super) protocol: String,
    /// End of its certificate.
    pub(super) ends: SystemTime,
    pub(super) path: PathMeasurement,
    /// The clock of the tunnel's server, and this machine's.
    pub(super) server_time: Option<(SystemTime, SystemTime)>,
}

/// Part of the packets, in percent, whose loss is worth a warning: TCP and QUIC slow down.
const LOSS_PERCENT_WARNED: u64 = 5;
/// Fewer losses are chance.
const LOST_PACKETS_WARNED: u64 = 3;

/// UDP payload of the smallest MTU of IPv6, 1,280 bytes.
const DATAGRAM_BYTES_WANTED: u16 = 1_280 - 40 - 8;
/// The search for the largest payload ends within this.
const DATAGRAM_BYTES_STEP: u16 = 40;

impl NodeFound {
    pub(super) fn checks(&self, now: SystemTime) -> Vec<Check> {
        let mut checks = vec![self.name()];
        let (is_udp_up, is_tunnel_up) = (self.is_udp_up(), self.is_tunnel_up());
        for address in self.addresses.iter().flatten() {
            // Another address or the tunnel carries the link, unless the node has refused it.
            let state = |fault: &LinkFault| match fault.is_refusal() {
                false if is_udp_up || is_tunnel_up => CheckState::Warning,
                _ => CheckState::Failure,
            };
            match &address.source {
                Ok(from) => checks.push(Check::ok("route", format!("{} from {from}", address.to))),
                Err(fault) => {
                    checks.push(of_fault("route", state(fault), &address.to, fault));
                    checks.push(Check::skipped("udp", format!("{}: no route", address.to)));
                    continue;
                }
            }
            match &address.answer {
                Some(Ok(answered)) => checks.extend(by_udp(address, answered)),
                Some(Err(fault)) => checks.push(of_fault("udp", state(fault), &address.to, fault)),
                None => checks.push(Check::skipped("udp", self.why_not_dialled(&address.to))),
            }
        }
        if self.addresses.is_err() {
            checks.push(Check::skipped("udp", format!("{}: no address", self.node)));
        }
        checks.extend(self.tunnel(is_udp_up));
        checks.extend(self.certificate(now));
        checks
    }

    /// The clock of the server of its tunnel.
    pub(super) fn clock_reading(&self) -> Option<ClockReading> {
        let TunnelFound { url, answer, .. } = self.tunnel.as_ref()?;
        let (there, here) = answer.as_ref().ok()?.as_ref()?.server_time?;
        Some(ClockReading { of: url.clone(), there, here })
    }

    /// True if a certificate was refused because it is not valid yet.
    pub(super) fn is_not_valid_yet(&self) -> bool {
        let of_udp = self.addresses.iter().flatten().filter_map(|found| found.answer.as_ref());
        let of_tunnel = self.tunnel.iter().filter_map(|found| found.answer.as_ref().err());
        let faults = of_udp.filter_map(|answer| answer.as_ref().err()).chain(of_tunnel);
        faults.into_iter().any(LinkFault::is_not_valid_yet)
    }

    /// True if a link can be made.
    pub(super) fn is_up(&self) -> bool {
        self.is_udp_up() || self.is_tunnel_up()
    }

    fn is_udp_up(&self) -> bool {
        let mut answers = self.addresses.iter().flatten().map(|found| &found.answer);
        answers.any(|answer| matches!(answer, Some(Ok(_))))
    }

    fn is_tunnel_up(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| matches!(tunnel.answer, Ok(Some(_))))
    }

    fn name(&self) -> Check {
        match &self.addresses {
            Ok(addresses) => {
                let shown: Vec<_> =
                    addresses.iter().map(|found| found.to.ip().to_string()).collect();
                Check::ok("name", format!("{} has the addresses {}", self.node, shown.join(", ")))
            }
            // A proxy may know the name.
            Err(fault) => {
                let is_needed = !self.is_tunnel_up();
                let state = if is_needed { CheckState::Failure } else { CheckState::Warning };
                of_fault("name", state, &self.node, fault)
            }
        }
    }

    fn why_not_dialled(&self, to: &SocketAddr) -> String {
        match self.has_credentials {
            true => format!("{to}: path is \"tunnel\""),
            false => format!("{to}: no usable certificate"),
        }
    }

    fn tunnel(&self, is_udp_up: bool) -> Vec<Check> {
        let Some(TunnelFound { url, proxy, answer }) = &self.tunnel else {
            return vec![Check::skipped("tunnel", format!("{}: path is \"udp\"", self.node))];
        };
        let state = match self.uses_udp && is_udp_up {
            true => CheckState::Warning,
            false => CheckState::Failure,
        };
        let through = |proxy: &String| Check::ok("proxy", format!("{proxy} lets tunnels through"));
        let mut checks: Vec<_> = proxy.iter().map(through).collect();
        match answer {
            Ok(Some(answered)) => {
                let Answered { peer, path, .. } = answered;
                let rtt = milliseconds(path);
                checks.push(Check::ok("tunnel", format!("{url}: {peer} answers, RTT {rtt}")));
            }
            Ok(None) => {
                let text = format!("{url} opens; no usable certificate to dial the node inside");
                checks.push(Check::ok("tunnel", text));
            }
            Err(fault) if proxy.as_ref().is_some_and(|proxy| is_of_proxy(fault, proxy)) => {
                let text = format!("{url}: the proxy does not let it through");
                checks = vec![of_fault("proxy", state, url, fault), Check::skipped("tunnel", text)];
            }
            Err(fault) => checks.push(of_fault("tunnel", state, url, fault)),
        }
        checks
    }

    fn certificate(&self, now: SystemTime) -> Option<Check> {
        let of_udp = self
            .addresses
            .iter()
            .flatten()
            .filter_map(|found| found.answer.as_ref()?.as_ref().ok());
        let of_tunnel = self.tunnel.iter().filter_map(|found| found.answer.as_ref().ok()?.as_ref());
        let Answered { peer, ends, .. } = of_udp.chain(of_tunnel).next()?;
        let left = days_left(*ends, now);
        Some(Check::ok("node certificate", format!("{}: {peer}, {left}", self.node)))
    }
}

fn of_fault(
    check: &'static str,
    state: CheckState,
    subject: &impl ToString,
    fault: &LinkFault,
) -> Check {
    Check::of_fault(check, state, &subject.to_string(), fault)
}

/// Returns true if a tunnel got no further than the proxy.
fn is_of_proxy(fault: &LinkFault, proxy: &str) -> bool {
    let LinkFault::Tunnel(fault) = fault else { return false };
    match &**fault {
        TunnelFault::ProxyAuthentication { .. } | TunnelFault::ProxyRefused { .. } => true,
        TunnelFault::Tcp { is_proxy, .. } | TunnelFault::Unresolved { is_proxy, .. } => *is_proxy,
        TunnelFault::Silent { to, .. } => to == proxy,
        _ => false,
    }
}

fn by_udp(address: &AddressFound, answered: &Answered) -> Vec<Check> {
    let Answered { peer, protocol, path, .. } = answered;
    let to = &address.to;
    vec![
        Check::ok("udp", format!("{to}: {peer} answers ({protocol})")),
        round_trips(to, path),
        mtu(to, path, address.interface_bytes),
    ]
}

fn milliseconds(path: &PathMeasurement) -> String {
    format!("{:.1} ms", path.rtt.as_secs_f64() * 1_000.0)
}

fn round_trips(to: &SocketAddr, path: &PathMeasurement) -> Check {
    let PathMeasurement { sent_packets, lost_packets, .. } = *path;
    let rtt = milliseconds(path);
    let text = format!("{to}: RTT {rtt}, {lost_packets} of {sent_packets} packets lost");
    let is_much = lost_packets >= LOST_PACKETS_WARNED
        && lost_packets * 100 >= sent_packets * LOSS_PERCENT_WARNED;
    match is_much {
        true => Check::warning(
            "rtt",
            text,
            "look for a full queue, a bad cable or radio, or a limit of the rate on the way",
        ),
        false => Check::ok("rtt", text),
    }
}

/// A path that carries less than 1,280 bytes, or less than the interface without a report of it, is
/// a hole for larger packets.
fn mtu(to: &SocketAddr, path: &PathMeasurement, interface_bytes: u16) -> Check {
    let bytes = path.datagram_bytes;
    if !path.is_mtu_known {
        return Check::ok(
            "mtu",
            format!("{to}: UDP payloads of {bytes} bytes arrive, perhaps larger ones"),
        );
    }
    let expected = interface_bytes.min(DATAGRAM_BYTES_USUAL);
    let is_hole = bytes.saturating_add(DATAGRAM_BYTES_STEP) < expected;
    if bytes >= DATAGRAM_BYTES_WANTED && !is_hole {
        return Check::ok("mtu", format!("{to}: UDP payloads of {bytes} bytes arrive"));
    }
    if interface_bytes <= bytes {
        return Check::warning(
            "mtu",
            format!("{to}: the interface carries UDP payloads of {interface_bytes} bytes only"),
            "raise the MTU of the interface to 1,280 or more",
        );
    }
    let text = format!(
        "{to}: UDP payloads of {bytes} bytes arrive; larger ones are lost, where the interface carries {interface_bytes}, so that links send smaller packets"
    );
    Check::warning(
        "mtu",
        text,
        "raise the MTU on the way (a VPN is the usual cause), and let ICMP \"fragmentation needed\" pass",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn node() -> NodeAddress {
        "edge-1:4433".parse().expect("an address")
    }

    fn to() -> SocketAddr {
        ([192, 0, 2, 1], 4433).into()
    }

    fn path() -> PathMeasurement {
        PathMeasurement {
            rtt: Duration::from_micros(12_340),
            sent_packets: 100,
            lost_packets: 0,
            datagram_bytes: 1_452,
            is_mtu_known: true,
        }
    }

    fn answered() -> Answered {
        Answered {
            peer: "node/edge-1".into(),
            protocol: "dialback/1".into(),
            ends: SystemTime::now() + Duration::from_secs(30 * 86_400),
            path: path(),
            server_time: None,
        }
    }

    fn silent() -> LinkFault {
        LinkFault::NoAnswer { address: node() }
    }

    fn refused() -> LinkFault {
        LinkFault::Handshake {
            is_identity: true,
            is_not_valid_yet: false,
            reason: "unknown CA".into(),
            remedy: "compare ca.pem".into(),
        }
    }

    /// A node with an answer by UDP, and one in the tunnel if links may take tunnels.
    fn found(
        udp: Result<Answered, LinkFault>,
        tunnel: Option<Result<Option<Answered>, LinkFault>>,
    ) -> NodeFound {
        let source = Ok([192, 0, 2, 9].into());
        let address = AddressFound { to: to(), source, answer: Some(udp), interface_bytes: 1_452 };
        let found = |answer| TunnelFound { url: "wss://edge-1:443".into(), proxy: None, answer };
        NodeFound {
            node: node(),
            uses_udp: true,
            has_credentials: true,
            addresses: Ok(vec![address]),
            tunnel: tunnel.map(found),
        }
    }

    #[track_caller]
    fn state_of(found: &NodeFound, check: &str) -> CheckState {
        let checks = found.checks(SystemTime::now());
        let named = |one: &&Check| serde_json::json!(one)["check"] == check;
        checks.iter().find(named).unwrap_or_else(|| panic!("no {check} in {checks:?}")).state
    }

    #[test]
    fn silent_udp_is_a_warning_where_the_tunnel_carries_the_link_and_a_failure_elsewhere() {
        use CheckState::{Failure, Ok as Good, Skipped, Warning};
        for (udp, tunnel, expected) in [
            (Ok(answered()), Some(Ok(Some(answered()))), [Good, Good]),
            (Err(silent()), Some(Ok(Some(answered()))), [Warning, Good]),
            (Err(silent()), Some(Err(silent())), [Failure, Failure]),
            (Err(silent()), None, [Failure, Skipped]),
            (Ok(answered()), Some(Err(silent())), [Good, Warning]),
            (Err(refused()), Some(Ok(Some(answered()))), [Failure, Good]),
        ] {
            let found = found(udp, tunnel);
            assert_eq!([state_of(&found, "udp"), state_of(&found, "tunnel")], expected);
        }
    }

    #[test]
    fn an_address_without_a_route_is_a_warning_if_another_one_answers() {
        let no_route =
            || LinkFault::Unsendable { address: node(), reason: "no route; look".into() };
        let lost = AddressFound {
            to: "[2001:db8::1]:4433".parse().expect("an address"),
            source: Err(no_route()),
            answer: None,
            interface_bytes: 1_452,
        };
        let mut both = found(Ok(answered()), None);
        both.addresses.as_mut().expect("addresses").insert(0, lost);
        assert_eq!(state_of(&both, "route"), CheckState::Warning);
        both.addresses.as_mut().expect("addresses").pop();
        assert_eq!(state_of(&both, "route"), CheckState::Failure);
        assert_eq!(state_of(&both, "udp"), CheckState::Skipped);
    }

    #[test]
    fn a_name_that_only_the_proxy_resolves_is_a_warning() {
        let unresolved =
            || LinkFault::Unresolved { host: "edge-1".into(), reason: "unknown".into() };
        let mut found = found(Err(silent()), Some(Ok(Some(answered()))));
        found.addresses = Err(unresolved());
        assert_eq!(state_of(&found, "name"), CheckState::Warning);
        found.tunnel = None;
        assert_eq!(state_of(&found, "name"), CheckState::Failure);
    }

    #[test]
    fn a_fault_of_the_proxy_is_told_apart_from_one_of_the_tunnel() {
        let asks = TunnelFault::ProxyAuthentication {
            proxy: "proxy:3128".into(),
            has_sent: false,
            status: 407,
        };
        let mut found = found(Err(silent()), Some(Err(LinkFault::Tunnel(asks.into()))));
        found.tunnel.as_mut().expect("a tunnel").proxy = Some("proxy:3128".into());
        assert_eq!(state_of(&found, "proxy"), CheckState::Failure);
        assert_eq!(state_of(&found, "tunnel"), CheckState::Skipped);
        let gone = TunnelFault::NoNode { url: "wss://edge-1:443".into() };
        found.tunnel.as_mut().expect("a tunnel").answer = Err(LinkFault::Tunnel(gone.into()));
        assert_eq!(state_of(&found, "proxy"), CheckState::Ok);
        assert_eq!(state_of(&found, "tunnel"), CheckState::Failure);
    }

    #[test]
    fn loss_is_a_warning_from_five_percent_and_three_packets() {
        let of = |sent_packets, lost_packets| {
            round_trips(&to(), &PathMeasurement { sent_packets, lost_packets, ..path() }).state
        };
        assert_eq!(of(100, 4), CheckState::Ok);
        assert_eq!(of(100, 5), CheckState::Warning);
        assert_eq!(of(10, 2), CheckState::Ok);
    }

    #[test]
    fn a_path_that_loses_large_packets_silently_is_a_warning() {
        let of = |datagram_bytes, interface_bytes| {
            let path = PathMeasurement { datagram_bytes, ..path() };
            mtu(&to(), &path, interface_bytes).state
        };
        for (bytes, interface, expected) in [
            (1_452, 1_472, CheckState::Ok),
            (8_952, 8_952, CheckState::Ok),
            // Jumbo frames end at the first router.
            (1_452, 8_952, CheckState::Ok),
            (1_392, 1_392, CheckState::Ok),
            (1_392, 1_472, CheckState::Warning),
            (1_231, 1_231, CheckState::Warning),
            (1_232, 1_232, CheckState::Ok),
            (1_200, 1_472, CheckState::Warning),
        ] {
            assert_eq!(of(bytes, interface), expected, "{bytes} of {interface}");
        }
        let unknown = PathMeasurement { datagram_bytes: 1_200, is_mtu_known: false, ..path() };
        assert_eq!(mtu(&to(), &unknown, 1_472).state, CheckState::Ok);
    }
}
