//! Members of JSON objects that every reader takes in the same way.

use super::message_error::quoted;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt};

/// Treatment of other keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtherKeys {
    Refused,
    Ignored,
}

/// Picks the members of these names from the text of an object.
///
/// Readers differ in which of two equal keys they take, and some ignore the case of keys or what
/// follows a NUL: a name that is there twice, or in such another form, is a fault.
pub(super) fn pick<'a, const N: usize>(
    object: &'a str,
    names: [&'static str; N],
    other_keys: OtherKeys,
) -> serde_json::Result<[Option<&'a RawValue>; N]> {
    let mut reader = serde_json::Deserializer::from_str(object);
    let picked =
        serde::Deserializer::deserialize_map(&mut reader, MemberPicker { names, other_keys })?;
    reader.end()?;
    Ok(picked)
}

struct MemberPicker<const N: usize> {
    names: [&'static str; N],
    other_keys: OtherKeys,
}

impl<'de, const N: usize> Visitor<'de> for MemberPicker<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut picked = [None; N];
        while let Some(key) = entries.next_key::<MemberName<'de>>()? {
            let key = key.0;
            match self.names.iter().position(|name| *name == key) {
                Some(at) if picked[at].is_some() => {
                    return Err(A::Error::custom(format_args!("duplicate key {}", quoted(&key))));
                }
                Some(at) => picked[at] = Some(entries.next_value()?),
                None => {
                    self.check_other(&key).map_err(A::Error::custom)?;
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(picked)
    }
}

impl<const N: usize> MemberPicker<N> {
    fn check_other(&self, key: &str) -> Result<(), String> {
        let folded = folded(key);
        if let Some(name) = self.names.iter().find(|name| folded.eq_ignore_ascii_case(name)) {
            return Err(format!("key {} may be read as {name}", quoted(key)));
        }
        match self.other_keys {
            OtherKeys::Ignored => Ok(()),
            OtherKeys::Refused => Err(format!("unknown key {}", quoted(key))),
        }
    }
}

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

/// A key as the most lenient reader compares it: without case, and up to a NUL. Unicode has other
/// letters that become `i`, `k` and `s` in another case.
fn folded(key: &str) -> String {
    let key = key.split('\0').next().unwrap_or_default();
    let upper = key.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).filter(|c| *c != '\u{307}').collect()
}

/// Depth of arrays and objects in a text of JSON.
pub(super) fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Skips the rest of a string, and its closing quote.
fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picked(text: &str, other_keys: OtherKeys) -> Result<[Option<&str>; 2], String> {
        let members = pick(text, ["uri", "kiss"], other_keys);
        members
            .map(|found| found.map(|it| it.map(RawValue::get)))
            .map_err(|fault| fault.to_string())
    }

    #[test]
    fn members_are_picked_by_their_decoded_names() {
        let lenient = |text| picked(text, OtherKeys::Ignored);
        assert_eq!(lenient("{}"), Ok([None, None]));
        assert_eq!(lenient(" {\"uri\" : [1, 2] , \"x\":{} } "), Ok([Some("[1, 2]"), None]));
        assert_eq!(
            lenient("{\"kiss\":1e2,\"\\u0075ri\":\"\\u0061\"}"),
            Ok([Some("\"\\u0061\""), Some("1e2")])
        );
        assert_eq!(
            lenient("{\"x\":1,\"x\":2,\"X\":3}"),
            Ok([None, None]),
            "others are not checked"
        );
        for bad in ["", "[]", "1", "null", "{\"uri\":}", "{\"uri\":1,}", "{} {}", "{\"\\ud800\":1}"]
        {
            assert!(lenient(bad).is_err(), "{bad} was read");
        }
    }

    #[test]
    fn names_that_may_be_read_in_two_ways_are_refused() {
        for bad in [
            "{\"uri\":1,\"uri\":1}",
            "{\"uri\":1,\"ur\\u0069\":1}",
            "{\"Uri\":1}",
            "{\"URI\":1}",
            "{\"ur\u{131}\":1}",
            "{\"ur\u{130}\":1}",
            "{\"ki\u{17f}s\":1}",
            "{\"\u{212a}iss\":1}",
            "{\"uri\\u0000\":1}",
            "{\"uri\\u0000x\":1}",
            "{\"\\u0055RI\":1}",
        ] {
            assert!(picked(bad, OtherKeys::Ignored).is_err(), "{bad} was read");
        }
        for good in ["{\"ur\":1}", "{\"uris\":1}", "{\"\\u0000uri\":1}", "{\"\u{fc}ri\":1}"] {
            assert_eq!(picked(good, OtherKeys::Ignored), Ok([None, None]), "{good}");
        }
    }

    #[test]
    fn other_keys_are_ignored_or_refused() {
        let text = "{\"uri\":1,\"other\":2}";
        assert!(picked(text, OtherKeys::Ignored).is_ok());
        let fault = picked(text, OtherKeys::Refused).expect_err("refused");
        assert!(fault.starts_with("unknown key \"other\""), "{fault}");
    }

    #[test]
    fn depth_counts_arrays_and_objects_outside_of_strings() {
        for (text, expected) in [
            ("1", 0),
            ("{}", 1),
            ("[[],[[]],{\"a\":[]}]", 3),
            ("{\"[[[\":\"]{{{\\\"[\"}", 1),
            ("[\"\\\\\",[]]", 2),
            ("]]][", 1),
            ("\"\\", 0),
        ] {
            assert_eq!(depth(text), expected, "{text}");
        }
    }
}
