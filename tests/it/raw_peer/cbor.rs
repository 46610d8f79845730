//! The subset of CBOR that the protocol needs, valid and invalid: RFC 8949 section 3.

/// An item. `Raw` has any bytes that a test needs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cbor {
    Uint(u64),
    /// -1 - n.
    Negative(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Raw(Vec<u8>),
}

impl Cbor {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn map<const N: usize>(entries: [(u64, Self); N]) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (Self::Uint(key), value)).collect())
    }

    /// This many nested arrays.
    pub(crate) fn nested(levels: usize) -> Self {
        Self::Raw([vec![0x81; levels], vec![0x00]].concat())
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.push(&mut out);
        out
    }

    fn push(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uint(value) => start(out, 0, *value),
            Self::Negative(value) => start(out, 1, *value),
            Self::Bytes(bytes) => {
                start(out, 2, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::Text(text) => {
                start(out, 3, text.len() as u64);
                out.extend_from_slice(text.as_bytes());
            }
            Self::Array(items) => {
                start(out, 4, items.len() as u64);
                items.iter().for_each(|item| item.push(out));
            }
            Self::Map(entries) => {
                start(out, 5, entries.len() as u64);
                for (key, value) in entries {
                    key.push(out);
                    value.push(out);
                }
            }
            Self::Raw(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Reads one item; panics on encodings that the protocol forbids, because the library must not
    /// send them.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (item, rest) = item(bytes);
        assert!(rest.is_empty(), "trailing bytes {rest:02x?}");
        item
    }

    /// The value of a key of a map.
    pub(crate) fn key(&self, key: u64) -> Option<&Self> {
        let Self::Map(entries) = self else { panic!("{self:?} is not a map") };
        entries.iter().find(|(have, _)| *have == Self::Uint(key)).map(|(_, value)| value)
    }

    pub(crate) fn as_uint(&self) -> u64 {
        let Self::Uint(value) = self else { panic!("{self:?} is not a number") };
        *value
    }

    pub(crate) fn as_text(&self) -> &str {
        let Self::Text(text) = self else { panic!("{self:?} is not a text") };
        text
    }
}

fn start(out: &mut Vec<u8>, major: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let (short, from) = match value {
        0..=23 => (value as u8, 8),
        24..=0xff => (24, 7),
        0x100..=0xffff => (25, 6),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 0),
    };
    out.push(major << 5 | short);
    out.extend_from_slice(&bytes[from..]);
}

fn item(bytes: &[u8]) -> (Cbor, &[u8]) {
    let (first, rest) = bytes.split_first().expect("an item");
    let (major, short) = (first >> 5, first & 0x1f);
    let (value, mut rest) = match short {
        0..=23 => (u64::from(short), rest),
        24..=27 => {
            let (value, rest) = rest.split_at(1 << (short - 24));
            (value.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), rest)
        }
        _ => panic!("an indefinite length in {bytes:02x?}"),
    };
    let mut next = || {
        let (one, after) = item(rest);
        rest = after;
        one
    };
    let cbor = match major {
        0 => Cbor::Uint(value),
        1 => Cbor::Negative(value),
        2 | 3 => {
            let (taken, after) = rest.split_at(value as usize);
            rest = after;
            match major {
                2 => Cbor::Bytes(taken.to_vec()),
                _ => Cbor::Text(String::from_utf8(taken.to_vec()).expect("UTF-8")),
            }
        }
        4 => Cbor::Array((0..value).map(|_| next()).collect()),
        5 => Cbor::Map((0..value).map(|_| (next(), next())).collect()),
        // False and true.
        7 if matches!(short, 20 | 21) => Cbor::Raw(vec![*first]),
        _ => panic!("a tag or a simple value in {bytes:02x?}"),
    };
    (cbor, rest)
}
