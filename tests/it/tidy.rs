//! Enforces the layout: layers point downwards, dependencies stay in their modules, every file
//! starts with a doc line and is compiled, comments are wrapped.
//!
//! It reads text, not syntax: comments and strings are blanked. Tests inside a file obey the layers
//! like other code; a file that is only compiled for tests may use upper layers, as the handshakes
//! tests of tls do for certificates.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Paths below the root of the project, with their text.
pub(crate) type Tree = BTreeMap<String, String>;

/// The paths that may name a dependency, as prefixes.
struct Room {
    word: &'static str,
    places: &'static [&'static str],
}

const ROOMS: &[Room] = &[
    Room { word: "quinn", places: &["src/link/", "src/net/", "src/path/"] },
    Room { word: "quinn_proto", places: &["src/link/"] },
    Room { word: "rustls", places: &["src/tls/"] },
    Room { word: "webpki", places: &["src/tls/"] },
    Room { word: "x509_parser", places: &["src/tls/"] },
    // Plain DER types; certs reads and writes the certificates that tls verifies.
    Room {
        word: "rustls_pki_types",
        places: &["src/tls/", "src/certs/", "src/link/peer_chain.rs"],
    },
    Room { word: "rcgen", places: &["src/certs/"] },
    Room { word: "serde_cbor", places: &["src/wire/"] },
    Room {
        word: "hyper",
        places: &[
            "src/admin/server.rs",
            "src/httpd",
            "src/gateway/",
            "src/tunnel/",
            "src/agent/forward/",
            "src/http_call/",
            "src/mcp/",
            "src/convert/text.rs",
            "src/trace/collector.rs",
            "src/bin/dialback/bench/gateway",
            "src/bin/dialback/status.rs",
        ],
    },
    Room {
        word: "hyper_util",
        places: &[
            "src/httpd",
            "src/agent/forward/",
            "src/trace/collector.rs",
            "src/bin/dialback/bench/gateway",
            "src/bin/dialback/status.rs",
        ],
    },
    Room {
        word: "http_body",
        places: &["src/admin/body.rs", "src/httpd", "src/gateway/", "src/http_call/"],
    },
    Room {
        word: "http_body_util",
        places: &[
            "src/admin/",
            "src/gateway/",
            "src/httpd",
            "src/tunnel/",
            "src/agent/forward/",
            "src/trace/collector.rs",
            "src/bin/dialback/bench/gateway",
            "src/bin/dialback/status.rs",
        ],
    },
    Room { word: "prometheus_client", places: &["src/admin/"] },
    Room { word: "tokio_rustls", places: &["src/tls/"] },
    Room { word: "rustls_native_certs", places: &["src/tls/"] },
    Room { word: "tokio_tungstenite", places: &["src/path/", "src/tunnel/request.rs"] },
    Room { word: "futures_util", places: &["src/path/"] },
    Room { word: "httpdate", places: &["src/path/"] },
    Room {
        word: "rustix",
        places: &[
            "src/net/suspend.rs",
            "src/files.rs",
            "src/agent/forward/mcp/stdio/",
            "src/bin/dialback/doctor/node.rs",
            "src/bin/dialback/writable.rs",
        ],
    },
    Room {
        word: "socket2",
        places: &["src/net/", "src/system.rs", "src/agent/forward/http/socket.rs"],
    },
    Room { word: "subtle", places: &["src/tls/"] },
    Room { word: "clap", places: &["src/bin/"] },
    Room { word: "clap_complete", places: &["src/bin/dialback/completions.rs"] },
    Room { word: "clap_mangen", places: &["src/bin/dialback/man_pages.rs"] },
    Room { word: "sd_notify", places: &["src/bin/dialback/service_manager.rs"] },
    Room { word: "anyhow", places: &["src/bin/"] },
];

fn read_tree(root: &Path, dirs: &[&str]) -> Tree {
    let mut tree = Tree::new();
    let mut left: Vec<PathBuf> = dirs.iter().map(|dir| root.join(dir)).collect();
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).expect("a directory of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root).expect("below the root");
                let name = name.to_str().expect("UTF-8").replace('\\', "/");
                tree.insert(name, fs::read_to_string(&path).expect("a source file"));
            }
        }
    }
    tree
}

