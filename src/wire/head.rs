//! The words around a call's messages: the head of a request, the head of a reply, and the status
//! at its end.

use super::{
    WireError,
    cbor::{decode_words, or_absent},
    scan::Bounds,
};
use crate::{
    limits::{
        DETAILS_BYTES_MAX, MESSAGE_TEXT_BYTES_MAX, METADATA_BYTES_MAX, METADATA_PAIRS_MAX,
        TCP_READ_BYTES_MAX,
    },
    metadata::Metadata,
    status::{Code, Outcome, Status},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::{ByteArray, Bytes as CborBytes};
use std::{borrow::Cow, fmt};

/// The shape of a call: how many messages go each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum CallKind {
    /// One message each way.
    Unary,
    /// One message in, any number out.
    ServerStream,
    /// Any number in, one out.
    ClientStream,
    /// Any number each way.
    Bidirectional,
    /// A forwarded HTTP exchange.
    Http,
    /// A forwarded byte stream.
    Tcp,
}

impl CallKind {
    const ALL: [Self; 6] = [
        Self::Unary,
        Self::ServerStream,
        Self::ClientStream,
        Self::Bidirectional,
        Self::Http,
        Self::Tcp,
    ];

    /// The word in lists: `unary`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::ClientStream => "client_stream",
            Self::Bidirectional => "bidirectional",
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }

    /// Whether it leads to something beside RPC: such a call names a forward, `tcp:db`, and no
    /// other call does.
    pub const fn is_forward(self) -> bool {
        matches!(self, Self::Http | Self::Tcp)
    }

    /// The largest message of such a call, where others have this bound. Pieces of a connection
    /// have a bound of their own, that all sides know: how it is cut into them is nobody's choice.
    pub(crate) const fn message_bytes_max(self, of_others: usize) -> usize {
        match self {
            Self::Tcp => TCP_READ_BYTES_MAX,
            _ => of_others,
        }
    }

    /// What the messages are; `None` is CBOR, one value each.
    pub(crate) const fn content_type(self) -> Option<&'static str> {
        match self {
            Self::Tcp => Some("application/octet-stream"),
            _ => None,
        }
    }

    /// How a method of this kind is called: `HelloService/Hello`, a forward `tcp:db`.
    pub(crate) fn path(self, service: &str, method: &str) -> String {
        let split = if self.is_forward() { ':' } else { '/' };
        format!("{service}{split}{method}")
    }

    /// Whether the asking side sends a stream of messages, not exactly one.
    pub const fn streams_requests(self) -> bool {
        matches!(self, Self::ClientStream | Self::Bidirectional | Self::Http | Self::Tcp)
    }

    /// Whether the answering side sends a stream of messages, not exactly one.
    pub const fn streams_replies(self) -> bool {
        matches!(self, Self::ServerStream | Self::Bidirectional | Self::Http | Self::Tcp)
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<CallKind> for u8 {
    fn from(kind: CallKind) -> Self {
        kind as Self
    }
}

impl TryFrom<u8> for CallKind {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        Self::ALL.get(usize::from(number)).copied().ok_or("unknown call kind")
    }
}

/// Where a call goes, as a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(into = "u8", try_from = "u8")]
pub(crate) enum RouteKind {
    /// To the side that accepted the stream.
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

/// Where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// To the side that accepted the stream.
    Here,
    /// To the agent of this name.
    Agent(&'a str),
    /// To any agent that may answer for the service.
    Service,
}

/// Metadata as it travels: an array of pairs.
type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// HEAD of a request. The number of a field is its place here: add at the end only.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RequestHead<'a> {
    /// 0: `HelloService/Hello`.
    #[serde(borrow)]
    pub(crate) method: &'a str,
    /// 1: what the next field means.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_here")]
    pub(crate) route: RouteKind,
    /// 2: the agent, for that route.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
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
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_zero")]
    pub(crate) priority: i8,
    /// 8: who asks, `caller/ops`. Written by the node; what a caller claims is not read.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<&'a str>,
    /// 9: W3C trace context.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<&'a str>,
    /// 10: pairs of text.
    #[serde(
        borrow,
        default,
        deserialize_with = "or_absent",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) metadata: Pairs<'a>,
    /// 11: what the messages are; absent is `application/cbor`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<&'a str>,
    /// 12: reserved for the caller's own signature over the head.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) caller_signature: Option<&'a CborBytes>,
    /// 13: whether to wait, within the timeout, for an agent to attach.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_false")]
    pub(crate) wait: bool,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_here(route: &RouteKind) -> bool {
    *route == RouteKind::Here
}

