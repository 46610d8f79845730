//! Prints metadata, trailers and error details of a call.

use crate::output::{eprint_aside, escape};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dialback::{Metadata, Status};
use std::collections::BTreeMap;

/// Metadata as JSON shows it: each key with all its values, in their order.
pub(crate) type MetadataMap<'a> = BTreeMap<&'a str, Vec<&'a str>>;

pub(crate) fn map_of(metadata: &Metadata) -> MetadataMap<'_> {
    let mut keys = MetadataMap::new();
    for (key, value) in metadata.iter() {
        keys.entry(key).or_default().push(value);
    }
    keys
}

/// The details of an error as base64url, as all byte strings are shown.
pub(crate) fn details(status: &Status) -> Option<String> {
    let details = status.details();
    (!details.is_empty()).then(|| URL_SAFE_NO_PAD.encode(details))
}

/// A failed call in one line, with its metadata and details.
pub(crate) fn line(status: &Status) -> String {
    let details = details(status).map(|bytes| format!("details {bytes}"));
    let metadata = status.metadata().iter().map(|(key, value)| format!("metadata {key}: {value}"));
    let parts: Vec<_> = details.into_iter().chain(metadata).collect();
    if parts.is_empty() { status.to_string() } else { format!("{status} ({})", parts.join(", ")) }
}

/// Prints metadata and trailers on standard error: standard output has the replies alone.
pub(crate) async fn print(metadata: &Metadata, trailing: &Metadata) {
    let lines = |title: &'static str, pairs: &Metadata| {
        let line = |(key, value)| format!("{title} {}\n", escape(&format!("{key}: {value}")));
        pairs.iter().map(line).collect::<String>()
    };
    eprint_aside([lines("metadata", metadata), lines("trailer", trailing)].concat()).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialback::Code;

    #[test]
    fn failure_is_one_line_with_its_details_and_metadata() {
        let status = Status::new(Code::NotFound, "nobody");
        assert_eq!(line(&status), "NOT_FOUND (app_error): nobody");
        let mut metadata = Metadata::default();
        metadata.insert("k", "v");
        let status = status.with_details(vec![0xfb, 0xff]).with_metadata(metadata);
        let expected = "NOT_FOUND (app_error): nobody (details -_8, metadata k: v)";
        assert_eq!(line(&status), expected);
    }

    #[test]
    fn each_key_has_all_its_values_in_their_order() {
        let mut metadata = Metadata::default();
        for (key, value) in [("b", "2"), ("a", "1"), ("b", "1")] {
            metadata.insert(key, value);
        }
        let shown = serde_json::to_string(&map_of(&metadata)).expect("JSON");
        assert_eq!(shown, r#"{"a":["1"],"b":["2","1"]}"#);
    }
}
