//! Hexadecimal encoding and decoding.

/// Appends two lower-case digits a byte. A text with room for them leaves no copy behind.
pub(crate) fn push_hex(text: &mut String, bytes: &[u8]) {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    text.extend(digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or_default()));
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

/// Fills bytes from as many pairs of digits, in either case. `None`: other length or digits.
#[cfg(any(feature = "certs", feature = "gateway"))]
pub(crate) fn fill_from_hex(text: &str, bytes: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != 2 * bytes.len() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16).unwrap_or_default() as u8;
        *byte = value(pair[0]) << 4 | value(pair[1]);
    }
    Some(())
}

#[cfg(any(feature = "certs", feature = "gateway"))]
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    fill_from_hex(text, &mut bytes).map(|()| bytes)
}
