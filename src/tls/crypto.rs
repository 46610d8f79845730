//! The cryptography of the TLS provider: signature algorithms, key exchange, randomness, the clock.

use rustls::{
    CipherSuite, NamedGroup, Tls13CipherSuite,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
};
use rustls_pki_types::UnixTime;
use std::{
    sync::{Arc, LazyLock},
    time::SystemTime,
};

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as cryptography;
#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("dialback needs the feature `aws-lc-rs` or `ring`");

/// The cryptography, named outright: nothing is taken from, or left in, the process-wide default.
pub(super) fn provider() -> Arc<CryptoProvider> {
    provider_with(true)
}

pub(super) fn unix_time(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Random bytes of the system. Panics if the system has no randomness: nothing would be safe.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

pub(crate) fn fill_random(bytes: &mut [u8]) {
    #[expect(clippy::expect_used, reason = "documented; TLS itself could not work either")]
    provider().secure_random.fill(bytes).expect("the system gives random bytes");
}

/// The cipher suite that every provider for QUIC has (RFC 9001 section 5.2), for its hash.
pub(super) fn sha256_suite() -> Option<&'static Tls13CipherSuite> {
    let suites = &provider().cipher_suites;
    let suite = suites.iter().find(|one| one.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    suite.and_then(|one| one.tls13())
}

pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// Shared by all configurations, because the accepting side makes one for each handshake.
pub(super) fn provider_with(post_quantum: bool) -> Arc<CryptoProvider> {
    static WITHOUT_AND_WITH: LazyLock<[Arc<CryptoProvider>; 2]> = LazyLock::new(|| {
        let [mut without, with] = [(); 2].map(|()| cryptography::default_provider());
        without.kx_groups.retain(|group| group.name() != NamedGroup::X25519MLKEM768);
        [without.into(), with.into()]
    });
    let [without, with] = &*WITHOUT_AND_WITH;
    if post_quantum { with.clone() } else { without.clone() }
}
