//! Contents of a leaf: the URI name of a peer, hosts for nodes, dates and usages.

use super::{
    CertsError,
    params::{BACKDATED, moment, named, uri},
};
use crate::{
    name::{PeerName, Role},
    tls,
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls_pki_types::DnsName;
use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// Extended key usage of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// By the side that dials.
    ClientAuth,
    /// By the side that accepts.
    ServerAuth,
}

/// Everything that a CA writes into a leaf, unchecked. [`LeafProfile::new`] gives what a peer of
/// its role should have; tests of refusals change the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProfile {
    /// For people; nothing is decided by it.
    pub common_name: String,
    /// The URI names. A peer has exactly one.
    pub uris: Vec<String>,
    /// Host names and IP addresses. Nodes have them.
    pub hosts: Vec<String>,
    /// The extended key usages.
    pub usages: Vec<Usage>,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

const fn purpose(usage: &Usage) -> ExtendedKeyUsagePurpose {
    match usage {
        Usage::ClientAuth => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::ServerAuth => ExtendedKeyUsagePurpose::ServerAuth,
    }
}

impl LeafProfile {
    /// A good leaf of a peer: holds from an hour ago for 90 days, and for a node bears its hosts.
    pub fn new(trust_domain: &str, peer: &PeerName, hosts: &[&str], now: SystemTime) -> Self {
        let usages = match peer.role {
            Role::Node => vec![Usage::ServerAuth, Usage::ClientAuth],
            Role::Agent | Role::Caller => vec![Usage::ClientAuth],
        };
        Self {
            common_name: format!("dialback {} {}", peer.role, peer.name),
            uris: vec![tls::spiffe_uri(trust_domain, peer)],
            hosts: hosts.iter().map(ToString::to_string).collect(),
            usages,
            not_before: now - BACKDATED,
            not_after: now + 90 * DAY,
        }
    }

    pub(super) fn params(&self) -> Result<CertificateParams, CertsError> {
        let mut params = named(&self.common_name);
        params.subject_alt_names = self.names()?;
        params.not_before = moment(self.not_before)?;
        params.not_after = moment(self.not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.usages.iter().map(purpose).collect();
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn names(&self) -> Result<Vec<SanType>, CertsError> {
        let uris = self.uris.iter().map(|text| uri(text));
        uris.chain(self.hosts.iter().map(|text| Host::parse(text)?.san())).collect()
    }
}

/// A host as in a certificate: an address, or a name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Host {
    Address(IpAddr),
    Name(String),
}

impl Host {
    pub(super) fn parse(text: &str) -> Result<Self, CertsError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let name = text.to_ascii_lowercase();
        match DnsName::try_from(name.as_str()) {
            Ok(_) => Ok(Self::Name(name)),
            Err(_) => Err(CertsError::BadSan { text: text.chars().take(300).collect() }),
        }
    }

    fn san(&self) -> Result<SanType, CertsError> {
        Ok(match self {
            Self::Address(address) => SanType::IpAddress(*address),
            Self::Name(name) => SanType::DnsName(Ia5String::try_from(name.as_str())?),
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A leaf that was signed for a key that is elsewhere.
#[derive(Debug, Clone)]
pub struct CertPem {
    /// The certificate.
    pub cert: String,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
}

/// A signed leaf and its key, both PEM. `Debug` shows no key.
#[derive(Clone)]
pub struct LeafPem {
    /// The certificate.
    pub cert: String,
    /// The private key, wiped when dropped.
    pub key: Zeroizing<String>,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
}

impl fmt::Debug for LeafPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cert: _, key: _, serial } = self;
        f.debug_struct("LeafPem").field("serial", serial).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{certs::Ca, tls::CertificateInfo};

    fn info_of(peer: &str, hosts: &[&str]) -> CertificateInfo {
        let now = SystemTime::now();
        let ca = Ca::generate("d.example", now).expect("made");
        let peer = peer.parse().expect("a peer");
        let leaf = ca.leaf(&LeafProfile::new("d.example", &peer, hosts, now)).expect("signed");
        let info = CertificateInfo::all_from_pem(leaf.cert.as_bytes()).expect("read").remove(0);
        assert!(ca.is_issuer_of(&info));
        assert_eq!(info.serial, leaf.serial);
        info
    }

    #[test]
    fn a_node_may_accept_and_dial_under_its_hosts() {
        let info = info_of("node/edge-1", &["Edge.example.com", "127.0.0.1", "::1"]);
        assert_eq!(info.uri_sans, ["spiffe://d.example/node/edge-1"]);
        assert_eq!(info.dns_sans, ["edge.example.com"]);
        assert_eq!(info.ip_sans.len(), 2);
        assert_eq!(info.extended_key_usages, ["server authentication", "client authentication"]);
        assert_eq!((info.is_ca, info.key_usages.join(",")), (false, "Digital Signature".into()));
    }

    #[test]
    fn an_agent_may_only_dial() {
        let info = info_of("agent/warehouse", &[]);
        assert_eq!(info.uri_sans, ["spiffe://d.example/agent/warehouse"]);
        assert_eq!(info.extended_key_usages, ["client authentication"]);
        assert_eq!(info.subject, "CN=dialback agent warehouse");
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_more() {
        for good in ["localhost", "edge-1.example.com", "10.0.0.1", "fe80::1"] {
            assert!(Host::parse(good).is_ok(), "{good} was refused");
        }
        for bad in [
            "",
            "host:4433",
            "[::1]",
            "*.example.com",
            "a b",
            "https://a",
            "10.0.0.1:1",
            "é.example",
        ] {
            assert!(Host::parse(bad).is_err(), "{bad:?} was taken for a host");
        }
    }
}