/// The code of a file: comments and the contents of strings become spaces, lines stay lines.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blank = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = hashes + 2;
            rest[body..].find(&close).map_or(rest.len(), |at| body + at + close.len())
        } else if first == '"' {
            string_end(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            // Quotes among characters: '"', '\'', '\\'.
            rest[2..].find('\'').map_or(rest.len(), |at| at + 3)
        } else {
            0
        };
        if blank == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..blank].chars().map(|c| if c == '\n' { c } else { ' ' }));
            rest = &rest[blank..];
        }
    }
    out
}

/// The number of `#` of a raw string that begins here, if one does.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The positions of a whole word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !code[..*at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    })
}

/// The first word of a text.
fn first_word(text: &str) -> &str {
    text.split(|c| !is_word(c)).next().unwrap_or_default()
}

/// The modules that code names: `crate::x`, and each `x` of `crate::{x, y::z}`.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for at in words(code, "crate") {
        let Some(path) = code[at + "crate".len()..].trim_start().strip_prefix("::") else {
            continue;
        };
        // Macros write `$crate` for their own crate; code that uses them is outside of this test.
        let is_macro = code[..at].ends_with('$');
        let path = path.trim_start();
        let word = first_word(path);
        // Exported macros are at the crate root, whichever module defines them.
        let is_call_of_macro = path[word.len()..].starts_with('!');
        match path.strip_prefix('{') {
            Some(group) => used.extend(members(group)),
            None if !is_macro && !is_call_of_macro => used.push(word.to_owned()),
            None => {}
        }
    }
    used.retain(|name| !name.is_empty());
    used
}

/// The first words of the members of a group in braces.
fn members(group: &str) -> Vec<String> {
    let (mut depth, mut found, mut is_start) = (0, Vec::new(), true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if is_start && !c.is_whitespace() => {
                found.push(first_word(&group[at..]).to_owned());
                is_start = false;
            }
            _ => {}
        }
    }
    found
}

/// The modules that a file declares, in order: `mod x;`, `pub mod x;`.
fn declared(text: &str) -> Vec<String> {
    let code = code(text);
    words(&code, "mod")
        .filter_map(|at| {
            let rest = code[at + 3..].trim_start();
            let name = first_word(rest);
            rest[name.len()..].trim_start().starts_with(';').then(|| name.to_owned())
        })
        .collect()
}

/// The top-level module that a file belongs to; none for lib.rs and the binary, which is another
/// crate.
fn module_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/").filter(|path| !path.starts_with("bin/"))?;
    let name = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    (name != "lib").then_some(name)
}

/// Returns true if the `mod` of the file has `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn is_for_tests(tree: &Tree, path: &str) -> bool {
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let (dir, name) = module.rsplit_once('/').expect("a directory");
    let Some(parent) = tree.get(&format!("{dir}/mod.rs")) else { return false };
    let code = code(parent);
    let declaration = code.find(&format!("mod {name};"));
    let before = declaration.map_or("", |at| code[..at].trim_end());
    before.rsplit('\n').next().is_some_and(|line| {
        let line = line.trim();
        line == "#[cfg(test)]" || (line.starts_with("#[cfg(all(test,") && line.ends_with("))]"))
    })
}

fn layer_faults(tree: &Tree) -> Vec<String> {
    let order = declared(&tree["src/lib.rs"]);
    let place = |module: &str| order.iter().position(|have| have == module);
    let mut faults = Vec::new();
    for (path, text) in tree {
        let Some(module) = module_of(path) else { continue };
        let Some(own) = place(module) else {
            faults.push(format!("{path}: the module {module} is not in the list of src/lib.rs"));
            continue;
        };
        let may_reach_up = is_for_tests(tree, path);
        for used in used_modules(&code(text)) {
            match place(&used) {
                Some(other) if other < own && !may_reach_up => faults.push(format!(
                    "{path}: {module} uses {used}, which stands above it in src/lib.rs"
                )),
                Some(_) => {}
                None => faults.push(format!(
                    "{path}: crate::{used} is not a module of the list; name the module, not its re-export"
                )),
            }
        }
    }
    faults
}

