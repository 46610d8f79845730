//! STATUS, the last frame of every reply.

use super::{
    WireError,
    cbor::{decode_fields, is_default, or_absent},
    head::{Pairs, check_pairs, metadata_fault, owned_pairs, pairs},
};
use crate::{
    limits::{DETAILS_BYTES_MAX, HEAD_ITEMS_MAX, MESSAGE_TEXT_BYTES_MAX},
    metadata::Metadata,
    printable::truncated,
    status::{Code, Outcome, Status},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::Bytes as CborBytes;
use std::borrow::Cow;

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
    #[serde(borrow, default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    details: &'a CborBytes,
    /// 4: pairs of text.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "Vec::is_empty")]
    metadata: Pairs<'a>,
}

impl<'a> StatusHead<'a> {
    pub(crate) fn ok(trailing: &'a Metadata) -> Self {
        Self {
            code: Code::Ok.number(),
            outcome: Outcome::Ok.number(),
            message: Cow::Borrowed(""),
            details: Default::default(),
            metadata: pairs(trailing),
        }
    }

    /// The status of a failure. Long texts and bytes are truncated, so that it can always be sent.
    pub(crate) fn failed(status: &'a Status) -> Self {
        let keep_details = status.details().len() <= DETAILS_BYTES_MAX;
        let keep_metadata = metadata_fault(status.metadata()).is_none();
        Self {
            code: status.code().number(),
            outcome: status.outcome().number(),
            message: Cow::Borrowed(truncated(status.message(), MESSAGE_TEXT_BYTES_MAX)),
            details: CborBytes::new(if keep_details { status.details() } else { &[] }),
            metadata: if keep_metadata { pairs(status.metadata()) } else { Vec::new() },
        }
    }

    /// The whole frame of the status that nearly every reply ends with: OK, nothing attached.
    pub(crate) const OK_FRAME: [u8; 8] = [0x13, 0x40, 0x05, 0xa2, 0x00, 0x00, 0x01, 0x00];

    /// Returns `true` if [`StatusHead::OK_FRAME`] encodes it completely.
    pub(crate) fn is_plain_ok(&self) -> bool {
        self.code == Code::Ok.number() && self.metadata.is_empty()
    }

    /// Decodes a STATUS frame: trailing metadata if all went well, the failure otherwise.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Result<Metadata, Status>, WireError> {
        if *bytes == Self::OK_FRAME[3..] {
            return Ok(Ok(Metadata::default()));
        }
        let head: Self = decode_fields(bytes, HEAD_ITEMS_MAX)?;
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

fn or_empty<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Cow<'a, str>, D::Error> {
    or_absent::<D, &str>(value).map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        limits::{METADATA_BYTES_MAX, METADATA_PAIRS_MAX},
        wire::cbor::encode_fields,
    };

    #[test]
    fn the_constant_ok_equals_the_encoded_status() {
        let mut bytes = Vec::new();
        encode_fields(&mut bytes, &StatusHead::ok(&Metadata::default())).expect("encodes");
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
        encode_fields(&mut bytes, &StatusHead::failed(&status)).expect("encodes");
        assert_eq!(StatusHead::decode(&bytes), Ok(Err(status)));
        // {0: code, 1: outcome}
        assert!(matches!(StatusHead::decode(&[0xa2, 0, 0, 1, 0]), Ok(Ok(_))));
        assert!(StatusHead::decode(&[0xa2, 0, 0, 1, 3]).is_err(), "OK with outcome unknown");
        assert!(StatusHead::decode(&[0xa2, 0, 13, 1, 0]).is_err(), "INTERNAL with outcome ok");
        assert!(StatusHead::decode(&[0xa2, 0, 13, 1, 9]).is_err(), "an outcome of no meaning");
    }

    #[test]
    fn long_message_is_truncated_between_characters() {
        let status = Status::new(Code::Internal, "é".repeat(MESSAGE_TEXT_BYTES_MAX));
        let mut bytes = Vec::new();
        encode_fields(&mut bytes, &StatusHead::failed(&status)).expect("encodes");
        let Ok(Err(back)) = StatusHead::decode(&bytes) else { panic!("no status came back") };
        assert_eq!(back.message().len(), MESSAGE_TEXT_BYTES_MAX);
    }
}
