//! The list of files in ARCHITECTURE.md: each file with the first sentence of its documentation.

use crate::tidy::{Tree, project};
use std::{fmt::Write, fs, path::Path};

const BEGIN: &str = "<!-- files: written by `make map` -->\n";
const END: &str = "<!-- end of files -->\n";

/// The first sentence of a file's documentation.
fn summary(text: &str) -> String {
    let doc: Vec<_> = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let doc = doc.join(" ");
    let end = doc.find(". ").unwrap_or_else(|| doc.trim_end_matches('.').len());
    doc[..end].to_owned()
}

/// The modules of the library from top to bottom.
fn layers(lib: &str) -> Vec<&str> {
    lib.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            line.strip_prefix("mod ")?.strip_suffix(';')
        })
        .collect()
}

/// Files of a module: `x.rs` or `x/mod.rs` first, then those below it.
fn files_of<'a>(tree: &'a Tree, module: &str) -> Vec<(&'a str, &'a str)> {
    let below = format!("src/{module}/");
    let own = [format!("src/{module}.rs"), format!("{below}mod.rs")];
    let is_first = |path: &str| own.iter().any(|own| own == path);
    let mut files: Vec<_> = tree
        .iter()
        .filter(|(path, _)| is_first(path) || path.starts_with(&below))
        .map(|(path, text)| (path.as_str(), text.as_str()))
        .collect();
    files.sort_by_key(|(path, _)| (!is_first(path), *path));
    files
}

/// Returns true if a file is the root of its module: `src/x/mod.rs`.
fn is_root(path: &str) -> bool {
    path.matches('/').count() == 2 && path.ends_with("/mod.rs")
}

fn map(tree: &Tree) -> String {
    let mut map = String::new();
    for module in layers(&tree["src/lib.rs"]).into_iter().chain(["bin/dialback"]) {
        let files = files_of(tree, module);
        let has_root = files.len() == 1 || files.first().is_some_and(|(path, _)| is_root(path));
        let root = files.first().filter(|_| has_root);
        let heading = root.map_or_else(String::new, |(_, text)| format!(" - {}", summary(text)));
        let _ = writeln!(map, "\n**`{module}`**{heading}\n");
        for (path, text) in files.iter().skip(usize::from(has_root)) {
            let name = path.trim_start_matches("src/").trim_start_matches(module);
            let _ = writeln!(map, "* `{}` - {}", name.trim_start_matches('/'), summary(text));
        }
    }
    map
}

#[test]
fn architecture_lists_every_file_with_its_first_sentence() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("the architecture");
    let (head, rest) = text.split_once(BEGIN).expect("the beginning of the list");
    let (listed, tail) = rest.split_once(END).expect("the end of the list");
    let wanted = map(&project());
    if std::env::var_os("DIALBACK_WRITE_MAP").is_some() {
        let text = format!("{head}{BEGIN}{wanted}\n{END}{tail}");
        return fs::write(&path, text).expect("written");
    }
    assert!(listed.trim() == wanted.trim(), "run `make map`; the list should be:\n{wanted}");
}

#[test]
fn a_summary_is_the_first_sentence() {
    let text =
        "//! Routes calls, by name\n//! or service. More of it.\n//!\n//! And more.\nuse x;\n";
    assert_eq!(summary(text), "Routes calls, by name or service");
    assert_eq!(summary("//! One line.\n\nuse x;\n"), "One line");
}
