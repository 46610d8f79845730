//! Scanner of the CBOR of a head before it is decoded: depth, items, keys, trailing bytes.
//!
//! A head is read before authorisation and has only one encoding: a map with unsigned integer keys,
//! definite lengths, no tags (RFC 8949 section 3). serde_cbor bounds only the depth (at 127), lets
//! the last duplicate key win, and takes text keys as field names and arrays as maps.

use super::WireError;
use crate::limits::HEAD_DEPTH_MAX;

/// Keys of one map. Ours have a dozen; the bound keeps the search for duplicates short.
const MAP_KEYS_MAX: u64 = 64;

struct Item {
    major: u8,
    argument: u64,
}

/// The keys of one map so far. Ours are small, so a head usually takes no memory here.
#[derive(Default)]
struct KeySet {
    small: u64,
    others: Vec<u64>,
}

impl KeySet {
    fn insert(&mut self, key: u64) -> bool {
        if key < 64 {
            let bit = 1 << key;
            let is_new = self.small & bit == 0;
            self.small |= bit;
            return is_new;
        }
        let is_new = !self.others.contains(&key);
        self.others.push(key);
        is_new
    }
}

const MAP: u8 = 5;

struct Scanner<'a> {
    rest: &'a [u8],
    items_left: usize,
}

