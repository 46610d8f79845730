//! Prints metadata, trailers and error details of a call.

use crate::{
    exit::Failure,
    output::{eprint_aside, escape},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dialback::{Metadata, Status};
use serde::Serialize;
use std::collections::BTreeMap;

/// Metadata as JSON shows it: each key with all its values, in their order.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct MetadataMap(BTreeMap<String, Vec<String>>);

impl MetadataMap {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let mut keys = BTreeMap::<_, Vec<_>>::new();
        for (key, value) in metadata.iter() {
            keys.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        Self(keys)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The details of an error as text: base64url, as all byte strings are shown. None if there are
/// none.
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

/// Tells what came before and after the replies, a line a pair, on standard error: standard output
/// has the replies alone.
pub(crate) async fn print(metadata: &Metadata, trailing: &Metadata) -> Result<(), Failure> {
    let lines = |title: &'static str, pairs: &Metadata| {
        let line = |(key, value)| format!("{title} {}\n", escape(&format!("{key}: {value}")));
        pairs.iter().map(line).collect::<String>()
    };
    eprint_aside([lines("metadata", metadata), lines("trailer", trailing)].concat()).await
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
        let shown = serde_json::to_string(&MetadataMap::of(&metadata)).expect("JSON");
        assert_eq!(shown, r#"{"a":["1"],"b":["2","1"]}"#);
        assert!(!MetadataMap::of(&metadata).is_empty() && MetadataMap::default().is_empty());
    }
}
