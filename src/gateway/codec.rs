//! Messages as HTTP clients write them: JSON or CBOR, by themselves or in Connect's envelopes.
//! Source: <https://connectrpc.com/docs/protocol/>, "Streaming RPCs".

use crate::{
    convert::{Converter, Text},
    status::{Code, Outcome, Status},
};
use bytes::{Buf, Bytes};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Json,
    Cbor,
}

impl Codec {
    /// Converts a body to the CBOR of a message. The responder checks CBOR itself.
    pub(super) async fn decode(self, converter: &Converter, bytes: Bytes) -> Result<Bytes, Status> {
        if self == Self::Cbor {
            return Ok(bytes);
        }
        let (outcome, code) = (Outcome::NotExecuted, Code::InvalidArgument);
        let message = converter.to_cbor(bytes).await;
        message.map_err(|why| why.into_status(outcome, code, "the body is not one JSON value"))
    }

    /// Converts the CBOR of a reply. A failure has an unknown outcome: the handler has run.
    pub(super) async fn encode(
        self,
        converter: &Converter,
        message: Bytes,
    ) -> Result<Text, Status> {
        if self == Self::Cbor {
            return Ok(Text::complete(message));
        }
        let text = converter.to_text(message).await;
        text.map_err(|why| {
            let what = "the handler's answer is not CBOR that can be written as JSON";
            why.into_status(Outcome::Unknown, Code::Internal, what)
        })
    }
}

/// Length of the prefix of a message in Connect's streams: a byte of flags, four of length.
pub(super) const PREFIX_BYTES: usize = 5;
/// The message is compressed.
const COMPRESSED: u8 = 1;
/// The message is the last one, the end of the stream.
pub(super) const END_STREAM: u8 = 2;

/// Takes the one message of a streaming request out of its envelope.
pub(super) fn opened(mut body: Bytes) -> Result<Bytes, Status> {
    let invalid = |text: &str| Err(Status::not_executed(Code::InvalidArgument, text));
    if body.len() < PREFIX_BYTES {
        return invalid("the body is shorter than the five bytes before a message");
    }
    let (flags, length) = (body.get_u8(), body.get_u32());
    if flags & COMPRESSED != 0 {
        let text = "a message is compressed; messages are taken uncompressed only";
        return Err(Status::not_executed(Code::Unimplemented, text));
    }
    if flags != 0 {
        return invalid("the flags of the message are unknown; a request's message has none");
    }
    match body.len().cmp(&(length as usize)) {
        std::cmp::Ordering::Less => invalid("the body ends before its message does"),
        std::cmp::Ordering::Equal => Ok(body),
        std::cmp::Ordering::Greater => {
            invalid("there is more than one message; methods are called with one over HTTP")
        }
    }
}

pub(super) fn enveloped(flags: u8, message: &[u8]) -> Bytes {
    [&prefix(flags, message.len() as u64), message].concat().into()
}

pub(super) fn prefix(flags: u8, length: u64) -> [u8; PREFIX_BYTES] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [flags, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_holds_one_plain_message() {
        assert_eq!(opened(enveloped(0, b"abc")), Ok(Bytes::from_static(b"abc")));
        assert_eq!(opened(enveloped(0, b"")), Ok(Bytes::new()));
        let code = |body: &[u8]| opened(Bytes::copy_from_slice(body)).map_err(|bad| bad.code());
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x02\0\0\0\0",
            b"\x80\0\0\0\0",
        ] {
            assert_eq!(code(bad), Err(Code::InvalidArgument), "{bad:?}");
        }
        assert_eq!(code(b"\x01\0\0\0\x01a"), Err(Code::Unimplemented));
    }
}
