//! Equal keys in one map with text keys that was written to a buffer as CBOR.

/// Offsets of the entries of the open maps in the buffer, those of the innermost last.
pub(super) type Starts = Vec<u32>;

/// Entries after which an unfinished map is settled: bounds the memory for equal keys.
pub(super) const LOOK_AFTER: usize = 4_096;

pub(super) struct Entries {
    first: usize,
    look_at: usize,
}

impl Entries {
    pub(super) const fn begin(starts: &Starts) -> Self {
        Self { first: starts.len(), look_at: LOOK_AFTER }
    }

    pub(super) const fn count(&self, starts: &Starts) -> usize {
        starts.len() - self.first
    }

    /// Returns `true` if it is time to call [`Entries::settle`] in the midst of a map.
    pub(super) const fn is_due(&self, starts: &Starts) -> bool {
        self.count(starts) >= self.look_at
    }

    /// Removes every entry whose key occurs again later. With `refuse` gives where such a later one
    /// begins instead, and removes nothing.
    pub(super) fn settle(
        &mut self,
        out: &mut Vec<u8>,
        starts: &mut Starts,
        refuse: bool,
    ) -> Option<usize> {
        let own = &mut starts[self.first..];
        if own.len() > 1 {
            let key = |start: u32| {
                let rest = &out[start as usize..];
                &rest[..text_bytes(rest)]
            };
            own.sort_unstable_by(|one, other| key(*one).cmp(key(*other)).then(one.cmp(other)));
            let pairs = own.windows(2).filter(|pair| key(pair[0]) == key(pair[1]));
            if refuse {
                let again = pairs.map(|pair| pair[1] as usize).min();
                if again.is_some() {
                    return again;
                }
                own.sort_unstable();
            } else {
                let mut dropped: Vec<u32> = pairs.map(|pair| pair[0]).collect();
                own.sort_unstable();
                dropped.sort_unstable();
                if !dropped.is_empty() {
                    self.remove(&dropped, out, starts);
                }
            }
        }
        self.look_at = LOOK_AFTER.max(2 * self.count(starts));
        None
    }

    /// Closes the gaps of these entries, none of which is the last.
    fn remove(&self, dropped: &[u32], out: &mut Vec<u8>, starts: &mut Starts) {
        let (mut dropped, mut kept) = (dropped.iter().peekable(), self.first);
        let mut to = starts[self.first] as usize;
        for at in self.first..starts.len() {
            let from = starts[at] as usize;
            let end = starts.get(at + 1).map_or(out.len(), |next| *next as usize);
            if dropped.next_if(|start| **start as usize == from).is_some() {
                continue;
            }
            out.copy_within(from..end, to);
            // No more than it was before.
            starts[kept] = u32::try_from(to).unwrap_or(u32::MAX);
            kept += 1;
            to += end - from;
        }
        out.truncate(to);
        starts.truncate(kept);
    }

    pub(super) fn end(self, starts: &mut Starts) {
        starts.truncate(self.first);
    }
}

/// Offset of the next entry; `None` past 4 GiB.
pub(super) fn start(out: &[u8]) -> Option<u32> {
    u32::try_from(out.len()).ok()
}

/// The length of the text that a slice begins with, in its shortest form, head included.
pub(super) fn text_bytes(item: &[u8]) -> usize {
    let head = head_bytes(item[0]);
    let rest = item[1..head].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    head + if head == 1 { usize::from(item[0] & 0x1f) } else { rest }
}

/// The length of the head of an item, from its first byte.
pub(super) const fn head_bytes(first: u8) -> usize {
    match first & 0x1f {
        0..=23 => 1,
        short => 1 + (1 << (short - 24)),
    }
}
