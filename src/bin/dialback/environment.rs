//! Environment variables: those that no flag has are probably misspelt.

use std::collections::BTreeSet;

const PREFIX: &str = "DIALBACK_";

/// Warnings about variables that begin with `DIALBACK_` and that no command knows.
pub(crate) fn warnings(
    known: &BTreeSet<String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<String> {
    let unknown = variables.into_iter().filter(|(name, value)| {
        name.starts_with(PREFIX) && !known.contains(name) && !is_of_kubernetes(name, value)
    });
    let mut lines: Vec<_> = unknown.map(|(name, _)| line(&name, known)).collect();
    lines.sort();
    lines
}

fn line(name: &str, known: &BTreeSet<String>) -> String {
    let near = known.iter().map(|known| (strsim::levenshtein(name, known), known)).min();
    match near.filter(|(distance, _)| *distance <= 3) {
        Some((_, near)) => {
            format!("the environment variable {name} is unknown and not read; did you mean {near}?")
        }
        None => format!(
            "the environment variable {name} is unknown and not read; `dialback COMMAND --help` lists the flags that have variables"
        ),
    }
}

/// Kubernetes sets variables for services, as `DIALBACK_NODE_PORT=udp://10.0.0.1:4433` for one with
/// the name `dialback-node`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_service = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"];
    is_url || of_service.iter().any(|end| name.ends_with(end)) || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_variables_are_named_with_the_near_one_and_others_are_left_alone() {
        let known = ["DIALBACK_LOG_LEVEL", "DIALBACK_NODE"].map(str::to_owned).into();
        let all = [
            ("DIALBACK_LOGLEVEL", "debug"),
            ("DIALBACK_LOG_LEVEL", "debug"),
            ("DIALBACK_SOMETHING_ELSE", "1"),
            ("DIALBACK_NODE_PORT", "udp://10.0.0.1:4433"),
            ("DIALBACK_NODE_SERVICE_HOST", "10.0.0.1"),
            ("DIALBACK_NODE_PORT_4433_UDP_ADDR", "10.0.0.1"),
            ("HOME", "/root"),
        ];
        let all = all.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lines = warnings(&known, all);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("DIALBACK_LOGLEVEL") && lines[0].contains("DIALBACK_LOG_LEVEL?"));
        assert!(lines[1].contains("DIALBACK_SOMETHING_ELSE") && lines[1].contains("--help"));
    }
}
