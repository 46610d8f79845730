//! Blocks of neighbouring addresses, and counters per block.
//!
//! One machine often has a whole /64 of IPv6, a home a /56 and a company a /48; a rented range of
//! IPv4 is a /24. Each wider block may have more than the one inside it and less than the total, so
//! that many addresses in one block do not multiply its share.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Width of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Width {
    /// One host: an IPv4 address, or a /64 of IPv6.
    Host,
    /// One site of IPv6: a /56. IPv4 has no such block.
    Site,
    /// One network: a /24 of IPv4 or a /48 of IPv6.
    Network,
}

impl Width {
    /// Bits of the prefix, of IPv4 and of IPv6.
    const fn bits(self) -> (Option<u32>, u32) {
        match self {
            Self::Host => (Some(32), 64),
            Self::Site => (None, 56),
            Self::Network => (Some(24), 48),
        }
    }
}

/// A block of addresses with a common prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Prefix {
    first: IpAddr,
    width: Width,
}

impl Prefix {
    /// Blocks that contain an address, the narrowest first. IPv4-mapped IPv6 counts as IPv4.
    pub(crate) fn all_of(address: IpAddr) -> impl Iterator<Item = Self> {
        [Width::Host, Width::Site, Width::Network]
            .into_iter()
            .filter_map(move |width| Self::of(address, width))
    }

    /// The block of this width that contains an address.
    pub(crate) fn of(address: IpAddr, width: Width) -> Option<Self> {
        let (v4_bits, v6_bits) = width.bits();
        let first = match address.to_canonical() {
            IpAddr::V4(v4) => {
                Ipv4Addr::from_bits(v4.to_bits() & (u32::MAX << (32 - v4_bits?))).into()
            }
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - v6_bits))).into()
            }
        };
        Some(Self { first, width })
    }

    /// The host of an address, for counts of what one source causes.
    pub(crate) fn host(address: IpAddr) -> Self {
        // Every address has one.
        Self::of(address, Width::Host).unwrap_or(Self { first: address, width: Width::Host })
    }

    pub(crate) const fn width(&self) -> Width {
        self.width
    }

    /// True if the block contains an address.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        Self::of(address, self.width) == Some(*self)
    }
}

/// Written as `192.0.2.0/24`; a single IPv4 address without its length.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = match self.first {
            IpAddr::V4(_) => self.width.bits().0.filter(|bits| *bits < 32),
            IpAddr::V6(_) => Some(self.width.bits().1),
        };
        match bits {
            Some(bits) => write!(f, "{}/{bits}", self.first),
            None => write!(f, "{}", self.first),
        }
    }
}

/// Limits of a block by its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixLimits {
    pub(crate) host: usize,
    pub(crate) site: usize,
    pub(crate) network: usize,
}

impl PrefixLimits {
    pub(crate) const fn of(&self, width: Width) -> usize {
        match width {
            Width::Host => self.host,
            Width::Site => self.site,
            Width::Network => self.network,
        }
    }
}

/// Counters of blocks. A block at zero takes no memory.
#[derive(Debug)]
pub(crate) struct PrefixCounts {
    limits: PrefixLimits,
    held: HashMap<Prefix, usize>,
}

impl PrefixCounts {
    pub(crate) fn new(limits: PrefixLimits) -> Self {
        Self { limits, held: HashMap::new() }
    }

    /// The narrowest block of this address that is at its limit.
    pub(crate) fn full(&self, address: IpAddr) -> Option<Prefix> {
        Prefix::all_of(address).find(|prefix| self.is_full(*prefix))
    }

    /// True if a block is at its limit.
    pub(crate) fn is_full(&self, prefix: Prefix) -> bool {
        self.count(prefix) >= self.limits.of(prefix.width())
    }

    pub(crate) fn count(&self, prefix: Prefix) -> usize {
        self.held.get(&prefix).copied().unwrap_or(0)
    }

    /// Adds one to each block of this address, or to none if one is full: returns the narrowest.
    pub(crate) fn add(&mut self, address: IpAddr) -> Result<(), Prefix> {
        if let Some(full) = self.full(address) {
            return Err(full);
        }
        for prefix in Prefix::all_of(address) {
            *self.held.entry(prefix).or_default() += 1;
        }
        Ok(())
    }

