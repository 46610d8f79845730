//! Message format (JSON or CBOR) and media types of an upstream.

use crate::convert::{ConvertError, Converter, Text};
use bytes::Bytes;
use std::str::FromStr;

/// Format of an upstream: dialback's messages are CBOR, and most HTTP services use JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardFormat {
    /// `application/json`, by the rules of RFC 8949 section 6: byte strings become base64url text.
    #[default]
    Json,
    /// `application/cbor`, as the message is.
    Cbor,
}

impl ForwardFormat {
    /// The word in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Cbor => "cbor",
        }
    }
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
    pub(super) async fn encode(self, by: &Converter, message: Bytes) -> Result<Text, ConvertError> {
        match self {
            Self::Cbor => by.well_formed(message).await.map(Text::complete),
            Self::Json => by.to_text(message).await,
        }
    }

    /// A message as the upstream wrote it.
    pub(super) async fn decode(
        self,
        by: &Converter,
        message: Bytes,
    ) -> Result<Bytes, ConvertError> {
        match self {
            Self::Cbor => by.well_formed(message).await,
            Self::Json => by.to_cbor_leniently(message).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Conversions;
    use http_body_util::BodyExt as _;

    fn converter() -> Converter {
        Conversions::default().of(&"caller/ops".parse().expect("a name"))
    }

    async fn written(format: ForwardFormat, cbor: &Bytes) -> Result<Bytes, ConvertError> {
        let text = format.encode(&converter(), cbor.clone()).await?;
        let left = text.left();
        let body = text.collect().await.expect("it cannot fail").to_bytes();
        assert_eq!(left, body.len() as u64);
        Ok(body)
    }

    #[tokio::test]
    async fn messages_come_back_from_either_format() {
        let cbor = Bytes::from_static(&[0xa1, 0x61, 0x61, 0x01]);
        for (format, sent) in
            [(ForwardFormat::Json, &b"{\"a\":1}"[..]), (ForwardFormat::Cbor, &cbor)]
        {
            assert_eq!(written(format, &cbor).await.as_deref(), Ok(sent));
            let back = format.decode(&converter(), Bytes::copy_from_slice(sent)).await;
            assert_eq!(back, Ok(cbor.clone()));
        }
    }

    #[tokio::test]
    async fn invalid_json_and_invalid_cbor_are_refused() {
        let by = &converter();
        for bad in [&b""[..], b"{", b"1 2", b"\xff"] {
            let bad = Bytes::from_static(bad);
            assert!(ForwardFormat::Json.decode(by, bad.clone()).await.is_err(), "{bad:?}");
        }
        for bad in [&b""[..], &[0x61], &[0x01, 0x01]] {
            let bad = Bytes::from_static(bad);
            assert!(ForwardFormat::Cbor.decode(by, bad.clone()).await.is_err(), "{bad:?}");
            assert!(written(ForwardFormat::Json, &bad).await.is_err(), "{bad:?}");
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
