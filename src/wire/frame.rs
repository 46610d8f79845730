//! Frames: a one-byte kind, a length, and a payload. Reads headers, joins frames for one write.

use super::{
    cbor::{self, with_scratch},
    error::WireError,
    head::{ReplyHead, RequestHead},
    status::StatusHead,
};
use crate::limits::{CONTROL_BYTES_MAX, HEAD_BYTES_MAX};
use bytes::{Buf, Bytes};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        /// Kind of a frame. Unknown kinds of 0x80 and above are skipped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind {
            $($(#[$doc])* $name,)*
            /// An optional frame of a newer peer: skipped by its length.
            Optional,
        }

        impl Kind {
            const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$name),)*
                    0x80.. => Some(Self::Optional),
                    _ => None,
                }
            }

            pub(crate) const fn byte(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Optional => 0x80,
                }
            }

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    Self::Optional => "optional",
                }
            }
        }
    };
}

kinds! {
    Hello = 0x01;
    Welcome = 0x02;
    /// An agent's services.
    Register = 0x03;
    /// The node has taken them.
    Registered = 0x04;
    /// Which nodes there are. Reserved: read and passed over.
    View = 0x05;
    Drain = 0x06;
    /// Are you there?
    Ping = 0x07;
    Pong = 0x08;
    /// The side has finished, and the other is to close the link.
    Goodbye = 0x09;
    /// How much the receiver may send on a stream.
    Window = 0x0c;
    /// The first frame of a request; optional in a reply.
    Head = 0x10;
    /// One message.
    Message = 0x11;
    End = 0x12;
    /// The last frame of a reply.
    Status = 0x13;
}

impl Kind {
    /// The largest payload of such a frame, given the limit on messages.
    pub(crate) const fn bytes_max(self, message_bytes_max: usize) -> usize {
        match self {
            Self::Message => message_bytes_max,
            Self::End => 0,
            Self::Register | Self::View => CONTROL_BYTES_MAX,
            _ => HEAD_BYTES_MAX,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: usize,
    /// Bytes of the header itself, 2 to 9.
    pub(crate) header_bytes: usize,
}

impl Header {
    /// Reads a header from the start of `bytes`; `None` if it is incomplete.
    pub(crate) fn parse(bytes: &[u8], message_bytes_max: usize) -> Result<Option<Self>, WireError> {
        let Some((&kind_byte, rest)) = bytes.split_first() else { return Ok(None) };
        let kind = Kind::from_byte(kind_byte).ok_or(WireError::Malformed("unknown frame kind"))?;
        let Some((length, length_bytes)) = read_varint(rest) else { return Ok(None) };
        let limit = kind.bytes_max(message_bytes_max);
        match usize::try_from(length) {
            Ok(payload_bytes) if payload_bytes <= limit => {
                Ok(Some(Self { kind, payload_bytes, header_bytes: 1 + length_bytes }))
            }
            _ => Err(WireError::TooLarge { kind: kind.as_str(), bytes: length, limit }),
        }
    }
}

/// A variable-length integer of QUIC (RFC 9000 section 16): the value and the bytes it took.
fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value =
        rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, length))
}

fn push_varint(out: &mut Vec<u8>, value: usize) {
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(0x4000 | value as u16).to_be_bytes()),
        0x4000..=0x3fff_ffff => out.extend_from_slice(&(0x8000_0000 | value as u32).to_be_bytes()),
        _ => out.extend_from_slice(&(0xc000_0000_0000_0000 | value as u64).to_be_bytes()),
    }
}

/// Bytes that [`push_varint`] appends for a value.
const fn varint_bytes(value: usize) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends a frame whose payload is CBOR of `fields`. The length is always written in two bytes
/// (four for long control frames), so that the payload is encoded in place.
pub(crate) fn push_map<T: serde::Serialize>(
    out: &mut Vec<u8>,
    kind: Kind,
    fields: &T,
) -> Result<(), WireError> {
    out.push(kind.byte());
    let length_at = out.len();
    out.extend_from_slice(&[0; 2]);
    cbor::encode_fields(out, fields)?;
    let length = out.len() - length_at - 2;
    let limit = kind.bytes_max(0);
    if length > limit {
        return Err(WireError::TooLarge { kind: kind.as_str(), bytes: length as u64, limit });
    }
    if length <= 0x3fff {
        out[length_at..length_at + 2].copy_from_slice(&(0x4000 | length as u16).to_be_bytes());
    } else {
        let long = (0x8000_0000 | length as u32).to_be_bytes();
        out.splice(length_at..length_at + 2, long);
    }
    Ok(())
}

/// Messages up to this size are copied next to their head into one buffer; longer ones are not.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Buffers of one write, one to three in order, without an allocation to list them.
#[derive(Debug)]
pub(crate) struct Chunks {
    pieces: [Bytes; 3],
    used: usize,
}

