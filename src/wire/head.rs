//! The heads of a request and of a reply.

use super::{
    CallKind, WireError,
    cbor::{decode_fields, is_default, or_absent},
};
use crate::{
    limits::{HEAD_ITEMS_MAX, METADATA_BYTES_MAX, METADATA_PAIRS_MAX},
    metadata::Metadata,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::{ByteArray, Bytes as CborBytes};
use std::borrow::Cow;

/// Target of a call, as a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(into = "u8", try_from = "u8")]
pub(crate) enum RouteKind {
    /// The side that accepted the stream.
    #[default]
    Here,
    /// To the agent that the next field names.
    Agent,
    /// To any agent that may answer for the service.
    Service,
}

impl From<RouteKind> for u8 {
    fn from(kind: RouteKind) -> Self {
        kind as Self
    }
}

impl TryFrom<u8> for RouteKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        [Self::Here, Self::Agent, Self::Service]
            .get(usize::from(number))
            .copied()
            .ok_or("unknown route")
    }
}

/// Metadata as it travels: an array of pairs.
pub(super) type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// HEAD of a request. The number of a field is its place here: add at the end only.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestHead<'a> {
    /// 0: `HelloService/Hello`.
    pub(crate) method: &'a str,
    /// 1: meaning of the next field.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) route: RouteKind,
    /// 2: the agent, for that route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agent: Option<&'a str>,
    /// 3: the shape of the call.
    pub(crate) kind: CallKind,
    /// 4: milliseconds that are left when the head is written. Required, at least 1.
    pub(crate) timeout_ms: u64,
    /// 5: 16 bytes that name the call.
    pub(crate) call_id: ByteArray<16>,
    /// 6: 1 for the first attempt.
    #[serde(default = "first", deserialize_with = "or_first", skip_serializing_if = "is_first")]
    pub(crate) attempt: u32,
    /// 7: higher goes first; 0 is usual.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) priority: i8,
    /// 8: the requester, `caller/ops`. Written by the node; ignored from callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<&'a str>,
    /// 9: W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<&'a str>,
    /// 10: pairs of text.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "Vec::is_empty")]
    pub(crate) metadata: Pairs<'a>,
    /// 11: media type of the messages; absent means `application/cbor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<&'a str>,
    /// 12: reserved for the caller's own signature over the head.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) caller_signature: Option<&'a CborBytes>,
    /// 13: whether to wait, within the timeout, for an agent to attach.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) wait: bool,
    /// 14: verb and path of an HTTP call, and of no other.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<(&'a str, &'a str)>,
}

const fn first() -> u32 {
    1
}

fn or_first<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    Option::deserialize(value).map(|attempt| attempt.unwrap_or(first()))
}

fn is_first(attempt: &u32) -> bool {
    *attempt == 1
}

impl<'a> RequestHead<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let head: Self = decode_fields(bytes, HEAD_ITEMS_MAX)?;
        if head.timeout_ms == 0 {
            return Err(WireError::Malformed("a timeout of 0"));
        }
        if matches!(head.route, RouteKind::Agent) != head.agent.is_some() {
            return Err(WireError::Malformed("an agent without its route, or the reverse"));
        }
        if (head.kind == CallKind::Http) != head.http.is_some() {
            return Err(WireError::Malformed("verb and path without an HTTP call, or the reverse"));
        }
        check_pairs(&head.metadata)?;
        Ok(head)
    }

    pub(crate) fn take_metadata(&mut self) -> Metadata {
        owned_pairs(std::mem::take(&mut self.metadata))
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReplyHead<'a> {
    /// 0: pairs of text.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "Vec::is_empty")]
    pub(crate) metadata: Pairs<'a>,
    /// 1: what the messages are; absent is `application/cbor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<&'a str>,
}

