//! JSON as a tree of values, for programs that inspect it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

#[derive(Clone, Copy)]
pub(super) struct Tree {
    /// A key that stands twice in a map is a fault.
    pub(super) is_strict: bool,
    position: Position,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    Value,
    Key,
    WithinKey,
    KeyWithinKey,
}

impl Tree {
    pub(super) const LENIENT: Self = Self { is_strict: false, position: Position::Value };
    pub(super) const STRICT: Self = Self { is_strict: true, position: Position::Value };

    fn within(self) -> Self {
        let is_in_key = self.position != Position::Value;
        Self { position: if is_in_key { Position::WithinKey } else { Position::Value }, ..self }
    }

    fn key(self) -> Self {
        let is_in_key = self.position != Position::Value;
        Self { position: if is_in_key { Position::KeyWithinKey } else { Position::Key }, ..self }
    }

    /// Keys within keys would grow without measure: each key around a text escapes it once more.
    fn refuse_key_within_key<E: Error>(self) -> Result<(), E> {
        if self.position == Position::KeyWithinKey {
            let text = "an array or a map is a key within a key, which is not written as JSON";
            return Err(E::custom(text));
        }
        Ok(())
    }
}

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

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
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
        self.deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.refuse_key_within_key()?;
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self.within())? {
            out.push(item);
        }
        Ok(out.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.refuse_key_within_key()?;
        let mut out = Map::new();
        while let Some(key) = entries.next_key_seed(self.key())? {
            let (key, value) = (key_text(key), entries.next_value_seed(self.within())?);
            if self.is_strict && out.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            out.insert(key, value);
        }
        Ok(out.into())
    }
}
