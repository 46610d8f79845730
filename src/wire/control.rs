//! Frames of the control stream: hello, welcome, registration, heartbeat, drain and goodbye.

use super::{
    CallKind, WireError,
    cbor::{decode_fields, is_default, or_absent},
    frame::{Kind, push_map},
};
use crate::limits::CONTROL_ITEMS_MAX;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// 0: the oldest protocol version it speaks.
    pub(crate) protocol_min: u16,
    /// 1: the newest.
    pub(crate) protocol_max: u16,
    /// 2: names of optional features.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "Vec::is_empty")]
    pub(crate) features: Vec<String>,
    /// 3: random, one run of a process.
    pub(crate) instance: ByteArray<16>,
    /// 4: for people: `dialback 0.1.0`.
    #[serde(default, deserialize_with = "or_absent")]
    pub(crate) software: String,
    /// 5: calls that the dialling side answers at once on this link.
    #[serde(default, deserialize_with = "or_absent")]
    pub(crate) calls_in_flight_max: u32,
    /// 6: milliseconds between its PINGs.
    #[serde(default, deserialize_with = "or_absent")]
    pub(crate) heartbeat_ms: u64,
    /// 7: the largest message that the dialling side takes, in bytes. 0: unknown (older peers).
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) message_bytes_max: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// 0: the version both speak.
    pub(crate) protocol: u16,
    /// 1: the node's name, for logs; its identity is in its certificate.
    pub(crate) node: String,
    /// 2: counts admissions on this node.
    pub(crate) admission: u64,
    /// 3: calls that the node answers at once on this link.
    pub(crate) calls_in_flight_max: u32,
    /// 4: the largest message that the node takes, in bytes.
    pub(crate) message_bytes_max: u64,
    /// 5: the version of the view of nodes. Reserved.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) view_version: u64,
}

/// One method of a service. A fallback service, such as a forward, has one for each kind of call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// 0: its name within the service; `*` is every method.
    pub name: String,
    /// 1: its shape.
    pub kind: CallKind,
    /// 2: description for people; may be empty. At most 1 KiB.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// 3: the JSON Schema of a message of its request, as text; may be empty. At most 4 KiB, not
    /// validated.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub request_schema: String,
    /// 4: the JSON Schema of a message of its reply.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub reply_schema: String,
}

impl MethodInfo {
    /// Path of the method in a service of this name: `HelloService/Hello`; of a forward `tcp:db`,
    /// whose service is its kind.
    pub fn path(&self, service: &str) -> String {
        self.kind.path(service, &self.name)
    }
}

/// One service and its methods. Forwards stand under their kind, `tcp`, as if it were a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// 0: the service's name.
    pub name: String,
    /// 1: its methods, sorted by name.
    pub methods: Vec<MethodInfo>,
    /// 2: description for people; may be empty. At most 1 KiB.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// All services of an agent. Replaces what it registered before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Register {
    /// 0: counts registrations on this link.
    pub(crate) generation: u64,
    /// 1: the full set.
    pub(crate) services: Vec<ServiceInfo>,
}

/// The node has taken a registration and will send calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registered {
    /// 0: which one.
    pub(crate) generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {
    /// 0: counts up; the echo has the same.
    pub(crate) number: u64,
}

/// The side drains: it accepts no more calls, and finishes those in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drain {
    /// 0: why, for people.
    #[serde(default, deserialize_with = "or_absent")]
    pub(crate) reason: String,
    /// 1: milliseconds that it gives the calls in flight.
    #[serde(default, deserialize_with = "or_absent")]
    pub(crate) time_ms: u64,
    /// 2: the receiver's last stream that it took; 0 if none. Later ones will not be started.
    pub(crate) last_stream: u64,
}

/// The side has finished: the receiver closes the link once it awaits no more replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Goodbye {
    /// 0: the reason, a link code.
    pub(crate) code: u64,
    /// 1: the same for people.
    #[serde(default, deserialize_with = "or_absent")]
    pub(crate) text: String,
}

/// The receiver may send more on a stream of this link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// 0: the number of the stream.
    pub(crate) stream: u64,
    /// 1: bytes that the receiver may have sent on it since its beginning.
    pub(crate) bytes: u64,
}

/// Any frame of the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    Hello(Hello),
    Welcome(Welcome),
    Register(Register),
    Registered(Registered),
    Ping(Ping),
    Pong(Ping),
    Drain(Drain),
    Goodbye(Goodbye),
    Window(Window),
    /// A frame that this version knows of and has no use for yet.
    Reserved,
}