/// Blanks `quinn::crypto::rustls`, a path inside quinn, written out or in a group.
fn without_quinns_rustls(code: &str) -> String {
    code.replace("crypto::rustls", "crypto::______")
}

fn room_faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| path.starts_with("src/")) {
        let code = without_quinns_rustls(&code(text));
        for room in ROOMS {
            let is_at_home = room.places.iter().any(|place| path.starts_with(place));
            if !is_at_home && names_crate(&code, room.word) {
                faults
                    .push(format!("{path}: names {}, whose room is {:?}", room.word, room.places));
            }
        }
        if path != "src/drain.rs" && (code.contains("tokio::spawn") || code.contains("task::spawn"))
        {
            faults.push(format!("{path}: starts a task; tasks start in src/drain.rs"));
        }
    }
    faults
}

/// Returns true if code names the crate, as in `quinn::x` or `use quinn;`, and not a variable or a
/// field of that name.
fn names_crate(code: &str, word: &str) -> bool {
    words(code, word).any(|at| {
        let (before, after) = (code[..at].trim_end(), code[at + word.len()..].trim_start());
        let is_own = before.ends_with("::") && !before.ends_with("{::") && {
            let path = before.trim_end_matches("::");
            path.ends_with(is_word)
        };
        !is_own && (after.starts_with("::") || first_word_before(before) == "use")
    })
}

fn first_word_before(text: &str) -> &str {
    text.rsplit(|c| !is_word(c)).next().unwrap_or_default()
}

fn first_line_faults(tree: &Tree) -> Vec<String> {
    tree.iter()
        .filter(|(_, text)| {
            !text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 8)
        })
        .map(|(path, _)| format!("{path}: its first line does not say what it is for (//! ...)"))
        .collect()
}

/// Files without a `mod` line.
fn orphan_faults(tree: &Tree) -> Vec<String> {
    let is_root = |path: &str| {
        path == "src/lib.rs" || path.ends_with("/main.rs") || path.starts_with("src/bin/")
    };
    tree.keys()
        .filter(|path| !is_root(path))
        .filter(|path| {
            let (dir, file) = path.rsplit_once('/').expect("a directory");
            // x/mod.rs is the module x of the directory above.
            let (dir, name) = match file {
                "mod.rs" => dir.rsplit_once('/').expect("a directory"),
                _ => (dir, file.trim_end_matches(".rs")),
            };
            let parents = [
                format!("{dir}/lib.rs"),
                format!("{dir}/main.rs"),
                format!("{dir}/mod.rs"),
                format!("{dir}.rs"),
            ];
            !parents
                .iter()
                .filter_map(|parent| tree.get(parent))
                .any(|text| declared(text).iter().any(|declared| declared == name))
        })
        .map(|path| format!("{path}: no `mod` names it, so nobody compiles or runs it"))
        .collect()
}

pub(crate) fn project() -> Tree {
    read_tree(Path::new(env!("CARGO_MANIFEST_DIR")), &["src", "tests"])
}

#[track_caller]
fn check_none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn layers_point_downwards() {
    let tree = project();
    let layers = declared(&tree["src/lib.rs"]);
    assert!(layers.len() > 15, "only {layers:?} were read from src/lib.rs");
    assert!(used_modules(&code(&tree["src/node/state.rs"])).len() > 5, "no uses were read");
    check_none(&layer_faults(&tree));
}

#[test]
fn dependencies_stay_in_their_modules_and_tasks_start_in_one_file() {
    let tree = project();
    for room in ROOMS.iter().filter(|room| room.places != ["src/bin/"]) {
        let is_named = |(path, text): (&String, &String)| {
            path.starts_with(room.places[0]) && names_crate(&code(text), room.word)
        };
        assert!(
            tree.iter().any(is_named),
            "nobody names {}: does this test still read?",
            room.word
        );
    }
    assert!(code(&tree["src/drain.rs"]).contains("tokio::spawn"));
    check_none(&room_faults(&tree));
}

