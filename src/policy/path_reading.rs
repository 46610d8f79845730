//! Readings of the path of an HTTP call: the segments that different servers take it for.

use crate::name::{HttpTarget, decode_escapes};
use std::{borrow::Cow, cell::OnceCell, collections::BTreeSet, fmt};

/// Decoded segments of a path. An empty last segment, the trailing slash, is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathSegments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl PathSegments {
    pub(super) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// The segment of this index, which must be below the length.
    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }

    fn push(&mut self, segment: &[u8]) {
        self.bytes.extend_from_slice(segment);
        self.ends.push(self.bytes.len());
    }

    fn remove_trailing_slash(&mut self) {
        if self.iter().last().is_some_and(<[u8]>::is_empty) {
            self.ends.pop();
        }
    }
}

/// One way in which a server may read a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathReading {
    /// Split before it was decoded: an escaped slash is part of its segment.
    Exact(PathSegments),
    /// Split after it was decoded: an escaped slash separates segments.
    Lenient(PathSegments),
}

/// Ways of reading in which servers differ, as bits of a set.
type Habits = u8;

/// Takes a backslash for a slash.
const BACKSLASH: Habits = 1;
/// Drops parameters, from a `;` to the end of the segment.
const PARAMETERS: Habits = 2;
/// Ends the path at the first `?` or `#` that was escaped.
const QUERY: Habits = 4;
/// Merges repeated slashes.
const MERGE: Habits = 8;

impl PathReading {
    /// All readings of a normalised path. Servers split before or after they decode, decode once or
    /// twice, and have any set of habits. For most paths, all of that makes no difference.
    fn all_of(path: &str) -> BTreeSet<Self> {
        let path = below_root(path);
        let mut readings = BTreeSet::new();
        Self::add_all_of(path, &mut readings);
        // Some servers drop parameters before they decode, and keep those behind an escaped `;`.
        if path.contains(&b';') {
            let names: Vec<_> =
                path.split(|byte| *byte == b'/').map(|name| cut(name, b";")).collect();
            Self::add_all_of(&names.join(&b'/'), &mut readings);
        }
        readings
    }

    fn add_all_of(path: &[u8], readings: &mut BTreeSet<Self>) {
        let once = decode_escapes(path);
        let twice = decode_escapes(&once);
        for habits in habits_that_matter(&twice) {
            for decodes in 1..=2 {
                readings.insert(Self::Exact(segments(path, decodes, habits)));
            }
            for (text, decodes) in [(&once, 0), (&once, 1), (&twice, 0)] {
                readings.insert(Self::Lenient(segments(text, decodes, habits)));
            }
        }
    }

    const fn segments(&self) -> &PathSegments {
        let (Self::Exact(segments) | Self::Lenient(segments)) = self;
        segments
    }
}

/// A path without its first slash. `*` is not a path; like `/`, it has no segments.
fn below_root(path: &str) -> &[u8] {
    path.strip_prefix('/').unwrap_or_default().as_bytes()
}

/// Sets of habits that may make a difference for a path, which was decoded twice.
fn habits_that_matter(path: &[u8]) -> impl Iterator<Item = Habits> {
    let without = |habit: Habits, bytes: &[u8]| {
        if path.iter().any(|byte| bytes.contains(byte)) { 0 } else { habit }
    };
    let idle = without(BACKSLASH, b"\\") | without(PARAMETERS, b";") | without(QUERY, b"?#");
    (0..=(BACKSLASH | PARAMETERS | QUERY | MERGE)).filter(move |habits| habits & idle == 0)
}

/// Splits a path and decodes its segments.
fn segments(path: &[u8], decodes: usize, habits: Habits) -> PathSegments {
    let has = |habit: Habits| habits & habit != 0;
    let mut segments = PathSegments::default();
    for raw in path.split(|byte| *byte == b'/' || (*byte == b'\\' && has(BACKSLASH))) {
        let decoded = decoded(raw, decodes);
        let segment = cut(&decoded, if has(PARAMETERS) { b";" } else { b"" });
        let name = cut(segment, if has(QUERY) { b"?#" } else { b"" });
        if !name.is_empty() || !has(MERGE) {
            segments.push(name);
        }
        if name.len() < segment.len() {
            break;
        }
    }
    segments.remove_trailing_slash();
    segments
}

fn decoded(text: &[u8], times: usize) -> Cow<'_, [u8]> {
    let mut decoded = Cow::Borrowed(text);
    for _ in 0..times {
        if decoded.contains(&b'%') {
            decoded = decode_escapes(&decoded).into();
        }
    }
    decoded
}

/// The text before the first of these bytes.
fn cut<'t>(text: &'t [u8], ends: &[u8]) -> &'t [u8] {
    text.split(|byte| ends.contains(byte)).next().unwrap_or_default()
}

/// Shown decoded, as `/a/b`.
impl fmt::Display for PathSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len() == 0 {
            return f.write_str("/");
        }
        self.iter().try_for_each(|segment| write!(f, "/{}", String::from_utf8_lossy(segment)))
    }
}

