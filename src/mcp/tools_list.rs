//! Removes the tools from a list that its client may not call.

use super::{
    MessageError,
    body::json_error,
    members::{OtherKeys, pick},
    message_error::RpcCode,
};
use crate::name::ToolName;
use bytes::Bytes;
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Removes from the response to a `tools/list` all tools that `may_call` does not accept, and those
/// whose names cannot stand in a call. Everything else stays as it is, byte for byte. A response
/// without tools, such as an error, is returned unchanged.
///
/// # Errors
/// The result could be read in different ways. Nothing of it may be passed on then.
pub(crate) fn filter_tools(
    response: &Bytes,
    may_call: impl FnMut(&ToolName) -> bool,
) -> Result<Bytes, MessageError> {
    let invalid = |fault: serde_json::Error| json_error(&fault, RpcCode::InvalidRequest, "tools");
    let text = std::str::from_utf8(response)
        .map_err(|_| MessageError::new(RpcCode::ParseError, "the response is not UTF-8"))?;
    let [result] = pick(text, ["result"], OtherKeys::Ignored).map_err(invalid)?;
    let Some(result) = result else { return Ok(response.clone()) };
    let [tools] = pick(result.get(), ["tools"], OtherKeys::Ignored).map_err(invalid)?;
    let Some(tools) = tools else { return Ok(response.clone()) };
    let start = offset(text, tools.get());
    let list = &text[start..start + tools.get().len()];
    let mut reader = serde_json::Deserializer::from_str(list);
    let kept = reader.deserialize_seq(ToolFilter { list, may_call }).map_err(invalid)?;
    if kept.count == kept.count_before {
        return Ok(response.clone());
    }
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text.as_bytes()[..start]);
    out.extend_from_slice(&kept.list);
    out.extend_from_slice(&text.as_bytes()[start + list.len()..]);
    Ok(out.into())
}

/// Position of a part within a text.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

/// A list without some of its tools.
struct KeptTools {
    list: Vec<u8>,
    count: usize,
    count_before: usize,
}

struct ToolFilter<'a, F> {
    /// The text of the array.
    list: &'a str,
    may_call: F,
}

impl<'de, F: FnMut(&ToolName) -> bool> Visitor<'de> for ToolFilter<'de, F> {
    type Value = KeptTools;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tools")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut tools: A) -> Result<KeptTools, A::Error> {
        let mut kept = KeptTools { list: vec![b'['], count: 0, count_before: 0 };
        // After the `[`, and later after the last tool.
        let mut read_to = 1;
        while let Some(tool) = tools.next_element::<&RawValue>()? {
            let at = offset(self.list, tool.get());
            let gap = &self.list[read_to..at];
            read_to = at + tool.get().len();
            kept.count_before += 1;
            if !name(tool).is_some_and(|name| (self.may_call)(&name)) {
                continue;
            }
            if kept.count > 0 {
                kept.list.push(b',');
            }
            kept.count += 1;
            // Of space, and a comma before all tools but the first.
            kept.list.extend_from_slice(gap.rsplit(',').next().unwrap_or_default().as_bytes());
            kept.list.extend_from_slice(tool.get().as_bytes());
        }
        kept.list.extend_from_slice(&self.list.as_bytes()[read_to..]);
        Ok(kept)
    }
}

