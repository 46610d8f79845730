//! Finds the frames of a WebSocket in its bytes.

use bytes::Bytes;

const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

/// The first byte of a whole pong.
const PONG: u8 = 0x8a;
const CLOSE: u8 = 8;

const MASK_BYTES: usize = 4;

/// Whose frames they are. Those of a client are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WebSocketSide {
    Client,
    Server,
}

/// Follows the frames of one direction.
#[derive(Debug)]
pub(super) struct WebSocketFrames {
    side: WebSocketSide,
    /// Pongs with these bytes are taken out.
    pong: &'static [u8],
    /// The start of a header, or of a pong that may have to be taken out.
    held: Bytes,
    /// Bytes of the last frame that have not come.
    left: u64,
    /// The last frame was a close: no other may follow.
    is_closing: bool,
    /// What came is not a frame: these bytes and all others pass as they are.
    is_opaque: bool,
}

/// The header of a frame, with its mask.
struct WebSocketHeader {
    opcode: u8,
    bytes: usize,
    payload_bytes: u64,
}

/// What the bytes at the beginning of a frame are.
enum FrameStart {
    Incomplete,
    Frame(WebSocketHeader),
    /// A pong to be taken out, of this size.
    Pong(usize),
    NoFrame,
}

impl WebSocketFrames {
    pub(super) const fn new(side: WebSocketSide, pong: &'static [u8]) -> Self {
        let held = Bytes::new();
        Self { side, pong, held, left: 0, is_closing: false, is_opaque: false }
    }

    /// Returns true if a frame may be inserted behind what has passed.
    pub(super) const fn may_insert(&self) -> bool {
        self.left == 0 && !self.is_closing && !self.is_opaque
    }

    /// Returns what passes on of these bytes and of those that were held.
    pub(super) fn pass(&mut self, bytes: Bytes) -> Bytes {
        let mut all = match self.held.is_empty() {
            true => bytes,
            false => [&std::mem::take(&mut self.held)[..], &bytes].concat().into(),
        };
        let mut at = 0;
        while !self.is_opaque {
            let rest = (all.len() - at) as u64;
            let of_frame = self.left.min(rest);
            at += of_frame as usize;
            self.left -= of_frame;
            if at == all.len() {
                break;
            }
            match self.start(&all[at..]) {
                FrameStart::Incomplete => {
                    self.held = all.split_off(at);
                    break;
                }
                FrameStart::Frame(header) => {
                    self.is_closing |= header.opcode == CLOSE;
                    at += header.bytes;
                    self.left = header.payload_bytes;
                }
                FrameStart::Pong(bytes) => all = [&all[..at], &all[at + bytes..]].concat().into(),
                FrameStart::NoFrame => self.is_opaque = true,
            }
        }
        all
    }

    /// Returns what was held, at the end of the bytes.
    pub(super) fn rest(&mut self) -> Bytes {
        self.is_opaque = true;
        std::mem::take(&mut self.held)
    }