const fn first() -> u32 {
    1
}

fn or_first<'de, D: Deserializer<'de>>(value: D) -> Result<u32, D::Error> {
    Option::deserialize(value).map(|attempt| attempt.unwrap_or(first()))
}

/// As `or_absent`, borrowed.
fn or_empty<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Cow<'a, str>, D::Error> {
    or_absent::<D, &str>(value).map(Cow::Borrowed)
}

fn is_first(attempt: &u32) -> bool {
    *attempt == 1
}

fn is_zero(priority: &i8) -> bool {
    *priority == 0
}

impl<'a> RequestHead<'a> {
    /// Decodes and checks the payload of a HEAD frame.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let head: Self = decode_words(bytes, Bounds::HEAD)?;
        if head.timeout_ms == 0 {
            return Err(WireError::Malformed("a timeout of 0"));
        }
        if matches!(head.route, RouteKind::Agent) != head.agent.is_some() {
            return Err(WireError::Malformed("an agent without its route, or the reverse"));
        }
        check_pairs(&head.metadata)?;
        Ok(head)
    }

    /// Where the call goes.
    pub(crate) fn route(&self) -> Route<'a> {
        match (self.route, self.agent) {
            (RouteKind::Agent, Some(agent)) => Route::Agent(agent),
            (RouteKind::Service, _) => Route::Service,
            _ => Route::Here,
        }
    }

    /// The metadata as an owned list.
    pub(crate) fn take_metadata(&mut self) -> Metadata {
        owned_pairs(std::mem::take(&mut self.metadata))
    }
}

/// HEAD of a reply, before its first message. Optional.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReplyHead<'a> {
    /// 0: pairs of text.
    #[serde(
        borrow,
        default,
        deserialize_with = "or_absent",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) metadata: Pairs<'a>,
    /// 1: what the messages are; absent is `application/cbor`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_type: Option<&'a str>,
}

impl<'a> ReplyHead<'a> {
    /// The head that carries this metadata.
    pub(crate) fn new(metadata: &'a Metadata) -> Self {
        Self { metadata: pairs(metadata), content_type: None }
    }

    /// Decodes and checks the payload of a HEAD frame in a reply.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Metadata, WireError> {
        let head: Self = decode_words(bytes, Bounds::HEAD)?;
        check_pairs(&head.metadata)?;
        Ok(owned_pairs(head.metadata))
    }
}

/// STATUS: mandatory and last in every reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatusHead<'a> {
    /// 0: a gRPC code.
    code: u8,
    /// 1: the outcome.
    outcome: u8,
    /// 2: the sentence for people.
    #[serde(borrow, default, deserialize_with = "or_empty", skip_serializing_if = "str::is_empty")]
    message: Cow<'a, str>,
    /// 3: bytes for the caller's program.
    #[serde(
        borrow,
        default = "no_bytes",
        deserialize_with = "or_absent",
        skip_serializing_if = "no_details"
    )]
    details: &'a CborBytes,
    /// 4: pairs of text.
    #[serde(
        borrow,
        default,
        deserialize_with = "or_absent",
        skip_serializing_if = "Vec::is_empty"
    )]
    metadata: Pairs<'a>,
}

fn no_bytes<'a>() -> &'a CborBytes {
    CborBytes::new(&[])
}

fn no_details(details: &&CborBytes) -> bool {
    details.is_empty()
}