impl<'a> ReplyHead<'a> {
    /// The head that carries this metadata.
    pub(crate) fn new(metadata: &'a Metadata) -> Self {
        Self { metadata: pairs(metadata), content_type: None }
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Metadata, WireError> {
        let head: Self = decode_fields(bytes, HEAD_ITEMS_MAX)?;
        check_pairs(&head.metadata)?;
        Ok(owned_pairs(head.metadata))
    }
}

/// Error of metadata over its limits, if any.
pub(crate) fn metadata_fault(metadata: &Metadata) -> Option<&'static str> {
    if metadata.len() > METADATA_PAIRS_MAX {
        Some("metadata of more than 64 pairs")
    } else if metadata.text_bytes() > METADATA_BYTES_MAX {
        Some("metadata of more than 8 KiB")
    } else {
        None
    }
}

pub(super) fn check_pairs(pairs: &Pairs<'_>) -> Result<(), WireError> {
    let text_bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if pairs.len() > METADATA_PAIRS_MAX || text_bytes > METADATA_BYTES_MAX {
        return Err(WireError::Malformed("metadata over its limit of 64 pairs and 8 KiB"));
    }
    Ok(())
}

pub(crate) fn pairs(metadata: &Metadata) -> Pairs<'_> {
    metadata.iter().map(|(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value))).collect()
}

