//! First packets of strangers, made by hand: QUIC Initials that decrypt, and whose handshake never goes on (RFC 9000, section 17.2.2).

use crate::world::Dice;
use rustls::{
    CipherSuite, Side,
    quic::{Keys, Suite, Version},
};

/// What a datagram of a client that begins must be at least.
const DATAGRAM_BYTES: usize = 1_200;
const TAG_BYTES: usize = 16;
const NUMBER_BYTES: usize = 4;

/// Makes first packets, each for a connection of its own.
pub(crate) struct Strangers {
    suite: Suite,
    dice: Dice,
}

/// What such a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// The beginning of a ClientHello, the rest of which never comes.
    Stalls,
    /// What is no TLS.
    Babbles,
    /// A packet that was damaged: it does not decrypt.
    Damaged,
    /// No packet at all.
    Noise,
}

impl Strangers {
    /// Takes the suite from somebody's TLS.
    pub(crate) fn new(tls: &rustls::ClientConfig, seed: u64) -> Self {
        let suites = &tls.crypto_provider().cipher_suites;
        let suite = suites
            .iter()
            .find(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
            .and_then(|suite| suite.tls13())
            .and_then(|suite| suite.quic_suite());
        Self { suite: suite.expect("the suite of first packets"), dice: Dice::new(seed, 5) }
    }

    /// One more datagram.
    pub(crate) fn datagram(&mut self, what: Stranger) -> Vec<u8> {
        match what {
            Stranger::Stalls => {
                // ClientHello, 1,024 bytes long, of which these are the first.
                let mut hello = vec![1, 0, 4, 0];
                hello.extend_from_slice(&self.noise(300));
                self.initial(&hello)
            }
            Stranger::Babbles => {
                let babble = self.noise(200);
                self.initial(&babble)
            }
            Stranger::Damaged => {
                let mut packet = self.initial(&[1, 0, 4, 0]);
                packet[600] ^= 1;
                packet
            }
            Stranger::Noise => self.noise(DATAGRAM_BYTES),
        }
    }

    fn noise(&mut self, bytes: usize) -> Vec<u8> {
        let mut noise = Vec::with_capacity(bytes + 8);
        while noise.len() < bytes {
            noise.extend_from_slice(&self.dice.number().to_be_bytes());
        }
        noise.truncate(bytes);
        noise
    }

    /// An Initial with a CRYPTO frame, padded to the least size.
    fn initial(&mut self, crypto: &[u8]) -> Vec<u8> {
        let [to, from] = [self.noise(8), self.noise(8)];
        let mut packet = vec![0xc0 | (NUMBER_BYTES as u8 - 1), 0, 0, 0, 1];
        for id in [&to, &from] {
            packet.push(8);
            packet.extend_from_slice(id);
        }
        // No token; then the length of what follows, in two bytes.
        packet.push(0);
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
        let Keys { local, .. } = self.suite.keys(&to, Side::Client, Version::V1);
        let (header, payload) = packet.split_at_mut(header_bytes);
        let tag = local.packet.encrypt_in_place(0, header, payload).expect("sealed");
        packet.extend_from_slice(tag.as_ref());
        let (header, rest) = packet.split_at_mut(number_at + NUMBER_BYTES);
        let (first, number) = header.split_at_mut(1);
        let number = &mut number[number_at - 1..];
        local.header.encrypt_in_place(&rest[..16], &mut first[0], number).expect("hidden");
        packet
    }
}
