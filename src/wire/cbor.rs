//! CBOR of heads, which are scanned before they are decoded, and of the user's own values.

use super::{WireError, scan};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use std::cell::Cell;

/// Appends a head: a map whose keys number its fields in the order of their declaration.
pub(super) fn encode_fields<T: Serialize>(out: &mut Vec<u8>, fields: &T) -> Result<(), WireError> {
    let mut writer = serde_cbor::ser::IoWrite::new(out);
    let mut serializer = serde_cbor::Serializer::new(&mut writer).packed_format();
    fields.serialize(&mut serializer).map_err(|fault| WireError::Cbor(fault.to_string()))
}

/// Decodes a head of at most this number of items after the scanner has passed it.
pub(super) fn decode_fields<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    items_max: usize,
) -> Result<T, WireError> {
    scan::check(bytes, items_max)?;
    serde_cbor::from_slice(bytes).map_err(|fault| WireError::Cbor(fault.to_string()))
}

/// The value of an optional key of a head: `null` there counts as absent.
pub(super) fn or_absent<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<T, D::Error> {
    Option::deserialize(value).map(Option::unwrap_or_default)
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Encodes a user's value as a payload. The error is that of its own `Serialize`, as text.
pub(crate) fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, String> {
    with_scratch(|out| {
        let mut writer = serde_cbor::ser::IoWrite::new(out);
        let mut serializer = serde_cbor::Serializer::new(&mut writer);
        value.serialize(&mut serializer).map_err(|fault| fault.to_string())
    })
}

/// Size up to which a thread keeps its scratch buffer.
const SCRATCH_BYTES_KEPT: usize = 64 * 1024;

/// Lets `write` fill a buffer of this thread, and gives what it wrote in exactly as much memory as
/// that takes: one allocation, where a vector that grows and becomes `Bytes` takes two or more.
pub(super) fn with_scratch<E>(
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Bytes, E> {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    // Taken out, not borrowed: `write` calls the user's own `Serialize`, which may come back here.
    let mut out = SCRATCH.take();
    let result = write(&mut out);
    let bytes = if out.len() > SCRATCH_BYTES_KEPT {
        Bytes::from(std::mem::take(&mut out))
    } else {
        Bytes::copy_from_slice(&out)
    };
    out.clear();
    SCRATCH.set(out);
    result.map(|()| bytes)
}

/// Decodes a payload into a user's value. Trailing bytes are refused; serde_cbor bounds nesting at
/// 127. The error has the byte offset.
pub(crate) fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_cbor::from_slice(bytes).map_err(|fault| fault.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_in_a_value_is_refused_without_a_crash() {
        let mut bytes = vec![0x81; 100_000];
        bytes.push(0);
        assert!(decode_value::<serde_cbor::Value>(&bytes).is_err());
        let mut shallow = vec![0x81; 100];
        shallow.push(0);
        assert!(decode_value::<serde_cbor::Value>(&shallow).is_ok());
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        // A byte string, a text and an array that claim 2^60 items.
        for first in [0x5b, 0x7b, 0x9b] {
            let bytes = [first, 0x10, 0, 0, 0, 0, 0, 0, 0];
            assert!(decode_value::<serde_cbor::Value>(&bytes).is_err());
        }
    }

    #[test]
    fn trailing_bytes_after_a_value_are_refused() {
        assert_eq!(decode_value::<u8>(&[7]), Ok(7));
        assert!(decode_value::<u8>(&[7, 7]).is_err());
    }
}