/// Public error enums that a new variant would break.
fn exhaustive_error_faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| !path.starts_with("src/bin/")) {
        let lines: Vec<_> = text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("pub enum "))
        {
            let start = lines[..at].iter().rposition(|line| !line.starts_with("#["));
            let attributes = lines[start.map_or(0, |start| start + 1)..at].concat();
            if attributes.contains("thiserror::Error") && !attributes.contains("non_exhaustive") {
                faults.push(format!("{path}: line {}: {line} is not #[non_exhaustive]", at + 1));
            }
        }
    }
    faults
}

/// Renames that a power loss can undo.
fn rename_faults(tree: &Tree) -> Vec<String> {
    let sources =
        tree.iter().filter(|(path, _)| path.starts_with("src/") && *path != "src/durable.rs");
    sources
        .filter(|(_, text)| {
            code(text)
                .split("#[cfg(test)]\nmod tests")
                .next()
                .is_some_and(|code| code.contains("fs::rename("))
        })
        .map(|(path, _)| format!("{path}: renames by fs::rename and not by durable::rename"))
        .collect()
}

#[test]
fn only_one_file_renames_files_and_it_syncs_their_directory() {
    check_none(&rename_faults(&project()));
    check(rename_faults, "src/low.rs", "fs::rename(a, b)", "durable::rename(a, b)");
}

#[test]
fn public_error_enums_are_non_exhaustive() {
    check_none(&exhaustive_error_faults(&project()));
    let offends = "#[derive(Debug, thiserror::Error)]\npub enum E {\n";
    let passes = "#[derive(Debug, thiserror::Error)]\n#[non_exhaustive]\npub enum E {\n";
    check(exhaustive_error_faults, "src/low.rs", offends, passes);
}

/// The maximum width of a comment. Code, tables and single long words are exempt.
const COMMENT_COLUMNS_MAX: usize = 100;

fn comment_faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree {
        let mut is_code = false;
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            let comment = comment.trim_start_matches(['/', '!']);
            is_code ^= comment.trim_start().starts_with("```");
            let is_kept = is_code || comment.trim_start().starts_with(['|', '`']);
            let is_one_word = !comment.trim().contains(' ');
            if line.chars().count() > COMMENT_COLUMNS_MAX && !is_kept && !is_one_word {
                let line = at + 1;
                faults.push(format!("{path}: line {line}: a comment over 100 columns; wrap it"));
            }
        }
    }
    faults
}

#[test]
fn comments_are_wrapped() {
    check_none(&comment_faults(&project()));
    let (long, word) = ("word ".repeat(30), "w".repeat(120));
    check(comment_faults, "src/low.rs", &format!("// {long}"), &format!("// {word}"));
    check(comment_faults, "src/low.rs", &format!("/// {long}"), &format!("/// | {long}"));
    let in_code = format!("/// ```\n/// {long}\n/// ```");
    check(comment_faults, "src/low.rs", &format!("/// ```\n/// ```\n//! {long}"), &in_code);
}

#[test]
fn every_file_starts_with_a_doc_line() {
    check_none(&first_line_faults(&project()));
}

#[test]
fn every_file_is_compiled_and_every_test_is_run() {
    check_none(&orphan_faults(&project()));
}

// Each rule catches a violation and accepts the corresponding valid code.

const LIB: &str = "//! The crate.\n// mod ghost;\n\
    #[cfg(feature = \"x\")]\npub mod top;\nmod middle;\nmod link;\nmod low;\npub use low::{A};\n";

fn tree_with(path: &str, text: &str) -> Tree {
    let file = |text: &str| format!("//! A file for something.\n{text}");
    let mut tree: Tree = [
        ("src/lib.rs", LIB.to_owned()),
        ("src/top.rs", file("use crate::{low::A, middle};\n")),
        ("src/middle/mod.rs", file("mod part;\nuse crate::low;\n")),
        ("src/middle/part.rs", file("use super::x;\n")),
        ("src/link.rs", file("")),
        ("src/low.rs", file("")),
        ("src/bin/tool/main.rs", file("use anyhow::Result;\n")),
        ("tests/it/main.rs", file("mod calls;\nmod world;\n")),
        ("tests/it/calls.rs", file("mod deep;\n")),
        ("tests/it/calls/deep.rs", file("")),
        ("tests/it/world/mod.rs", file("")),
    ]
    .map(|(path, text)| (path.to_owned(), text))
    .into();
    tree.insert(path.to_owned(), file(text));
    tree
}

