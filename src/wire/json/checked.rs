//! Checks a CBOR message before its conversion to JSON, and finds duplicate keys to omit.

use super::{
    dropped::Dropped,
    entries::LOOK_AFTER,
    to_text::{JsonEvent, Walk},
};
use bytes::Bytes;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Block size for hashing and comparing keys.
const BLOCK_BYTES: usize = 1_024;

/// Writes the JSON of a message whole.
pub(super) fn write(cbor: &[u8]) -> Result<Bytes, String> {
    let (dropped, bytes) = check(cbor)?;
    let (mut walk, mut out) = (Walk::again(), Vec::with_capacity(bytes));
    while walk.step(cbor, &dropped, &mut out)? != JsonEvent::End {}
    Ok(out.into())
}

/// Checks a message. Gives the entries that are left out, and the length of its JSON.
pub(super) fn check(cbor: &[u8]) -> Result<(Dropped, usize), String> {
    if u32::try_from(cbor.len()).is_err() {
        return Err("the message is over 4 GiB".into());
    }
    let mut keys = OpenKeys::new(cbor);
    let bytes = walk_over(Walk::default(), cbor, &Dropped::default(), |event| match event {
        JsonEvent::MapBegins => keys.begin(),
        JsonEvent::KeyEnds(at) => keys.add(at),
        JsonEvent::MapEnds => keys.end(),
        JsonEvent::Step | JsonEvent::End => {}
    })?;
    let dropped = keys.dropped;
    if dropped.is_empty() {
        return Ok((dropped, bytes));
    }
    let bytes = walk_over(Walk::again(), cbor, &dropped, |_| {})?;
    Ok((dropped, bytes))
}

/// Walks to the end, and gives the length of the JSON.
fn walk_over(
    mut walk: Walk,
    cbor: &[u8],
    dropped: &Dropped,
    mut each: impl FnMut(JsonEvent),
) -> Result<usize, String> {
    let (mut out, mut bytes) = (Vec::new(), 0);
    loop {
        match walk.step(cbor, dropped, &mut out)? {
            JsonEvent::End => return Ok(bytes + out.len()),
            event => each(event),
        }
        bytes += out.len();
        out.clear();
    }
}

#[derive(Default)]
struct OpenKeys<'a> {
    cbor: &'a [u8],
    hashes: RandomState,
    /// Half of a hash and the offset of each, those of the innermost map last.
    all: Vec<u64>,
    maps: Vec<OpenMap>,
    dropped: Dropped,
    /// Room for the text of a key.
    scratch: Vec<u8>,
    /// Keys that were looked at again when their map ended, or grew.
    #[cfg(test)]
    looked_at: usize,
}

#[derive(Clone, Copy)]
struct OpenMap {
    first: usize,
    look_at: usize,
}

impl<'a> OpenKeys<'a> {
    fn new(cbor: &'a [u8]) -> Self {
        Self { cbor, ..Self::default() }
    }

    fn begin(&mut self) {
        self.maps.push(OpenMap { first: self.all.len(), look_at: LOOK_AFTER });
    }

    fn add(&mut self, at: usize) {
        let Some(OpenMap { first, look_at }) = self.maps.last().copied() else { return };
        match self.all.len() - first {
            // Many maps have one key, which is equal to none.
            0 => return self.all.push(at as u64),
            1 => self.all[first] = self.hashed(offset(self.all[first])),
            _ => {}
        }
        let hashed = self.hashed(at);
        self.all.push(hashed);
        if self.all.len() - first >= look_at {
            self.settle(first);
            let look_at = LOOK_AFTER.max(2 * (self.all.len() - first));
            self.maps.last_mut().into_iter().for_each(|map| map.look_at = look_at);
        }
    }

    fn end(&mut self) {
        if let Some(OpenMap { first, .. }) = self.maps.pop() {
            self.settle(first);
            self.all.truncate(first);
        }
    }