impl<'a> StatusHead<'a> {
    /// The status of a call that went well.
    pub(crate) fn ok(trailing: &'a Metadata) -> Self {
        Self {
            code: Code::Ok.number(),
            outcome: Outcome::Ok.number(),
            message: Cow::Borrowed(""),
            details: no_bytes(),
            metadata: pairs(trailing),
        }
    }

    /// The status of a failure. Texts and bytes over their limits are cut, so that a failure can
    /// always be told.
    pub(crate) fn failed(status: &'a Status) -> Self {
        let keep_metadata = metadata_fault(status.metadata()).is_none();
        Self {
            code: status.code().number(),
            outcome: status.outcome().number(),
            message: Cow::Borrowed(cut_text(status.message(), MESSAGE_TEXT_BYTES_MAX)),
            details: if status.details().len() <= DETAILS_BYTES_MAX {
                CborBytes::new(status.details())
            } else {
                no_bytes()
            },
            metadata: if keep_metadata { pairs(status.metadata()) } else { Vec::new() },
        }
    }

    /// The whole frame of the status that nearly every reply ends with: OK, nothing attached.
    pub(crate) const OK_FRAME: [u8; 8] = [0x13, 0x40, 0x05, 0xa2, 0x00, 0x00, 0x01, 0x00];

    /// Whether [`StatusHead::OK_FRAME`] says all of it.
    pub(crate) fn is_plain_ok(&self) -> bool {
        self.code == Code::Ok.number() && self.metadata.is_empty()
    }

    /// Decodes the payload of a STATUS frame: trailing metadata if all went well, the failure
    /// otherwise.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Result<Metadata, Status>, WireError> {
        if *bytes == Self::OK_FRAME[3..] {
            return Ok(Ok(Metadata::default()));
        }
        let head: Self = decode_words(bytes, Bounds::HEAD)?;
        check_pairs(&head.metadata)?;
        let code = Code::from_number(head.code).unwrap_or(Code::Unknown);
        let outcome =
            Outcome::from_number(head.outcome).ok_or(WireError::Malformed("unknown outcome"))?;
        match (code == Code::Ok, outcome == Outcome::Ok) {
            (true, true) => Ok(Ok(owned_pairs(head.metadata))),
            (false, false) => Ok(Err(Status::with_outcome(code, outcome, head.message)
                .with_details(bytes::Bytes::copy_from_slice(head.details))
                .with_metadata(owned_pairs(head.metadata)))),
            _ => Err(WireError::Malformed("a status whose code and outcome disagree")),
        }
    }
}

/// What is wrong with metadata that is to travel, if anything.
pub(crate) fn metadata_fault(metadata: &Metadata) -> Option<&'static str> {
    if metadata.len() > METADATA_PAIRS_MAX {
        Some("metadata of more than 64 pairs")
    } else if metadata.text_bytes() > METADATA_BYTES_MAX {
        Some("metadata of more than 8 KiB")
    } else {
        None
    }
}

fn check_pairs(pairs: &Pairs<'_>) -> Result<(), WireError> {
    let text_bytes: usize = pairs.iter().map(|(key, value)| key.len() + value.len()).sum();
    if pairs.len() > METADATA_PAIRS_MAX || text_bytes > METADATA_BYTES_MAX {
        return Err(WireError::Malformed("metadata over its limit of 64 pairs and 8 KiB"));
    }
    Ok(())
}

/// Metadata as it travels.
pub(crate) fn pairs(metadata: &Metadata) -> Pairs<'_> {
    metadata.iter().map(|(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value))).collect()
}

