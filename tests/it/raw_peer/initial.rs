//! Hand-made first packets of unauthenticated clients: QUIC Initials that decrypt and whose
//! handshake never continues (RFC 9000, section 17.2.2).

use crate::world::Rng;
use rustls::{
    CipherSuite, Side,
    quic::{Keys, Suite, Version},
};

/// The minimum size of a datagram with a client's Initial.
const DATAGRAM_BYTES: usize = 1_200;
const TAG_BYTES: usize = 16;
const NUMBER_BYTES: usize = 4;

/// Builds first packets, each for a new connection.
pub(crate) struct InitialFactory {
    suite: Suite,
    rng: Rng,
}

/// The content of such a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitialKind {
    /// The beginning of a ClientHello, the rest of which never arrives.
    StalledHello,
    /// Not TLS.
    NotTls,
    /// A damaged packet: it does not decrypt.
    Damaged,
    /// Not a packet at all.
    RandomBytes,
}

impl InitialFactory {
    /// Takes the cipher suite from a TLS configuration.
    pub(crate) fn new(tls: &rustls::ClientConfig, seed: u64) -> Self {
        let suites = &tls.crypto_provider().cipher_suites;
        let suite = suites
            .iter()
            .find(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
            .and_then(|suite| suite.tls13())
            .and_then(|suite| suite.quic_suite());
        Self { suite: suite.expect("the suite of first packets"), rng: Rng::new(seed, 5) }
    }

    /// One more datagram.
    pub(crate) fn datagram(&mut self, what: InitialKind) -> Vec<u8> {
        match what {
            InitialKind::StalledHello => {
                // The first bytes of a ClientHello with a length of 1,024.
                let mut hello = vec![1, 0, 4, 0];
                hello.extend_from_slice(&self.random_bytes(300));
                self.initial(&hello)
            }
            InitialKind::NotTls => {
                let garbage = self.random_bytes(200);
                self.initial(&garbage)
            }
            InitialKind::Damaged => {
                let mut packet = self.initial(&[1, 0, 4, 0]);
                packet[600] ^= 1;
                packet
            }
            InitialKind::RandomBytes => self.random_bytes(DATAGRAM_BYTES),
        }
    }

    fn random_bytes(&mut self, bytes: usize) -> Vec<u8> {
        let mut random_bytes = Vec::with_capacity(bytes + 8);
        while random_bytes.len() < bytes {
            random_bytes.extend_from_slice(&self.rng.number().to_be_bytes());
        }
        random_bytes.truncate(bytes);
        random_bytes
    }

    fn initial(&mut self, crypto: &[u8]) -> Vec<u8> {
        let [to, from] = [self.random_bytes(8), self.random_bytes(8)];
        self.initial_of(&to, &from, &[], crypto)
    }

    /// A stalled handshake with the connection id `from` of its sender; with the token of a Retry,
    /// from a validated address.
    pub(crate) fn stalled(&mut self, from: [u8; 8], retry: Option<&LongHeader>) -> Vec<u8> {
        let to = retry.map_or_else(|| self.random_bytes(8), |retry| retry.from.clone());
        let token = retry.map_or(&[][..], |retry| &retry.token);
        self.initial_of(&to, &from, token, &[1, 0, 4, 0])
    }

    /// An Initial with a CRYPTO frame, padded to the minimum size.
    fn initial_of(&self, to: &[u8], from: &[u8], token: &[u8], crypto: &[u8]) -> Vec<u8> {
        let mut packet = vec![0xc0 | (NUMBER_BYTES as u8 - 1), 0, 0, 0, 1];
        for id in [to, from] {
            packet.push(u8::try_from(id.len()).expect("a short id"));
            packet.extend_from_slice(id);
        }
        packet.extend_from_slice(&(0x4000 | token.len() as u16).to_be_bytes());
        packet.extend_from_slice(token);
        // The length of the rest, in two bytes.
        let rest = DATAGRAM_BYTES - packet.len() - 2;
        packet.extend_from_slice(&(0x4000 | rest as u16).to_be_bytes());
        let number_at = packet.len();
        packet.extend_from_slice(&[0; NUMBER_BYTES]);
        let header_bytes = packet.len();
        // CRYPTO at offset 0, and PADDING.
        packet.extend_from_slice(&[0x06, 0]);
        packet.extend_from_slice(&(0x4000 | crypto.len() as u16).to_be_bytes());
        packet.extend_from_slice(crypto);
        packet.resize(DATAGRAM_BYTES - TAG_BYTES, 0);
        let Keys { local, .. } = self.suite.keys(to, Side::Client, Version::V1);
        let (header, payload) = packet.split_at_mut(header_bytes);
        let tag = local.packet.encrypt_in_place(0, header, payload).expect("sealed");
        packet.extend_from_slice(tag.as_ref());
        let (header, rest) = packet.split_at_mut(header_bytes);
        let (first, number) = header.split_at_mut(1);
        let number = &mut number[number_at - 1..];
        local.header.encrypt_in_place(&rest[..16], &mut first[0], number).expect("hidden");
        packet
    }
}

/// The fields of a long header that can be read without keys.
pub(crate) struct LongHeader {
    /// It is a Retry, not the beginning of a handshake.
    pub(crate) is_retry: bool,
    /// The destination connection id, which is ours.
    pub(crate) to: Vec<u8>,
    /// The node's connection id.
    from: Vec<u8>,
    /// The token of a Retry, which validates our address.
    token: Vec<u8>,
}

impl LongHeader {
    /// Reads a packet with a long header; short headers belong to established connections.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let (first, rest) = packet.split_first()?;
        let (to, rest) = id(rest.get(4..)?)?;
        let (from, rest) = id(rest)?;
        let is_retry = first & 0xf0 == 0xf0;
        let token = if is_retry { &rest[..rest.len().checked_sub(TAG_BYTES)?] } else { &[] };
        let [to, from, token] = [to, from, token].map(<[u8]>::to_vec);
        (first & 0x80 != 0).then_some(Self { is_retry, to, from, token })
    }
}

/// A connection id with its length before it, and the rest.
fn id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}
