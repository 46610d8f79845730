//! JSON in and out of the CBOR of messages, by the rules of RFC 8949 section 6.
//!
//! Integers keep their exact value up to the range of `u64` and `i64`. Byte strings become base64url text without padding. Keys that
//! are not text are written as text. What JSON has no word for (NaN, infinities, undefined) becomes `null`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Encodes a JSON value as the CBOR payload of a message.
///
/// # Errors
/// Never for values that `serde_json` read; the text of the encoder otherwise.
pub fn to_cbor(value: &Value) -> Result<Bytes, String> {
    super::encode_value(value)
}

/// Reads the CBOR payload of a message as a JSON value.
///
/// # Errors
/// What is not well-formed, with its byte offset. Nesting is bounded at 127, trailing bytes are refused.
pub fn from_cbor(bytes: &[u8]) -> Result<Value, String> {
    super::decode_value::<AsJson>(bytes).map(|json| json.0)
}

/// Reads the one JSON value of a text. Unlike `serde_json` by itself it refuses an object in which a key stands twice: of two readers of
/// one text the first might take the first, and the other the last.
///
/// # Errors
/// What is not JSON, or stands twice, with line and column. Nesting is bounded at 127.
pub fn from_text(text: &[u8]) -> Result<Value, String> {
    let strict: Result<AsJson<true>, _> = serde_json::from_slice(text);
    strict.map(|json| json.0).map_err(|fault| fault.to_string())
}

/// Strict: a key that stands twice in a map is a fault.
struct AsJson<const STRICT: bool = false>(Value);

/// Reads any value as JSON, for use with other deserializers of CBOR.
///
/// # Errors
/// What the deserializer reports.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    AsJson::<false>::deserialize(deserializer).map(|json| json.0)
}

impl<'de, const STRICT: bool> Deserialize<'de> for AsJson<STRICT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor::<STRICT>).map(Self)
    }
}

struct JsonVisitor<const STRICT: bool>;

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// A key of a map as text.
fn key_text(key: Value) -> String {
    match key {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

impl<'de, const STRICT: bool> Visitor<'de> for JsonVisitor<STRICT> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any CBOR value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    /// Only negative numbers below `i64` come here.
    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(URL_SAFE_NO_PAD.encode(value).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        AsJson::<STRICT>::deserialize(deserializer).map(|json| json.0)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        AsJson::<STRICT>::deserialize(deserializer).map(|json| json.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(AsJson::<STRICT>(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((AsJson::<STRICT>(key), AsJson::<STRICT>(value))) = entries.next_entry()? {
            let key = key_text(key);
            if STRICT && out.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} stands there twice")));
            }
            out.insert(key, value);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod rules;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_comes_back_equal_with_exact_integers() {
        for value in [
            json!(null),
            json!(true),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(0),
            json!(-1),
            json!(0.1),
            json!("é\u{0}\n"),
            json!([1, [2, {"a": []}]]),
            json!({"a": {"b": [null, false]}, "": 1e300}),
        ] {
            let cbor = to_cbor(&value).expect("encodes");
            assert_eq!(from_cbor(&cbor), Ok(value));
        }
    }

    #[test]
    fn floats_keep_their_last_digit_on_the_way_from_text_to_text() {
        // serde_json reads them to within one unit in the last place unless told otherwise.
        proptest::proptest!(|(bits: u64)| {
            let float = f64::from_bits(bits);
            if float.is_finite() {
                let read: Value = serde_json::from_str(&format!("{float:e}")).expect("a number");
                let back = from_cbor(&to_cbor(&read).expect("encodes")).expect("decodes");
                proptest::prop_assert_eq!(back.as_f64(), Some(float));
            }
        });
    }

    #[test]
    fn what_json_has_no_word_for_follows_the_rfc() {
        assert_eq!(
            from_cbor(&[0x43, 0xfb, 0xff, 0xfe]),
            Ok(json!("-__-")),
            "base64url without padding"
        );
        assert_eq!(from_cbor(&[0xf9, 0x7e, 0x00]), Ok(Value::Null), "NaN");
        assert_eq!(from_cbor(&[0xf7]), Ok(Value::Null), "undefined");
        assert_eq!(from_cbor(&[0xa1, 0x01, 0x02]), Ok(json!({"1": 2})), "a number as a key");
        assert_eq!(
            from_cbor(&[0x3b, 255, 255, 255, 255, 255, 255, 255, 255]),
            Ok(json!(-18446744073709551616.0))
        );
    }

    #[test]
    fn a_text_is_one_value_without_a_key_that_stands_twice() {
        for text in ["null", " [1, {\"a\": {\"a\": 1}}] ", "-0.5e1", "{\"a\":1,\"A\":2}"] {
            assert_eq!(from_text(text.as_bytes()).ok(), serde_json::from_str(text).ok(), "{text}");
        }
        for bad in [
            "",
            "{",
            "1 2",
            "{\"a\":1,\"a\":1}",
            "[{\"a\":1,\"\\u0061\":2}]",
            "NaN",
            "\u{feff}1",
            "'a'",
        ] {
            assert!(from_text(bad.as_bytes()).is_err(), "{bad}");
        }
        let twice = from_text(b"{\"a\":1,\n\"a\":2}").expect_err("twice");
        assert!(twice.contains("\"a\" stands there twice") && twice.contains("line 2"), "{twice}");
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(
            from_text(deep(127).as_bytes()).is_ok() && from_text(deep(128).as_bytes()).is_err()
        );
    }

    #[test]
    fn cut_and_trailing_bytes_are_refused() {
        assert!(from_cbor(&[0x01]).is_ok());
        for bad in [&[][..], &[0x61], &[0x01, 0x01], &[0x82, 0x01]] {
            assert!(from_cbor(bad).is_err(), "{bad:02x?} was read");
        }
    }
}
