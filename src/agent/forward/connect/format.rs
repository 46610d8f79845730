//! What messages are on their way to an upstream: JSON or CBOR, and the names of both in HTTP.

use crate::wire::{decode_value, json};
use bytes::Bytes;
use std::str::FromStr;

/// What an upstream takes and gives: dialback's messages are CBOR, and HTTP services mostly speak JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardFormat {
    /// `application/json`, by the rules of RFC 8949 section 6: byte strings become base64url text.
    #[default]
    Json,
    /// `application/cbor`, as the message is.
    Cbor,
}

impl FromStr for ForwardFormat {
    type Err = &'static str;

    /// Reads `json` or `cbor`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "cbor" => Ok(Self::Cbor),
            _ => Err("is not json or cbor"),
        }
    }
}

impl ForwardFormat {
    /// The media type of a call, of one message or of a stream of them.
    pub(super) const fn media_type(self, is_stream: bool) -> &'static str {
        match (self, is_stream) {
            (Self::Json, false) => "application/json",
            (Self::Json, true) => "application/connect+json",
            (Self::Cbor, false) => "application/cbor",
            (Self::Cbor, true) => "application/connect+cbor",
        }
    }

    /// The format that a `content-type` names, if it is one of ours.
    pub(super) fn of(content_type: &str, is_stream: bool) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        [Self::Json, Self::Cbor]
            .into_iter()
            .find(|format| media_type.eq_ignore_ascii_case(format.media_type(is_stream)))
    }

    /// A message as the upstream reads it.
    pub(super) fn encode(self, message: &Bytes) -> Result<Bytes, String> {
        match self {
            Self::Cbor => well_formed(message),
            Self::Json => {
                let value = json::from_cbor(message)?;
                serde_json::to_vec(&value).map(Bytes::from).map_err(|fault| fault.to_string())
            }
        }
    }

    /// A message as the upstream wrote it.
    pub(super) fn decode(self, message: &Bytes) -> Result<Bytes, String> {
        match self {
            Self::Cbor => well_formed(message),
            Self::Json => {
                let value = serde_json::from_slice(message).map_err(|fault| fault.to_string())?;
                json::to_cbor(&value)
            }
        }
    }
}

/// Whoever reads it last should not be the first to find out that it is no CBOR.
fn well_formed(message: &Bytes) -> Result<Bytes, String> {
    decode_value::<serde::de::IgnoredAny>(message).map(|_| message.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_from_either_format() {
        let cbor = Bytes::from_static(&[0xa1, 0x61, 0x61, 0x01]);
        for (format, sent) in
            [(ForwardFormat::Json, &b"{\"a\":1}"[..]), (ForwardFormat::Cbor, &cbor)]
        {
            assert_eq!(format.encode(&cbor).as_deref(), Ok(sent));
            assert_eq!(format.decode(&Bytes::copy_from_slice(sent)), Ok(cbor.clone()));
        }
    }

    #[test]
    fn what_is_neither_json_nor_cbor_is_refused() {
        for bad in [&b""[..], b"{", b"1 2", b"\xff"] {
            let bad = Bytes::from_static(bad);
            assert!(ForwardFormat::Json.decode(&bad).is_err(), "{bad:?}");
        }
        for bad in [&b""[..], &[0x61], &[0x01, 0x01]] {
            let bad = Bytes::from_static(bad);
            assert!(ForwardFormat::Cbor.decode(&bad).is_err(), "{bad:?}");
            assert!(ForwardFormat::Json.encode(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn content_types_are_known_by_their_media_type_alone() {
        let json = Some(ForwardFormat::Json);
        assert_eq!(ForwardFormat::of("application/json", false), json);
        assert_eq!(ForwardFormat::of("Application/JSON; charset=utf-8", false), json);
        assert_eq!(ForwardFormat::of("application/connect+json", true), json);
        assert_eq!(ForwardFormat::of("application/cbor", false), Some(ForwardFormat::Cbor));
        for other in ["", "text/html", "application/json", "application/jsonx"] {
            assert_eq!(ForwardFormat::of(other, true), None, "{other}");
        }
    }
}
