//! Streams of replies as response bodies, in Connect's envelopes or as server-sent events. HTTP
//! polls for each message; dropping the body cancels the call.

use super::{
    codec::{Codec, END_STREAM, enveloped, prefix},
    connect_error::{METADATA, OUTCOME, error_json},
};
use crate::{
    call::{Body, Messages, Next, Reply, ReplyFuture},
    convert::{Converter, Text},
    limits::HTTP_STREAM_KEEP_ALIVE_EVERY,
    metadata::Metadata,
    status::{Code, Outcome, Status},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamFormat {
    Connect(Codec),
    Events,
}

/// Resolves when the caller is no longer authorized.
pub(super) type AuthenticationEnd = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Converter of the caller's messages, and the end of its authentication.
pub(super) type StreamContext = (Converter, AuthenticationEnd);

type Encoding = Pin<Box<dyn Future<Output = Result<Text, Status>> + Send>>;

/// Progress of the call of a streaming response.
pub(super) enum StreamState {
    /// It has no reply yet.
    Calling(ReplyFuture),
    Replying(Messages),
    Over,
}

/// Body of a streaming response.
pub(super) struct StreamBody {
    format: StreamFormat,
    state: StreamState,
    converter: Converter,
    encoding: Option<Encoding>,
    /// A message that may be partly sent. Nothing else may come in between.
    text: Option<Text>,
    authentication_end: AuthenticationEnd,
    /// Metadata that arrived after the head of the response was sent.
    late: Metadata,
    /// Time of the next keep-alive comment.
    sign: Option<Pin<Box<Sleep>>>,
}

impl StreamBody {
    pub(super) fn new(
        format: StreamFormat,
        state: StreamState,
        (converter, authentication_end): StreamContext,
    ) -> Self {
        let sign = (format == StreamFormat::Events)
            .then(|| Box::pin(tokio::time::sleep(HTTP_STREAM_KEEP_ALIVE_EVERY)));
        let (encoding, text, late) = (None, None, Metadata::default());
        Self { format, state, converter, encoding, text, authentication_end, late, sign }
    }

    /// Returns whether everything was taken.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, StreamState::Over)
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.is_over() {
            return Poll::Ready(None);
        }
        if let Some(text) = &mut self.text {
            if let Some(piece) = ready!(text.poll_piece(cx)) {
                return Poll::Ready(Some(piece));
            }
            self.text = None;
        }
        if self.authentication_end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(self.end(Err(no_longer_authenticated()))));
        }
        let Poll::Ready(piece) = self.poll_call(cx) else {
            return if self.text.is_some() { Poll::Pending } else { self.poll_sign(cx) };
        };
        if let Some(sign) = &mut self.sign {
            sign.as_mut().reset(Instant::now() + HTTP_STREAM_KEEP_ALIVE_EVERY);
        }
        Poll::Ready(Some(piece))
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        if let StreamState::Calling(call) = &mut self.state {
            match ready!(call.as_mut().poll(cx)) {
                Ok(Reply { body: Body::Messages(messages), metadata, .. }) => {
                    self.late = metadata;
                    self.state = StreamState::Replying(messages);
                }
                Ok(Reply { body: Body::Message(_) | Body::Parts(_), .. }) => {
                    return Poll::Ready(self.end(Err(no_stream())));
                }
                Err(status) => return Poll::Ready(self.end(Err(status))),
            }
        }
        loop {
            if let Some(encoding) = &mut self.encoding {
                let encoded = ready!(encoding.as_mut().poll(cx));
                self.encoding = None;
                return match encoded {
                    Ok(text) => self.poll_begun(text, cx),
                    Err(status) => Poll::Ready(self.end(Err(status))),
                };
            }
            let StreamState::Replying(messages) = &mut self.state else {
                return Poll::Ready(Bytes::new());
            };
            return Poll::Ready(match ready!(messages.poll_event(cx)) {
                Next::Head(metadata) => {
                    self.late = metadata;
                    continue;
                }
                Next::Message(message) => {
                    self.encoding = Some(self.written(message));
                    continue;
                }
                Next::End(trailing) => self.end(Ok(trailing)),
                Next::Failed(status) => self.end(Err(status)),
            });
        }
    }

    fn poll_sign(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(sign) = &mut self.sign else { return Poll::Pending };
        ready!(sign.as_mut().poll(cx));
        sign.as_mut().reset(Instant::now() + HTTP_STREAM_KEEP_ALIVE_EVERY);
        Poll::Ready(Some(Bytes::from_static(b":\n\n")))
    }

    /// Returns the first piece of a message. Never empty: it begins with a prefix.
    fn poll_begun(&mut self, text: Text, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.text.insert(text).poll_piece(cx).map(Option::unwrap_or_default)
    }

    fn written(&self, message: Bytes) -> Encoding {
        let (format, converter) = (self.format, self.converter.clone());
        Box::pin(async move {
            match format {
                StreamFormat::Connect(codec) => {
                    let text = codec.encode(&converter, message).await?;
                    let prefix = prefix(0, text.left());
                    Ok(text.between(&prefix, b""))
                }
                StreamFormat::Events => {
                    let text = Codec::Json.encode(&converter, message).await?;
                    Ok(text.between(b"data: ", b"\n\n"))
                }
            }
        })
    }

    fn end(&mut self, ended: Result<Metadata, Status>) -> Bytes {
        self.state = StreamState::Over;
        ending(self.format, ended, &self.late)
    }
}

