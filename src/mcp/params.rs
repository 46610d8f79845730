//! Parameters on which rules and headers depend.

use super::{
    MessageError, Needs, RpcCode,
    body::json_error,
    members::{OtherKeys, pick},
    message_error::quoted,
    rpc_message::required_text,
};
use crate::name::{NameError, ToolName};
use serde_json::value::RawValue;

/// Parameters on which rules and headers depend.
pub(super) struct MessageParams<'a> {
    name: Option<&'a RawValue>,
    uri: Option<&'a RawValue>,
    reference: Option<&'a RawValue>,
    /// Answers of the client to what an earlier result asked for.
    answers: Option<&'a RawValue>,
    /// The filter of a subscription.
    notifications: Option<&'a RawValue>,
}

impl<'a> MessageParams<'a> {
    /// Reads `params`. Null counts as absent.
    pub(super) fn parse(params: Option<&'a RawValue>) -> Result<Self, MessageError> {
        let names = ["name", "uri", "ref", "inputResponses", "notifications"];
        let [name, uri, reference, answers, notifications] = members(params, names, "params")?;
        Ok(Self { name, uri, reference, answers, notifications })
    }

    /// What a rule has to allow for a request: all of these.
    pub(super) fn needs(&self, method: &str) -> Result<Vec<Needs>, MessageError> {
        let mut needs = match method {
            "initialize" | "ping" | "tools/list" | "logging/setLevel" | "server/discover" => {
                vec![Needs::AnyTool]
            }
            "tools/call" => vec![Needs::Tool(self.tool()?)],
            "completion/complete" => vec![self.completed()?],
            "subscriptions/listen" => self.subscribed()?,
            _ => match method.split_once('/') {
                Some(("resources", _)) => vec![Needs::Resources],
                Some(("prompts", _)) => vec![Needs::Prompts],
                _ => return Err(unknown_method(method)),
            },
        };
        if self.answers.is_some_and(|answers| answers.get() != "null") {
            needs.push(Needs::Client);
        }
        Ok(needs)
    }

    /// The text that the header `Mcp-Name` repeats.
    pub(super) fn named(&self, method: &str) -> Result<Option<String>, MessageError> {
        let (value, name) = match method {
            "resources/read" => (self.uri, "params.uri"),
            _ => (self.name, "params.name"),
        };
        value.map(|value| required_text(Some(value), name)).transpose()
    }

    fn tool(&self) -> Result<ToolName, MessageError> {
        let name = required_text(self.name, "params.name")?;
        name.parse().map_err(|fault: NameError| {
            MessageError::invalid_params(format!("params.name: {fault}"))
        })
    }

    fn completed(&self) -> Result<Needs, MessageError> {
        let [kind, ..] = members(self.reference, ["type", "name", "uri"], "params.ref")?;
        match required_text(kind, "params.ref.type")?.as_str() {
            "ref/prompt" => Ok(Needs::Prompts),
            "ref/resource" => Ok(Needs::Resources),
            other => Err(MessageError::invalid_params(format!(
                "params.ref.type is {}, and neither ref/prompt nor ref/resource",
                quoted(other)
            ))),
        }
    }

    fn subscribed(&self) -> Result<Vec<Needs>, MessageError> {
        let names = [
            "toolsListChanged",
            "promptsListChanged",
            "resourcesListChanged",
            "resourceSubscriptions",
        ];
        let what = "params.notifications";
        let [_, prompts, lists, resources] = self
            .notifications
            .map_or(Ok([None; 4]), |filter| pick_from(filter, names, OtherKeys::Refused, what))?;
        let is_wanted = |value: Option<&RawValue>| {
            value.is_some_and(|value| !["false", "null", "[]"].contains(&value.get()))
        };
        let prompts = is_wanted(prompts).then_some(Needs::Prompts);
        let resources = (is_wanted(lists) || is_wanted(resources)).then_some(Needs::Resources);
        Ok([Some(Needs::AnyTool), prompts, resources].into_iter().flatten().collect())
    }
}

