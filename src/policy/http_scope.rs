//! Scope of a rule over HTTP forwards: the verbs and the paths that it covers.

use super::{path_glob::PathGlob, path_reading::TargetReadings};
use crate::name::{HttpTarget, HttpTargetError, MethodPath, NameError, check_verb};
use std::{fmt, str::FromStr};

/// A verb in a rule: an upper-case token, as `GET`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpVerb(String);

impl HttpVerb {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HttpVerb {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let fault = |why| {
            let upper = text.trim().to_ascii_uppercase();
            Err(NameError::new("verb", text, why).or_write::<Self>(text, [upper]))
        };
        match check_verb(text) {
            Err(HttpTargetError::ForbiddenVerb(_)) => fault("is never forwarded"),
            Err(_) => fault("is not a token of 1 to 32 bytes, as GET"),
            Ok(()) if text == "*" => fault("is not a verb; leave out verbs for all of them"),
            Ok(()) if text.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                fault("is not in upper case; verbs are case-sensitive")
            }
            Ok(()) => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for HttpVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Verbs and paths that a rule over HTTP forwards covers. `Default` covers all. Other rules ignore
/// their scope.
///
/// Servers read some paths in different ways: `/a%2Fb` is one segment or two. A rule that allows
/// covers a path only if its patterns cover all readings; a rule that denies covers it if they
/// cover one. `GET` does not include `HEAD`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpScope {
    /// The verbs; all if it is empty.
    pub verbs: Vec<HttpVerb>,
    /// The paths; all if it is empty.
    pub paths: Vec<PathGlob>,
}

impl HttpScope {
    /// Reads verbs and patterns as files have them: `parse(&["GET"], &["/api/**"])`.
    ///
    /// # Errors
    /// A text is not a verb in upper case, or not a pattern.
    pub fn parse(verbs: &[&str], paths: &[&str]) -> Result<Self, NameError> {
        let verbs = verbs.iter().map(|verb| verb.parse()).collect::<Result<_, _>>()?;
        let paths = paths.iter().map(|path| path.parse()).collect::<Result<_, _>>()?;
        Ok(Self { verbs, paths })
    }

    /// True if all verbs and paths are covered.
    pub const fn is_all(&self) -> bool {
        self.verbs.is_empty() && self.paths.is_empty()
    }

    /// True if the scope covers the call, however the upstream reads its path.
    pub fn allows(&self, target: &HttpTarget) -> bool {
        self.covers_all_readings(&TargetReadings::new(target))
    }

    /// True if a rule of this scope that allows the method allows the call. Without a target, true
    /// if it allows some call.
    pub(super) fn is_allowed(
        &self,
        method: &MethodPath,
        http: Option<&TargetReadings<'_>>,
    ) -> bool {
        !method.is_http() || http.is_none_or(|call| self.covers_all_readings(call))
    }

    /// True if a rule of this scope that denies the method denies the call. Without a target, true
    /// if it denies all calls.
    pub(super) fn is_denied(&self, method: &MethodPath, http: Option<&TargetReadings<'_>>) -> bool {
        !method.is_http()
            || self.is_all()
            || http.is_some_and(|call| self.covers_some_reading(call))
    }

    fn covers_all_readings(&self, call: &TargetReadings<'_>) -> bool {
        let is_covered = |path| self.paths.iter().any(|pattern| pattern.matches(path));
        let verb = call.target.verb();
        (self.verbs.is_empty() || self.verbs.iter().any(|covered| covered.as_str() == verb))
            && (self.paths.is_empty() || call.all().all(is_covered))
    }

    /// Some servers ignore the case of verbs too.
    fn covers_some_reading(&self, call: &TargetReadings<'_>) -> bool {
        let is_covered = |path| self.paths.iter().any(|pattern| pattern.matches(path));
        let is_verb = |covered: &HttpVerb| covered.0.eq_ignore_ascii_case(call.target.verb());
        (self.verbs.is_empty() || self.verbs.iter().any(is_verb))
            && (self.paths.is_empty() || call.all().any(is_covered))
    }

    /// True if this scope certainly covers all that `other` covers: it names all that `other`
    /// names. Conservative: may return false for others.
    pub(super) fn includes(&self, other: &Self) -> bool {
        includes(&self.verbs, &other.verbs) && includes(&self.paths, &other.paths)
    }
}

/// An empty list stands for everything.
fn includes<T: PartialEq>(wide: &[T], narrow: &[T]) -> bool {
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|item| wide.contains(item)))
}

