//! Log lines: what a sentence says is in fields too.

use crate::tidy::{Tree, project};

/// Lines of `info` and above that have facts in their text and no field. A line that is a text of
/// elsewhere as a whole, `{line}`, has none.
fn lines_without_fields(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, text) in tree.iter().filter(|(path, _)| path.starts_with("src/")) {
        for level in ["info", "warn", "error"] {
            for after in text.split(&format!("tracing::{level}!(")).skip(1) {
                let Some(literal) = after.trim_start().strip_prefix('"') else { continue };
                let line = literal.split('"').next().unwrap_or_default();
                let is_whole = line.starts_with('{') && line.find('}') == Some(line.len() - 1);
                if line.contains('{') && !is_whole {
                    faults.push(format!("{path}: {line}"));
                }
            }
        }
    }
    faults
}

#[test]
fn the_facts_of_a_log_line_are_fields() {
    let faults = lines_without_fields(&project());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_log_line_with_facts_in_its_text_alone_is_caught() {
    for (code, faults) in [
        ("tracing::info!(\"lost {peer}\");", 1),
        ("tracing::warn!(\n    \"lost {}\",\n    peer\n);", 1),
        ("tracing::info!(%peer, \"lost {peer}\");", 0),
        ("tracing::info!(\"{line}\"); tracing::info!(\"stopped\");", 0),
        ("tracing::debug!(\"lost {peer}\");", 0),
    ] {
        let tree = Tree::from([("src/a.rs".to_owned(), code.to_owned())]);
        assert_eq!(lines_without_fields(&tree).len(), faults, "{code}");
    }
}
