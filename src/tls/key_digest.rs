//! A digest of a public key that does not depend on the key's encoding, to recognise it again.

use super::{digest::sha256, hex::hex};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

/// SHA-256 in lower-case hexadecimal of the key in a DER SubjectPublicKeyInfo, without the
/// algorithm's parameters, whose encoding varies. `None`: it cannot be parsed.
pub(crate) fn key_digest(public_key_der: &[u8]) -> Option<String> {
    let (rest, parsed) = SubjectPublicKeyInfo::from_der(public_key_der).ok()?;
    rest.is_empty().then(|| hex(&sha256(of_point(&parsed.subject_public_key.data))))
}

/// The x coordinate of an elliptic curve point (SEC 1 section 2.3.3), compressed or not; other keys
/// as they are. Two points share an x coordinate, and both are keys of the holder of either.
fn of_point(key: &[u8]) -> &[u8] {
    match key {
        [4, x_and_y @ ..] if x_and_y.len() % 2 == 0 => &x_and_y[..x_and_y.len() / 2],
        // An Ed25519 key has 32 bytes and an RSA key starts with 0x30: neither is a point.
        [2 | 3, x @ ..] if x.len() % 2 == 0 => x,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SubjectPublicKeyInfo of P-256.
    fn p256(key: &[u8]) -> Vec<u8> {
        let algorithm = [
            0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
            0x3d, 3, 1, 7,
        ];
        let len = |content: usize| u8::try_from(content).expect("short");
        let mut der = vec![0x30, len(algorithm.len() + 3 + key.len())];
        der.extend(algorithm);
        der.extend([3, len(key.len() + 1), 0]);
        der.extend(key);
        der
    }

    #[test]
    fn a_key_has_one_digest_in_every_encoding_and_another_key_has_another() {
        let (x, y) = ([7; 32], [9; 32]);
        let point = [&[4][..], &x, &y].concat();
        let digest = key_digest(&p256(&point)).expect("a digest");
        for mark in [2, 3] {
            let compressed = [&[mark][..], &x].concat();
            assert_eq!(key_digest(&p256(&compressed)).as_ref(), Some(&digest));
        }
        let other = [&[4][..], &[8; 32], &y].concat();
        assert_ne!(key_digest(&p256(&other)).expect("a digest"), digest);
        assert_eq!((digest.len(), key_digest(b"\x30\x00"), key_digest(b"")), (64, None, None));
    }
}
