//! Converter from JSON to CBOR that writes each value as it is read.

use super::entries::{Entries, Starts, head_bytes, start, text_bytes};
use serde::{
    Serialize,
    de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SameKeys {
    Refused,
    LastStays,
}

const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Writes the CBOR of one value.
pub(super) struct FromText<'a> {
    out: &'a mut Vec<u8>,
    starts: &'a mut Starts,
    same_keys: SameKeys,
}

impl<'a> FromText<'a> {
    pub(super) const fn new(
        out: &'a mut Vec<u8>,
        starts: &'a mut Starts,
        same_keys: SameKeys,
    ) -> Self {
        Self { out, starts, same_keys }
    }

    const fn again(&mut self) -> FromText<'_> {
        FromText { out: self.out, starts: self.starts, same_keys: self.same_keys }
    }

    fn write<E: Error>(self, value: impl Serialize) -> Result<(), E> {
        let mut writer = serde_cbor::ser::IoWrite::new(self.out);
        value.serialize(&mut serde_cbor::Serializer::new(&mut writer)).map_err(E::custom)
    }
}

/// The first bytes of an item: its major type and a length in the shortest form.
fn head(major: u8, length: usize) -> ([u8; 9], usize) {
    let (mut head, bytes) = ([0; 9], (length as u64).to_be_bytes());
    let (short, width) = match length {
        0..=23 => return ([(major << 5) | bytes[7], 0, 0, 0, 0, 0, 0, 0, 0], 1),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    head[0] = (major << 5) | short;
    head[1..=width].copy_from_slice(&bytes[8 - width..]);
    (head, 1 + width)
}

/// Writes the head of an array or a map in place of the byte that was left for it.
fn close(out: &mut Vec<u8>, at: usize, major: u8, length: usize) {
    let (head, bytes) = head(major, length);
    out[at] = head[0];
    if bytes > 1 {
        out.splice(at + 1..at + 1, head[1..bytes].iter().copied());
    }
}

impl<'de> DeserializeSeed<'de> for FromText<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FromText<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.write(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.write(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.write(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let (at, mut count) = (self.out.len(), 0);
        self.out.push(0);
        while items.next_element_seed(self.again())?.is_some() {
            count += 1;
        }
        close(self.out, at, ARRAY, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        let at = self.out.len();
        self.out.push(0);
        let mut open = Entries::begin(self.starts);
        loop {
            let key = start(self.out).ok_or_else(|| A::Error::custom("the value is over 4 GiB"))?;
            if entries.next_key_seed(self.again())?.is_none() {
                break;
            }
            if self.out[key as usize] >> 5 != TEXT {
                return Err(A::Error::custom("a key that is not a text"));
            }
            self.starts.push(key);
            entries.next_value_seed(self.again())?;
            if open.is_due(self.starts) {
                self.settle(&mut open)?;
            }
        }
        self.settle(&mut open)?;
        let count = open.count(self.starts);
        open.end(self.starts);
        close(self.out, at, MAP, count);
        Ok(())
    }
}

impl FromText<'_> {
    fn settle<E: Error>(&mut self, open: &mut Entries) -> Result<(), E> {
        let refuse = self.same_keys == SameKeys::Refused;
        let Some(at) = open.settle(self.out, self.starts, refuse) else { return Ok(()) };
        let item = &self.out[at..];
        let length = text_bytes(item);
        let text = &item[head_bytes(item[0])..length];
        let key = String::from_utf8_lossy(text);
        let shown: String = key.chars().take(100).collect();
        Err(E::custom(format_args!("duplicate key {shown:?}")))
    }
}