pub(super) fn owned_pairs(pairs: Pairs<'_>) -> Metadata {
    pairs.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{StatusHead, cbor::encode_fields};

    fn head() -> RequestHead<'static> {
        RequestHead {
            method: "HelloService/Hello",
            route: RouteKind::Agent,
            agent: Some("warehouse"),
            kind: CallKind::Unary,
            timeout_ms: 5_000,
            call_id: ByteArray::new([7; 16]),
            attempt: 1,
            priority: 0,
            caller: Some("caller/ops"),
            traceparent: None,
            metadata: vec![("k".into(), "v".into())],
            content_type: None,
            caller_signature: None,
            wait: false,
            http: None,
        }
    }

    #[test]
    fn a_request_head_comes_back_as_it_was() {
        let mut bytes = Vec::new();
        encode_fields(&mut bytes, &head()).expect("encodes");
        let mut back = RequestHead::decode(&bytes).expect("decodes");
        assert_eq!(
            (back.method, back.route, back.agent, back.timeout_ms),
            ("HelloService/Hello", RouteKind::Agent, Some("warehouse"), 5_000)
        );
        assert_eq!((back.attempt, back.priority, back.caller), (1, 0, Some("caller/ops")));
        assert_eq!(back.take_metadata().get("k"), Some("v"));
    }

    #[test]
    fn a_timeout_of_zero_missing_negative_or_float_is_refused() {
        // {0: "A/b", 3: 0, 4: <timeout>, 5: 16 bytes}
        let with = |timeout: &[u8]| {
            let parts: [&[u8]; 4] = [
                &[0xa4, 0x00, 0x63, b'A', b'/', b'b', 0x03, 0x00, 0x04],
                timeout,
                &[0x05, 0x50],
                &[7; 16],
            ];
            parts.concat()
        };
        assert!(RequestHead::decode(&with(&[0x01])).is_ok());
        assert!(
            RequestHead::decode(&with(&[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]))
                .is_ok()
        );
        for bad in
            [&[0x00][..], &[0x20], &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], &[0x61, b'1'], &[0xf6]]
        {
            assert!(RequestHead::decode(&with(bad)).is_err(), "{bad:02x?} was taken for a timeout");
        }
        let parts: [&[u8]; 3] =
            [&[0xa3, 0x00, 0x63, b'A', b'/', b'b', 0x03, 0x00], &[0x05, 0x50], &[7; 16]];
        assert!(
            RequestHead::decode(&parts.concat()).is_err(),
            "a head without a timeout was taken"
        );
    }

    #[test]
    fn null_counts_as_absent_for_optional_keys_and_is_refused_for_required_ones() {
        // {0: "A/b", 3: 0, 4: 1, 5: 16 bytes} and one more.
        let head = |key: u8, value: &[u8]| {
            let parts: [&[u8]; 4] = [
                &[0xa5, 0x00, 0x63, b'A', b'/', b'b', 0x03, 0x00, 0x04, 0x01, 0x05, 0x50],
                &[7; 16],
                &[key],
                value,
            ];
            parts.concat()
        };
        for key in [1, 2, 6, 7, 8, 9, 10, 11, 12, 13, 14] {
            let bytes = head(key, &[0xf6]);
            let read = RequestHead::decode(&bytes).unwrap_or_else(|fault| panic!("{key}: {fault}"));
            let absent = (RouteKind::Here, None, 1, 0, None, 0, false);
            let RequestHead { route, agent, attempt, priority, caller, metadata, wait, .. } = read;
            let have = (route, agent, attempt, priority, caller, metadata.len(), wait);
            assert_eq!(have, absent, "key {key}");
            for other in [&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0xf7]] {
                assert!(RequestHead::decode(&head(key, other)).is_err(), "{key}: {other:02x?}");
            }
        }
        assert!(ReplyHead::decode(&[0xa2, 0x00, 0xf6, 0x01, 0xf6]).is_ok());
        let status = [0xa5, 0x00, 0x00, 0x01, 0x00, 0x02, 0xf6, 0x03, 0xf6, 0x04, 0xf6];
        assert_eq!(StatusHead::decode(&status), Ok(Ok(Metadata::default())));
        for required in [[0xa2, 0x00, 0xf6, 0x01, 0x00], [0xa2, 0x00, 0x00, 0x01, 0xf6]] {
            assert!(StatusHead::decode(&required).is_err(), "{required:02x?}");
        }
    }

    #[test]
    fn an_agent_without_its_route_or_a_route_without_its_agent_is_refused() {
        for (route, agent, is_good) in [
            (RouteKind::Agent, Some("warehouse"), true),
            (RouteKind::Agent, None, false),
            (RouteKind::Here, Some("warehouse"), false),
            (RouteKind::Service, Some("warehouse"), false),
            (RouteKind::Service, None, true),
        ] {
            let mut bytes = Vec::new();
            encode_fields(&mut bytes, &RequestHead { route, agent, ..head() }).expect("encodes");
            assert_eq!(RequestHead::decode(&bytes).is_ok(), is_good, "{route:?} {agent:?}");
        }
    }

    #[test]
    fn verb_and_path_belong_to_http_calls_and_to_no_other() {
        let target = Some(("GET", "/a"));
        for (kind, http, is_good) in [
            (CallKind::Http, target, true),
            (CallKind::Http, None, false),
            (CallKind::Unary, target, false),
            (CallKind::Tcp, target, false),
        ] {
            let mut bytes = Vec::new();
            encode_fields(&mut bytes, &RequestHead { kind, http, ..head() }).expect("encodes");
            let read = RequestHead::decode(&bytes).map(|head| head.http);
            assert_eq!(read.ok(), is_good.then_some(http), "{kind} {http:?}");
        }
    }

    #[test]
    fn metadata_has_a_limit_of_bytes() {
        for (bytes, is_good) in [(METADATA_BYTES_MAX, true), (METADATA_BYTES_MAX + 1, false)] {
            let metadata = vec![("k".into(), "v".repeat(bytes - 1).into())];
            let mut encoded = Vec::new();
            encode_fields(&mut encoded, &RequestHead { metadata, ..head() }).expect("encodes");
            assert_eq!(RequestHead::decode(&encoded).is_ok(), is_good, "{bytes} bytes");
        }
    }

    #[test]
    fn unknown_keys_are_passed_over() {
        let parts: [&[u8]; 4] = [
            &[0xa6, 0x00, 0x63, b'A', b'/', b'b', 0x03, 0x00, 0x04, 0x01, 0x05, 0x50],
            &[7; 16],
            &[0x18, 99, 0x80],
            &[0x19, 0x01, 0x00, 0x01],
        ];
        assert!(RequestHead::decode(&parts.concat()).is_ok());
    }
}
