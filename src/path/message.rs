//! Datagrams in a WebSocket message: each behind its length in two bytes, big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of the length of a datagram.
pub(super) const LENGTH_BYTES: usize = 2;

/// Bytes of the largest message. A peer that sends a larger one loses its tunnel.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 17;

/// Appends a datagram, of at most 65,535 bytes.
pub(super) fn push(message: &mut BytesMut, datagram: &[u8]) {
    message.put_u16(datagram.len() as u16);
    message.put_slice(datagram);
}

/// Takes the first datagram; `None` at the end of the message, or of what is well-formed.
pub(super) fn pop(message: &mut Bytes) -> Option<Bytes> {
    if message.len() < LENGTH_BYTES {
        return None;
    }
    let length = usize::from(message.get_u16());
    (length <= message.len()).then(|| message.split_to(length))
}

/// Returns the bytes of the first datagrams that are `most` together, but of one at least.
pub(super) fn prefix_of_whole(queued: &[u8], most: usize) -> usize {
    let mut whole = 0;
    while let Some(length) = queued[whole..].first_chunk() {
        let next = whole + LENGTH_BYTES + usize::from(u16::from_be_bytes(*length));
        if whole > 0 && next > most {
            break;
        }
        whole = next;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(datagrams: &[&[u8]]) -> BytesMut {
        let mut message = BytesMut::new();
        datagrams.iter().for_each(|datagram| push(&mut message, datagram));
        message
    }

    fn popped(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut message = Bytes::copy_from_slice(bytes);
        std::iter::from_fn(|| pop(&mut message)).map(Into::into).collect()
    }

    #[test]
    fn datagrams_come_out_as_they_went_in() {
        let large = [7; 1_200];
        let datagrams: [&[u8]; 3] = [&large, b"", b"x"];
        assert_eq!(popped(&message(&datagrams)), datagrams);
    }

    #[test]
    fn a_datagram_that_is_cut_off_is_not_taken() {
        let whole = message(&[b"first", b"second"]);
        for end in 7..whole.len() {
            assert_eq!(popped(&whole[..end]), [b"first"], "{end} bytes");
        }
        assert!(popped(&[0]).is_empty() && popped(&[0xff, 0xff, 1]).is_empty());
    }

    #[test]
    fn a_prefix_has_whole_datagrams_and_one_at_least() {
        let queued = message(&[&[1; 8], &[2; 8], &[3; 8]]);
        for (most, expected) in [(1, 10), (10, 10), (19, 10), (20, 20), (29, 20), (99, 30)] {
            assert_eq!(prefix_of_whole(&queued, most), expected, "{most}");
        }
        assert_eq!(prefix_of_whole(b"", 9), 0);
    }
}
