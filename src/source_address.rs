//! Groups of addresses that are counted together.

use std::net::{IpAddr, Ipv6Addr};

/// Addresses that are counted together: one IPv4 address, or a /64 of IPv6, which is the smallest
/// network of one site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SourceAddress(IpAddr);

impl SourceAddress {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 => v4,
        })
    }
}
