//! Verb and path of a call of an HTTP forward, checked and normalised before rules read them.

use crate::limits::HTTP_PATH_BYTES_MAX;
use std::{fmt, sync::Arc};

const VERB_BYTES_MAX: usize = 32;

/// Verbs of connections and of diagnostics, which a forward cannot pass on.
const FORBIDDEN_VERBS: [&str; 2] = ["CONNECT", "TRACE"];

/// Verb and path of a call of an HTTP forward, as `GET /api/x`. Cloning is cheap.
///
/// The path has no query, and it is normalised (RFC 3986 section 6.2.2). Paths that servers are
/// known to read in different ways are refused, so that a rule decides on the path that the
/// upstream reads.
///
/// ```
/// use dialback::HttpTarget;
///
/// let target = HttpTarget::new("GET", "/a/./%7Eb/../c%2fd")?;
/// assert_eq!((target.verb(), target.path()), ("GET", "/a/c%2Fd"));
/// assert!(HttpTarget::new("GET", "/a/%252e%252e/b").is_err());
/// # Ok::<(), dialback::HttpTargetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTarget {
    /// `GET /api/x`.
    text: Arc<str>,
    /// Of the space.
    split: usize,
}

impl HttpTarget {
    /// Checks verb and path of a request line, without the query, and normalises the path.
    ///
    /// # Errors
    /// Verb or path is invalid, or the path is one that servers read in different ways.
    pub fn new(verb: &str, path: &str) -> Result<Self, HttpTargetError> {
        check_verb(verb)?;
        if path.len() > HTTP_PATH_BYTES_MAX {
            return Err(HttpTargetError::PathTooLong);
        }
        let invalid = |why| HttpTargetError::InvalidPath { path: shortened(path), why };
        let normalised = match (verb, path) {
            ("OPTIONS", "*") => path.to_owned(),
            (_, "*") => return Err(invalid("is *, which only OPTIONS has")),
            _ => normalise(path).map_err(invalid)?,
        };
        // Bytes that had to be escaped take three each.
        if normalised.len() > HTTP_PATH_BYTES_MAX {
            return Err(HttpTargetError::PathTooLong);
        }
        Ok(Self { text: format!("{verb} {normalised}").into(), split: verb.len() })
    }

    /// Checks verb and path as they travel between nodes and agents, where the path is normalised.
    ///
    /// # Errors
    /// As of [`HttpTarget::new`], and if the path is not normalised.
    pub fn from_wire(verb: &str, path: &str) -> Result<Self, HttpTargetError> {
        let target = Self::new(verb, path)?;
        if target.path() != path {
            let normalised = shortened(target.path());
            return Err(HttpTargetError::NotNormalised { path: shortened(path), normalised });
        }
        Ok(target)
    }

    /// The verb, HTTP's method: `GET`. Case-sensitive.
    pub fn verb(&self) -> &str {
        &self.text[..self.split]
    }

    /// The normalised path, exactly as the upstream gets it: begins with `/`, or is `*` (`OPTIONS`
    /// only).
    pub fn path(&self) -> &str {
        &self.text[self.split + 1..]
    }
}

/// Shown as in a request line: `GET /api/x`. All bytes are visible ASCII.
impl fmt::Display for HttpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Verb and path after the name of a method in a sentence, ` (GET /api/x)`, or nothing.
pub(crate) struct HttpSuffix<'a>(pub(crate) Option<&'a HttpTarget>);

impl fmt::Display for HttpSuffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |target| write!(f, " ({target})"))
    }
}

/// Fault of the verb or the path of a call of an HTTP forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpTargetError {
    /// The verb is not a token (RFC 9110 section 5.6.2), or too long.
    #[error("verb {0:?} is not a token of 1 to 32 bytes, as GET")]
    InvalidVerb(String),
    /// `CONNECT` and `TRACE` are not forwarded.
    #[error("verb {0} cannot be forwarded")]
    ForbiddenVerb(String),
    /// The path is too long, as it was received or with the escapes that it needs.
    #[error("path is longer than {HTTP_PATH_BYTES_MAX} bytes")]
    PathTooLong,
    /// The path is not one of RFC 3986, or servers read it in different ways.
    #[error("path {path:?} {why}")]
    InvalidPath {
        /// The path, or its beginning.
        path: String,
        /// The fault.
        why: &'static str,
    },
    /// The path came from a peer that should have normalised it.
    #[error("path {path:?} is not normalised; it should be {normalised}")]
    NotNormalised {
        /// The path, or its beginning.
        path: String,
        /// The normalised path, or its beginning.
        normalised: String,
    },
}