#[track_caller]
fn check(rule: fn(&Tree) -> Vec<String>, path: &str, offends: &str, passes: &str) {
    assert_eq!(rule(&tree_with("src/low.rs", "")), Vec::<String>::new(), "the good tree");
    let faults = rule(&tree_with(path, offends));
    assert!(
        faults.len() == 1 && faults[0].starts_with(&format!("{path}: ")),
        "{offends:?} gave {faults:?}"
    );
    assert_eq!(rule(&tree_with(path, passes)), Vec::<String>::new(), "{passes:?}");
}

#[test]
fn an_upward_use_is_caught_in_every_form() {
    for (offends, passes) in [
        ("use crate::middle::x;", "use crate::low::x;"),
        ("use crate::{low, middle::x};", "use crate::{low, link::x};"),
        ("use crate::{\n    low::{self, y},\n    top,\n};", "use crate::{\n    low::{top, y},\n};"),
        ("pub use crate :: top;", "pub use crate :: low;"),
        ("fn f() { crate::middle::g() }", "fn f() { crate::low::g() }"),
        (
            "#[cfg(test)]\nmod tests { use crate::top; }",
            "#[cfg(test)]\nmod tests { use super::top; }",
        ),
        ("use crate::A;", "use crate::low::A;"),
        ("fn f() { crate::top::g!() }", "fn f() { crate::g!() }"),
        ("macro_rules! m { () => { use crate::top; } }", "macro_rules! m { () => { $crate::A } }"),
        ("fn f() { r#\"x\"#; crate::top::g() }", "fn f() { r#\"\" crate::top::g()\"#; }"),
        ("const Q: char = '\"'; use crate::top;", "const Q: &str = \"\\\" use crate::top;\";"),
        ("/* x */ use crate::top;", "// use crate::top;"),
        ("fn f<'a>(x: &'a str) { crate::top::g(x) }", "fn f<'a>(x: &'a str) {}"),
    ] {
        check(layer_faults, "src/link.rs", offends, passes);
    }
    check(layer_faults, "src/middle/part.rs", "use crate::top;", "use crate::link;");
}

#[test]
fn only_files_for_tests_may_reach_up() {
    for (attribute, faults) in [
        ("#[cfg(test)]", 0),
        ("#[cfg(all(test, feature = \"certs\"))]", 0),
        ("", 1),
        ("#[cfg(feature = \"test\")]", 1),
        ("#[cfg(not(test))]", 1),
    ] {
        let mut tree = tree_with("src/middle/mod.rs", &format!("{attribute}\nmod part;\n"));
        tree.insert("src/middle/part.rs".into(), "//! Tests of it.\nuse crate::top;\n".into());
        assert_eq!(layer_faults(&tree).len(), faults, "{attribute}");
        let text = tree.remove("src/middle/part.rs").expect("the file");
        tree.insert("src/middle/part/mod.rs".into(), text);
        assert_eq!(layer_faults(&tree).len(), faults, "{attribute}, as a directory");
    }
}

#[test]
fn a_module_that_is_not_in_the_list_is_caught() {
    let tree = tree_with("src/ghost.rs", "");
    assert_eq!(layer_faults(&tree).len(), 1, "a comment in lib.rs is no entry of the list");
    assert_eq!(orphan_faults(&tree).len(), 1);
}