const MALFORMED: fn(&'static str) -> WireError = WireError::Malformed;

/// Checks that the bytes are one well-formed map of at most this number of items.
pub(super) fn check(bytes: &[u8], items_max: usize) -> Result<(), WireError> {
    if bytes.first().is_some_and(|first| first >> 5 != MAP) {
        return Err(MALFORMED("a head that is not a map"));
    }
    let mut scanner = Scanner { rest: bytes, items_left: items_max };
    scanner.item(0)?;
    if scanner.rest.is_empty() { Ok(()) } else { Err(MALFORMED("trailing bytes after a head")) }
}

impl<'a> Scanner<'a> {
    /// One item and all that is in it. Calls itself no deeper than the bound on depth.
    fn item(&mut self, depth: usize) -> Result<(), WireError> {
        let Item { major, argument } = self.start()?;
        match major {
            2 | 3 => self.take(argument).map(drop),
            4 | MAP if depth >= HEAD_DEPTH_MAX => Err(MALFORMED("maps and arrays too deep")),
            4 => (0..argument).try_for_each(|_| self.item(depth + 1)),
            MAP => self.map(argument, depth + 1),
            6 => Err(MALFORMED("a tag in a head")),
            _ => Ok(()),
        }
    }

    fn map(&mut self, entries: u64, depth: usize) -> Result<(), WireError> {
        if entries > MAP_KEYS_MAX {
            return Err(MALFORMED("too many keys in a map"));
        }
        let mut keys = KeySet::default();
        for _ in 0..entries {
            let key = self.key()?;
            if !keys.insert(key) {
                return Err(MALFORMED("a key that stands twice in one map"));
            }
            self.item(depth)?;
        }
        Ok(())
    }

    fn key(&mut self) -> Result<u64, WireError> {
        match self.start()? {
            Item { major: 0, argument } => Ok(argument),
            _ => Err(MALFORMED("a key that is not an unsigned integer")),
        }
    }

    /// Reads and counts the first bytes of an item. Refuses indefinite lengths and reserved forms.
    fn start(&mut self) -> Result<Item, WireError> {
        self.items_left =
            self.items_left.checked_sub(1).ok_or_else(|| MALFORMED("too many items in a head"))?;
        let first = self.take(1)?[0];
        let (major, short) = (first >> 5, first & 0x1f);
        let argument = match short {
            0..=23 => u64::from(short),
            24..=27 => {
                let bytes = self.take(1 << (short - 24))?;
                bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
            }
            _ => return Err(MALFORMED("an indefinite or reserved length")),
        };
        Ok(Item { major, argument })
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], WireError> {
        let end = usize::try_from(count).ok().filter(|count| *count <= self.rest.len());
        let (taken, rest) =
            self.rest.split_at(end.ok_or_else(|| MALFORMED("a head that ends too early"))?);
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEAD_ITEMS_MAX;

    fn passes(bytes: &[u8]) -> bool {
        check(bytes, HEAD_ITEMS_MAX).is_ok()
    }

    /// `{0: item}`.
    fn passes_within(item: &[u8]) -> bool {
        passes(&[&[0xa1, 0x00], item].concat())
    }

    #[test]
    fn plain_maps_pass() {
        assert!(passes(&[0xa0]));
        assert!(passes(&[0xa2, 0x00, 0x61, b'a', 0x01, 0x82, 0xf5, 0x20]));
        assert!(passes(&[0xa1, 0x07, 0xa1, 0x00, 0xfb, 0, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn anything_but_a_map_is_refused() {
        for other in [&[0x00][..], &[0x20], &[0x40], &[0x60], &[0x81, 0x00], &[0xf6]] {
            assert!(!passes(other), "{other:02x?} passed");
            assert!(passes_within(other), "{other:02x?} is good as a value");
        }
    }

    #[test]
    fn duplicate_keys_are_refused_however_they_are_written() {
        assert!(passes(&[0xa2, 0x00, 0x01, 0x01, 0x01]));
        assert!(!passes(&[0xa2, 0x00, 0x01, 0x00, 0x02]));
        assert!(!passes(&[0xa2, 0x00, 0x01, 0x18, 0x00, 0x02]), "a longer form of the same number");
        assert!(passes_within(&[0xa1, 0x00, 0x02]), "the same key in another map");
    }

    #[test]
    fn keys_are_unsigned_integers() {
        assert!(passes(&[0xa1, 0x18, 0xff, 0x00]));
        for key in [&[0x20][..], &[0x41, 0x00], &[0x61, b'k'], &[0x80], &[0xa0], &[0xf5]] {
            assert!(!passes(&[&[0xa1], key, &[0x00]].concat()), "{key:02x?} passed as a key");
        }
    }

    #[test]
    fn thirty_two_levels_pass_and_one_more_does_not() {
        let nested = |levels: usize| [vec![0x81; levels], vec![0x00]].concat();
        // The map is one level.
        assert!(passes_within(&nested(HEAD_DEPTH_MAX - 1)));
        assert!(!passes_within(&nested(HEAD_DEPTH_MAX)));
        assert!(!passes_within(&nested(100_000)));
    }

    #[test]
    fn the_bound_on_items_holds_at_the_limit_and_one_past_it() {
        let array = |count: usize| {
            [vec![0x99, (count >> 8) as u8, count as u8], vec![0x00; count]].concat()
        };
        // The map, its key and the array are three.
        assert!(passes_within(&array(HEAD_ITEMS_MAX - 3)));
        assert!(!passes_within(&array(HEAD_ITEMS_MAX - 2)));
    }

    #[test]
    fn truncated_trailing_tagged_and_indefinite_bytes_are_refused() {
        for bad in
            [&[][..], &[0xa1], &[0xa1, 0x00], &[0xa0, 0x00], &[0xbf, 0xff], &[0xb8], &[0xc0, 0xa0]]
        {
            assert!(!passes(bad), "{bad:02x?} passed");
        }
        for bad in [
            &[0x61][..],
            &[0x18],
            &[0x00, 0x00],
            &[0xbf, 0xff],
            &[0x9f, 0xff],
            &[0x7f, 0xff],
            &[0xc0, 0x00],
            &[0x1c],
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(!passes_within(bad), "{bad:02x?} passed");
        }
    }

    #[test]
    fn the_decoder_never_panics_on_bytes_that_the_scanner_accepts() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            if passes(&bytes) {
                drop(serde_cbor::from_slice::<serde_cbor::Value>(&bytes));
            }
        });
    }
}