/// Limits the length of text in errors.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Checks that a verb is a token and may be forwarded.
pub(crate) fn check_verb(verb: &str) -> Result<(), HttpTargetError> {
    if verb.len() > VERB_BYTES_MAX || !is_token(verb) {
        return Err(HttpTargetError::InvalidVerb(shortened(verb)));
    }
    // In any case of letters: some servers ignore it.
    if FORBIDDEN_VERBS.iter().any(|forbidden| verb.eq_ignore_ascii_case(forbidden)) {
        return Err(HttpTargetError::ForbiddenVerb(verb.to_owned()));
    }
    Ok(())
}

fn is_token(text: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_byte)
}

fn normalise(path: &str) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("does not begin with /");
    }
    let path = normalise_escapes(path)?;
    let segments = remove_dot_segments(&path)?;
    Ok(format!("/{}", segments.join("/")))
}

/// Escapes what must be, decodes the escapes of unreserved characters, and writes the others in
/// upper case.
fn normalise_escapes(path: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(path.len());
    let (mut rest, mut previous) = (path.as_bytes(), 0);
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| escaped_byte(after).ok_or(BAD_ESCAPE));
        let (byte, after) = escaped.transpose()?.unwrap_or((*first, after));
        if byte.is_ascii_control() {
            return Err("has a control character");
        }
        if is_overlong(previous, byte) {
            return Err("has an ASCII character in overlong UTF-8");
        }
        match *first {
            _ if is_unreserved(byte) => out.push(byte.into()),
            b'%' => push_escape(&mut out, byte),
            b'?' | b'#' => {
                return Err("has a ? or #, which end a path; as part of one it is escaped");
            }
            b' ' => return Err("has a space; write %20"),
            raw if is_delimiter(raw) => out.push(raw.into()),
            raw => push_escape(&mut out, raw),
        }
        (rest, previous) = (after, byte);
    }
    Ok(out)
}

const BAD_ESCAPE: &str = "has a % that is not followed by two hexadecimal digits";

/// The byte of an escape, after its `%`, and what follows.
pub(crate) fn escaped_byte(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, after @ ..] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    Some((byte, after))
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)].into());
    out.extend(['%', digits[0], digits[1]]);
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// True if a path may have the byte as a delimiter, unescaped: `/` and those of `pchar`.
fn is_delimiter(byte: u8) -> bool {
    b"/:@!$&'()*+,;=".contains(&byte)
}

/// True if the second byte shows that both encode an ASCII character in more bytes than UTF-8
/// allows. Some servers take `%C0%AE` for a dot.
const fn is_overlong(first: u8, second: u8) -> bool {
    matches!(
        (first, second),
        (0xC0 | 0xC1, 0x80..=0xBF) | (0xE0, 0x80..=0x9F) | (0xF0, 0x80..=0x8F)
    )
}

/// Splits a path into its segments, and removes its dot segments (RFC 3986 section 5.2.4).
fn remove_dot_segments(path: &str) -> Result<Vec<&str>, &'static str> {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." if kept.pop().is_none() => return Err("has .. segments that climb above /"),
            ".." => {}
            _ if hides_dot_segment(segment) => {
                return Err("has a segment that some servers read as . or ..");
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        // A directory ends with its slash.
        if segments.peek().is_none() {
            kept.push("");
        }
    }
    Ok(kept)
}

/// True if a server that decodes twice, reads escaped slashes or backslashes as separators, or cuts
/// off parameters, reads a dot segment in this segment.
fn hides_dot_segment(segment: &str) -> bool {
    if !segment.contains(['%', ';']) {
        return false;
    }
    let once = decode_escapes(segment.as_bytes());
    let twice = decode_escapes(&once);
    let has_dots = |text: &[u8]| text.split(|byte| b"/\\".contains(byte)).any(is_dots_before_end);
    has_dots(segment.as_bytes()) || has_dots(&once) || has_dots(&twice)
}

/// `..` and `.`, also before parameters, a query or a fragment.
fn is_dots_before_end(segment: &[u8]) -> bool {
    let name = segment.split(|byte| b";?#".contains(byte)).next();
    matches!(name, Some(b"." | b".."))
}

