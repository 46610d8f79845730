//! Converter from CBOR to JSON in steps, so that a long text is never completely in memory.
//!
//! [`Walk`] stores only its position. The first walk over a message checks it and finds equal keys,
//! see [`super::checked`]; the second writes.

use super::dropped::Dropped;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::str;

/// Arrays, maps and tags in one another. As much as serde_cbor reads.
const DEPTH_MAX: usize = 127;

/// Maximum number of bytes of a byte string or a text written in one step.
const STEP_BYTES: usize = 4_096;

const BREAK: u8 = 0xff;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonEvent {
    Step,
    MapBegins,
    /// The key that begins at this offset is written.
    KeyEnds(usize),
    MapEnds,
    /// The value is written.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextItem {
    Item,
    Key,
    AfterKey,
    Value,
}

/// An array or a map whose end has not come yet.
#[derive(Debug, Clone)]
struct Open {
    next: NextItem,
    /// Items or entries to come; `None` up to a break.
    left: Option<u64>,
    /// Tags before it.
    tags: usize,
    is_empty: bool,
    key_at: usize,
}

#[derive(Debug, Clone)]
struct Run {
    major: u8,
    /// Bytes to come of this piece of it.
    left: usize,
    is_in_pieces: bool,
    /// Bytes that do not make up four characters of base64 yet.
    rest: [u8; 3],
    rest_bytes: usize,
}

/// The first byte of an item and its argument.
struct ItemHead {
    major: u8,
    short: u8,
    /// `None` for an indefinite length.
    argument: Option<u64>,
}

/// A place in a message on the way to JSON.
#[derive(Debug, Clone, Default)]
pub(super) struct Walk {
    at: usize,
    open: Vec<Open>,
    run: Option<Run>,
    /// Arrays, maps and tags around this place.
    depth: usize,
    is_begun: bool,
    /// Arrays and maps around the array or map that is being written as a key, so escaped again.
    key_level: Option<usize>,
    /// Arrays and maps around the entry that is passed over.
    skip_level: Option<usize>,
    /// Only the key that begins where the walk does is written.
    is_key_alone: bool,
    /// It was walked over before.
    is_checked: bool,
}

impl Walk {
    pub(super) fn again() -> Self {
        Self { is_checked: true, ..Self::default() }
    }

    pub(super) fn of_key(at: usize) -> Self {
        Self { at, is_key_alone: true, is_checked: true, ..Self::default() }
    }

    /// Bytes that it has passed.
    #[cfg(any(feature = "forward", feature = "gateway", test))]
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Appends the next few bytes of the JSON. `cbor` and `dropped` are the same at every step; no
    /// step may follow an error, which is malformed CBOR with its offset.
    pub(super) fn step(
        &mut self,
        cbor: &[u8],
        dropped: &Dropped,
        out: &mut Vec<u8>,
    ) -> Result<JsonEvent, String> {
        let (from, is_in_key, was_skipping) =
            (out.len(), self.key_level.is_some(), self.skip_level.is_some());
        let event = self.step_plain(cbor, dropped, out)?;
        if was_skipping || self.skip_level.is_some() {
            out.truncate(from);
        } else if is_in_key && !matches!(event, JsonEvent::KeyEnds(_) | JsonEvent::End) {
            escape_again(out, from);
        }
        Ok(event)
    }

    fn step_plain(
        &mut self,
        cbor: &[u8],
        dropped: &Dropped,
        out: &mut Vec<u8>,
    ) -> Result<JsonEvent, String> {
        if self.run.is_some() {
            return self.go_on(cbor, out);
        }
        let level = self.open.len();
        let Some(last) = self.open.last_mut() else {
            if !self.is_begun {
                self.is_begun = true;
                return self.item(cbor, out, self.is_key_alone);
            }
            if self.is_key_alone {
                if self.key_level.take().is_some() {
                    out.push(b'"');
                }
            } else if self.at < cbor.len() {
                return Err(fault("there are bytes after the value", self.at));
            }
            return Ok(JsonEvent::End);
        };
        match last.next {
            NextItem::AfterKey => {
                last.next = NextItem::Value;
                let key_at = last.key_at;
                if self.key_level == Some(level) {
                    self.key_level = None;
                    out.push(b'"');
                }
                out.push(b':');
                return Ok(JsonEvent::KeyEnds(key_at));
            }
            NextItem::Value => {
                last.next = NextItem::Key;
                return self.item(cbor, out, false);
            }
            NextItem::Item | NextItem::Key => {}
        }
        if self.skip_level == Some(level) {
            self.skip_level = None;
            return Ok(JsonEvent::Step);
        }
        if is_over(last, cbor, &mut self.at)? {
            return Ok(self.close(out));
        }
        let is_key = last.next == NextItem::Key;
        if is_key {
            last.next = NextItem::AfterKey;
            last.key_at = self.at;
            if self.skip_level.is_none() && dropped.has(self.at) {
                self.skip_level = Some(level);
                return self.item(cbor, out, true);
            }
        }
        if !std::mem::replace(&mut last.is_empty, false) {
            out.push(b',');
        }
        self.item(cbor, out, is_key)
    }

