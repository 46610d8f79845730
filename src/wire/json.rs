//! JSON in and out of the CBOR of messages, by the rules of RFC 8949 section 6.
//!
//! Integers keep their exact value up to the range of `u64` and `i64`. Byte strings become base64url text without padding. Keys that
//! are not text are written as text. What JSON has no word for (NaN, infinities, undefined) becomes `null`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
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

struct AsJson(Value);

/// Reads any value as JSON, for use with other deserializers of CBOR.
///
/// # Errors
/// What the deserializer reports.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    AsJson::deserialize(deserializer).map(|json| json.0)
}

impl<'de> Deserialize<'de> for AsJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Self)
    }
}

struct JsonVisitor;

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

impl<'de> Visitor<'de> for JsonVisitor {
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
        AsJson::deserialize(deserializer).map(|json| json.0)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        AsJson::deserialize(deserializer).map(|json| json.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(AsJson(item)) = items.next_element()? {
            out.push(item);
        }
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some((AsJson(key), AsJson(value))) = entries.next_entry()? {
            out.insert(key_text(key), value);
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
    fn cut_and_trailing_bytes_are_refused() {
        assert!(from_cbor(&[0x01]).is_ok());
        for bad in [&[][..], &[0x61], &[0x01, 0x01], &[0x82, 0x01]] {
            assert!(from_cbor(bad).is_err(), "{bad:02x?} was read");
        }
    }
}
