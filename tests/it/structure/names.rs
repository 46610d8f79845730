//! Names of identifiers and types.

use super::{is_word, sources};
use crate::tidy::{Tree, code, project};
use std::collections::BTreeMap;

/// Words that no identifier has as a part: private words, for which the field has others.
/// CONTRIBUTING.md says which.
const RETIRED: &[&str] = &[
    "anew",
    "asker",
    "askers",
    "beside",
    "deaf",
    "desk",
    "door",
    "doors",
    "fence",
    "former",
    "hosting",
    "judge",
    "judged",
    "judges",
    "knock",
    "knocks",
    "lapse",
    "lapsed",
    "lapses",
    "minding",
    "newcomer",
    "newcomers",
    "pace",
    "parties",
    "parting",
    "party",
    "patience",
    "reception",
    "roam",
    "sparse",
    "stranger",
    "strangers",
    "teller",
    "towards",
    "whereabouts",
    "wholes",
    "worries",
    "worry",
];

/// Parts of an identifier in lower case: `HelloWords` has `hello` and `words`.
fn parts(identifier: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut was_lower = false;
    for c in identifier.chars() {
        let starts_part = c == '_' || (c.is_ascii_uppercase() && was_lower);
        if starts_part {
            parts.push(String::new());
        }
        if c != '_'
            && let Some(last) = parts.last_mut()
        {
            last.push(c.to_ascii_lowercase());
        }
        was_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn identifiers(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c| !is_word(c)).filter(|word| word.starts_with(|c: char| !c.is_ascii_digit()))
}

fn retired_faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree {
        let code = code(text);
        let mut found: Vec<_> = identifiers(&code)
            .filter(|identifier| !identifier.contains("third_party"))
            .filter(|identifier| parts(identifier).iter().any(|part| RETIRED.contains(&&**part)))
            .collect();
        found.sort_unstable();
        found.dedup();
        faults.extend(found.iter().map(|identifier| format!("{path}: {identifier}")));
    }
    faults
}

/// Types of the library by name, with the files that define them.
fn types(sources: &Tree) -> BTreeMap<String, Vec<String>> {
    let mut types = BTreeMap::<String, Vec<String>>::new();
    for (path, code) in sources.iter().filter(|(path, _)| !path.starts_with("src/bin/")) {
        for line in code.lines().filter(|line| !line.starts_with(' ')) {
            let words: Vec<_> =
                line.split(|c| !is_word(c)).filter(|word| !word.is_empty()).collect();
            let at = words
                .iter()
                .position(|word| ["struct", "enum", "trait", "type", "union"].contains(word));
            if let Some(name) = at.filter(|at| *at <= 4).and_then(|at| words.get(at + 1)) {
                types.entry((*name).to_owned()).or_default().push(path.clone());
            }
        }
    }
    types
}

#[test]
fn no_identifier_has_a_retired_word() {
    let faults = retired_faults(&project());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn no_two_types_of_the_library_have_one_name() {
    let types = types(&sources());
    assert!(types.len() > 300, "only {} types were read", types.len());
    let twice: Vec<_> = types.iter().filter(|(_, paths)| paths.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn an_identifier_is_split_into_its_words() {
    for (identifier, wanted) in [
        ("HelloWords", &["hello", "words"][..]),
        ("COUNTED_ADDRESSES_MAX", &["counted", "addresses", "max"]),
        ("is_in_pace", &["is", "in", "pace"]),
        ("keyword", &["keyword"]),
        ("Http2Frames", &["http2", "frames"]),
    ] {
        assert_eq!(parts(identifier), wanted);
    }
}

#[test]
fn types_are_found_in_every_form() {
    let code = "pub(crate) struct A<T> {\nenum B {\npub trait C: D {\n    struct Inside;\ntype E = F;\nfn g(struct_: H)\n";
    let tree = Tree::from([("src/a.rs".to_owned(), code.to_owned())]);
    assert_eq!(types(&tree).into_keys().collect::<Vec<_>>(), ["A", "B", "C", "E"]);
}
