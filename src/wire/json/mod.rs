//! Conversion between JSON and the CBOR of messages, by the rules of RFC 8949 section 6.
//!
//! Integers keep their exact value up to the range of `u64` and `i64`. Byte strings become
//! base64url text without padding. Keys that are not text are written as text. Values that JSON
//! cannot express (NaN, infinities, undefined) become `null`.
//!
//! [`cbor_to_text`] and [`text_to_cbor`] convert without a tree of values, which would take many
//! times the memory of the message.

use bytes::Bytes;
use serde::de::{DeserializeSeed as _, Deserializer};
use serde_json::Value;

mod checked;
mod dropped;
mod entries;
mod from_text;
#[cfg(any(feature = "forward", feature = "gateway", test))]
mod pieces;
mod to_text;
mod tree;

use from_text::{FromText, SameKeys};
#[cfg(any(feature = "forward", feature = "gateway", test))]
pub(crate) use pieces::JsonText;
use tree::Tree;

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
/// Malformed CBOR, with its byte offset. Nesting is bounded at 127, trailing bytes are refused.
pub fn from_cbor(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = serde_cbor::Deserializer::from_slice(bytes);
    let value = Tree::LENIENT.deserialize(&mut reader);
    value.and_then(|value| reader.end().map(|()| value)).map_err(|fault| fault.to_string())
}

/// Reads the one JSON value of a text. Unlike `serde_json` by itself it refuses an object in which
/// a key is duplicated: two readers of one text might take different ones.
///
/// # Errors
/// Invalid JSON or a duplicate key, with line and column. Nesting is bounded at 127.
pub fn from_text(text: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Tree::STRICT.deserialize(&mut reader);
    value.and_then(|value| reader.end().map(|()| value)).map_err(|fault| fault.to_string())
}

/// Reads any value as JSON, for use with other deserializers of CBOR.
///
/// # Errors
/// The error of the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Tree::LENIENT.deserialize(deserializer)
}

/// Converts the CBOR payload of a message to the text of one JSON value. Keys keep the order of the
/// message; of those that are equal as text the last stays.
///
/// Memory: the result, and eight bytes for each key of the maps that are open at one time.
///
/// # Errors
/// Malformed CBOR, with its byte offset. Nesting is bounded at 127, trailing bytes are refused, and
/// so is an array or a map as a key within a key.
pub fn cbor_to_text(cbor: &[u8]) -> Result<Bytes, String> {
    checked::write(cbor)
}

/// Converts the text of one JSON value to the CBOR payload of a message. Keys keep their order;
/// duplicates are refused as by [`from_text`]. Memory: the result, and four bytes for each key of
/// the objects that are open at one time.
///
/// # Errors
/// Invalid JSON or a duplicate key, with line and column. Nesting is bounded at 127.
pub fn text_to_cbor(text: &[u8]) -> Result<Bytes, String> {
    convert_text(text, SameKeys::Refused)
}

/// The same, but of equal keys the last stays.
#[cfg(any(feature = "forward", test))]
pub(crate) fn lenient_text_to_cbor(text: &[u8]) -> Result<Bytes, String> {
    convert_text(text, SameKeys::LastStays)
}

/// Encodes any value that a deserializer of JSON reads as the CBOR payload of a message, as
/// [`text_to_cbor`] does; of equal keys the last stays.
///
/// # Errors
/// The error of the deserializer.
pub fn encode_from<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let mut out = Vec::new();
    FromText::new(&mut out, &mut Vec::new(), SameKeys::LastStays).deserialize(deserializer)?;
    Ok(out.into())
}

/// Texts up to this size are converted in a buffer of the thread.
const SCRATCH_TEXT_BYTES_MAX: usize = 16 * 1024;

fn convert_text(text: &[u8], same_keys: SameKeys) -> Result<Bytes, String> {
    let write = |out: &mut Vec<u8>| {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let read = FromText::new(out, &mut Vec::new(), same_keys).deserialize(&mut reader);
        read.and_then(|()| reader.end()).map_err(|fault| fault.to_string())
    };
    if text.len() <= SCRATCH_TEXT_BYTES_MAX {
        return super::cbor::with_scratch(write);
    }
    // The most that it can become: `0.1,` takes nine bytes. Unwritten memory is not resident.
    let mut out = Vec::with_capacity(text.len() / 4 * 9 + 9);
    write(&mut out)?;
    out.shrink_to_fit();
    Ok(out.into())
}

#[cfg(test)]
mod against_tree;
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
    fn floats_round_trip_through_text_exactly() {
        // By default serde_json reads floats only to within one unit in the last place.
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
    fn values_without_a_json_form_follow_the_rfc() {
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
    fn a_text_is_one_value_without_duplicate_keys() {
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
        assert!(twice.contains("duplicate key \"a\"") && twice.contains("line 2"), "{twice}");
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(
            from_text(deep(127).as_bytes()).is_ok() && from_text(deep(128).as_bytes()).is_err()
        );
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        assert!(from_cbor(&[0x01]).is_ok());
        for bad in [&[][..], &[0x61], &[0x01, 0x01], &[0x82, 0x01]] {
            assert!(from_cbor(bad).is_err(), "{bad:02x?} was read");
        }
    }
}