/// Target of an HTTP call, and the readings of its path, made once when a rule needs them.
pub(super) struct TargetReadings<'a> {
    pub(super) target: &'a HttpTarget,
    readings: OnceCell<BTreeSet<PathReading>>,
}

impl<'a> TargetReadings<'a> {
    pub(super) const fn new(target: &'a HttpTarget) -> Self {
        Self { target, readings: OnceCell::new() }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &PathReading> {
        self.readings.get_or_init(|| PathReading::all_of(self.target.path())).iter()
    }
}

/// Paths, decoded, that some server may read in the path of a call, apart from the obvious one:
/// `/a%2Fb` is `/a/b` for some. Rules decide on all of them.
pub fn other_readings(target: &HttpTarget) -> Vec<String> {
    let obvious = segments(below_root(target.path()), 1, 0);
    let readings = TargetReadings::new(target);
    let others = readings.all().map(PathReading::segments).filter(|segments| **segments != obvious);
    let shown: BTreeSet<_> = others.map(ToString::to_string).collect();
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the readings, segments joined by `|`: in which an escaped slash is part of its
    /// segment, and in which it separates segments.
    #[track_caller]
    fn check(path: &str, exact: &[&str], lenient: &[&str]) {
        let target = HttpTarget::new("GET", path).expect(path);
        let readings = TargetReadings::new(&target);
        let joined = |wanted: fn(&PathReading) -> bool| -> BTreeSet<String> {
            let names = readings.all().filter(|reading| wanted(reading)).map(|reading| {
                reading.segments().iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join("|")
            });
            names.collect()
        };
        let set = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let exact: BTreeSet<String> = set(exact);
        assert_eq!(joined(|one| matches!(one, PathReading::Exact(_))), exact, "{path}");
        let lenient: BTreeSet<String> = set(lenient);
        assert_eq!(joined(|one| matches!(one, PathReading::Lenient(_))), lenient, "{path}");
    }

    #[test]
    fn a_plain_path_is_read_in_one_way() {
        for (path, segments) in [
            ("/", ""),
            ("/api/x", "api|x"),
            ("/api/x/", "api|x"),
            ("/a%20b/%C3%A9", "a b|é"),
            ("/100%25", "100%"),
        ] {
            check(path, &[segments], &[segments]);
            assert!(other_readings(&HttpTarget::new("GET", path).expect(path)).is_empty());
        }
    }

    #[test]
    fn the_asterisk_of_options_has_no_segments() {
        let target = HttpTarget::new("OPTIONS", "*").expect("a target");
        assert!(TargetReadings::new(&target).all().all(|one| one.segments().len() == 0));
    }

    #[test]
    fn some_servers_split_after_they_decode() {
        check("/a%2Fb/c", &["a/b|c"], &["a|b|c"]);
        check("/a%5Cb", &["a\\b"], &["a\\b", "a|b"]);
        check("/a\\b", &["a\\b"], &["a\\b", "a|b"]);
    }

    #[test]
    fn some_servers_merge_slashes_and_drop_parameters() {
        check("/a//b///", &["a||b||", "a|b"], &["a||b||", "a|b"]);
        check("/a;v=1/b", &["a;v=1|b", "a|b"], &["a;v=1|b", "a|b"]);
        check("/a%3Bv/b", &["a;v|b", "a|b"], &["a;v|b", "a|b"]);
        check("/;x/b", &[";x|b", "|b", "b"], &[";x|b", "|b", "b"]);
        // An escaped slash in a parameter counts only if the path is decoded first.
        let lenient = [";x|y|b", "|y|b", "y|b", "|b", "b"];
        check("/;x%2Fy/b", &[";x/y|b", "|b", "b"], &lenient);
    }

    #[test]
    fn some_servers_decode_twice() {
        check("/a%252Fb", &["a%2Fb", "a/b"], &["a%2Fb", "a/b", "a|b"]);
        check("/%2561dmin", &["%61dmin", "admin"], &["%61dmin", "admin"]);
    }

    #[test]
    fn an_escaped_query_or_fragment_may_end_the_path() {
        check("/a.php%3Fb/c", &["a.php?b|c", "a.php"], &["a.php?b|c", "a.php"]);
        check("/a%23/b", &["a#|b", "a"], &["a#|b", "a"]);
        check("/a%253Fb", &["a%3Fb", "a?b", "a"], &["a%3Fb", "a?b", "a"]);
    }

    #[test]
    fn other_readings_are_shown_as_decoded_paths() {
        let others = |path| other_readings(&HttpTarget::new("GET", path).expect(path));
        assert_eq!(others("/a%2Fb/c"), ["/a/b/c"]);
        assert_eq!(others("/a;v=1/c"), ["/a/c"]);
        assert_eq!(others("//"), ["/"]);
        assert_eq!(others("/a%FF%2Fb"), ["/a\u{fffd}/b"]);
    }

    #[test]
    fn a_path_has_a_bounded_number_of_readings() {
        let path = "/;a%5Cb%2Fc%3F%253B%252F/%23//".repeat(60);
        let target = HttpTarget::new("GET", &path).expect("a path");
        assert!(TargetReadings::new(&target).all().count() <= 2 * 5 * 16);
    }
}