#[test]
fn a_dependency_outside_its_modules_is_caught() {
    for (offends, passes) in [
        ("use quinn::Connection;", "use quinny::Connection;"),
        ("use quinn;", "let quinn = 1;"),
        ("fn f(c: quinn::Connection) {}", "/// quinn::Connection\nfn f(quinn: u8) {}"),
        ("use rustls::ClientConfig;", "use x::crypto::rustls::ClientConfig;"),
        ("use ::rustls::ClientConfig;", "const A: &str = \"rustls::x\";"),
        ("use rustls_pki_types::X;", "use my_rustls_pki_types::X;"),
        ("use rcgen::X;", "use super::rcgen::X;"),
        ("type V = serde_cbor::Value;", "// serde_cbor::Value"),
        ("use clap::Parser;", "fn clap() {}"),
        ("use anyhow::Result;", "use x::anyhow::Result;"),
        ("fn f() { tokio::spawn(g()); }", "fn f() { tasks.spawn(g()); }"),
        ("fn f() { tokio::task::spawn(g()); }", "fn f() { tokio::task::yield_now(); }"),
    ] {
        check(room_faults, "src/middle/part.rs", offends, passes);
    }
    assert!(
        room_faults(&tree_with("src/link/peer_chain.rs", "use rustls_pki_types::X;")).is_empty()
    );
    assert!(room_faults(&tree_with("src/drain.rs", "fn f() { tokio::spawn(g()); }")).is_empty());
}

#[test]
fn a_file_without_a_mod_line_is_caught() {
    for path in ["tests/it/lost.rs", "tests/it/world/lost.rs", "src/middle/lost.rs"] {
        assert_eq!(orphan_faults(&tree_with(path, "")).len(), 1, "{path}");
    }
    assert_eq!(orphan_faults(&tree_with("src/low.rs", "")), Vec::<String>::new());
    let unlisted = tree_with("tests/it/main.rs", "mod calls;\n// mod world;\n");
    assert_eq!(orphan_faults(&unlisted).len(), 1, "a comment lists nobody");
    let inline = tree_with("tests/it/main.rs", "mod calls;\nmod world {}\n");
    assert_eq!(orphan_faults(&inline).len(), 1, "a module in braces is no file");
}

#[test]
fn a_file_without_a_first_line_is_caught() {
    for text in ["", "use x;\n", "//!\n", "/// A doc.\n", "\n//! Too late for this.\n"] {
        let mut tree = tree_with("src/low.rs", "");
        tree.insert("src/low.rs".into(), text.into());
        assert_eq!(first_line_faults(&tree).len(), 1, "{text:?}");
    }
    assert_eq!(first_line_faults(&tree_with("src/low.rs", "")), Vec::<String>::new());
}

/// The keys that a file of `src/config` reads.
fn config_keys(code: &str) -> BTreeSet<String> {
    let readers = ["optional", "required", "each", "each_of_some", "tables", "table"];
    let after = |reader: &&str| {
        let call = format!(".{reader}(");
        let keys = code.split(&call).skip(1).filter_map(|rest| {
            let key = rest.trim_start().strip_prefix('"')?.split('"').next()?;
            Some(key.to_owned())
        });
        keys.collect::<Vec<_>>()
    };
    readers.iter().flat_map(after).collect()
}

#[test]
fn every_config_key_is_in_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let text = read("docs/operations.md");
    let section = text.split("## Config keys").nth(1).expect("a section");
    let section = section.split("\n## ").next().expect("its end");
    let is_there = |key: &str| {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        section.split(|c: char| !is_word(c)).any(|word| word == key)
    };
    let mut known = BTreeSet::new();
    for file in fs::read_dir(root.join("src/config")).expect("a directory") {
        let name = file.expect("a file").file_name().into_string().expect("a name");
        if name != "tests.rs" {
            let code = read(&format!("src/config/{name}"));
            known.extend(config_keys(code.split("#[cfg(test)]").next().expect("code")));
        }
    }
    assert!(known.len() > 60 && known.contains("upstream_ca"), "{known:?}");
    let missing: Vec<_> = known.iter().filter(|key| !is_there(key)).collect();
    assert!(missing.is_empty(), "docs/operations.md, Config keys, lacks {missing:?}");
    let code = "t.optional(\"a\", x); t.each(\n  \"b\", y)";
    assert_eq!(config_keys(code), ["a", "b"].map(str::to_owned).into());
}

#[test]
fn the_changelog_of_the_debian_package_is_of_this_version() {
    let changelog = include_str!("../../deploy/debian/changelog");
    let expected = concat!("dialback (", env!("CARGO_PKG_VERSION"), "-1) ");
    assert!(changelog.starts_with(expected), "deploy/debian/changelog does not begin {expected:?}");
}
