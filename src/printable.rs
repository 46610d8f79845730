//! Escapes text from peers for logs and terminals.

/// Escapes control characters and other invisible ones as `\u{..}`. Quotes and backslashes stay as
/// they are, so that escaping twice changes nothing.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// The longest start of a text that has at most `bytes_max` bytes and ends between characters.
pub(crate) fn truncated(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaping_twice_changes_nothing() {
        for (text, shown) in [
            ("agent \"a\" isn't \\ here", "agent \"a\" isn't \\ here"),
            ("a\x1b[2J\r\n\u{202e}", "a\\u{1b}[2J\\r\\n\\u{202e}"),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(printable(shown), shown);
        }
    }
}
