//! A peer on bare quinn that speaks the protocol by `docs/protocol.md`, also incorrectly. It shares
//! no code with the library except TLS.

mod cbor;
mod initial;
mod link;

pub(crate) use cbor::Cbor;
pub(crate) use initial::{InitialFactory, InitialKind, LongHeader};
pub(crate) use link::{RawLink, RawListener, RawStream, Settings, StreamEnd, soon};

use dialback::{
    CredentialPem, Credentials, PeerName, Role,
    certs::{Ca, LeafProfile},
};
use std::time::SystemTime;

/// One CA that issues certificates to peers.
pub(crate) struct Issuer(Ca);

impl Issuer {
    pub(crate) fn new() -> Self {
        Self(Ca::generate("dialback.local", SystemTime::now()).expect("a CA"))
    }

    pub(crate) fn ca_pem(&self) -> &str {
        self.0.pem()
    }

    /// For example `agent/warehouse`; a node's certificate is valid for this machine.
    pub(crate) fn credentials(&self, peer: &str) -> Credentials {
        let peer: PeerName = peer.parse().expect("a peer name");
        let hosts: &[&str] =
            if peer.role == Role::Node { &["localhost", "127.0.0.1"] } else { &[] };
        let profile = LeafProfile::new(self.0.trust_domain(), &peer, hosts, SystemTime::now());
        let leaf = self.0.leaf(&profile).expect("a leaf");
        Credentials::from_pem(&CredentialPem {
            cert: leaf.cert.as_bytes(),
            key: leaf.key.as_bytes(),
            ca: self.0.pem().as_bytes(),
            ..CredentialPem::default()
        })
        .expect("credentials")
    }
}

/// Kinds of frames, numbered as in the manual.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const WELCOME: u8 = 0x02;
    pub(crate) const REGISTER: u8 = 0x03;
    pub(crate) const REGISTERED: u8 = 0x04;
    pub(crate) const VIEW: u8 = 0x05;
    pub(crate) const DRAIN: u8 = 0x06;
    pub(crate) const PING: u8 = 0x07;
    pub(crate) const PONG: u8 = 0x08;
    pub(crate) const GOODBYE: u8 = 0x09;
    pub(crate) const HEAD: u8 = 0x10;
    pub(crate) const MESSAGE: u8 = 0x11;
    pub(crate) const END: u8 = 0x12;
    pub(crate) const STATUS: u8 = 0x13;
}

/// The header of a frame that claims this many bytes, with the longest encoding of the length.
pub(crate) fn header(kind: u8, claims: u64) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(0xc000_0000_0000_0000 | claims).to_be_bytes());
    out
}