impl Control {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Hello(fields) => push_map(&mut out, Kind::Hello, fields),
            Self::Welcome(fields) => push_map(&mut out, Kind::Welcome, fields),
            Self::Register(fields) => push_map(&mut out, Kind::Register, fields),
            Self::Registered(fields) => push_map(&mut out, Kind::Registered, fields),
            Self::Ping(fields) => push_map(&mut out, Kind::Ping, fields),
            Self::Pong(fields) => push_map(&mut out, Kind::Pong, fields),
            Self::Drain(fields) => push_map(&mut out, Kind::Drain, fields),
            Self::Goodbye(fields) => push_map(&mut out, Kind::Goodbye, fields),
            Self::Window(fields) => push_map(&mut out, Kind::Window, fields),
            Self::Reserved => Err(WireError::Malformed("a reserved frame is never sent")),
        }?;
        Ok(out)
    }

    pub(crate) fn decode(kind: Kind, payload: &[u8]) -> Result<Self, WireError> {
        Ok(match kind {
            Kind::Hello => Self::Hello(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Welcome => Self::Welcome(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Register => Self::Register(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Registered => Self::Registered(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Ping => Self::Ping(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Pong => Self::Pong(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Drain => Self::Drain(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Goodbye => Self::Goodbye(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::Window => Self::Window(decode_fields(payload, CONTROL_ITEMS_MAX)?),
            Kind::View => Self::Reserved,
            Kind::Head | Kind::Message | Kind::End | Kind::Status | Kind::Optional => {
                return Err(WireError::Malformed("a frame of a call on the control stream"));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Header;

    #[track_caller]
    fn check(control: Control) {
        let bytes = control.encode().expect("encodes");
        let header = Header::parse(&bytes, 0).expect("a header").expect("a whole one");
        assert_eq!(bytes.len(), header.header_bytes + header.payload_bytes);
        assert_eq!(Control::decode(header.kind, &bytes[header.header_bytes..]), Ok(control));
    }

    #[test]
    fn every_control_frame_comes_back_as_it_was() {
        check(Control::Hello(Hello {
            protocol_min: 1,
            protocol_max: 1,
            features: vec!["x".into()],
            instance: ByteArray::new([3; 16]),
            software: "dialback 0.1.0".into(),
            calls_in_flight_max: 256,
            heartbeat_ms: 5_000,
            message_bytes_max: 4 << 20,
        }));
        check(Control::Welcome(Welcome {
            protocol: 1,
            node: "edge-1".into(),
            admission: 9,
            calls_in_flight_max: 128,
            message_bytes_max: 4 << 20,
            view_version: 0,
        }));
        let mut methods = vec![MethodInfo::new("Hello", CallKind::Unary)];
        let register =
            |service| Control::Register(Register { generation: 1, services: vec![service] });
        check(register(ServiceInfo::new("HelloService", methods.clone())));
        // Each of the optional texts without those before it.
        methods[0].reply_schema = "{}".into();
        check(register(ServiceInfo::new("HelloService", methods.clone())));
        methods[0].description = "d".into();
        let description = "for greeting".into();
        check(register(ServiceInfo { description, ..ServiceInfo::new("HelloService", methods) }));
        check(Control::Registered(Registered { generation: 1 }));
        check(Control::Ping(Ping { number: 1 }));
        check(Control::Pong(Ping { number: u64::MAX }));
        check(Control::Drain(Drain { reason: "r".into(), time_ms: 25_000, last_stream: 8 }));
        check(Control::Window(Window { stream: 5, bytes: 1 << 40 }));
        check(Control::Goodbye(Goodbye { code: 0x42, text: "t".into() }));
    }

    #[test]
    fn null_counts_as_absent_for_optional_keys_and_is_refused_for_required_ones() {
        let hello = |key: u8, value: u8| {
            let required = [&[0xa4, 0x00, 0x01, 0x01, 0x01, 0x03, 0x50][..], &[7; 16]].concat();
            Control::decode(Kind::Hello, &[required, vec![key, value]].concat())
        };
        let plain = hello(0x17, 0xf6).expect("an unknown key");
        for key in [2, 4, 5, 6, 7] {
            assert_eq!(hello(key, 0xf6), Ok(plain.clone()), "key {key}");
        }
        assert!(hello(4, 0x01).is_err(), "a number is no text");
        for (kind, good) in [
            (Kind::Drain, &[0xa3, 0x00, 0xf6, 0x01, 0xf6, 0x02, 0x04][..]),
            (Kind::Goodbye, &[0xa2, 0x00, 0x18, 0x40, 0x01, 0xf6]),
            // {0: 1, 1: [{0: "S", 1: [{0: "M", 1: 0, 2: null, 3: null, 4: null}], 2: null}]}
            (
                Kind::Register,
                &[
                    0xa2, 0x00, 0x01, 0x01, 0x81, 0xa3, 0x00, 0x61, b'S', 0x01, 0x81, 0xa5, 0x00,
                    0x61, b'M', 0x01, 0x00, 0x02, 0xf6, 0x03, 0xf6, 0x04, 0xf6, 0x02, 0xf6,
                ],
            ),
        ] {
            assert!(Control::decode(kind, good).is_ok(), "{kind:?}");
        }
        for (kind, bad) in [
            (Kind::Drain, &[0xa1, 0x02, 0xf6][..]),
            (Kind::Goodbye, &[0xa1, 0x00, 0xf6]),
            (Kind::Ping, &[0xa1, 0x00, 0xf6]),
            (Kind::Register, &[0xa2, 0x00, 0x01, 0x01, 0xf6]),
        ] {
            assert!(Control::decode(kind, bad).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn a_method_is_shown_as_it_is_called() {
        let path = |kind| MethodInfo::new("db", kind).path("tcp");
        assert_eq!([path(CallKind::Tcp), path(CallKind::Unary)], ["tcp:db", "tcp/db"]);
    }

    #[test]
    fn a_long_registration_takes_the_long_form_of_its_length() {
        let methods: Vec<_> = (0..1_000)
            .map(|n| MethodInfo::new(format!("MethodNumber{n}"), CallKind::Unary))
            .collect();
        check(Control::Register(Register {
            generation: 1,
            services: vec![ServiceInfo::new("S", methods)],
        }));
    }
}