    /// Begins an item; what is short is written whole.
    fn item(&mut self, cbor: &[u8], out: &mut Vec<u8>, is_key: bool) -> Result<JsonEvent, String> {
        let (mut head, mut tags) = (self.head(cbor)?, 0);
        while head.major == TAG {
            tags += 1;
            self.deeper()?;
            head = self.head(cbor)?;
        }
        match head.major {
            BYTES | TEXT => {
                self.depth -= tags;
                out.push(b'"');
                let (left, is_in_pieces) = match head.argument {
                    Some(length) => (self.length(cbor, head.major, length)?, false),
                    None => (0, true),
                };
                let major = head.major;
                self.run = Some(Run { major, left, is_in_pieces, rest: [0; 3], rest_bytes: 0 });
                self.go_on(cbor, out)
            }
            ARRAY | MAP => {
                self.deeper()?;
                if is_key {
                    if self.key_level.is_some() {
                        let text =
                            "an array or a map is a key within a key, which is not written as JSON";
                        return Err(fault(text, self.at - 1));
                    }
                    self.key_level = Some(self.open.len());
                    out.push(b'"');
                }
                let is_map = head.major == MAP;
                out.push(if is_map { b'{' } else { b'[' });
                let next = if is_map { NextItem::Key } else { NextItem::Item };
                let left = head.argument;
                self.open.push(Open { next, left, tags, is_empty: true, key_at: 0 });
                Ok(if is_map { JsonEvent::MapBegins } else { JsonEvent::Step })
            }
            _ => {
                self.depth -= tags;
                if is_key {
                    out.push(b'"');
                }
                scalar(&head, out).ok_or_else(|| fault("no such simple value", self.at - 1))?;
                if is_key {
                    out.push(b'"');
                }
                Ok(JsonEvent::Step)
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) -> JsonEvent {
        let Some(Open { next, tags, .. }) = self.open.pop() else { return JsonEvent::End };
        self.depth -= 1 + tags;
        if next == NextItem::Item {
            out.push(b']');
            JsonEvent::Step
        } else {
            out.push(b'}');
            JsonEvent::MapEnds
        }
    }

    fn deeper(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(fault("it is nested deeper than 127 levels", self.at));
        }
        Ok(())
    }

    /// Writes some of a byte string or a text.
    fn go_on(&mut self, cbor: &[u8], out: &mut Vec<u8>) -> Result<JsonEvent, String> {
        let Some(mut run) = self.run.take() else { return Ok(JsonEvent::Step) };
        if run.left == 0 && run.is_in_pieces && !self.next_piece(cbor, &mut run)? {
            run.is_in_pieces = false;
        }
        let piece = &cbor[self.at..self.at + run.left.min(STEP_BYTES)];
        self.at += piece.len();
        run.left -= piece.len();
        if run.major == TEXT {
            escape(out, piece);
        } else {
            encode(out, piece, &mut run);
        }
        if run.left > 0 || run.is_in_pieces {
            self.run = Some(run);
            return Ok(JsonEvent::Step);
        }
        base64(out, &run.rest[..run.rest_bytes]);
        out.push(b'"');
        Ok(JsonEvent::Step)
    }

    /// The next piece of a string of indefinite length; `false` at its end.
    fn next_piece(&mut self, cbor: &[u8], run: &mut Run) -> Result<bool, String> {
        if cbor.get(self.at) == Some(&BREAK) {
            self.at += 1;
            return Ok(false);
        }
        let head = self.head(cbor)?;
        match head.argument {
            Some(length) if head.major == run.major => {
                run.left = self.length(cbor, run.major, length)?;
                Ok(true)
            }
            _ => Err(fault("a piece of a string is not such a string", self.at - 1)),
        }
    }

    /// The length of a string that is all there.
    fn length(&self, cbor: &[u8], major: u8, length: u64) -> Result<usize, String> {
        let length = usize::try_from(length).ok().filter(|length| *length <= cbor.len() - self.at);
        let length = length.ok_or_else(|| fault("it ends within a value", cbor.len()))?;
        if major == TEXT && !self.is_checked {
            let text = str::from_utf8(&cbor[self.at..self.at + length]);
            text.map_err(|bad| fault("a text is not UTF-8", self.at + bad.valid_up_to()))?;
        }
        Ok(length)
    }

    fn head(&mut self, cbor: &[u8]) -> Result<ItemHead, String> {
        let ends = || fault("it ends within a value", cbor.len());
        let first = *cbor.get(self.at).ok_or_else(ends)?;
        let (major, short, begin) = (first >> 5, first & 0x1f, self.at);
        self.at += 1;
        let argument = match short {
            0..=23 => Some(u64::from(short)),
            24..=27 => {
                let width = 1 << (short - 24);
                let bytes = cbor.get(self.at..self.at + width).ok_or_else(ends)?;
                self.at += width;
                Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
            }
            31 if matches!(major, BYTES..=MAP) => None,
            _ => return Err(fault("no value begins so", begin)),
        };
        Ok(ItemHead { major, short, argument })
    }
}

fn fault(what: &str, at: usize) -> String {
    format!("{what} (at byte {at})")
}

/// Checks for the end of an array or a map, and consumes a break.
fn is_over(open: &mut Open, cbor: &[u8], at: &mut usize) -> Result<bool, String> {
    match &mut open.left {
        Some(0) => Ok(true),
        Some(left) => {
            *left -= 1;
            Ok(false)
        }
        None if cbor.get(*at) == Some(&BREAK) => {
            *at += 1;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// Writes a number or a simple value.
fn scalar(head: &ItemHead, out: &mut Vec<u8>) -> Option<()> {
    let argument = head.argument?;
    match (head.major, head.short) {
        (0, _) => number(out, argument),
        (1, _) => match i64::try_from(argument) {
            Ok(argument) => number(out, -1 - argument),
            Err(_) => number(out, (-1 - i128::from(argument)) as f64),
        },
        (7, 20) => out.extend_from_slice(b"false"),
        (7, 21) => out.extend_from_slice(b"true"),
        (7, 22 | 23) => out.extend_from_slice(b"null"),
        (7, 25) => number(out, half(argument)),
        (7, 26) => number(out, f64::from(f32::from_bits(u32::try_from(argument).ok()?))),
        (7, 27) => number(out, f64::from_bits(argument)),
        _ => return None,
    }
    Some(())
}

/// A float of 16 bits, by RFC 8949 appendix D.
fn half(bits: u64) -> f64 {
    // Ten bits fit.
    let (exponent, mantissa) = (bits >> 10 & 0x1f, (bits & 0x3ff) as f64);
    let value = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        // Five bits fit.
        _ => (mantissa + 1024.0) * 2_f64.powi(exponent as i32 - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

/// As serde_json writes it; what is not finite as `null`.
fn number(out: &mut Vec<u8>, value: impl serde::Serialize) {
    // A vector takes everything.
    drop(serde_json::to_writer(out, &value));
}

/// Writes text as the inside of a JSON string, by the short escapes of RFC 8259. It may begin and
/// end within a character.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut plain = 0;
    for (at, byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            0x08 => b'b',
            0x09 => b't',
            0x0a => b'n',
            0x0c => b'f',
            0x0d => b'r',
            0x00..=0x1f => 0,
            _ => continue,
        };
        out.extend_from_slice(&text[plain..at]);
        plain = at + 1;
        if short == 0 {
            let digit = |four: u8| b"0123456789abcdef"[usize::from(four)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&text[plain..]);
}

/// Escapes what was written from here, which is JSON, as the inside of a JSON string.
fn escape_again(out: &mut Vec<u8>, from: usize) {
    if out[from..].iter().any(|byte| matches!(byte, b'"' | b'\\')) {
        let written = out.split_off(from);
        escape(out, &written);
    }
}

/// Writes bytes as base64, and keeps what is left of a group of three.
fn encode(out: &mut Vec<u8>, mut piece: &[u8], run: &mut Run) {
    while run.rest_bytes > 0 && run.rest_bytes < 3 {
        let [first, others @ ..] = piece else { return };
        run.rest[run.rest_bytes] = *first;
        run.rest_bytes += 1;
        piece = others;
    }
    if run.rest_bytes == 3 {
        base64(out, &run.rest);
        run.rest_bytes = 0;
    }
    let (groups, rest) = piece.split_at(piece.len() - piece.len() % 3);
    base64(out, groups);
    run.rest[..rest.len()].copy_from_slice(rest);
    run.rest_bytes = rest.len();
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let at = out.len();
    out.resize(at + (bytes.len() * 4).div_ceil(3), 0);
    // It has the room.
    drop(URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[at..]));
}