/// `GET, HEAD on /api/**`; a scope without one of both names the other alone.
impl fmt::Display for HttpScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all verbs and paths");
        }
        write_list(f, &self.verbs)?;
        if !self.verbs.is_empty() && !self.paths.is_empty() {
            f.write_str(" on ")?;
        }
        write_list(f, &self.paths)
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[impl fmt::Display]) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        write!(f, "{comma}{item}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::decode_escapes;
    use proptest::prelude::*;

    fn scope(verbs: &[&str], paths: &[&str]) -> HttpScope {
        HttpScope::parse(verbs, paths).expect("a scope")
    }

    /// Checks whether rules of a scope allow and deny a call.
    #[track_caller]
    fn check(scope: &HttpScope, verb: &str, path: &str, allows: bool, denies: bool) {
        let target = HttpTarget::new(verb, path).expect(path);
        let (method, readings) =
            ("http:web".parse().expect("a method"), TargetReadings::new(&target));
        assert_eq!(scope.allows(&target), allows, "{scope} allows {target}");
        assert_eq!(scope.is_allowed(&method, Some(&readings)), allows, "{scope} allows {target}");
        assert_eq!(scope.is_denied(&method, Some(&readings)), denies, "{scope} denies {target}");
    }

    #[test]
    fn an_empty_scope_covers_all() {
        let all = HttpScope::default();
        assert!(all.is_all());
        check(&all, "GET", "/", true, true);
        check(&all, "delete", "/a%2Fb;x", true, true);
        check(&all, "OPTIONS", "*", true, true);
    }

    #[test]
    fn verb_and_path_must_both_be_covered() {
        let reads = scope(&["GET", "HEAD"], &["/api/**", "/public"]);
        check(&reads, "GET", "/api/x", true, true);
        check(&reads, "HEAD", "/public/x", true, true);
        check(&reads, "POST", "/api/x", false, false);
        check(&reads, "GET", "/admin", false, false);
        check(&scope(&["GET"], &[]), "HEAD", "/", false, false);
        check(&scope(&["GET"], &[]), "GET", "/any", true, true);
        check(&scope(&[], &["/api"]), "PATCH", "/api", true, true);
    }

    #[test]
    fn an_allow_needs_all_readings_and_a_deny_needs_one() {
        let api = scope(&[], &["/api/*"]);
        check(&api, "GET", "/api/a%2Fb", false, true);
        check(&api, "GET", "/api/a;x", true, true);
        check(&api, "GET", "//api/a", false, true);
        check(&scope(&["DELETE"], &[]), "delete", "/", false, true);
        // One pattern for each reading is enough.
        check(&scope(&[], &["/api/*", "/api/a/b"]), "GET", "/api/a%2Fb", true, true);
    }

    #[test]
    fn without_a_target_a_scope_allows_something_and_denies_nothing() {
        let (web, rpc) = ("http:web".parse().expect("one"), "A/b".parse().expect("one"));
        let reads = scope(&["GET"], &["/api"]);
        assert!(reads.is_allowed(&web, None) && !reads.is_denied(&web, None));
        assert!(HttpScope::default().is_denied(&web, None));
        // It has no meaning for other methods.
        assert!(reads.is_allowed(&rpc, None) && reads.is_denied(&rpc, None));
    }

    #[test]
    fn a_scope_includes_those_that_name_less() {
        let reads = scope(&["GET", "HEAD"], &["/api", "/x"]);
        for (wide, narrow, expected) in [
            (HttpScope::default(), reads.clone(), true),
            (reads.clone(), reads.clone(), true),
            (reads.clone(), scope(&["GET"], &["/x"]), true),
            (reads.clone(), HttpScope::default(), false),
            (reads.clone(), scope(&["GET"], &[]), false),
            (reads.clone(), scope(&[], &["/x"]), false),
            (reads.clone(), scope(&["PUT"], &["/x"]), false),
            (reads, scope(&["GET"], &["/api/**"]), false),
        ] {
            assert_eq!(wide.includes(&narrow), expected, "{wide} over {narrow}");
        }
    }

    #[test]
    fn a_scope_is_shown_as_verbs_on_paths() {
        for (verbs, paths, shown) in [
            (&["GET", "HEAD"][..], &["/api/**", "/x"][..], "GET, HEAD on /api/**, /x"),
            (&["GET"], &[], "GET"),
            (&[], &["/api"], "/api"),
            (&[], &[], "all verbs and paths"),
        ] {
            assert_eq!(scope(verbs, paths).to_string(), shown);
        }
    }

    #[test]
    fn a_verb_in_a_rule_is_an_upper_case_token() {
        for good in ["GET", "M-SEARCH", "X1"] {
            assert_eq!(good.parse::<HttpVerb>().expect(good).as_str(), good);
        }
        for (bad, fault) in [
            ("get", "verb \"get\" is not in upper case; verbs are case-sensitive; write GET"),
            (" Put", "verb \" Put\" is not a token of 1 to 32 bytes, as GET; write PUT"),
            ("", "verb \"\" is not a token of 1 to 32 bytes, as GET"),
            ("*", "verb \"*\" is not a verb; leave out verbs for all of them"),
            ("CONNECT", "verb \"CONNECT\" is never forwarded"),
            ("trace", "verb \"trace\" is never forwarded"),
        ] {
            assert_eq!(bad.parse::<HttpVerb>().expect_err(bad).to_string(), fault);
        }
    }

    fn split(path: &[u8], ends: &[u8]) -> Vec<Vec<u8>> {
        path.split(|byte| ends.contains(byte)).skip(1).map(<[u8]>::to_vec).collect()
    }

    fn without_parameters(path: &[u8]) -> Vec<u8> {
        let names: Vec<_> = path
            .split(|byte| *byte == b'/')
            .filter_map(|segment| segment.split(|byte| *byte == b';').next())
            .collect();
        names.join(&b'/')
    }

    /// Segments of a path as kinds of servers read it, dot segments resolved.
    fn as_servers_read(path: &str) -> Vec<Vec<Vec<u8>>> {
        let path = path.as_bytes();
        let merged = |segments: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            segments.into_iter().filter(|segment| !segment.is_empty()).collect()
        };
        let decoded = |segments: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
            segments.iter().map(|segment| decode_escapes(segment)).collect()
        };
        let once = decode_escapes(path);
        let before_query = once.split(|byte| *byte == b'?').next().unwrap_or_default();
        let mut read = vec![
            // Decodes each segment, as Express does; Rails behind a proxy that merges slashes.
            decoded(split(path, b"/")),
            decoded(merged(split(path, b"/"))),
            // Decodes and splits, as nginx does; on Windows; with parameters, as Tomcat and others.
            merged(split(&once, b"/")),
            merged(split(&once, b"/\\")),
            merged(split(&decode_escapes(&without_parameters(path)), b"/\\")),
            merged(split(&without_parameters(&once), b"/")),
            // A proxy that decodes before a server that does; one that passes on what it decoded.
            merged(split(&decode_escapes(&once), b"/\\")),
            decoded(split(&once, b"/")),
            split(before_query, b"/"),
        ];
        for segments in &mut read {
            let mut resolved: Vec<Vec<u8>> = Vec::new();
            for segment in segments.drain(..) {
                match &*segment {
                    b"." => {}
                    b".." => drop(resolved.pop()),
                    _ => resolved.push(segment),
                }
            }
            *segments = resolved;
        }
        read
    }

    const PARTS: [&str; 22] = [
        "/",
        "/",
        "/",
        "/",
        "admin",
        "public",
        "x",
        ".",
        "..",
        "%2e",
        "%2F",
        "%5C",
        "%252F",
        "%252e",
        ";",
        ";",
        "%3B",
        "%3F",
        "%253F",
        "a",
        "%61dmin",
        "%2561dmin",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_kind_of_server_reads_a_path_that_rules_did_not_decide_on(
            parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 0..12)
        ) {
            let Ok(target) = HttpTarget::new("GET", &format!("/{}", parts.concat())) else {
                return Ok(());
            };
            let (method, readings) =
                ("http:web".parse().expect("a method"), TargetReadings::new(&target));
            let denies = |path| scope(&[], &[path]).is_denied(&method, Some(&readings));
            for read in as_servers_read(target.path()) {
                let first = read.first().map(|name| &**name);
                if scope(&[], &["/public/**"]).allows(&target) {
                    prop_assert_eq!(first, Some(&b"public"[..]), "{} allowed", target);
                }
                if first == Some(b"admin") {
                    prop_assert!(denies("/admin"), "{} is not denied", target);
                }
                if matches!(&read[..], [_, second] if second == b"admin" && !read[0].is_empty()) {
                    prop_assert!(denies("/*/admin"), "{} is not denied", target);
                }
            }
        }
    }
}