    fn start(&self, bytes: &[u8]) -> FrameStart {
        let [first, second, rest @ ..] = bytes else {
            let is_frame = bytes.first().is_none_or(|first| is_known(first & OPCODE));
            return if is_frame { FrameStart::Incomplete } else { FrameStart::NoFrame };
        };
        let is_masked = second & MASKED != 0;
        if !is_known(first & OPCODE) || is_masked != (self.side == WebSocketSide::Client) {
            return FrameStart::NoFrame;
        }
        let mask_bytes = if is_masked { MASK_BYTES } else { 0 };
        if *first == PONG && usize::from(second & LENGTH) == self.pong.len() && is_masked {
            let Some((mask, masked)) = rest.split_at_checked(mask_bytes) else {
                return FrameStart::Incomplete;
            };
            let unmasked = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
            let is_ours = unmasked.zip(self.pong).all(|(byte, pong)| byte == *pong);
            if is_ours && masked.len() < self.pong.len() {
                return FrameStart::Incomplete;
            }
            if is_ours {
                return FrameStart::Pong(2 + mask_bytes + self.pong.len());
            }
        }
        let length_bytes = match second & LENGTH {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if rest.len() < length_bytes + mask_bytes {
            return FrameStart::Incomplete;
        }
        let payload_bytes = match length_bytes {
            0 => u64::from(second & LENGTH),
            _ => rest[..length_bytes].iter().fold(0, |all, byte| all << 8 | u64::from(*byte)),
        };
        let bytes = 2 + length_bytes + mask_bytes;
        FrameStart::Frame(WebSocketHeader { opcode: first & OPCODE, bytes, payload_bytes })
    }
}

/// Data frames and control frames. The others are reserved.
const fn is_known(opcode: u8) -> bool {
    matches!(opcode, 0..=2 | CLOSE..=10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame, with a mask if it is a client's.
    fn frame(side: WebSocketSide, first: u8, payload: &[u8]) -> Vec<u8> {
        let masked = if side == WebSocketSide::Client { MASKED } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            bytes @ 0..126 => frame.push(masked | bytes as u8),
            bytes @ 126..65_536 => {
                frame.push(masked | 126);
                frame.extend((bytes as u16).to_be_bytes());
            }
            bytes => {
                frame.push(masked | 127);
                frame.extend((bytes as u64).to_be_bytes());
            }
        }
        let mask: &[u8] = if side == WebSocketSide::Client { &[1, 2, 3, 4] } else { &[] };
        frame.extend(mask);
        let mask = mask.iter().chain(std::iter::repeat(&0)).take(4).cycle();
        frame.extend(payload.iter().zip(mask.cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn messages(side: WebSocketSide) -> Vec<Vec<u8>> {
        [(0x81, 5), (0x02, 300), (0x80, 70_000), (0x89, 0), (0x8a, 8), (0xc1, 125), (0x82, 126)]
            .map(|(first, bytes)| frame(side, first, &vec![7; bytes]))
            .into()
    }

    #[test]
    fn frames_pass_unchanged_in_pieces_of_every_size_and_their_ends_are_known() {
        for side in [WebSocketSide::Client, WebSocketSide::Server] {
            let frames = messages(side);
            let all = frames.concat();
            let ends: Vec<_> = frames
                .iter()
                .scan(0, |end, frame| {
                    *end += frame.len();
                    Some(*end)
                })
                .collect();
            for size in [1, 2, 3, 7, 100, 4_096, all.len()] {
                let (mut followed, mut passed) =
                    (WebSocketFrames::new(side, b"dialback"), Vec::new());
                assert!(followed.may_insert());
                for piece in all.chunks(size) {
                    passed.extend(followed.pass(Bytes::copy_from_slice(piece)));
                    let is_end = passed.is_empty() || ends.contains(&passed.len());
                    assert_eq!(followed.may_insert(), is_end, "{side:?} {size} {}", passed.len());
                }
                assert_eq!(passed, all, "{side:?} {size}");
                assert!(followed.rest().is_empty());
            }
        }
    }

    #[test]
    fn pongs_of_the_client_to_own_pings_are_taken_out() {
        let ours = frame(WebSocketSide::Client, PONG, b"dialback");
        let other = frame(WebSocketSide::Client, PONG, b"dialbact");
        let text = frame(WebSocketSide::Client, 0x81, b"dialback");
        let all = [&ours, &text, &other, &ours, &ours, &text, &ours].map(Vec::as_slice).concat();
        let expected = [&text, &other, &text].map(Vec::as_slice).concat();
        for size in 1..all.len() {
            let mut frames = WebSocketFrames::new(WebSocketSide::Client, b"dialback");
            let passed: Vec<u8> = all
                .chunks(size)
                .flat_map(|piece| frames.pass(Bytes::copy_from_slice(piece)))
                .collect();
            assert_eq!(passed, expected, "{size}");
            assert!(frames.may_insert());
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut frames = WebSocketFrames::new(WebSocketSide::Server, b"dialback");
        let close = frame(WebSocketSide::Server, 0x88, &[3, 232]);
        assert_eq!(frames.pass(Bytes::from(close.clone())), close);
        assert!(!frames.may_insert());
    }

    #[test]
    fn bytes_that_are_not_frames_pass_as_they_are_and_nothing_is_inserted() {
        let reserved: &[u8] = &[0x83, 0, 1];
        for (side, bytes) in [
            (WebSocketSide::Server, reserved),
            (WebSocketSide::Server, &[0x0b]),
            (WebSocketSide::Server, &frame(WebSocketSide::Client, 0x81, b"masked")),
            (WebSocketSide::Client, &frame(WebSocketSide::Server, 0x81, b"unmasked")),
            (WebSocketSide::Client, b"SSH-2.0"),
        ] {
            let mut frames = WebSocketFrames::new(side, b"dialback");
            assert_eq!(frames.pass(Bytes::copy_from_slice(bytes)), bytes);
            assert!(!frames.may_insert());
            let pong = frame(side, PONG, b"dialback");
            assert_eq!(frames.pass(Bytes::from(pong.clone())), pong);
        }
    }

    #[test]
    fn the_end_gives_back_what_was_held() {
        let mut frames = WebSocketFrames::new(WebSocketSide::Client, b"dialback");
        let pong = frame(WebSocketSide::Client, PONG, b"dialback");
        assert_eq!(frames.pass(Bytes::from(pong[..9].to_vec())), "");
        assert_eq!(frames.rest(), &pong[..9]);
    }
}