/// A frame with its length in four bytes, an encoding that the library never writes for short ones.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    let mut out = vec![kind];
    out.extend_from_slice(&(0x8000_0000 | length).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// The head of a request, key by key, so that each can be made invalid.
#[derive(Clone)]
pub(crate) struct Head(Vec<(Cbor, Cbor)>);

impl Head {
    /// A valid one, for the side that accepts the stream.
    pub(crate) fn here(method: &str) -> Self {
        Self(vec![
            (Cbor::Uint(0), Cbor::text(method)),
            (Cbor::Uint(3), Cbor::Uint(0)),
            (Cbor::Uint(4), Cbor::Uint(20_000)),
            (Cbor::Uint(5), Cbor::Bytes(vec![7; 16])),
        ])
    }

    /// A valid one, for an agent behind the node.
    pub(crate) fn agent(method: &str, agent: &str) -> Self {
        Self::here(method).with(1, Cbor::Uint(1)).with(2, Cbor::text(agent))
    }

    /// Sets a key, replacing its value.
    pub(crate) fn with(self, key: u64, value: Cbor) -> Self {
        let mut head = self.without(key);
        head.0.push((Cbor::Uint(key), value));
        head
    }

    pub(crate) fn without(mut self, key: u64) -> Self {
        self.0.retain(|(have, _)| *have != Cbor::Uint(key));
        self
    }

    /// Adds an entry, even if the key exists.
    pub(crate) fn and(mut self, key: Cbor, value: Cbor) -> Self {
        self.0.push((key, value));
        self
    }

    /// The values alone.
    pub(crate) fn as_array(&self) -> Vec<u8> {
        Cbor::Array(self.0.iter().map(|(_, value)| value.clone()).collect()).encode()
    }

    pub(crate) fn payload(&self) -> Vec<u8> {
        Cbor::Map(self.0.clone()).encode()
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        frame(kind::HEAD, &self.payload())
    }
}

/// HELLO of a peer that speaks these versions and answers this many concurrent calls.
pub(crate) fn hello(versions: [u64; 2], calls: u64) -> Vec<u8> {
    hello_of([9; 16], versions, calls)
}

pub(crate) fn hello_of(instance: [u8; 16], [min, max]: [u64; 2], calls: u64) -> Vec<u8> {
    frame(
        kind::HELLO,
        &Cbor::map([
            (0, Cbor::Uint(min)),
            (1, Cbor::Uint(max)),
            (3, Cbor::Bytes(instance.to_vec())),
            (5, Cbor::Uint(calls)),
        ])
        .encode(),
    )
}

/// WELCOME in this version.
pub(crate) fn welcome(version: u64) -> Vec<u8> {
    frame(
        kind::WELCOME,
        &Cbor::map([
            (0, Cbor::Uint(version)),
            (1, Cbor::text("raw")),
            (2, Cbor::Uint(1)),
            (3, Cbor::Uint(16)),
            (4, Cbor::Uint(4 << 20)),
        ])
        .encode(),
    )
}

/// REGISTER of services, each with these unary methods.
pub(crate) fn register(generation: u64, services: &[(&str, &[&str])]) -> Vec<u8> {
    let method = |name: &&str| Cbor::map([(0, Cbor::text(name)), (1, Cbor::Uint(0))]);
    let service = |(name, methods): &(&str, &[&str])| {
        let methods = Cbor::Array(methods.iter().map(method).collect());
        Cbor::map([(0, Cbor::text(name)), (1, methods)])
    };
    let services = Cbor::Array(services.iter().map(service).collect());
    frame(kind::REGISTER, &Cbor::map([(0, Cbor::Uint(generation)), (1, services)]).encode())
}

pub(crate) fn registered(generation: u64) -> Vec<u8> {
    frame(kind::REGISTERED, &Cbor::map([(0, Cbor::Uint(generation))]).encode())
}

pub(crate) fn ping(number: u64) -> Vec<u8> {
    frame(kind::PING, &Cbor::map([(0, Cbor::Uint(number))]).encode())
}

/// DRAIN: streams up to this one were accepted.
pub(crate) fn drain(last_stream: u64) -> Vec<u8> {
    let fields =
        [(0, Cbor::text("raw drains")), (1, Cbor::Uint(5_000)), (2, Cbor::Uint(last_stream))];
    frame(kind::DRAIN, &Cbor::map(fields).encode())
}

/// GOODBYE with a link code.
pub(crate) fn goodbye(code: u64) -> Vec<u8> {
    let fields = [(0, Cbor::Uint(code)), (1, Cbor::text("raw has finished"))];
    frame(kind::GOODBYE, &Cbor::map(fields).encode())
}

/// MESSAGE with a text.
pub(crate) fn message(text: &str) -> Vec<u8> {
    frame(kind::MESSAGE, &Cbor::text(text).encode())
}

pub(crate) fn end() -> Vec<u8> {
    frame(kind::END, &[])
}

/// STATUS with code and outcome.
pub(crate) fn status(code: u64, outcome: u64) -> Vec<u8> {
    frame(kind::STATUS, &Cbor::map([(0, Cbor::Uint(code)), (1, Cbor::Uint(outcome))]).encode())
}