impl Chunks {
    pub(crate) const fn one(piece: Bytes) -> Self {
        Self { pieces: [piece, Bytes::new(), Bytes::new()], used: 1 }
    }

    /// Bytes that the transport has not taken out yet.
    pub(crate) fn bytes_left(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    pub(crate) fn as_mut(&mut self) -> &mut [Bytes] {
        &mut self.pieces[..self.used]
    }

    /// Returns the first bytes that are left, at most this many, without taking them.
    pub(crate) fn front(&self, bytes_max: usize) -> Bytes {
        let first = self.pieces.iter().find(|piece| !piece.is_empty());
        first.map_or_else(Bytes::new, |piece| piece.slice(..piece.len().min(bytes_max)))
    }

    /// Takes bytes off that were returned by [`Chunks::front`].
    pub(crate) fn advance(&mut self, bytes: usize) {
        if let Some(piece) = self.pieces.iter_mut().find(|piece| !piece.is_empty()) {
            piece.advance(bytes);
        }
    }
}

/// A message with what goes before and after it: one buffer if the message is small, three if not.
fn around_message(
    before: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
    message: &Bytes,
    after: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<Chunks, WireError> {
    let push_before = |out: &mut Vec<u8>| {
        before(out)?;
        push_message_header(out, message.len());
        Ok(())
    };
    if message.len() > COPY_BYTES_MAX {
        let (first, last) = (with_scratch(push_before)?, with_scratch(after)?);
        return Ok(Chunks { pieces: [first, message.clone(), last], used: 3 });
    }
    let all = with_scratch(|out| {
        push_before(out)?;
        out.extend_from_slice(message);
        after(out)
    })?;
    Ok(Chunks::one(all))
}

fn push_message_header(out: &mut Vec<u8>, bytes: usize) {
    out.push(Kind::Message.byte());
    push_varint(out, bytes);
}

const END_FRAME: [u8; 2] = [Kind::End.byte(), 0];

/// The start of a unary request whose message of this length comes later: HEAD and the header of
/// MESSAGE.
pub(crate) fn request_start(head: &RequestHead<'_>, bytes: usize) -> Result<Chunks, WireError> {
    let push = |out: &mut Vec<u8>| {
        push_map(out, Kind::Head, head)?;
        push_message_header(out, bytes);
        Ok(())
    };
    with_scratch(push).map(Chunks::one)
}

/// The end of a request whose message was sent: END.
pub(crate) const fn end_chunk() -> Chunks {
    Chunks::one(Bytes::from_static(&END_FRAME))
}

/// The start of a unary reply, as of a request.
pub(crate) fn reply_start(head: Option<&ReplyHead<'_>>, bytes: usize) -> Result<Chunks, WireError> {
    let push = |out: &mut Vec<u8>| {
        if let Some(head) = head {
            push_map(out, Kind::Head, head)?;
        }
        push_message_header(out, bytes);
        Ok(())
    };
    with_scratch(push).map(Chunks::one)
}

/// The start of a request whose messages come later: HEAD alone.
pub(crate) fn head_chunk(head: &RequestHead<'_>) -> Result<Chunks, WireError> {
    with_scratch(|out| push_map(out, Kind::Head, head)).map(Chunks::one)
}

/// Some messages of a stream, and what follows the last of them, for one write. Small messages are
/// copied together, a large one travels by reference and is the last of its batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    small: Vec<u8>,
    large: Option<Bytes>,
    end: Vec<u8>,
}

impl Batch {
    /// Starts with the head of a reply, if there is one to send.
    pub(crate) fn starting_with(head: Option<&ReplyHead<'_>>) -> Result<Self, WireError> {
        let mut batch = Self::default();
        if let Some(head) = head {
            push_map(&mut batch.small, Kind::Head, head)?;
        }
        Ok(batch)
    }

    pub(crate) fn push(&mut self, message: Bytes) {
        if self.small.is_empty() {
            // Exactly: a buffer without spare room becomes `Bytes` without another allocation.
            let copied = if message.len() > COPY_BYTES_MAX { 0 } else { message.len() };
            self.small.reserve_exact(1 + varint_bytes(message.len()) + copied);
        }
        push_message_header(&mut self.small, message.len());
        if message.len() > COPY_BYTES_MAX {
            self.large = Some(message);
        } else {
            self.small.extend_from_slice(&message);
        }
    }

    /// Returns `true` if it is as large as one write should be.
    pub(crate) fn is_full(&self) -> bool {
        self.large.is_some() || self.small.len() > COPY_BYTES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty() && self.end.is_empty()
    }

    pub(crate) fn push_end(&mut self) {
        self.end.extend_from_slice(&END_FRAME);
    }

