//! Patterns over the paths of HTTP calls in rules.

use super::path_reading::PathReading;
use crate::name::{NameError, escaped_byte};
use std::{fmt, str::FromStr};

const PATTERN_BYTES_MAX: usize = 512;

/// A pattern over paths, written decoded: `/api`, `/api/**`, `/assets/*.js`.
///
/// Without `*` it covers its path and all below, by whole segments: `/api` covers `/api/x` and not
/// `/apix`. With `*` it covers whole paths: `*` is any characters of one segment that is not empty,
/// `**` any number of segments, none included. A slash at the end of a path makes no difference.
///
/// `%2F`, `%2A` and `%25` are a slash within a segment, `*` and `%`. Matching one reading of a path
/// costs at most one comparison for each pair of a byte of the pattern and a byte of the path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathGlob {
    text: String,
    /// True if it has no wildcard.
    is_prefix: bool,
    /// For readings in which an escaped slash is part of its segment.
    exact: Vec<PatternSegment>,
    /// For readings in which it separates segments.
    lenient: Vec<PatternSegment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PatternSegment {
    /// `**`: any number of segments.
    Any,
    /// One segment.
    One(Vec<SegmentPart>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum SegmentPart {
    Byte(u8),
    /// `*`: any number of bytes.
    Run,
}

impl PathGlob {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True if the pattern covers the path as one kind of server reads it.
    pub(super) fn matches(&self, path: &PathReading) -> bool {
        let (pattern, path) = match path {
            PathReading::Exact(segments) => (&self.exact, segments),
            PathReading::Lenient(segments) => (&self.lenient, segments),
        };
        if self.is_prefix {
            return pattern.len() <= path.len()
                && pattern.iter().zip(path.iter()).all(|(part, segment)| part.matches(segment));
        }
        covers(
            pattern,
            path.len(),
            |part| *part == PatternSegment::Any,
            |part, at| part.matches(path.get(at)),
        )
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(why) = fault(text) {
            return Err(why);
        }
        let segments = text[1..].split('/').filter(|segment| !segment.is_empty());
        let exact: Vec<_> = segments.map(PatternSegment::parse).collect::<Result<_, _>>()?;
        let lenient: Vec<_> = exact.iter().flat_map(PatternSegment::at_slashes).collect();
        if lenient.iter().any(PatternSegment::is_dots) {
            return Err("has a . or .. segment, which no path has once it is normalised");
        }
        let is_prefix = !exact.iter().any(PatternSegment::has_wildcard);
        Ok(Self { text: text.to_owned(), is_prefix, exact, lenient })
    }
}

/// The fault of a text that is not a pattern, as far as it shows before segments are read.
fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("is empty; write / for all paths")
    } else if text.len() > PATTERN_BYTES_MAX {
        Some("is longer than 512 bytes")
    } else if !text.starts_with('/') {
        Some("does not begin with /")
    } else if text.contains(['?', '#']) {
        Some("has a ? or #; patterns are over paths, without the query")
    } else if text.contains([';', '\\']) {
        Some("has a ; or \\, which servers read in different ways; * covers it")
    } else if text.bytes().any(|byte| byte.is_ascii_control()) {
        Some("has a control character, which no path has")
    } else if text.contains("//") {
        Some("has an empty segment")
    } else if text.len() > 1 && text.ends_with('/') {
        Some("ends with /, which makes no difference")
    } else {
        None
    }
}

impl PatternSegment {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "**" {
            return Ok(Self::Any);
        }
        if text.contains("**") {
            return Err("has a ** that is not a whole segment");
        }
        let (mut parts, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, after @ ..] = rest {
            let (part, after) = match first {
                b'*' => (SegmentPart::Run, after),
                b'%' => {
                    needed_escape(after).map(|(byte, after)| (SegmentPart::Byte(byte), after))?
                }
                byte => (SegmentPart::Byte(*byte), after),
            };
            parts.push(part);
            rest = after;
        }
        Ok(Self::One(parts))
    }

    fn matches(&self, segment: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::One(parts) => {
                !segment.is_empty()
                    && covers(
                        parts,
                        segment.len(),
                        |part| *part == SegmentPart::Run,
                        |part, at| *part == SegmentPart::Byte(segment[at]),
                    )
            }
        }
    }

    /// The segments that this is when an escaped slash separates segments.
    fn at_slashes(&self) -> Vec<Self> {
        let Self::One(parts) = self else { return vec![Self::Any] };
        let pieces = parts.split(|part| *part == SegmentPart::Byte(b'/'));
        pieces.filter(|piece| !piece.is_empty()).map(|piece| Self::One(piece.to_vec())).collect()
    }

    fn is_dots(&self) -> bool {
        const DOT: SegmentPart = SegmentPart::Byte(b'.');
        matches!(self, Self::One(parts) if matches!(parts[..], [DOT] | [DOT, DOT]))
    }

    fn has_wildcard(&self) -> bool {
        match self {
            Self::Any => true,
            Self::One(parts) => parts.contains(&SegmentPart::Run),
        }
    }
}