fn owned_pairs(pairs: Pairs<'_>) -> Metadata {
    pairs.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// The longest start of a text that has at most `bytes_max` bytes and ends between characters.
pub(super) fn cut_text(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::cbor::encode_words;

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
        }
    }

    #[test]
    fn a_request_head_comes_back_as_it_was() {
        let mut bytes = Vec::new();
        encode_words(&mut bytes, &head()).expect("encodes");
        let mut back = RequestHead::decode(&bytes).expect("decodes");
        assert_eq!(
            (back.method, back.route(), back.timeout_ms),
            ("HelloService/Hello", Route::Agent("warehouse"), 5_000)
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
    fn null_under_an_optional_key_counts_as_absent_and_is_no_value_of_a_required_one() {
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
        for key in [1, 2, 6, 7, 8, 9, 10, 11, 12, 13] {
            let bytes = head(key, &[0xf6]);
            let read = RequestHead::decode(&bytes).unwrap_or_else(|fault| panic!("{key}: {fault}"));
            let absent = (Route::Here, 1, 0, None, 0, false);
            let RequestHead { attempt, priority, caller, wait, .. } = read;
            let have = (read.route(), attempt, priority, caller, read.metadata.len(), wait);
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
    fn unknown_keys_are_passed_over() {
        let parts: [&[u8]; 4] = [
            &[0xa6, 0x00, 0x63, b'A', b'/', b'b', 0x03, 0x00, 0x04, 0x01, 0x05, 0x50],
            &[7; 16],
            &[0x18, 99, 0x80],
            &[0x19, 0x01, 0x00, 0x01],
        ];
        assert!(RequestHead::decode(&parts.concat()).is_ok());
    }

    #[test]
    fn the_plain_ok_is_what_the_encoder_would_write() {
        let mut bytes = Vec::new();
        encode_words(&mut bytes, &StatusHead::ok(&Metadata::default())).expect("encodes");
        assert_eq!(bytes, StatusHead::OK_FRAME[3..]);
        let mut with = Metadata::default();
        with.insert("k", "v");
        assert!(
            !StatusHead::ok(&with).is_plain_ok()
                && StatusHead::ok(&Metadata::default()).is_plain_ok()
        );
        assert!(!StatusHead::failed(&Status::unknown(Code::Internal, "")).is_plain_ok());
    }

    #[test]
    fn a_status_with_everything_at_its_limit_still_fits() {
        let pairs = (0..METADATA_PAIRS_MAX)
            .map(|n| (format!("{n:02}"), "v".repeat(METADATA_BYTES_MAX / METADATA_PAIRS_MAX - 2)));
        let status = Status::new(Code::Internal, "x".repeat(MESSAGE_TEXT_BYTES_MAX + 1))
            .with_details(vec![7; DETAILS_BYTES_MAX])
            .with_metadata(pairs.collect());
        let mut chunks = crate::wire::status_chunk(&StatusHead::failed(&status)).expect("it fits");
        let header =
            crate::wire::Header::parse(&chunks.as_mut()[0], 0).expect("a header").expect("whole");
        let Ok(Err(back)) = StatusHead::decode(&chunks.as_mut()[0][header.header_bytes..]) else {
            panic!("no status came back")
        };
        assert_eq!((back.metadata(), back.details()), (status.metadata(), status.details()));
    }

    #[test]
    fn statuses_come_back_and_contradictions_are_refused() {
        let status = Status::unknown(Code::Internal, "broken").with_details(&b"abc"[..]);
        let mut bytes = Vec::new();
        encode_words(&mut bytes, &StatusHead::failed(&status)).expect("encodes");
        assert_eq!(StatusHead::decode(&bytes), Ok(Err(status)));
        // {0: code, 1: outcome}
        assert!(matches!(StatusHead::decode(&[0xa2, 0, 0, 1, 0]), Ok(Ok(_))));
        assert!(StatusHead::decode(&[0xa2, 0, 0, 1, 3]).is_err(), "OK with outcome unknown");
        assert!(StatusHead::decode(&[0xa2, 0, 13, 1, 0]).is_err(), "INTERNAL with outcome ok");
        assert!(StatusHead::decode(&[0xa2, 0, 13, 1, 9]).is_err(), "an outcome of no meaning");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let status = Status::new(Code::Internal, "é".repeat(MESSAGE_TEXT_BYTES_MAX));
        let mut bytes = Vec::new();
        encode_words(&mut bytes, &StatusHead::failed(&status)).expect("encodes");
        let Ok(Err(back)) = StatusHead::decode(&bytes) else { panic!("no status came back") };
        assert_eq!(back.message().len(), MESSAGE_TEXT_BYTES_MAX);
    }
}
