//! Enforces names and shape of the source: words, unique type names, no cycles between files, and
//! a short list of files that start tasks.
//!
//! Like `tidy`, it reads text, not syntax: comments and strings are blanked, and tests inside a
//! file are left out.

mod cycles;
mod log_lines;
mod map;
mod names;
mod tasks;

use crate::tidy::{Tree, code, project};

/// The source without tests: code of each file, comments and strings blanked.
fn sources() -> Tree {
    let tree = project();
    let is_test = |path: &str| {
        let is_in_tests = path.contains("/tests/") || path.ends_with("/tests.rs");
        is_in_tests
            || path.ends_with("/fake.rs")
            || path.contains("/fakes/")
            || path.starts_with("src/simulation/")
    };
    tree.into_iter()
        .filter(|(path, _)| path.starts_with("src/") && !is_test(path))
        .map(|(path, text)| (path, without_tests(&code(&text))))
        .collect()
}

/// Code without the modules that only tests compile. They end their files.
fn without_tests(code: &str) -> String {
    let starts = ["#[cfg(test)]\nmod ", "#[cfg(all(test"];
    let is_inline = |at: &usize| code[*at..].lines().nth(1).is_some_and(|line| line.ends_with('{'));
    let start = starts
        .iter()
        .flat_map(|start| code.match_indices(start))
        .map(|(at, _)| at)
        .filter(is_inline)
        .min();
    code[..start.unwrap_or(code.len())].to_owned()
}

/// Returns true if a character may be part of an identifier.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[test]
fn tests_at_the_end_of_a_file_are_left_out() {
    let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    assert_eq!(without_tests(code), "fn a() {}\n");
    let declared = "#[cfg(test)]\nmod tests;\nfn a() {}\n";
    assert_eq!(without_tests(declared), declared);
}
