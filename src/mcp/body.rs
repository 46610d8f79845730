//! Bodies of one message, or of a batch.

use super::{MessageError, RpcCode, members::depth};
use crate::limits::{MCP_BATCH_MAX, MCP_DEPTH_MAX};
use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::{error::Category, value::RawValue};
use std::fmt;

/// MessageTexts of the messages of a body.
#[derive(Debug)]
pub(super) struct MessageTexts<'a> {
    pub(super) is_batch: bool,
    pub(super) messages: Vec<&'a str>,
}

/// Splits a body into its messages: one, or 1 to 64 in an array. The members of messages are not
/// checked, and of a single message nothing is.
pub(super) fn split(body: &[u8]) -> Result<MessageTexts<'_>, MessageError> {
    let parse_error = |text: String| MessageError::new(RpcCode::ParseError, text);
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(parse_error("the body begins with a byte order mark".into()));
    }
    let text = std::str::from_utf8(body)
        .map_err(|fault| parse_error(format!("the body is not UTF-8: {fault}")))?;
    // serde_json has a limit for the values that it builds, and none for those that it skips.
    if depth(text) > MCP_DEPTH_MAX {
        let text = format!("the body has more than {MCP_DEPTH_MAX} levels of arrays and objects");
        return Err(parse_error(text));
    }
    if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('[') {
        return Ok(MessageTexts { is_batch: false, messages: vec![text] });
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let messages =
        reader.deserialize_seq(BatchVisitor).and_then(|found| reader.end().map(|()| found));
    let messages = messages.map_err(|fault| json_error(&fault, RpcCode::InvalidRequest, "body"))?;
    Ok(MessageTexts { is_batch: true, messages })
}

/// Fault of a text of JSON: of its syntax, or of its contents, which have this code.
pub(super) fn json_error(fault: &serde_json::Error, code: RpcCode, what: &str) -> MessageError {
    match fault.classify() {
        Category::Data => {
            let (text, at) =
                (fault.to_string(), format!(" at line {} column {}", fault.line(), fault.column()));
            MessageError::new(code, format!("{what}: {}", text.strip_suffix(&at).unwrap_or(&text)))
        }
        _ => MessageError::new(RpcCode::ParseError, format!("the body is not JSON: {fault}")),
    }
}

struct BatchVisitor;

impl<'de> Visitor<'de> for BatchVisitor {
    type Value = Vec<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a batch of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut messages = Vec::new();
        while let Some(message) = items.next_element::<&RawValue>()? {
            if messages.len() == MCP_BATCH_MAX {
                let text = format_args!("a batch has more than {MCP_BATCH_MAX} messages");
                return Err(A::Error::custom(text));
            }
            if message.get().starts_with('[') {
                return Err(A::Error::custom("a batch is nested in a batch"));
            }
            messages.push(message.get());
        }
        if messages.is_empty() {
            return Err(A::Error::custom("a batch has no message"));
        }
        Ok(messages)
    }
}

/// Writes messages as one batch.
pub(crate) fn batch<'a>(messages: impl IntoIterator<Item = &'a Bytes>) -> Bytes {
    let mut out = vec![b'['];
    for message in messages {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(message);
    }
    out.push(b']');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(body: &[u8]) -> Result<(bool, Vec<&str>), (RpcCode, String)> {
        let texts = split(body).map_err(|fault| (fault.code, fault.to_string()))?;
        Ok((texts.is_batch, texts.messages))
    }

    #[test]
    fn a_body_is_one_message_or_a_batch() {
        assert_eq!(parts(b" {\"a\":1} "), Ok((false, vec![" {\"a\":1} "])));
        assert_eq!(parts(b"\r\n[ {\"a\":[1]} , {} ]\t"), Ok((true, vec!["{\"a\":[1]}", "{}"])));
        assert_eq!(parts(b"[1]"), Ok((true, vec!["1"])));
        assert_eq!(batch([&Bytes::from("{}"), &Bytes::from("1")]), "[{},1]");
    }

    #[test]
    fn batches_that_are_empty_or_nested_or_incomplete_are_refused() {
        for (body, code) in [
            ("[]", RpcCode::InvalidRequest),
            ("[[]]", RpcCode::InvalidRequest),
            ("[{},[{}]]", RpcCode::InvalidRequest),
            ("[{}", RpcCode::ParseError),
            ("[{}] x", RpcCode::ParseError),
            ("[{}][{}]", RpcCode::ParseError),
            ("[{},]", RpcCode::ParseError),
        ] {
            assert_eq!(parts(body.as_bytes()).expect_err(body).0, code, "{body}");
        }
    }

    #[test]
    fn a_batch_of_64_messages_passes_and_one_of_65_does_not() {
        let body = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(parts(body(64).as_bytes()).map(|(_, messages)| messages.len()), Ok(64));
        let text = body(65);
        let (code, text) = parts(text.as_bytes()).expect_err("too many");
        assert_eq!(
            (code, &text[..]),
            (RpcCode::InvalidRequest, "body: a batch has more than 64 messages")
        );
    }

    #[test]
    fn a_body_64_levels_deep_passes_and_one_of_65_does_not() {
        let body =
            |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(parts(body(64).as_bytes()).is_ok());
        assert_eq!(parts(body(65).as_bytes()).expect_err("too deep").0, RpcCode::ParseError);
    }

    #[test]
    fn bytes_that_readers_take_in_different_ways_are_refused() {
        for body in [
            &b"\xef\xbb\xbf{}"[..],
            b"{\"a\":\"\xff\"}",
            b"\xff\xfe{\0}\0",
            b"{\"a\":\"\xed\xa0\x80\"}",
        ] {
            assert_eq!(parts(body).expect_err("refused").0, RpcCode::ParseError);
        }
    }
}