    /// Of equal keys from here on, drops all but the last and forgets them.
    fn settle(&mut self, first: usize) {
        if self.all.len() - first < 2 {
            return;
        }
        let mut all = std::mem::take(&mut self.all);
        all[first..].sort_unstable();
        for same_hash in all[first..].chunk_by(|one, other| one >> 32 == other >> 32) {
            if same_hash.len() > 1 {
                self.drop_equal(same_hash);
            }
        }
        // Of this map only: the keys of the maps around it may be many.
        let mut kept = first;
        for at in first..all.len() {
            #[cfg(test)]
            {
                self.looked_at += 1;
            }
            if !self.dropped.has(offset(all[at])) {
                all[kept] = all[at];
                kept += 1;
            }
        }
        all.truncate(kept);
        self.all = all;
    }

    /// Of keys of one hash, mostly equal ones, in the order of the message.
    fn drop_equal(&mut self, same_hash: &[u64]) {
        let mut kept = Vec::new();
        for key in same_hash.iter().rev() {
            let at = offset(*key);
            if kept.iter().any(|other| self.are_equal(at, *other)) {
                self.dropped.add(at, self.cbor.len());
            } else {
                kept.push(at);
            }
        }
    }

    fn hashed(&mut self, at: usize) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        let mut key = KeyText { text: std::mem::take(&mut self.scratch), ..KeyText::new(at) };
        while !key.fill(self.cbor, &self.dropped) {
            hasher.write(&key.text[..BLOCK_BYTES]);
            key.text.drain(..BLOCK_BYTES);
        }
        hasher.write(&key.text);
        key.text.clear();
        self.scratch = key.text;
        hasher.finish() & !u64::from(u32::MAX) | at as u64
    }

    /// A key that is a text of at most 23 bytes, head included.
    fn short_text(&self, at: usize) -> Option<&[u8]> {
        let length = usize::from(self.cbor[at].checked_sub(0x60).filter(|length| *length < 24)?);
        self.cbor.get(at..=at + length)
    }

    fn are_equal(&self, one: usize, other: usize) -> bool {
        if let (Some(one), Some(other)) = (self.short_text(one), self.short_text(other)) {
            return one == other;
        }
        let (mut one, mut other) = (KeyText::new(one), KeyText::new(other));
        loop {
            let ended = [&mut one, &mut other].map(|key| key.fill(self.cbor, &self.dropped));
            if ended != [false; 2] {
                return ended == [true; 2] && one.text == other.text;
            }
            if one.text[..BLOCK_BYTES] != other.text[..BLOCK_BYTES] {
                return false;
            }
            one.text.drain(..BLOCK_BYTES);
            other.text.drain(..BLOCK_BYTES);
        }
    }
}

const fn offset(key: u64) -> usize {
    (key & u32::MAX as u64) as usize
}

/// A key as its JSON has it.
struct KeyText {
    walk: Walk,
    text: Vec<u8>,
    is_over: bool,
}

impl KeyText {
    fn new(at: usize) -> Self {
        Self { walk: Walk::of_key(at), text: Vec::new(), is_over: false }
    }

    /// Writes until there is a block. `true` if the key ended before.
    fn fill(&mut self, cbor: &[u8], dropped: &Dropped) -> bool {
        while !self.is_over && self.text.len() < BLOCK_BYTES {
            self.is_over = !matches!(self.walk.step(cbor, dropped, &mut self.text), Ok(event) if event != JsonEvent::End);
        }
        self.text.len() < BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_maps_in_a_map_of_many_keys_stay_cheap() {
        // {"": 0, ... 1,000 times, with a map of two keys after each of the last 100}: the keys are
        // those of the message's bytes.
        let cbor = [0x61, b'a', 0x61, b'b'];
        let mut keys = OpenKeys::new(&cbor);
        keys.begin();
        (0..1_000).for_each(|_| keys.all.push(0));
        for _ in 0..100 {
            keys.begin();
            keys.add(0);
            keys.add(2);
            keys.end();
        }
        assert_eq!((keys.looked_at, keys.all.len()), (200, 1_000));
    }
}
