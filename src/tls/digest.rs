//! SHA-256 of the TLS provider, for fingerprints and for secrets of which only the hash is kept.

use super::crypto::sha256_suite;
use subtle::ConstantTimeEq as _;

pub(crate) const DIGEST_BYTES: usize = 32;

/// SHA-256. Panics if the provider has none, in which case QUIC could not work either.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    #[expect(clippy::expect_used, reason = "documented; QUIC could not work either")]
    let digest = sha256_suite().expect("a provider for QUIC").common.hash_provider.hash(bytes);
    std::array::from_fn(|at| digest.as_ref().get(at).copied().unwrap_or_default())
}

/// True if two digests are the same, in a time that does not depend on where they differ.
pub(crate) fn is_same(one: &[u8; DIGEST_BYTES], other: &[u8; DIGEST_BYTES]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_matches_fips_180() {
        let digest = sha256(b"abc");
        assert_eq!(digest[..8], [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
        let mut other = digest;
        assert!(is_same(&digest, &other));
        other[31] ^= 1;
        assert!(!is_same(&digest, &other));
    }
}
