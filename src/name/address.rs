//! Addresses of nodes: host and port, as people write them.

use super::NameError;
use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

const HOST_BYTES_MAX: usize = 253;
const HOST_LABEL_BYTES_MAX: usize = 63;

/// Address of a node: a DNS name or an IP address, and a UDP port. Written `HOST` or `HOST:PORT`,
/// IPv6 as `[::1]:4433`. The host, in lower case, is the name that the node's certificate must
/// carry.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAddress {
    host: String,
    port: u16,
}

impl NodeAddress {
    /// The port of an address that names none.
    pub const PORT_DEFAULT: u16 = 4433;

    /// The port of an enroller's address that names none.
    pub const ENROLLER_PORT_DEFAULT: u16 = 4434;

    /// The DNS name or IP address; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The UDP port, never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Reads an address with this default port, for servers other than nodes.
    ///
    /// # Errors
    /// The text is not an address.
    pub fn parse_with_port(text: &str, port_default: u16) -> Result<Self, NameError> {
        Self::read(text, port_default).map_err(|why| NameError::new("address", text, why))
    }

    fn read(text: &str, port_default: u16) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Err("is a URL; write HOST or HOST:PORT");
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => read_bracketed(rest)?,
            None => read_plain(text)?,
        };
        Ok(Self { host, port: port.map_or(Ok(port_default), read_port)? })
    }
}

/// `::1]:4433`, the part after the bracket.
fn read_bracketed(rest: &str) -> Result<(String, Option<&str>), &'static str> {
    let (host, after) = rest.split_once(']').ok_or("has [ without ]")?;
    let host: Ipv6Addr = host.parse().map_err(|_| "has no IPv6 address between its brackets")?;
    if host.is_unicast_link_local() {
        return Err(
            "is link-local, which only says where together with an interface; write a routable address or a name",
        );
    }
    let port = match after {
        "" => None,
        _ => Some(after.strip_prefix(':').ok_or("has something other than :PORT after its ]")?),
    };
    Ok((host.to_string(), port))
}

fn read_plain(text: &str) -> Result<(String, Option<&str>), &'static str> {
    if text.bytes().filter(|byte| *byte == b':').count() > 1 {
        return Err("has several colons; write an IPv6 address in brackets, as [::1]:4433");
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    match host_fault(host) {
        Some(why) => Err(why),
        None => Ok((host.to_ascii_lowercase(), port)),
    }
}

fn host_fault(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("has no host; write HOST or HOST:PORT");
    }
    if host.len() > HOST_BYTES_MAX {
        return Some("has a host longer than 253 bytes");
    }
    if let Some(why) = host.split('.').find_map(host_label_fault) {
        return Some(why);
    }
    // No top-level domain is a number, so this was meant as an IPv4 address.
    let last = host.rsplit('.').next().unwrap_or(host);
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && host.parse::<Ipv4Addr>().is_err()).then_some("has a host that is no IPv4 address")
}

fn host_label_fault(label: &str) -> Option<&'static str> {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if label.is_empty() {
        Some("has an empty label in its host")
    } else if label.len() > HOST_LABEL_BYTES_MAX {
        Some("has a label longer than 63 bytes in its host")
    } else if !label.bytes().all(is_byte) {
        Some("has a character in its host that no host has; write HOST or HOST:PORT")
    } else if label.starts_with('-') || label.ends_with('-') {
        Some("has a label in its host that starts or ends with -")
    } else {
        None
    }
}

fn read_port(text: &str) -> Result<u16, &'static str> {
    const WHY: &str = "has a port that is no number from 1 to 65535";
    // `u16::from_str` would take a plus sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WHY);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(WHY)
}

impl FromStr for NodeAddress {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::read(text, Self::PORT_DEFAULT)
            .map_err(|why| NameError::new("node address", text, why))
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, host: &str, port: u16, shown: &str) {
        let address: NodeAddress = text.parse().expect("an address");
        assert_eq!((address.host(), address.port()), (host, port));
        assert_eq!(address.to_string(), shown);
        assert_eq!(shown.parse(), Ok(address));
    }

    #[test]
    fn hosts_and_ports_are_read_in_every_usual_form() {
        check("localhost", "localhost", 4433, "localhost:4433");
        check("edge-1.example.com:443", "edge-1.example.com", 443, "edge-1.example.com:443");
        check("Edge.Example.COM", "edge.example.com", 4433, "edge.example.com:4433");
        check("my_node:65535", "my_node", 65535, "my_node:65535");
        check("10.0.0.1:1", "10.0.0.1", 1, "10.0.0.1:1");
        check("[::1]", "::1", 4433, "[::1]:4433");
        check("[2001:DB8::1]:5000", "2001:db8::1", 5000, "[2001:db8::1]:5000");
    }

    #[test]
    fn a_text_that_is_not_an_address_is_refused() {
        for bad in [
            "",
            ":4433",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:b",
            "::1",
            "::1:4433",
            "[::1",
            "[::1]4433",
            "[::1]:",
            "[10.0.0.1]:1",
            "[fe80::1%eth0]:1",
            "[fe80::1]:1",
            "https://edge:4433",
            "a/b",
            "a b",
            "é",
            "a..b",
            "a.",
            "-a",
            "10.0.0.256",
            "1.2.3",
            &"a".repeat(64),
            &["a".repeat(63).as_str(); 4].join("."),
        ] {
            assert!(bad.parse::<NodeAddress>().is_err(), "{bad:?} was taken for an address");
        }
    }

    #[test]
    fn an_address_without_a_port_gets_the_given_default_port() {
        let port = |text| NodeAddress::parse_with_port(text, 4434).map(|address| address.port());
        assert_eq!(
            (port("ca.example.com"), port("[::1]"), port("a:1")),
            (Ok(4434), Ok(4434), Ok(1))
        );
        assert!(port("a:0").is_err());
    }

    #[test]
    fn a_bare_ipv6_address_is_refused_with_the_remedy() {
        let error = "::1".parse::<NodeAddress>().expect_err("no brackets");
        assert!(error.to_string().contains("[::1]:4433"), "{error}");
    }
}
