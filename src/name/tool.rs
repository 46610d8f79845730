//! Patterns over the tools of MCP servers, and the characters of their names.

const TOOL_BYTES_MAX: usize = 128;

/// Name below a server that stands for its resources.
pub(super) const RESOURCES: &str = "resources";

/// Name below a server that stands for its prompts.
pub(super) const PROMPTS: &str = "prompts";

/// Name below a server that stands for its requests to the client.
pub(super) const CLIENT: &str = "client";

/// Names below a server that are not tools. Rules have to write them out.
pub(super) const RESERVED: [&str; 3] = [RESOURCES, PROMPTS, CLIENT];

fn is_tool_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'*' | b'\\')
}

/// The fault of a text that is neither a tool nor a reserved name.
pub(super) fn tool_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("has an empty tool")
    } else if text.len() > TOOL_BYTES_MAX {
        Some("has a tool longer than 128 bytes")
    } else if !text.bytes().all(is_tool_byte) {
        Some("has a tool that is not visible ASCII without spaces, \", * and \\")
    } else {
        None
    }
}

/// A pattern over the names below one server. `*` is any number of any characters, and never makes
/// up a reserved name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ToolGlob(String);

impl ToolGlob {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("**") {
            return Err("has ** in its tool; * is any number of any characters");
        }
        if text.len() > TOOL_BYTES_MAX {
            return Err("has a tool longer than 128 bytes");
        }
        match tool_fault(&text.replace('*', "x")) {
            Some(why) => Err(why),
            None => Ok(Self(text.into())),
        }
    }

    fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// True if the pattern covers the tool, or the reserved name.
    pub(super) fn matches(&self, name: &str) -> bool {
        if self.is_literal() || RESERVED.contains(&name) {
            return self.0 == name;
        }
        glob_matches(self.0.as_bytes(), name.as_bytes())
    }

    /// True if the pattern covers something that a caller may call: not the requests of the server
    /// alone.
    pub(super) fn opens_server(&self) -> bool {
        self.0 != CLIENT
    }

    /// True if this pattern certainly covers all that `other` covers. Conservative: may return
    /// false for others.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if other.is_literal() {
            return self.matches(&other.0);
        }
        // A `*` of the other is matched only by a `*` of this one, and then covered by it.
        !self.is_literal() && glob_matches(self.0.as_bytes(), other.0.as_bytes())
    }
}

/// Matches from left to right, and returns to the last `*` at a difference: at most the product of
/// both lengths in steps.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = text.get(at_text) {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                at_pattern += 1;
                last_star = Some((at_pattern, at_text));
            }
            Some(expected) if expected == byte => {
                (at_pattern, at_text) = (at_pattern + 1, at_text + 1)
            }
            _ => {
                let Some((after_star, taken)) = last_star else { return false };
                last_star = Some((after_star, taken + 1));
                (at_pattern, at_text) = (after_star, taken + 1);
            }
        }
    }
    pattern[at_pattern..].iter().all(|left| *left == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tools_are_visible_ascii() {
        let longest = "a".repeat(128);
        for good in ["a", "create_issue", "get.issue-v2", "fs/read:all", "client", &longest] {
            assert_eq!(tool_fault(good), None, "{good}");
        }
        let too_long = "a".repeat(129);
        for bad in ["", " ", "a b", "a\"", "a*", "a\\b", "é", "a\0", "a\n", &too_long] {
            assert!(tool_fault(bad).is_some(), "{bad:?} was taken for a tool");
        }
    }

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = ToolGlob::parse(pattern).expect("a pattern");
        for name in yes {
            assert!(glob.matches(name), "{pattern} missed {name}");
        }
        for name in no {
            assert!(!glob.matches(name), "{pattern} took {name}");
        }
    }

    #[test]
    fn patterns_cover_tools_by_text() {
        check("create_issue", &["create_issue"], &["create_issues", "Create_issue"]);
        check("create_*", &["create_", "create_issue", "create_a/b.c"], &["create", "a_create_"]);
        check("*", &["a", "a/b", "Client"], &[]);
        check("*_issue", &["get_issue", "_issue", "a_issue_issue"], &["get_issues"]);
        check("a*b*c", &["abc", "aXbYc", "abbcc", "abcbc"], &["ab", "acb", "abcd"]);
        check("get.issue-*", &["get.issue-1"], &["getXissue-1"]);
        check("*a*", &["a", "ba", "ab"], &["b"]);
    }

    #[test]
    fn reserved_names_are_covered_only_if_written_out() {
        for name in RESERVED {
            check(name, &[name], &["a"]);
        }
        check("*", &[], &RESERVED);
        check("res*", &["res", "resource"], &["resources"]);
        check("*t", &["get"], &["client"]);
        check("prompts*", &["prompts2"], &["prompts"]);
    }

    #[test]
    fn texts_that_are_not_tool_patterns_are_refused() {
        let (longest, too_long) =
            ("*".to_owned() + &"a".repeat(127), "*".to_owned() + &"a".repeat(128));
        assert!(ToolGlob::parse(&longest).is_ok());
        for bad in ["", "**", "a**b", "a b", "a\"", "a\\", "é*", &too_long] {
            assert!(ToolGlob::parse(bad).is_err(), "{bad:?} was taken for a pattern");
        }
    }

    #[test]
    fn only_the_requests_of_a_server_do_not_open_it() {
        for (pattern, opens) in
            [("*", true), ("a", true), ("resources", true), ("prompts", true), ("client", false)]
        {
            assert_eq!(ToolGlob::parse(pattern).expect("one").opens_server(), opens, "{pattern}");
        }
    }

    #[track_caller]
    fn check_covers(wide: &str, narrow: &str, expected: bool) {
        let [wide, narrow] = [wide, narrow].map(|text| ToolGlob::parse(text).expect("a pattern"));
        assert_eq!(wide.covers(&narrow), expected, "{wide:?} over {narrow:?}");
    }

    #[test]
    fn a_pattern_covers_narrower_ones() {
        check_covers("*", "a", true);
        check_covers("*", "create_*", true);
        check_covers("*", "*", true);
        check_covers("c*", "create_*", true);
        check_covers("*e*", "create_*x", true);
        check_covers("create_*", "c*", false);
        check_covers("create_*", "*", false);
        check_covers("a*b", "a*", false);
        check_covers("a", "a*", false);
        check_covers("*", "resources", false);
        check_covers("client", "client", true);
        check_covers("client", "*", false);
    }

    proptest! {
        #[test]
        fn a_covered_pattern_matches_nothing_that_the_wider_one_does_not(
            wide in "[ab*]{1,5}", narrow in "[ab*]{1,5}", name in "[ab]{1,6}",
        ) {
            let (Ok(wide), Ok(narrow)) = (ToolGlob::parse(&wide), ToolGlob::parse(&narrow)) else {
                return Ok(());
            };
            prop_assert!(!wide.covers(&narrow) || !narrow.matches(&name) || wide.matches(&name));
        }
    }
}