pub(super) fn ending(
    format: StreamFormat,
    ended: Result<Metadata, Status>,
    late: &Metadata,
) -> Bytes {
    let outcome = ended.as_ref().map_or_else(Status::outcome, |_| Outcome::Ok);
    let trailing = ended.as_ref().unwrap_or_else(Status::metadata);
    match format {
        StreamFormat::Connect(_) => {
            let mut pairs = grouped(&[late, trailing], METADATA);
            pairs.insert(OUTCOME.as_str().into(), json!([outcome.as_str()]));
            let mut end = json!({ "metadata": pairs });
            if let Err(status) = &ended {
                end["error"] = error_json(status);
            }
            enveloped(END_STREAM, end.to_string().as_bytes())
        }
        StreamFormat::Events => {
            let (name, mut data) = match &ended {
                Ok(_) => ("end", json!({})),
                Err(status) => ("error", error_json(status)),
            };
            data["outcome"] = outcome.as_str().into();
            data["metadata"] = grouped(&[late, trailing], "").into();
            format!("event: {name}\ndata: {data}\n\n").into()
        }
    }
}

/// Formats metadata as JSON: each key with all its values.
fn grouped(all: &[&Metadata], prefix: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in all.iter().flat_map(|metadata| metadata.iter()) {
        let values = out.entry(format!("{prefix}{key}")).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value.into());
        }
    }
    out
}

/// Status of a caller whose token or certificate became invalid.
pub(super) fn no_longer_authenticated() -> Status {
    let text = "the caller's token or certificate is no longer valid";
    Status::unknown(Code::Unauthenticated, text)
}

