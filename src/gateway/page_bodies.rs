//! Bodies of `GET /v1/agents` and `GET /v1/services`: the directory of one caller, as JSON.

use crate::directory::{Directory, ListedMethod, ListedService};
use serde_json::{Value, json};

/// Body of `GET /v1/agents`: `{"node": ..., "agents": [...]}`, as in `dialback agents --json`.
/// Create the directory with [`Node::directory_for`](crate::Node::directory_for) for the caller.
pub fn agents_page(directory: &Directory) -> Value {
    json!({ "node": directory.node, "agents": directory.agents })
}

/// Body of `GET /v1/services`: `{"node": ..., "services": [...]}`, as in `dialback services
/// --json`. A schema, which is an agent's text, is omitted unless it is a JSON object or boolean.
pub fn services_page(directory: &Directory) -> Value {
    let services: Vec<_> = directory.services.iter().map(service).collect();
    json!({ "node": directory.node, "services": services })
}

fn service(service: &ListedService) -> Value {
    let ListedService { name, description, methods } = service;
    let methods: Value = methods.iter().map(method).collect();
    let mut object = json!({ "name": name, "methods": methods });
    insert_text(&mut object, "description", description);
    object
}

fn method(method: &ListedMethod) -> Value {
    let ListedMethod { name, kind, description, request_schema, reply_schema, agents, hosts } =
        method;
    let mut object =
        json!({ "name": name, "kind": kind.as_str(), "agents": agents, "hosts": hosts });
    insert_text(&mut object, "description", description);
    for (key, text) in [("request_schema", request_schema), ("reply_schema", reply_schema)] {
        if let Some(schema) = schema(text) {
            object[key] = schema;
        }
    }
    object
}

fn insert_text(object: &mut Value, key: &str, text: &str) {
    if !text.is_empty() {
        object[key] = text.into();
    }
}

/// Parses a schema of an agent; `None` unless it is a JSON object or boolean.
pub(super) fn schema(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value.is_object() || value.is_boolean()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{directory::AgentInfo, wire::CallKind};

    fn directory() -> Directory {
        let mut hello = ListedMethod {
            name: "Hello".into(),
            kind: CallKind::Unary,
            description: String::new(),
            request_schema: String::new(),
            reply_schema: String::new(),
            agents: vec!["a".into(), "b".into()],
            hosts: vec!["b".into()],
        };
        let bare = ListedMethod { name: "Bye".into(), hosts: vec![], ..hello.clone() };
        hello.description = "Greets \u{1b}[2J.".into();
        hello.request_schema = r#"{"type":"string"}"#.into();
        hello.reply_schema = "\"no schema\"".into();
        let services = vec![ListedService {
            name: "HelloService".into(),
            description: "For greeting.".into(),
            methods: vec![bare, hello],
        }];
        let agent = AgentInfo {
            name: "a".into(),
            attached: true,
            since_ms: 7,
            node: "edge-1".into(),
            address: Some("192.0.2.7:4000".into()),
            path: None,
            software: None,
            calls_in_flight: 3,
            rtt_us: Some(1_200),
            draining: false,
            certificate_used_twice: false,
        };
        Directory { node: "edge-1".into(), agents: vec![agent], services }
    }

    #[test]
    fn agents_have_the_form_of_the_command_line() {
        let expected = json!({"node": "edge-1", "agents": [{
            "name": "a", "attached": true, "since_ms": 7, "node": "edge-1",
            "address": "192.0.2.7:4000", "calls_in_flight": 3, "rtt_us": 1200,
        }]});
        assert_eq!(agents_page(&directory()), expected);
        let nothing = Directory { agents: vec![], services: vec![], ..directory() };
        assert_eq!(agents_page(&nothing), json!({"node": "edge-1", "agents": []}));
        assert_eq!(services_page(&nothing), json!({"node": "edge-1", "services": []}));
    }

    #[test]
    fn services_are_shown_with_kinds_agents_descriptions_and_schemas() {
        let page = services_page(&directory());
        let expected = json!({"node": "edge-1", "services": [{
            "name": "HelloService", "description": "For greeting.",
            "methods": [
                {"name": "Bye", "kind": "unary", "agents": ["a", "b"], "hosts": []},
                {"name": "Hello", "kind": "unary", "description": "Greets \u{1b}[2J.",
                 "request_schema": {"type": "string"}, "agents": ["a", "b"], "hosts": ["b"]},
            ],
        }]});
        assert_eq!(page, expected);
        assert!(!page.to_string().contains('\u{1b}'), "JSON escapes what steers a terminal");
    }

    #[test]
    fn a_schema_is_a_json_object_or_boolean() {
        for good in ["{}", "true", "false", r#"{"type":"string"}"#] {
            assert!(schema(good).is_some(), "{good}");
        }
        let deep = "[".repeat(200);
        for bad in ["", "null", "1", "\"string\"", "[]", "{", "{} x", &deep] {
            assert_eq!(schema(bad), None, "{bad}");
        }
    }
}