/// The name of a tool that a client can call through a rule.
fn name(tool: &RawValue) -> Option<ToolName> {
    let [name] = pick(tool.get(), ["name"], OtherKeys::Ignored).ok()?;
    serde_json::from_str::<String>(name?.get()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str, allowed: &[&str]) -> Result<String, MessageError> {
        let response = Bytes::copy_from_slice(text.as_bytes());
        let filtered = filter_tools(&response, |tool| allowed.contains(&tool.as_str()))?;
        Ok(String::from_utf8(filtered.into()).expect("UTF-8"))
    }

    #[track_caller]
    fn check(list: &str, allowed: &[&str], expected: &str) {
        let around = |list: &str| {
            format!(
                r#" {{"jsonrpc":"2.0","id":1,"result":{{ "x":[1,2],"tools" : {list}, "nextCursor":"c" }} }}"#
            )
        };
        assert_eq!(filter(&around(list), allowed), Ok(around(expected)));
    }

    #[test]
    fn tools_that_may_not_be_called_are_removed_and_nothing_else_changes() {
        let (a, b, c) = (
            r#"{"name":"a","inputSchema":{"name":"z"}}"#,
            r#"{"title" : "B","name":"b"}"#,
            r#"{"n\u0061me":"\u0063"}"#,
        );
        let list = format!("[{a},{b},{c}]");
        check(&list, &["a", "b", "c"], &list);
        check(&list, &["a", "c"], &format!("[{a},{c}]"));
        check(&list, &["b"], &format!("[{b}]"));
        check(&list, &["c"], &format!("[{c}]"));
        check(&list, &[], "[]");
        check("[]", &["a"], "[]");
        let spaced = format!("[\n  {a} ,\n  {b}\t,\n  {c}\n]");
        check(&spaced, &["a", "b", "c"], &spaced);
        check(&spaced, &["b", "c"], &format!("[\n  {b},\n  {c}\n]"));
        check(&spaced, &["a"], &format!("[\n  {a}\n]"));
        check(&spaced, &[], "[\n]");
    }

    #[test]
    fn tools_without_a_plain_name_are_removed() {
        let a = r#"{"name":"a"}"#;
        for bad in [
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","Name":"b"}"#,
            r#"{"Name":"a"}"#,
            r#"{"name":7}"#,
            r#"{"name":"resources"}"#,
            r#"{"name":"a b"}"#,
            "{}",
            "7",
            "[\"a\"]",
            "\"a\"",
        ] {
            let everything = ["a", "b", "resources", "a b"];
            check(&format!("[{bad},{a}]"), &everything, &format!("[{a}]"));
        }
    }

    #[test]
    fn responses_without_tools_are_not_changed() {
        for text in [
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"tools":[{"name":"a"}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"tools":[{"name":"a"}]}]}}"#,
        ] {
            assert_eq!(filter(text, &[]).as_deref(), Ok(text));
        }
    }

    #[test]
    fn lists_that_may_be_read_in_two_ways_are_refused() {
        for result in [
            r#"{"tools":[],"tools":[{"name":"a"}]}"#,
            r#"{"tools":[],"Tools":[{"name":"a"}]}"#,
            r#"{"tool\u0073":[],"tools":[]}"#,
            r#"{"TOOLS":[{"name":"a"}]}"#,
            r#"{"tools":{"name":"a"}}"#,
            r#"{"tools":null}"#,
            r#"[{"name":"a"}]"#,
            "7",
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#);
            assert!(filter(&text, &["a"]).is_err(), "{text} was taken");
        }
        assert!(filter(r#"{"result":{},"result":{"tools":[]}}"#, &["a"]).is_err());
        assert!(filter("{", &["a"]).is_err());
    }

    proptest! {
        #[test]
        fn the_tools_that_stay_are_those_that_may_be_called(
            tools in prop::collection::vec(("[a-d]", "[ \n]{0,2}", "[ \t]{0,2}"), 0..6),
            allowed in "[a-d]{0,3}",
        ) {
            let is_allowed = |name: &str| allowed.contains(name);
            let list: Vec<_> = tools
                .iter()
                .map(|(name, before, after)| format!("{before}{{\"name\":\"{name}\"}}{after}"))
                .collect();
            let text = format!(r#"{{"id":1,"result":{{"tools":[{}],"x":"]"}}}}"#, list.join(","));
            let filtered = filter_tools(&Bytes::from(text), |tool| is_allowed(tool.as_str()));
            let value: serde_json::Value =
                serde_json::from_slice(&filtered.expect("a list")).expect("JSON");
            let kept = value["result"]["tools"].as_array().expect("an array").iter();
            let kept: Vec<_> = kept.filter_map(|tool| tool["name"].as_str()).collect();
            let names = tools.iter().map(|(name, ..)| name.as_str());
            prop_assert_eq!(kept, names.filter(|name| is_allowed(name)).collect::<Vec<_>>());
            prop_assert_eq!(&value["result"]["x"], "]");
        }
    }
}