/// The byte of an escape that a pattern needs, and what follows it.
fn needed_escape(text: &[u8]) -> Result<(u8, &[u8]), &'static str> {
    match escaped_byte(text) {
        None => Err("has a % that is not followed by two hexadecimal digits; %25 stands for one"),
        Some(escaped) if is_needed(escaped.0) => Ok(escaped),
        Some((b';' | b'\\' | b'?' | b'#', _)) => {
            Err("has an escaped character that servers read in different ways; * covers it")
        }
        Some((byte, _)) if byte.is_ascii_control() => {
            Err("has a control character, which no path has")
        }
        Some(_) => Err("has an escape that needs none; patterns are written decoded"),
    }
}

/// True if a pattern can have the byte only escaped. Others than ASCII may be no UTF-8.
const fn is_needed(byte: u8) -> bool {
    matches!(byte, b'/' | b'*' | b'%') || !byte.is_ascii()
}

/// True if a pattern with wildcards, each for any number of items, covers all items. Compares a
/// part with an item, by its index, at most once: what follows a wildcard is tried from one item
/// after the other, and wildcards before the last one need not be tried again.
fn covers<P>(
    pattern: &[P],
    items: usize,
    is_wildcard: impl Fn(&P) -> bool,
    matches: impl Fn(&P, usize) -> bool,
) -> bool {
    let (mut at, mut item) = (0, 0);
    // The part after the last wildcard, and the item from which it is tried.
    let mut retry = None;
    while item < items {
        match (pattern.get(at), retry) {
            (Some(part), _) if is_wildcard(part) => {
                at += 1;
                retry = Some((at, item));
            }
            (Some(part), _) if matches(part, item) => (at, item) = (at + 1, item + 1),
            (_, Some((after, from))) => {
                (at, item) = (after, from + 1);
                retry = Some((after, item));
            }
            (_, None) => return false,
        }
    }
    pattern[at..].iter().all(is_wildcard)
}

/// The likely spelling of a text that is not a pattern.
fn spelling(text: &str) -> String {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let segments = path.split('/').filter(|segment| !segment.is_empty() && *segment != ".");
    let segments: Vec<_> = segments.map(without_needless_escapes).collect();
    format!("/{}", segments.join("/"))
}

fn without_needless_escapes(segment: &str) -> String {
    let mut parts = segment.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match escaped_byte(part.as_bytes()) {
            None => out.extend(["%25", part]),
            Some((byte, _)) if is_needed(byte) => out.extend(["%", part]),
            Some((byte, _)) => {
                out.push(byte.into());
                out.push_str(&part[2..]);
            }
        }
    }
    out
}

