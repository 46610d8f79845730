//! Cycles between the files of one room: a file uses its siblings in one direction only.

use super::sources;
use crate::tidy::Tree;
use std::collections::{BTreeMap, BTreeSet};

/// A path of modules below the crate.
type Module = Vec<String>;

/// Which module each file is, and where re-exported names come from.
struct Modules {
    files: BTreeMap<Module, String>,
    exports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

fn module_of(path: &str) -> Module {
    let mut parts: Vec<_> =
        path.trim_end_matches(".rs").split('/').skip(1).map(str::to_owned).collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

/// The `use` declarations of a code, with whether they re-export.
fn uses(code: &str) -> Vec<(bool, Vec<Vec<String>>)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let line = code[..at].rfind('\n').map_or(0, |end| end + 1);
        let before = code[line..at].trim();
        let is_declaration = before.is_empty() || before.starts_with("pub");
        let Some(end) = code[at..].find(';').filter(|_| is_declaration) else { continue };
        let mut paths = Vec::new();
        flatten(&code[at + "use ".len()..at + end], &[], &mut paths);
        found.push((!before.is_empty(), paths));
    }
    found
}

/// The paths of a tree of imports: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn flatten(tree: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let (mut depth, mut start) = (0, 0);
    let mut branches = Vec::new();
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tree[start..]);
    for branch in branches.iter().map(|branch| branch.trim()).filter(|branch| !branch.is_empty()) {
        let mut path = prefix.to_vec();
        let steps = |text: &str| -> Vec<String> {
            text.split("::")
                .map(|step| step.trim().to_owned())
                .filter(|step| !step.is_empty())
                .collect()
        };
        match branch.split_once('{') {
            Some((head, rest)) => {
                path.extend(steps(head));
                flatten(rest.trim_end().trim_end_matches('}'), &path, paths);
            }
            None => {
                path.extend(steps(branch.split(" as ").next().unwrap_or(branch)));
                paths.push(path);
            }
        }
    }
}

impl Modules {
    fn of(sources: &Tree) -> Self {
        let files = sources.keys().map(|path| (module_of(path), path.clone())).collect();
        let mut exports = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (path, code) in sources {
            for (_, paths) in uses(code).into_iter().filter(|(is_export, _)| *is_export) {
                for leaf in paths {
                    let names = exports.entry(module_of(path)).or_default();
                    names.extend(leaf.last().cloned().map(|name| (name, leaf)));
                }
            }
        }
        Self { files, exports }
    }

    /// The file that a path leads to, from a module: through re-exports to the definition.
    fn file_of(&self, from: &Module, path: &[String], depth: usize) -> Option<&String> {
        let mut steps = path.iter().peekable();
        let mut base = from.clone();
        match steps.peek()?.as_str() {
            "crate" => {
                base.clear();
                steps.next();
            }
            "self" | "super" => {
                while let Some(step) =
                    steps.next_if(|step| ["self", "super"].contains(&step.as_str()))
                {
                    if step == "super" {
                        base.pop();
                    }
                }
            }
            first => {
                base.push(first.to_owned());
                self.files.get(&base)?;
                base.pop();
            }
        }
        while let Some(step) = steps.peek() {
            base.push((*step).clone());
            if !self.files.contains_key(&base) {
                base.pop();
                break;
            }
            steps.next();
        }
        let export = steps.peek().and_then(|name| self.exports.get(&base)?.get(*name));
        let behind =
            export.filter(|_| depth < 8).and_then(|path| self.file_of(&base, path, depth + 1));
        behind.or_else(|| self.files.get(&base))
    }
}

/// The room of a file: its directory below `src`, or itself.
fn room(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default().trim_end_matches(".rs")
}

/// Which files of its room each file uses.
fn edges(sources: &Tree) -> BTreeMap<&str, BTreeSet<String>> {
    let modules = Modules::of(sources);
    let mut edges = BTreeMap::new();
    for (path, code) in sources {
        let from = module_of(path);
        let used = uses(code)
            .into_iter()
            .filter(|(is_export, _)| !is_export)
            .flat_map(|(_, paths)| paths)
            .filter_map(|used| modules.file_of(&from, &used, 0))
            .filter(|used| *used != path && room(used) == room(path))
            .cloned()
            .collect();
        edges.insert(path.as_str(), used);
    }
    edges
}

/// Files that reach themselves.
fn cyclic(sources: &Tree) -> Vec<String> {
    let edges = edges(sources);
    let reaches_itself = |start: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(file) = next.pop() {
            for used in edges.get(file).into_iter().flatten() {
                if used == start {
                    return true;
                }
                if seen.insert(used.as_str()) {
                    next.push(used);
                }
            }
        }
        false
    };
    edges.keys().filter(|file| reaches_itself(file)).map(|file| (*file).to_owned()).collect()
}

#[test]
fn files_of_a_room_do_not_use_each_other_in_a_cycle() {
    let sources = sources();
    let count: usize = edges(&sources).values().map(BTreeSet::len).sum();
    assert!(count > 200, "only {count} uses were read");
    let cyclic = cyclic(&sources);
    assert!(cyclic.is_empty(), "{} files:\n{}", cyclic.len(), cyclic.join("\n"));
}

#[test]
fn a_cycle_is_found_through_re_exports_and_parents() {
    let files = |part: &str, other: &str| -> Tree {
        [
            ("src/lib.rs", "mod room;\n"),
            ("src/room/mod.rs", "mod part;\nmod other;\npub use other::Thing;\n"),
            ("src/room/part.rs", part),
            ("src/room/other.rs", other),
        ]
        .map(|(path, code)| (path.to_owned(), code.to_owned()))
        .into()
    };
    let back = "use crate::room::part::Part;\n";
    for part in [
        "use super::other::Thing;\n",
        "use super::{x::Y, other::{Thing, Z}};\n",
        "use super::Thing;\n",
    ] {
        assert_eq!(cyclic(&files(part, back)), ["src/room/other.rs", "src/room/part.rs"], "{part}");
        assert!(cyclic(&files(part, "")).is_empty(), "{part}");
    }
    assert!(cyclic(&files("", back)).is_empty());
}