pub(super) fn no_stream() -> Status {
    let text = "the method answers with one message; call it without text/event-stream or application/connect+...";
    Status::unknown(Code::Internal, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::Conversions;

    fn until(authentication_end: impl Future<Output = ()> + Send + 'static) -> StreamContext {
        let caller = "caller/ops".parse().expect("a name");
        (Conversions::default().of(&caller), Box::pin(authentication_end))
    }

    fn never() -> StreamContext {
        until(std::future::pending())
    }

    fn replying(format: StreamFormat, messages: Messages, context: StreamContext) -> StreamBody {
        StreamBody::new(format, StreamState::Replying(messages), context)
    }

    async fn all(mut body: StreamBody) -> Vec<String> {
        let mut pieces = Vec::new();
        while let Some(piece) = std::future::poll_fn(|cx| body.poll_next(cx)).await {
            pieces.push(String::from_utf8_lossy(&piece).into_owned());
        }
        pieces
    }

    /// A stream of the CBOR of 1 and of a text, with this end.
    async fn messages(end: Next) -> Messages {
        let (sender, messages) = Messages::channel(4);
        sender.send(Bytes::from_static(&[1])).await.expect("room");
        sender.send(Bytes::from_static(&[0x62, b'a', b'\n'])).await.expect("room");
        sender.give(end).await.expect("room");
        messages
    }

    fn pairs() -> Metadata {
        [("rows".to_owned(), "2".to_owned()), ("rows".to_owned(), "3".to_owned())]
            .into_iter()
            .collect()
    }

    #[tokio::test]
    async fn events_are_one_a_message_and_one_for_the_end() {
        let body = replying(StreamFormat::Events, messages(Next::End(pairs())).await, never());
        let expected = [
            "data: 1\n\n",
            "data: \"a\\n\"\n\n",
            "event: end\ndata: {\"metadata\":{\"rows\":[\"2\",\"3\"]},\"outcome\":\"ok\"}\n\n",
        ];
        assert_eq!(all(body).await, expected);
        let status = Status::new(Code::Aborted, "enough");
        let body = replying(StreamFormat::Events, messages(Next::Failed(status)).await, never());
        let last = all(body).await.pop().expect("an end");
        let data = last.strip_prefix("event: error\ndata: ").expect("an error");
        let data: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["code"], "aborted");
        assert_eq!(
            (data["outcome"].as_str(), data["message"].as_str()),
            (Some("app_error"), Some("enough"))
        );
    }

    #[tokio::test]
    async fn envelopes_carry_the_messages_and_the_last_one_the_status() {
        let format = StreamFormat::Connect(Codec::Json);
        let body = replying(format, messages(Next::End(pairs())).await, never());
        let pieces = all(body).await;
        assert_eq!(pieces[..2], ["\0\0\0\0\x011", "\0\0\0\0\x05\"a\\n\""]);
        let end: Value = serde_json::from_str(&pieces[2][5..]).expect("JSON");
        assert!(pieces[2].starts_with('\x02') && pieces.len() == 3);
        let expected =
            json!({"metadata": {"dialback-metadata-rows": ["2", "3"], "dialback-outcome": ["ok"]}});
        assert_eq!(end, expected);
        let failed = Next::Failed(Status::unknown(Code::Unavailable, "lost"));
        let body = replying(format, messages(failed).await, never());
        let last = all(body).await.pop().expect("an end");
        let end: Value = serde_json::from_str(&last[5..]).expect("JSON");
        assert_eq!(end["error"], json!({"code": "unavailable", "message": "lost"}));
        assert_eq!(end["metadata"]["dialback-outcome"], json!(["unknown"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_sends_keep_alives_and_ends_with_its_authentication() {
        let (_sender, messages) = Messages::channel(1);
        let authentication_end = until(tokio::time::sleep(HTTP_STREAM_KEEP_ALIVE_EVERY * 5 / 2));
        let pieces = all(replying(StreamFormat::Events, messages, authentication_end)).await;
        assert_eq!(pieces[..2], [":\n\n", ":\n\n"]);
        assert!(
            pieces.len() == 3 && pieces[2].contains("\"code\":\"unauthenticated\""),
            "{pieces:?}"
        );
    }

    /// A message of a million times `false`, which is six times as long in JSON.
    fn large() -> Bytes {
        [&[0x9f][..], &[0xf4].repeat(1 << 20), &[0xff]].concat().into()
    }

    #[tokio::test]
    async fn a_large_message_is_written_as_it_is_taken_and_nothing_comes_in_between() {
        for format in [StreamFormat::Events, StreamFormat::Connect(Codec::Json)] {
            let (sender, messages) = Messages::channel(4);
            sender.send(large()).await.expect("room");
            sender.send(Bytes::from_static(&[1])).await.expect("room");
            let (no_longer_authenticated, authentication_end) =
                tokio::sync::oneshot::channel::<()>();
            let context = until(async { drop(authentication_end.await) });
            let mut body = replying(format, messages, context);
            let mut pieces = Vec::new();
            let mut next = async || std::future::poll_fn(|cx| body.poll_next(cx)).await;
            pieces.push(next().await.expect("a piece"));
            // The caller is not authorized any more, but a started message is completed.
            drop(no_longer_authenticated);
            while let Some(piece) = next().await {
                pieces.push(piece);
            }
            assert!(pieces.iter().all(|piece| piece.len() < 64 * 1024), "{format:?}");
            let whole = String::from_utf8_lossy(&pieces.concat()).into_owned();
            let json = format!("[{}]", vec!["false"; 1 << 20].join(","));
            let end = whole.split_once(&json).map(|(_, end)| end).expect("the whole message");
            assert!(end.contains("unauthenticated"), "{format:?}: {end}");
        }
    }
}
