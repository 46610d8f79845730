//! Heads and trailers of an HTTP call, which travel as messages.

use super::{
    WireError,
    cbor::{decode_fields, encode_fields, is_default, or_absent},
};
use crate::limits::HEAD_ITEMS_MAX;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes as CborBytes;

/// Headers as they travel: an array of pairs of a text and bytes.
pub(crate) type HeaderPairs<'a> = Vec<(&'a str, &'a CborBytes)>;

/// First message of a request. Verb and path are in HEAD, where rules see them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpRequestHead<'a> {
    /// 0: what follows the `?`; absent without one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<&'a str>,
    /// 1: headers without those of a connection.
    #[serde(
        borrow,
        default,
        deserialize_with = "or_absent",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) headers: HeaderPairs<'a>,
    /// 2: host and port that the client named; absent: those of the upstream.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<&'a str>,
    /// 3: whether a body follows, which may turn out to be empty.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) has_body: bool,
    /// 4: the protocol that the client asks to change to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) upgrade: Option<&'a str>,
}

/// First message of a reply. With status 101 bytes of the other protocol follow.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpResponseHead<'a> {
    /// 0: the status code. Required.
    pub(crate) status: u16,
    /// 1: headers without those of a connection.
    #[serde(
        borrow,
        default,
        deserialize_with = "or_absent",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) headers: HeaderPairs<'a>,
    /// 2: with status 101, the protocol that the connection changes to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) upgrade: Option<&'a str>,
}

/// Trailers of a request or a reply: the message after the empty one that ends the body.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpTrailers<'a> {
    /// 0: the trailers.
    #[serde(
        borrow,
        default,
        deserialize_with = "or_absent",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) trailers: HeaderPairs<'a>,
}

macro_rules! messages {
    ($($head:ident)*) => {$(
        impl<'a> $head<'a> {
            pub(crate) fn encode(&self) -> Result<Bytes, WireError> {
                let mut out = Vec::new();
                encode_fields(&mut out, self)?;
                Ok(out.into())
            }

            pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
                decode_fields(bytes, HEAD_ITEMS_MAX)
            }
        }
    )*};
}

messages! { HttpRequestHead HttpResponseHead HttpTrailers }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_trailers_come_back_as_they_were() {
        let headers = || vec![("accept", CborBytes::new(b"*/*")), ("x", CborBytes::new(b"\xff"))];
        let request = HttpRequestHead {
            query: Some("a=1"),
            headers: headers(),
            authority: Some("web.example:8443"),
            has_body: true,
            upgrade: Some("websocket"),
        };
        let bytes = request.encode().expect("encodes");
        assert_eq!(HttpRequestHead::decode(&bytes), Ok(request));
        let empty = HttpRequestHead::default().encode().expect("encodes");
        assert_eq!(&empty[..], [0xa0]);
        assert_eq!(HttpRequestHead::decode(&empty), Ok(HttpRequestHead::default()));
        let response = HttpResponseHead { status: 204, headers: headers(), upgrade: Some("x") };
        let bytes = response.encode().expect("encodes");
        assert_eq!(HttpResponseHead::decode(&bytes), Ok(response));
        let trailers = HttpTrailers { trailers: headers() };
        let bytes = trailers.encode().expect("encodes");
        assert_eq!(HttpTrailers::decode(&bytes), Ok(trailers));
    }

    #[test]
    fn a_response_without_a_status_or_with_a_value_of_another_type_is_refused() {
        for bad in [&[0xa0][..], &[0xa1, 0x00, 0xf6], &[0xa1, 0x00, 0x61, b'a'], &[0x00], b""] {
            assert!(HttpResponseHead::decode(bad).is_err(), "{bad:02x?}");
        }
        for bad in [&[0xa1, 0x00, 0x01][..], &[0xa1, 0x01, 0x81, 0x61, b'a'], &[0xa1, 0x03, 0x01]] {
            assert!(HttpRequestHead::decode(bad).is_err(), "{bad:02x?}");
        }
    }
}