/// Decodes all escapes once. A `%` that begins none stays.
pub(crate) fn decode_escapes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let escaped = if *first == b'%' { escaped_byte(after) } else { None };
        let (byte, after) = escaped.unwrap_or((*first, after));
        out.push(byte);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(path: &str, normalised: &str) {
        let target = HttpTarget::new("GET", path).expect(path);
        assert_eq!(target.path(), normalised, "{path}");
        assert_eq!(HttpTarget::from_wire("GET", normalised), Ok(target));
        assert_eq!(HttpTarget::from_wire("GET", path).is_ok(), path == normalised, "{path}");
    }

    #[track_caller]
    fn check_refused(paths: &[&str], why: &str) {
        for path in paths {
            let fault = HttpTarget::new("GET", path).expect_err(path).to_string();
            assert!(fault.contains(why), "{path}: {fault}");
            assert!(HttpTarget::from_wire("GET", path).is_err(), "{path}");
        }
    }

    #[test]
    fn verbs_are_case_sensitive_tokens_of_at_most_32_bytes() {
        let longest = "A".repeat(32);
        for verb in ["GET", "get", "PROPFIND", "M-SEARCH", "X!#$%&'*+.^_`|~9", &longest] {
            assert_eq!(HttpTarget::new(verb, "/").expect(verb).verb(), verb);
        }
        for verb in ["", "GET ", "G/T", "GET\r\n", "GÉT", "(GET)", &"A".repeat(33)] {
            let fault = HttpTarget::new(verb, "/").expect_err(verb).to_string();
            assert!(fault.ends_with("is not a token of 1 to 32 bytes, as GET"), "{fault}");
        }
        for verb in ["CONNECT", "TRACE", "connect", "Trace"] {
            let fault = HttpTarget::new(verb, "/").expect_err(verb).to_string();
            assert_eq!(fault, format!("verb {verb} cannot be forwarded"));
        }
    }

    #[test]
    fn a_target_is_shown_as_in_a_request_line() {
        let target = HttpTarget::new("DELETE", "/a/./b").expect("a target");
        assert_eq!(target.to_string(), "DELETE /a/b");
        assert_eq!((target.verb(), target.path()), ("DELETE", "/a/b"));
        assert_eq!(HttpSuffix(Some(&target)).to_string(), " (DELETE /a/b)");
        assert_eq!(HttpSuffix(None).to_string(), "");
    }

    #[test]
    fn only_options_has_the_asterisk_for_its_path() {
        let target = HttpTarget::from_wire("OPTIONS", "*").expect("a target");
        assert_eq!((target.verb(), target.path()), ("OPTIONS", "*"));
        check_refused(&["*", "**", "*/"], "path");
        assert!(HttpTarget::new("options", "*").is_err());
        check("/*", "/*");
    }

    #[test]
    fn escapes_are_written_in_one_way() {
        check("/", "/");
        check("/api/x", "/api/x");
        check("/%41%2d%7e%5F", "/A-~_");
        check("/a%2fb%c3%a9", "/a%2Fb%C3%A9");
        check("/é", "/%C3%A9");
        check("/a%20b%3F%23", "/a%20b%3F%23");
        check("/:@!$&'()*+,;=", "/:@!$&'()*+,;=");
        check("/%3a%40%21", "/%3A%40%21");
        check("/\"<>\\^`{|}[]", "/%22%3C%3E%5C%5E%60%7B%7C%7D%5B%5D");
        check("/group%2Fproject/a%252Fb", "/group%2Fproject/a%252Fb");
        check("/100%25", "/100%25");
        check("/%c0x/%FF%FE", "/%C0x/%FF%FE");
    }

    #[test]
    fn dot_segments_are_removed() {
        for (path, normalised) in [
            ("/.", "/"),
            ("/./", "/"),
            ("/a/..", "/"),
            ("/a/../", "/"),
            ("/a/b/..", "/a/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/%2e/b", "/b"),
            ("/a//../b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("//", "//"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/..b/.c/d..", "/a/..b/.c/d.."),
        ] {
            check(path, normalised);
        }
        check_refused(&["/..", "/a/../..", "/../a", "/./%2e%2e/", "/a/../../a"], "climb above /");
    }

    #[test]
    fn bytes_that_no_path_has_are_refused() {
        check_refused(&["", "a", "a/b", "?", "http://h/x", "\\a"], "does not begin with /");
        check_refused(&["/a?b", "/a#b", "/?"], "has a ? or #");
        check_refused(&["/a b"], "has a space; write %20");
        check_refused(&["/%", "/%4", "/%4g", "/%%41", "/%u0041", "/a%"], "two hexadecimal digits");
        check_refused(
            &["/\0", "/%00", "/a%0d%0aX", "/\r\n", "/\t", "/%09", "/%7f", "/\x7f", "/%1F"],
            "has a control character",
        );
        check_refused(
            &["/%c0%ae%c0%ae/", "/%C0%AF", "/%c1%9c", "/%e0%80%ae", "/%F0%80%80%AE"],
            "overlong UTF-8",
        );
    }

    #[test]
    fn a_segment_that_some_servers_read_as_dots_is_refused() {
        for segment in [
            "%252e%252e",
            "%252E",
            ".%252e",
            "..%2f",
            "..%2Fb",
            "b%2f..",
            "b%2F.%2Fc",
            "..%5c",
            "b%5C..%5Cc",
            "..\\",
            "b\\..\\c",
            "..%252f",
            "b%255c..",
            "..;",
            ".;",
            "..;x=1",
            "%2e%2e;",
            "..%3b",
            "..%3Bx",
            "..%253Bx",
            "..;%2Fb",
            "x;y%2F..",
            "..%3Fx",
            ".%23",
        ] {
            let paths =
                [format!("/a/{segment}"), format!("/a/{segment}/b"), format!("/{segment}/../a")];
            check_refused(&paths.each_ref().map(String::as_str), "some servers read as . or ..");
        }
        for segment in ["a;b", ";..", "a;..", "b%2Fc", "b%5C.c", "..b%2F", "%252Fb", ".x;", "%3B.."]
        {
            check(&format!("/a/{segment}/c"), &format!("/a/{segment}/c"));
        }
    }

    #[test]
    fn a_path_of_2048_bytes_passes_and_one_of_2049_does_not() {
        let path = |bytes: usize| HttpTarget::new("GET", &format!("/{}", "a".repeat(bytes - 1)));
        assert!(path(2_048).is_ok());
        assert_eq!(path(2_049), Err(HttpTargetError::PathTooLong));
        // 1 + 3 * 682 = 2047, and 1 + 3 * 683 = 2050.
        let escaped = |count: usize| HttpTarget::new("GET", &format!("/{}", "<".repeat(count)));
        assert_eq!(escaped(682).expect("fits").path().len(), 2_047);
        assert_eq!(escaped(683), Err(HttpTargetError::PathTooLong));
    }

    #[test]
    fn the_wire_accepts_only_normalised_paths() {
        let fault = HttpTarget::from_wire("GET", "/a/../b%2f").expect_err("refused").to_string();
        assert_eq!(fault, "path \"/a/../b%2f\" is not normalised; it should be /b%2F");
    }

    const PARTS: [&str; 24] = [
        "/", "/", "/", ".", ".", "..", "%2e", "%2E", "%2F", "%5c", "%25", "2e", "2F", "5C", "3b",
        ";", "\\", "a", "B", "%41", "%3B", "<", "é", "%C3",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_normalised_path_is_its_own_normal_form_and_hides_no_dots(
            parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..14)
        ) {
            let Ok(target) = HttpTarget::new("GET", &format!("/{}", parts.concat())) else {
                return Ok(());
            };
            prop_assert_eq!(HttpTarget::from_wire("GET", target.path()), Ok(target.clone()));
            prop_assert!(target.path().starts_with('/'));
            prop_assert!(target.path().bytes().all(|byte| byte.is_ascii_graphic()));
            let once = decode_escapes(target.path().as_bytes());
            for reading in [target.path().as_bytes(), &once, &decode_escapes(&once)] {
                let mut segments = reading.split(|byte| b"/\\".contains(byte));
                prop_assert!(!segments.any(is_dots_before_end), "{}", target);
            }
        }

        #[test]
        fn any_text_is_refused_or_normalised(verb in ".{0,5}", path in "/?.{0,40}") {
            if let Ok(target) = HttpTarget::new(&verb, &path) {
                prop_assert_eq!(HttpTarget::from_wire(&verb, target.path()), Ok(target));
            }
        }
    }
}
