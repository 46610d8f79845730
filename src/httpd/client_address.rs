//! Client address of a request behind trusted proxies.

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use std::{fmt, net::IpAddr, str::FromStr};

/// Range of addresses with a common prefix, as `10.0.0.0/8`, `fd00::/8` or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    address: IpAddr,
    bits: u8,
}

/// Error of a text that is not an [`IpRange`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not an address or a range of addresses; write it as 10.0.0.0/8, fd00::/8 or 192.0.2.1"
)]
pub struct IpRangeError {
    text: String,
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        let fault = || IpRangeError { text: text.chars().take(80).collect() };
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &&str| !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits = match bits {
            Some(bits) => Some(bits).filter(is_number).and_then(|bits| bits.parse().ok()),
            None => Some(most),
        };
        let bits = bits.filter(|bits| *bits <= most).ok_or_else(fault)?;
        Ok(Self { address, bits })
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl IpRange {
    /// True if the range contains an address. IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let skip = |all: u32| all - u32::from(self.bits).min(all);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(skip(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).checked_shr(skip(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Client address: that of the connection or, behind a trusted proxy, the last one in
/// `X-Forwarded-For` that is not a trusted proxy. Earlier entries were written by the client.
pub(crate) fn client_address(headers: &HeaderMap, from: IpAddr, proxies: &[IpRange]) -> IpAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|range| range.contains(address));
    if !is_proxy(from) {
        return from;
    }
    // As bytes: invalid text from a client must not hide the entry of a proxy.
    let values = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let all: Vec<&[u8]> = values.flat_map(|value| value.split(|byte| *byte == b',')).collect();
    let mut nearest = from;
    for text in all.iter().rev() {
        match std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<IpAddr>().ok()) {
            Some(address) if is_proxy(address) => nearest = address.to_canonical(),
            Some(address) => return address.to_canonical(),
            None => return nearest,
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn range(text: &str) -> IpRange {
        text.parse().expect("a range")
    }

    #[test]
    fn a_range_contains_the_addresses_with_its_prefix_only() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.4/30", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::1", "::1", "::2"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            assert!(range(text).contains(ip(inside)), "{text} lacks {inside}");
            assert!(!range(text).contains(ip(outside)), "{text} holds {outside}");
        }
        for bad in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/+8", "10.0/8", "all"]
        {
            assert!(bad.parse::<IpRange>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_sets_the_client_address() {
        let proxies = [range("10.0.0.0/8")];
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("203.0.113.1, 198.51.100.7"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("10.0.0.2"));
        assert_eq!(client_address(&headers, ip("10.0.0.1"), &proxies), ip("198.51.100.7"));
        assert_eq!(client_address(&headers, ip("192.0.2.1"), &proxies), ip("192.0.2.1"));
        assert_eq!(client_address(&HeaderMap::new(), ip("10.0.0.1"), &proxies), ip("10.0.0.1"));
        let hidden = HeaderValue::from_bytes(b"\xff, 192.0.2.9, 10.0.0.3").expect("a value");
        headers.append(FORWARDED_FOR, hidden);
        assert_eq!(client_address(&headers, ip("10.0.0.1"), &proxies), ip("192.0.2.9"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("what"));
        assert_eq!(client_address(&headers, ip("10.0.0.1"), &proxies), ip("10.0.0.1"));
    }

    #[test]
    fn an_ipv4_address_mapped_to_ipv6_is_an_ipv4_client_address() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("::ffff:198.51.100.7"));
        let proxies = [range("10.0.0.0/8")];
        assert_eq!(client_address(&headers, ip("10.0.0.1"), &proxies), ip("198.51.100.7"));
    }
}
