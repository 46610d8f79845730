//! HMAC-SHA256 of the TLS provider, for QUIC's stateless resets and the file of their key.

use super::crypto::sha256_suite;
use rustls::crypto::tls13::{Hkdf, OkmBlock};
use subtle::ConstantTimeEq as _;

/// A key. Wiped when dropped, by rustls; it has no `Debug` on purpose.
pub(crate) struct MacKey {
    key: OkmBlock,
    hmac: &'static dyn Hkdf,
}

impl MacKey {
    /// The block size of the hash: the longest key that is used unhashed.
    pub(crate) const KEY_BYTES: usize = 64;

    pub(crate) const TAG_BYTES: usize = 32;

    /// Takes a key. `None` if the provider has no SHA-256, which QUIC itself demands.
    pub(crate) fn new(key: &[u8; Self::KEY_BYTES]) -> Option<Self> {
        Some(Self { key: OkmBlock::new(key), hmac: sha256_suite()?.hkdf_provider })
    }

    pub(crate) fn sign(&self, text: &[u8]) -> [u8; Self::TAG_BYTES] {
        let tag = self.hmac.hmac_sign(&self.key, text);
        std::array::from_fn(|at| tag.as_ref().get(at).copied().unwrap_or_default())
    }

    /// True if a tag is that of the text, in a time that does not depend on where it differs.
    pub(crate) fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        self.sign(text).ct_eq(tag).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_matches_rfc_4231_and_differs_for_another_text() {
        // Test case 2 of the RFC; a short key is the same as one filled up with zeros.
        let mut bytes = [0; MacKey::KEY_BYTES];
        bytes[..4].copy_from_slice(b"Jefe");
        let key = MacKey::new(&bytes).expect("SHA-256");
        let tag = key.sign(b"what do ya want for nothing?");
        assert_eq!(tag[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        assert!(key.verify(b"what do ya want for nothing?", &tag));
        assert!(!key.verify(b"what do ya want for something?", &tag));
        assert!(!key.verify(b"what do ya want for nothing?", &tag[..31]));
    }
}
