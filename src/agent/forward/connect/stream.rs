//! Reads a streamed reply of an upstream: Connect envelopes of messages, and the end envelope.

use super::{
    super::http::{HeldConnection, UpstreamResponse},
    errors::EndOfStream,
    format::ForwardFormat,
    headers,
    reply::{accepted, broken_reply, format_of, not_of_format},
    route::UpstreamRoute,
};
use crate::{
    call::{Messages, Next, Reply, Source},
    convert::{Converter, Converting, Text},
    limits::{FORWARD_ERROR_BYTES_MAX, FORWARD_IDLE_MAX},
    status::{Code, Status},
};
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// One byte of flags and four of length.
const HEADER_BYTES: usize = 5;
const COMPRESSED: u8 = 0b01;
const END_OF_STREAM: u8 = 0b10;

/// A message as a request of Connect's carries it where the reply is a stream.
pub(super) fn envelope(message: Text) -> Result<Text, Status> {
    let length = u32::try_from(message.left())
        .map_err(|_| Status::not_executed(Code::ResourceExhausted, "the message is over 4 GiB"))?;
    let [a, b, c, d] = length.to_be_bytes();
    Ok(message.between(&[0, a, b, c, d], b""))
}

/// Returns the stream of replies. Nothing is read before it is polled.
pub(super) async fn server_stream(
    route: &UpstreamRoute,
    answered: UpstreamResponse,
    converter: Converter,
) -> Result<Reply, Status> {
    let UpstreamResponse { response, connection } = answered;
    let response = accepted(response).await?;
    let format = format_of(route, response.headers(), true)?;
    let (parts, body) = response.into_parts();
    let (metadata, _) = headers::into_metadata(&parts.headers);
    let envelopes =
        Envelopes { bytes_max: route.settings.message_bytes_max, ..Envelopes::default() };
    let open = Some((body, connection));
    let replies = Replies { open, envelopes, format, converter, decoding: None };
    Ok(Reply { metadata, ..Reply::stream(Messages::new(replies)) })
}

/// Replies, read on demand: not polling delays the upstream, and dropping closes the connection.
struct Replies {
    /// Taken out with the message that ends the stream.
    open: Option<(Incoming, HeldConnection)>,
    envelopes: Envelopes,
    format: ForwardFormat,
    converter: Converter,
    decoding: Option<Converting<Bytes>>,
}

impl Source for Replies {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            if let Some(decoding) = &mut self.decoding {
                let decoded = ready!(decoding.as_mut().poll(cx));
                self.decoding = None;
                return Poll::Ready(match decoded {
                    Ok(message) => Next::Message(message),
                    Err(why) => Next::Failed(not_of_format(self.format, why)),
                });
            }
            match self.envelopes.next_envelope() {
                Err(status) => return Poll::Ready(Next::Failed(status)),
                Ok(Some(Envelope::Message(message))) => {
                    let (format, converter) = (self.format, self.converter.clone());
                    self.decoding =
                        Some(Box::pin(async move { format.decode(&converter, message).await }));
                    continue;
                }
                Ok(Some(Envelope::End(end))) => return Poll::Ready(self.end(&end)),
                Ok(None) => {}
            }
            let Some((body, _)) = &mut self.open else {
                return Poll::Ready(Next::Failed(closed_early()));
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.envelopes.add(&data);
                    }
                }
                Some(Err(_)) | None => return Poll::Ready(Next::Failed(closed_early())),
            }
        }
    }
}

fn closed_early() -> Status {
    let text = "the upstream closed the connection before the end of its stream";
    Status::unknown(Code::Unavailable, text)
}

impl Replies {
    fn end(&mut self, end: &Bytes) -> Next {
        if let Some((body, connection)) = self.open.take() {
            connection.tasks().spawn(hang_up_softly(body, connection));
        }
        match EndOfStream::read(end).map(EndOfStream::into_result) {
            Ok(Ok(trailing)) => Next::End(trailing),
            Ok(Err(status)) => Next::Failed(status),
            Err(why) => {
                Next::Failed(broken_reply(format_args!("ends with what is not JSON: {why}")))
            }
        }
    }
}

