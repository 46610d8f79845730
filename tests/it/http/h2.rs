//! HTTP/2 frames, written and read by hand.

use super::Http;
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

pub(crate) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    bytes
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal header field without indexing.
pub(crate) fn pair(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).expect("short");
        assert!(length < 127);
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

pub(crate) fn head(path: &str) -> Vec<u8> {
    [
        pair(":method", "POST"),
        pair(":scheme", "http"),
        pair(":authority", "localhost"),
        pair(":path", path),
        pair("content-type", "application/json"),
    ]
    .concat()
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a GOAWAY or a RST_STREAM.
    pub(crate) fn code(&self) -> u32 {
        let last = self.payload.chunks(4).nth(usize::from(self.kind == GOAWAY));
        u32::from_be_bytes(last.expect("a code").try_into().expect("four bytes"))
    }
}

/// The next frame; none if the connection ends. PINGs are answered.
pub(crate) async fn next<S: AsyncRead + AsyncWrite + Unpin>(http: &mut Http<S>) -> Option<Frame> {
    loop {
        let mut head = [0; 9];
        if !http.read(&mut head).await {
            return None;
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        if !http.read(&mut payload).await {
            return None;
        }
        if (kind, flags) == (PING, 0) {
            http.send(frame(PING, 1, 0, &payload)).await;
            continue;
        }
        return Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload });
    }
}

/// The answer on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    /// With this status, of those that HPACK has a number for.
    Status(u16),
    Reset(u32),
    Closed,
}

/// The beginning of the answer on a stream.
pub(crate) async fn answered<S>(http: &mut Http<S>, stream: u32) -> Answered
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(frame) = next(http).await {
        match frame.kind {
            RST_STREAM if frame.stream == stream => return Answered::Reset(frame.code()),
            HEADERS if frame.stream == stream => {
                // Statuses 200, 204, 206, 304, 400, 404 and 500 are the entries 8 to 14 of the
                // static table.
                let number = frame.payload[0].checked_sub(0x88).expect("an indexed status");
                let status = [200, 204, 206, 304, 400, 404, 500][usize::from(number)];
                return Answered::Status(status);
            }
            _ => {}
        }
    }
    Answered::Closed
}