impl FromStr for PathGlob {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text).map_err(|why| {
            let is_guessed = !text.is_empty() && !text.contains("://");
            let spellings = is_guessed.then(|| spelling(text));
            NameError::new("path pattern", text, why).or_write::<Self>(text, spellings)
        })
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::path_reading::TargetReadings, *};
    use crate::name::HttpTarget;
    use proptest::prelude::*;

    /// True if the pattern covers every reading of the path, or some.
    fn matched(pattern: &str, path: &str) -> [bool; 2] {
        let glob: PathGlob = pattern.parse().expect(pattern);
        let target = HttpTarget::new("GET", path).expect(path);
        let readings = TargetReadings::new(&target);
        let covered = |one: &PathReading| glob.matches(one);
        [readings.all().all(covered), readings.all().any(covered)]
    }

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        for path in yes {
            assert_eq!(matched(pattern, path), [true; 2], "{pattern} missed {path}");
        }
        for path in no {
            assert_eq!(matched(pattern, path), [false; 2], "{pattern} took {path}");
        }
    }

    /// Checks paths of which a pattern covers some readings and not all.
    #[track_caller]
    fn check_ambiguous(pattern: &str, paths: &[&str]) {
        for path in paths {
            assert_eq!(matched(pattern, path), [false, true], "{pattern} over {path}");
        }
    }

    #[test]
    fn a_pattern_without_wildcards_covers_its_path_and_all_below() {
        check("/api", &["/api", "/api/", "/api/x", "/api/x/y/"], &["/", "/apix", "/ap", "/x/api"]);
        check("/", &["/", "/a", "/a/b/", "//"], &[]);
        check("/a/b", &["/a/b", "/a/b/c"], &["/a", "/a/", "/a/bc", "/A/b"]);
    }

    #[test]
    fn an_asterisk_covers_characters_of_one_segment_that_is_not_empty() {
        check("/api/*", &["/api/x", "/api/x/"], &["/api", "/api/", "/api/x/y"]);
        check("/*", &["/a"], &["/", "/a/b"]);
        check("/js/*.js", &["/js/a.js", "/js/.js", "/js/a.js.js"], &["/js/a.jsx", "/js/a/b.js"]);
        check("/a*b*c", &["/abc", "/axbxc", "/abbcc"], &["/ab", "/acb", "/abcx"]);
        check("/*/x/*", &["/a/x/b"], &["/a/x", "/x/b", "/a/y/b"]);
        check("/*", &["/*", "/%2A"], &[]);
    }

    #[test]
    fn two_asterisks_cover_any_number_of_segments() {
        check("/api/**", &["/api", "/api/", "/api/x", "/api/x/y"], &["/", "/apix"]);
        check("/**", &["/", "/a", "/a/b"], &[]);
        check("/**/edit", &["/edit", "/a/edit", "/a/b/edit/"], &["/a/edit/b", "/edits"]);
        check("/a/**/b/**/c", &["/a/b/c", "/a/x/b/b/y/c"], &["/a/c", "/a/b", "/b/c"]);
        check("/a/**/*.js", &["/a/b.js", "/a/x/y/b.js"], &["/a", "/a/b.css"]);
    }

    #[test]
    fn patterns_are_compared_with_decoded_paths() {
        check("/a b/é", &["/a%20b/%C3%A9", "/a%20b/é"], &["/a/b"]);
        check("/%E9", &["/%E9"], &["/é"]);
        check("/100%25/%2A", &["/100%25/*", "/100%25/%2A/x"], &["/100/x"]);
        check("/{id}", &["/{id}", "/%7Bid%7D"], &["/id"]);
    }

    #[test]
    fn an_escaped_slash_is_ambiguous_unless_the_pattern_covers_both_readings() {
        check_ambiguous("/projects/*/issues", &["/projects/group%2Fname/issues"]);
        check("/projects/**/issues", &["/projects/group%2Fname/issues"], &[]);
        check(
            "/projects/group%2Fname",
            &["/projects/group%2Fname", "/projects/group%2Fname/issues"],
            &["/projects/name", "/projects/group%2Fnames"],
        );
        // A server that splits after decoding takes both for the same.
        check_ambiguous("/projects/group%2Fname", &["/projects/group/name"]);
        check_ambiguous("/projects/group/name", &["/projects/group%2Fname"]);
    }

    #[test]
    fn paths_that_servers_read_in_different_ways_are_ambiguous() {
        check_ambiguous(
            "/admin",
            &[
                "//admin",
                "/admin;x",
                "/admin;x/y",
                "/admin%3Bx",
                "/admin%2Fx",
                "/admin\\x",
                "/admin%5Cx",
                "/%2561dmin",
                "/admin%3Fx",
                "/admin%23",
                "/admin%253Fx",
                "/%2Fadmin",
                "/;x/admin",
            ],
        );
        check_ambiguous("/public/*", &["/public/a%2Fb", "/public/a\\b", "/public/a%252Fb"]);
        check("/public/**", &["/public/a%2Fb", "/public//a;x", "/public/a%253Bb"], &[]);
    }

    #[test]
    fn the_path_of_options_is_covered_only_by_patterns_over_all_paths() {
        let target = HttpTarget::new("OPTIONS", "*").expect("a target");
        let readings = TargetReadings::new(&target);
        for (pattern, is_covered) in [("/", true), ("/**", true), ("/*", false), ("/%2A", false)] {
            let glob: PathGlob = pattern.parse().expect(pattern);
            assert!(readings.all().all(|one| glob.matches(one) == is_covered), "{pattern}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_pattern_is_refused_with_the_remedy() {
        for (bad, why, right) in [
            ("", "is empty", Some("/ for all paths")),
            ("api", "does not begin with /", Some("/api")),
            ("*", "does not begin with /", Some("/*")),
            ("http://h/api", "does not begin with /", None),
            ("/api?x=1", "has a ? or #", Some("/api")),
            ("/api#x", "has a ? or #", Some("/api")),
            ("/api/", "ends with /", Some("/api")),
            ("/**/", "ends with /", Some("/**")),
            ("//", "has an empty segment", Some("/")),
            ("/a//b", "has an empty segment", Some("/a/b")),
            ("/a/./b", "has a . or .. segment", Some("/a/b")),
            ("/a/../b", "has a . or .. segment", None),
            ("/a%2F..", "has a . or .. segment", None),
            ("/a/**b", "has a ** that is not a whole segment", None),
            ("/***", "has a ** that is not a whole segment", None),
            ("/a%20b", "has an escape that needs none", Some("/a b")),
            ("/%41%2f%7e", "has an escape that needs none", Some("/A%2f~")),
            ("/%2e%2e", "has an escape that needs none", None),
            ("/100%", "two hexadecimal digits; %25 stands for one", Some("/100%25")),
            ("/%zz", "two hexadecimal digits; %25 stands for one", Some("/%25zz")),
            ("/a%3Fb", "read in different ways; * covers it", None),
            ("/a%3bb", "read in different ways; * covers it", None),
            ("/a;b", "read in different ways; * covers it", None),
            ("/a\\b", "read in different ways; * covers it", None),
            ("/a\0", "has a control character", None),
            ("/a%00", "has a control character", None),
        ] {
            let fault = bad.parse::<PathGlob>().expect_err(bad).to_string();
            assert!(fault.starts_with(&format!("path pattern {bad:?} ")), "{fault}");
            assert!(fault.contains(why), "{fault}");
            assert_eq!(fault.split_once("; write ").map(|(_, right)| right), right, "{fault}");
        }
    }

    #[test]
    fn a_pattern_of_512_bytes_passes_and_one_of_513_does_not() {
        let pattern = |bytes: usize| format!("/{}", "a".repeat(bytes - 1)).parse::<PathGlob>();
        assert!(pattern(512).is_ok());
        assert!(pattern(513).expect_err("refused").to_string().contains("longer than 512 bytes"));
    }

    /// The definition, in exponential time.
    fn naive(pattern: &str, items: &str) -> bool {
        match (pattern.strip_prefix('*'), items.chars().next()) {
            (Some(rest), None) => naive(rest, items),
            (Some(rest), Some(_)) => naive(rest, items) || naive(pattern, &items[1..]),
            (None, first) => match pattern.chars().next() {
                None => first.is_none(),
                part => part == first && naive(&pattern[1..], &items[1..]),
            },
        }
    }

    proptest! {
        #[test]
        fn wildcards_cover_what_their_definition_covers(
            pattern in "[ab*]{0,7}", items in "[ab]{0,9}"
        ) {
            let is_covered = covers(
                pattern.as_bytes(),
                items.len(),
                |part| *part == b'*',
                |part, at| *part == items.as_bytes()[at],
            );
            prop_assert_eq!(is_covered, naive(&pattern, &items));
        }

        #[test]
        fn each_pair_is_compared_at_most_once(pattern in "[ab*]{0,20}", items in "[ab]{0,40}") {
            let compared = std::cell::Cell::new(0);
            covers(pattern.as_bytes(), items.len(), |part| *part == b'*', |part, at| {
                compared.set(compared.get() + 1);
                *part == items.as_bytes()[at]
            });
            prop_assert!(compared.get() <= pattern.len() * items.len());
        }
    }
}