/// Reads to the end of the body after the last message; closing earlier makes servers log an error.
/// Then the connection can be reused.
async fn hang_up_softly(mut body: Incoming, connection: HeldConnection) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    if tokio::time::timeout(FORWARD_IDLE_MAX, rest).await.is_ok() {
        connection.keep();
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Envelope {
    Message(Bytes),
    End(Bytes),
}

/// Splits received bytes into envelopes. Holds at most one message and what came with its end.
#[derive(Debug, Default)]
struct Envelopes {
    buffer: BytesMut,
    bytes_max: usize,
}

impl Envelopes {
    fn add(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    fn next_envelope(&mut self) -> Result<Option<Envelope>, Status> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [flags, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        let is_end = flags & END_OF_STREAM != 0;
        let max = if is_end { FORWARD_ERROR_BYTES_MAX } else { self.bytes_max };
        if flags & COMPRESSED != 0 {
            return Err(broken_reply("is compressed, which was not asked for"));
        }
        if flags & !END_OF_STREAM != 0 {
            let text = format_args!("has flags that Connect does not know ({flags:#04x})");
            return Err(broken_reply(text));
        }
        if length > max {
            let text = format_args!(
                "has a message of {length} bytes, over the limit of {max} bytes (message_bytes_max)"
            );
            return Err(broken_reply(text));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        Ok(Some(if is_end { Envelope::End(payload) } else { Envelope::Message(payload) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelopes(bytes: &[u8]) -> Envelopes {
        Envelopes { buffer: bytes.into(), bytes_max: 4 }
    }

    #[test]
    fn envelopes_are_found_across_any_split_of_the_bytes() {
        let bytes = [0, 0, 0, 0, 2, b'1', b'2', 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, b'{', b'}'];
        let mut found = Vec::new();
        let mut envelopes = envelopes(&[]);
        for byte in bytes {
            envelopes.add(&[byte]);
            found.extend(envelopes.next_envelope().expect("good"));
        }
        let message = |text: &'static str| Envelope::Message(Bytes::from_static(text.as_bytes()));
        assert_eq!(found, [message("12"), message(""), Envelope::End(Bytes::from_static(b"{}"))]);
    }

    #[tokio::test]
    async fn sent_envelope_is_read_back() {
        let mut sent = envelope(Text::complete(Bytes::from_static(b"abcd"))).expect("short");
        let sent = std::future::poll_fn(|cx| sent.poll_piece(cx)).await.expect("a piece");
        let found = envelopes(&sent).next_envelope();
        assert_eq!(found, Ok(Some(Envelope::Message(Bytes::from_static(b"abcd")))));
    }

    #[test]
    fn a_message_at_its_limit_passes_and_one_past_it_or_with_unknown_flags_does_not() {
        assert!(matches!(envelopes(&[0, 0, 0, 0, 4, 1, 2, 3, 4]).next_envelope(), Ok(Some(_))));
        assert_eq!(
            envelopes(&[2, 0, 1, 0, 0]).next_envelope(),
            Ok(None),
            "64 KiB are still to come"
        );
        for (bad, why) in [
            (&[0, 0, 0, 0, 5][..], "message_bytes_max"),
            (&[0, 0xff, 0xff, 0xff, 0xff], "message_bytes_max"),
            (&[2, 0, 1, 0, 1], "message_bytes_max"),
            (&[1, 0, 0, 0, 1], "compressed"),
            (&[4, 0, 0, 0, 1], "flags"),
        ] {
            let status = envelopes(bad).next_envelope().expect_err("bad");
            assert!(status.message().contains(why), "{bad:?}: {status}");
            assert_eq!(status.outcome(), crate::status::Outcome::Unknown);
        }
    }
}