fn unknown_method(method: &str) -> MessageError {
    let text = format!("the method {} is not forwarded: no rule can allow it", quoted(method));
    MessageError::new(RpcCode::MethodNotFound, text)
}

/// Picks members of an object that may be absent or null.
fn members<'a, const N: usize>(
    object: Option<&'a RawValue>,
    names: [&'static str; N],
    what: &str,
) -> Result<[Option<&'a RawValue>; N], MessageError> {
    match object.filter(|object| object.get() != "null") {
        Some(object) => pick_from(object, names, OtherKeys::Ignored, what),
        None => Ok([None; N]),
    }
}

fn pick_from<'a, const N: usize>(
    object: &'a RawValue,
    names: [&'static str; N],
    other_keys: OtherKeys,
    what: &str,
) -> Result<[Option<&'a RawValue>; N], MessageError> {
    let picked = pick(object.get(), names, other_keys);
    picked.map_err(|fault| json_error(&fault, RpcCode::InvalidParams, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needs(method: &str, params: &str) -> Result<Vec<Needs>, MessageError> {
        let params = (!params.is_empty()).then(|| serde_json::from_str(params).expect("JSON"));
        MessageParams::parse(params)?.needs(method)
    }

    #[track_caller]
    fn check(method: &str, params: &str, expected: &[Needs]) {
        assert_eq!(needs(method, params).as_deref(), Ok(expected), "{method} {params}");
    }

    #[track_caller]
    fn check_refused(method: &str, params: &str, code: RpcCode) {
        let fault = needs(method, params).expect_err(params);
        assert_eq!(fault.code, code, "{method} {params}: {fault}");
    }

    #[test]
    fn methods_need_tools_resources_or_prompts() {
        for method in ["initialize", "ping", "tools/list", "logging/setLevel", "server/discover"] {
            check(method, "", &[Needs::AnyTool]);
            check(method, "null", &[Needs::AnyTool]);
            check(method, r#"{"cursor":"x"}"#, &[Needs::AnyTool]);
        }
        for method in
            ["resources/list", "resources/templates/list", "resources/read", "resources/subscribe"]
        {
            check(method, "{}", &[Needs::Resources]);
        }
        for method in ["prompts/list", "prompts/get"] {
            check(method, "{}", &[Needs::Prompts]);
        }
        for method in [
            "",
            "tools",
            "tools/",
            "tools/drop",
            "Tools/call",
            "tools/call ",
            "resources",
            "tasks/get",
            "sampling/createMessage",
            "notifications/initialized",
        ] {
            check_refused(method, "{}", RpcCode::MethodNotFound);
        }
    }

    #[test]
    fn a_call_of_a_tool_needs_the_tool() {
        let tool = |name: &str| Needs::Tool(name.parse().expect("a tool"));
        check("tools/call", r#"{"name":"a/b"}"#, &[tool("a/b")]);
        check(
            "tools/call",
            r#"{"arguments":{"name":1,"Name":2},"n\u0061me":"\u0061"}"#,
            &[tool("a")],
        );
        for bad in [
            "",
            "null",
            "{}",
            "[]",
            "\"a\"",
            r#"{"name":7}"#,
            r#"{"name":null}"#,
            r#"{"name":""}"#,
            r#"{"name":"a b"}"#,
            r#"{"name":"a*"}"#,
            r#"{"name":"a\u0000"}"#,
            r#"{"name":"\ud800"}"#,
            r#"{"name":"resources"}"#,
            r#"{"name":"client"}"#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"name":"a","n\u0061me":"b"}"#,
            r#"{"name":"a","Name":"b"}"#,
            r#"{"NAME":"a"}"#,
            r#"{"name":"a","URI":"b"}"#,
        ] {
            check_refused("tools/call", bad, RpcCode::InvalidParams);
        }
    }

    #[test]
    fn a_completion_needs_what_it_completes() {
        let of =
            |kind: &str| format!(r#"{{"ref":{{"type":"{kind}","name":"x"}},"argument":{{}}}}"#);
        check("completion/complete", &of("ref/prompt"), &[Needs::Prompts]);
        check("completion/complete", &of("ref/resource"), &[Needs::Resources]);
        for bad in [
            "{}".to_owned(),
            r#"{"ref":{}}"#.into(),
            r#"{"ref":"ref/prompt"}"#.into(),
            of("ref/tool"),
            r#"{"ref":{"type":"ref/prompt","Type":"ref/resource"}}"#.into(),
            r#"{"ref":{"type":"ref/prompt"},"ref":{"type":"ref/resource"}}"#.into(),
            r#"{"ref":{"type":"ref/prompt"},"Ref":{}}"#.into(),
        ] {
            check_refused("completion/complete", &bad, RpcCode::InvalidParams);
        }
    }

    #[test]
    fn a_subscription_needs_what_it_is_notified_of() {
        let filter = |filter: &str| format!(r#"{{"notifications":{filter}}}"#);
        let check =
            |of: &str, expected: &[Needs]| check("subscriptions/listen", &filter(of), expected);
        check("{}", &[Needs::AnyTool]);
        check(r#"{"toolsListChanged":true}"#, &[Needs::AnyTool]);
        check(r#"{"promptsListChanged":false,"resourceSubscriptions":[]}"#, &[Needs::AnyTool]);
        check(r#"{"promptsListChanged":true}"#, &[Needs::AnyTool, Needs::Prompts]);
        check(r#"{"resourcesListChanged":true}"#, &[Needs::AnyTool, Needs::Resources]);
        check(
            r#"{"resourceSubscriptions":["file:///a"],"promptsListChanged":1}"#,
            &[Needs::AnyTool, Needs::Prompts, Needs::Resources],
        );
        for bad in [r#"{"tasksChanged":true}"#, r#"{"promptslistchanged":true}"#, "7"] {
            check_refused("subscriptions/listen", &filter(bad), RpcCode::InvalidParams);
        }
    }

    #[test]
    fn answers_of_the_client_within_a_request_need_the_client_too() {
        let params = r#"{"name":"a","inputResponses":{"x":{"action":"accept"}}}"#;
        let tool = Needs::Tool("a".parse().expect("a tool"));
        check("tools/call", params, &[tool, Needs::Client]);
        check("prompts/get", params, &[Needs::Prompts, Needs::Client]);
        check_refused("tools/call", r#"{"name":"a","inputresponses":{}}"#, RpcCode::InvalidParams);
    }

    /// Tools that readers find who take the first or the last of equal keys, with or without case.
    fn tools_of_readers(params: &[(&str, &str)]) -> Vec<String> {
        let readers: [fn(&str) -> bool; 2] = [
            |key| key == "name",
            |key| key.split('\0').next().is_some_and(|key| key.eq_ignore_ascii_case("name")),
        ];
        let found = readers.iter().flat_map(|is_name| {
            let mut values = params.iter().filter(|(key, _)| is_name(key)).map(|(_, value)| value);
            [values.next(), values.next_back()]
        });
        found.flatten().map(|value| (*value).to_owned()).collect()
    }

    proptest! {
        #[test]
        fn no_reader_finds_another_tool_than_the_one_that_is_decided_on(
            keys in prop::collection::vec(
                prop::sample::select(vec!["name", "Name", "NAME", "name\0", "name2", "arguments"]),
                0..4,
            ),
        ) {
            let members: Vec<_> = keys.into_iter().zip(["a", "b", "c", "d"]).collect();
            let texts: Vec<_> =
                members.iter().map(|(key, value)| serde_json::json!({ *key: value }).to_string()).collect();
            let inner: Vec<_> = texts.iter().map(|text| &text[1..text.len() - 1]).collect();
            if let Ok(needs) = needs("tools/call", &format!("{{{}}}", inner.join(","))) {
                let [Needs::Tool(decided)] = &needs[..] else { panic!("{needs:?}") };
                let found = tools_of_readers(&members);
                prop_assert!(!found.is_empty() && found.iter().all(|tool| tool == decided.as_str()));
            }
        }
    }
}