    /// Subtracts one that was added for this address.
    pub(crate) fn remove(&mut self, address: IpAddr) {
        for prefix in Prefix::all_of(address) {
            if let Some(count) = self.held.get_mut(&prefix) {
                *count -= 1;
                if *count == 0 {
                    self.held.remove(&prefix);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PrefixLimits = PrefixLimits { host: 2, site: 3, network: 5 };

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[track_caller]
    fn check(address: &str, blocks: &[&str]) {
        let all: Vec<_> = Prefix::all_of(ip(address)).map(|prefix| prefix.to_string()).collect();
        assert_eq!(all, blocks, "{address}");
    }

    #[test]
    fn an_address_lies_in_two_blocks_of_ipv4_or_three_of_ipv6() {
        check("192.0.2.77", &["192.0.2.77", "192.0.2.0/24"]);
        check("::ffff:192.0.2.77", &["192.0.2.77", "192.0.2.0/24"]);
        check("255.255.255.255", &["255.255.255.255", "255.255.255.0/24"]);
        check(
            "2001:db8:1:23ff:a:b:c:d",
            &["2001:db8:1:23ff::/64", "2001:db8:1:2300::/56", "2001:db8:1::/48"],
        );
        check("::1", &["::/64", "::/56", "::/48"]);
    }

    #[test]
    fn a_block_contains_its_own_addresses_and_not_the_next_ones() {
        let block = |text: &str, width| Prefix::of(ip(text), width).expect("a block");
        for (prefix, inside, outside) in [
            (block("192.0.2.1", Width::Host), "::ffff:192.0.2.1", "192.0.2.2"),
            (block("192.0.2.1", Width::Network), "192.0.2.255", "192.0.3.0"),
            (block("2001:db8::1", Width::Host), "2001:db8::ffff:1", "2001:db8:0:1::"),
            (block("2001:db8::1", Width::Site), "2001:db8:0:ff::", "2001:db8:0:100::"),
            (block("2001:db8::1", Width::Network), "2001:db8:0:ffff::", "2001:db8:1::"),
        ] {
            assert!(prefix.contains(ip(inside)), "{prefix} lacks {inside}");
            assert!(!prefix.contains(ip(outside)), "{prefix} holds {outside}");
        }
        assert!(!block("0.0.0.1", Width::Network).contains(ip("::1")));
        assert_eq!(Prefix::of(ip("192.0.2.1"), Width::Site), None);
    }

    #[test]
    fn each_wider_block_holds_more_and_is_full_at_its_own_limit() {
        let mut counts = PrefixCounts::new(LIMITS);
        let full = |counts: &mut PrefixCounts, address: &str| {
            counts.add(ip(address)).err().map(|prefix| prefix.to_string())
        };
        for (address, expected) in [
            ("2001:db8::1", None),
            ("2001:db8::2", None),
            ("2001:db8::3", Some("2001:db8::/64")),
            ("2001:db8:0:1::1", None),
            ("2001:db8:0:2::1", Some("2001:db8::/56")),
            ("2001:db8:0:100::1", None),
            ("2001:db8:0:200::1", None),
            ("2001:db8:0:300::1", Some("2001:db8::/48")),
            ("2001:db8:1::1", None),
            ("192.0.2.1", None),
            ("::ffff:192.0.2.1", None),
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.2", None),
            ("192.0.2.3", None),
            ("192.0.2.4", None),
            ("192.0.2.5", Some("192.0.2.0/24")),
            ("192.0.3.5", None),
        ] {
            assert_eq!(full(&mut counts, address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn removal_makes_room_in_all_blocks_and_frees_memory() {
        let mut counts = PrefixCounts::new(PrefixLimits { host: 1, site: 1, network: 1 });
        let (one, other) = (ip("2001:db8::1"), ip("2001:db8:0:ffff::1"));
        assert_eq!(counts.add(one), Ok(()));
        assert!(counts.add(other).is_err());
        counts.remove(one);
        assert!(counts.is_empty());
        assert_eq!(counts.add(other), Ok(()));
        assert_eq!(counts.full(one), Prefix::of(one, Width::Network));
        counts.remove(other);
        // Removing an address that was never added changes nothing.
        counts.remove(ip("192.0.2.1"));
        assert!(counts.is_empty());
    }
}