    pub(crate) fn push_status(&mut self, status: &StatusHead<'_>) -> Result<(), WireError> {
        push_map(&mut self.end, Kind::Status, status)
    }

    pub(crate) fn into_chunks(self) -> Chunks {
        let Self { small, large, end } = self;
        match large {
            Some(message) => Chunks { pieces: [small.into(), message, end.into()], used: 3 },
            None if end.is_empty() => Chunks::one(small.into()),
            None => Chunks::one([small, end].concat().into()),
        }
    }
}

/// A complete unary request: HEAD, MESSAGE, END.
pub(crate) fn request_chunks(head: &RequestHead<'_>, message: &Bytes) -> Result<Chunks, WireError> {
    let end = |out: &mut Vec<u8>| {
        out.extend_from_slice(&END_FRAME);
        Ok(())
    };
    around_message(|out| push_map(out, Kind::Head, head), message, end)
}

/// A complete unary reply: HEAD if there is one, MESSAGE, STATUS.
pub(crate) fn reply_chunks(
    head: Option<&ReplyHead<'_>>,
    message: &Bytes,
    status: &StatusHead<'_>,
) -> Result<Chunks, WireError> {
    let before = |out: &mut Vec<u8>| head.map_or(Ok(()), |head| push_map(out, Kind::Head, head));
    around_message(before, message, |out| {
        if status.is_plain_ok() {
            out.extend_from_slice(&StatusHead::OK_FRAME);
            return Ok(());
        }
        push_map(out, Kind::Status, status)
    })
}

/// A reply that is a STATUS alone, as for failures.
pub(crate) fn status_chunk(status: &StatusHead<'_>) -> Result<Chunks, WireError> {
    with_scratch(|out| push_map(out, Kind::Status, status)).map(Chunks::one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_every_size_come_back() {
        for value in
            [0, 1, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, 0x3fff_ffff_ffff_ffff]
        {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(read_varint(&bytes), Some((value as u64, bytes.len())));
            assert_eq!(varint_bytes(value), bytes.len());
            for end in 0..bytes.len() {
                assert_eq!(read_varint(&bytes[..end]), None, "a cut length was read");
            }
        }
    }

    #[test]
    fn a_message_at_its_limit_passes_and_one_byte_more_is_refused_by_its_header() {
        let header = |bytes: usize| {
            let mut out = vec![Kind::Message.byte()];
            push_varint(&mut out, bytes);
            Header::parse(&out, 1_000)
        };
        assert_eq!(header(1_000).map(|header| header.map(|h| h.payload_bytes)), Ok(Some(1_000)));
        assert!(matches!(
            header(1_001),
            Err(WireError::TooLarge { bytes: 1_001, limit: 1_000, .. })
        ));
        assert!(matches!(header(0x3fff_ffff_ffff_ffff), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn the_buffer_of_one_message_has_no_spare_room() {
        for bytes in [0, 1, 0x3f, 0x40, COPY_BYTES_MAX, COPY_BYTES_MAX + 1] {
            let mut batch = Batch::default();
            batch.push(vec![7; bytes].into());
            assert_eq!(batch.small.capacity(), batch.small.len(), "{bytes}");
        }
    }

    #[test]
    fn unknown_kinds_are_skipped_from_0x80_and_refused_below() {
        assert_eq!(
            Header::parse(&[0x80, 3], 10).map(|h| h.map(|h| h.kind)),
            Ok(Some(Kind::Optional))
        );
        assert_eq!(
            Header::parse(&[0xff, 3], 10).map(|h| h.map(|h| h.kind)),
            Ok(Some(Kind::Optional))
        );
        for unknown in [0x00, 0x0a, 0x0f, 0x14, 0x7f] {
            assert!(Header::parse(&[unknown, 0], 10).is_err(), "{unknown:#x} was read");
        }
    }

    #[test]
    fn an_end_with_a_payload_is_refused() {
        assert!(Header::parse(&[Kind::End.byte(), 0], 10).is_ok());
        assert!(Header::parse(&[Kind::End.byte(), 1], 10).is_err());
    }

    #[test]
    fn incomplete_header_is_awaited() {
        assert_eq!(Header::parse(&[], 10), Ok(None));
        assert_eq!(Header::parse(&[Kind::Message.byte()], 10), Ok(None));
        assert_eq!(Header::parse(&[Kind::Message.byte(), 0x40], 10), Ok(None));
    }

    #[test]
    fn any_bytes_are_a_header_or_an_error_and_never_a_panic() {
        proptest::proptest!(|(bytes: Vec<u8>, limit in 0usize..100_000)| {
            if let Ok(Some(header)) = Header::parse(&bytes, limit) {
                assert!(header.header_bytes <= 9 && header.header_bytes <= bytes.len());
            }
        });
    }
}
