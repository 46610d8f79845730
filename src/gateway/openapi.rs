//! `/v1/openapi.json`: OpenAPI 3.1 document of the HTTP gateway for one caller. Pure.

use super::{
    embed::may_embed,
    page_bodies,
    schemas::{answer_headers, components},
};
use crate::{
    directory::{Directory, ListedMethod, ListedService},
    limits::OPENAPI_AGENTS_MAX,
    wire::{ANY_METHOD, CallKind},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const ABOUT: &str = "What this caller may call through the node, on agents that are attached now. \
Requests and replies are JSON or CBOR (RFC 8949), in the unary form of the Connect protocol; methods that stream their replies answer in \
Connect's envelopes, or as server-sent events. Every answer says in the header `dialback-outcome` what is known of the call's execution. \
What is said of services and methods, and their schemas, are the words of the agents that host them.";

/// OpenAPI 3.1 document of a directory: an operation for each unary or reply-streaming method, on
/// named agents and, where allowed, on any; and the pages. Methods that take a stream have no path.
///
/// Where over 100 agents host a method, their names are left to `GET /v1/agents`. A schema is
/// embedded if it is well-formed JSON Schema without references; otherwise any value is allowed.
pub fn openapi(directory: &Directory) -> Value {
    let mut paths = paths_of_pages();
    for service in &directory.services {
        for methods in service.methods.chunk_by(|one, other| one.name == other.name) {
            if let Some(operation) = Operation::of(service, methods) {
                operation.add_to(&mut paths);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Services by way of node {}", directory.node),
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
        },
        "security": [{ "bearer": [] }, { "mutualTLS": [] }],
        "tags": tags(&directory.services),
        "paths": paths,
        "components": components(),
    })
}

fn tags(services: &[ListedService]) -> Value {
    let tag = |service: &ListedService| match service.description.as_str() {
        "" => json!({ "name": service.name }),
        text => json!({ "name": service.name, "description": text }),
    };
    let gateway = json!({ "name": "dialback", "description": "What there is to call." });
    std::iter::once(gateway).chain(services.iter().map(tag)).collect()
}

fn paths_of_pages() -> Map<String, Value> {
    let list = |of: &str| {
        let items =
            json!({ "type": "array", "items": { "$ref": format!("#/components/schemas/{of}") } });
        let key = format!("{}s", of.to_ascii_lowercase());
        json!({
            "type": "object",
            "required": ["node", key],
            "properties": { "node": { "type": "string" }, (key.as_str()): items },
        })
    };
    let pages = [
        ("/v1/agents", "agents", "The agents that this caller may see", list("Agent")),
        ("/v1/services", "services", "The services that this caller may call", list("Service")),
        ("/v1/openapi.json", "openapi", "This document", json!({ "type": "object" })),
    ];
    let page = |(path, id, summary, schema): (&str, &str, &str, Value)| {
        let get = json!({
            "operationId": id,
            "summary": summary,
            "tags": ["dialback"],
            "responses": {
                "200": { "description": summary, "content": { "application/json": { "schema": schema } } },
                "401": { "$ref": "#/components/responses/Unauthenticated" },
                "default": { "$ref": "#/components/responses/Failed" },
            },
        });
        (path.to_owned(), json!({ "get": get }))
    };
    pages.into_iter().map(page).collect()
}

/// One method of a service, in all hosted kinds that HTTP can carry.
struct Operation<'a> {
    service: &'a str,
    /// Never empty; all have the same name.
    methods: Vec<&'a ListedMethod>,
}

impl<'a> Operation<'a> {
    fn of(service: &'a ListedService, methods: &'a [ListedMethod]) -> Option<Self> {
        let is_carried = |method: &&ListedMethod| {
            matches!(method.kind, CallKind::Unary | CallKind::ServerStream)
        };
        let methods: Vec<_> = methods.iter().filter(is_carried).collect();
        (!methods.is_empty()).then_some(Self { service: &service.name, methods })
    }

    fn name(&self) -> &'a str {
        &self.methods[0].name
    }

    fn add_to(&self, paths: &mut Map<String, Value>) {
        let (service, is_any) = (self.service, self.name() == ANY_METHOD);
        let method = if is_any { "{method}" } else { self.name() };
        let own = is_any.then(method_parameter);
        let agents = self.all(|method| &method.agents);
        let mut add = |path: String, id: &str, parameters: Vec<Value>| {
            let item = json!({ "parameters": parameters, "post": self.post(id) });
            paths.insert(path, item);
        };
        let with_agent = std::iter::once(agent_parameter(&agents)).chain(own.clone());
        add(format!("/v1/agents/{{agent}}/{service}/{method}"), "agent", with_agent.collect());
        if !self.all(|method| &method.hosts).is_empty() {
            add(format!("/v1/services/{service}/{method}"), "service", own.into_iter().collect());
        }
    }

    fn all(&self, of: impl Fn(&'a ListedMethod) -> &'a [String]) -> BTreeSet<&'a str> {
        self.methods.iter().flat_map(|method| of(method)).map(String::as_str).collect()
    }

    fn post(&self, id: &str) -> Value {
        let (service, name) = (self.service, self.name());
        let kinds: Vec<_> = self.methods.iter().map(|method| method.kind.as_str()).collect();
        let mut post = json!({
            "operationId": format!("{id}.{service}.{name}"),
            "summary": format!("{service}/{name}"),
            "tags": [service],
            "x-dialback-kind": kinds.join(","),
            "parameters": [
                { "$ref": "#/components/parameters/timeout" },
                { "$ref": "#/components/parameters/traceparent" },
            ],
            "requestBody": { "required": true, "content": self.content(request_content) },
            "responses": {
                "200": {
                    "description": "The reply.",
                    "headers": answer_headers(),
                    "content": self.content(reply_content),
                },
                "401": { "$ref": "#/components/responses/Unauthenticated" },
                "default": { "$ref": "#/components/responses/Failed" },
            },
        });
        if self.methods.iter().any(|method| method.kind == CallKind::ServerStream) {
            post["requestBody"]["description"] = BARE_OR_ENVELOPED.into();
        }
        let described = self.methods.iter().find(|method| !method.description.is_empty());
        if let Some(method) = described {
            post["description"] = method.description.as_str().into();
        }
        post
    }

    /// Content of requests or replies, of all kinds together.
    fn content(&self, of: impl Fn(&ListedMethod) -> Vec<(&'static str, Value)>) -> Value {
        let all = self.methods.iter().flat_map(|method| of(method));
        all.map(|(media, schema)| (media.to_owned(), json!({ "schema": schema })))
            .collect::<Map<_, _>>()
            .into()
    }
}

/// Description in prose, because OpenAPI ignores a parameter with the name Accept.
const BARE_OR_ENVELOPED: &str = "To have the replies as a stream of server-sent events, send the bare message with `Accept: text/event-stream`; \
without it a bare message calls a method with one reply. To have them in envelopes, send the message in one.";

const BARE: [&str; 2] = ["application/json", "application/cbor"];
const ENVELOPES: [&str; 2] = ["application/connect+json", "application/connect+cbor"];

fn request_content(method: &ListedMethod) -> Vec<(&'static str, Value)> {
    let schema = message_schema(&method.request_schema);
    let mut content: Vec<_> = BARE.map(|media| (media, schema.clone())).into();
    if method.kind == CallKind::ServerStream {
        content.extend(ENVELOPES.map(|media| (media, envelopes("One message"))));
    }
    content
}

fn reply_content(method: &ListedMethod) -> Vec<(&'static str, Value)> {
    if method.kind == CallKind::Unary {
        let schema = message_schema(&method.reply_schema);
        return BARE.map(|media| (media, schema.clone())).into();
    }
    let mut content: Vec<_> =
        ENVELOPES.map(|media| (media, envelopes("Messages, and the end of the stream"))).into();
    let events = json!({
        "type": "string",
        "description": "Server-sent events, where `Accept` asks for them: one for each message, and a last one for the end.",
    });
    content.push(("text/event-stream", events));
    content
}

fn envelopes(what: &str) -> Value {
    json!({
        "description": format!("{what}, each after a byte of flags and four bytes of length, as the Connect protocol has it."),
    })
}

/// Schema of a message if it can be embedded; otherwise any value is allowed.
fn message_schema(text: &str) -> Value {
    page_bodies::schema(text).filter(may_embed).unwrap_or_else(|| json!({}))
}

fn agent_parameter(agents: &BTreeSet<&str>) -> Value {
    let (schema, text) = if agents.len() <= OPENAPI_AGENTS_MAX {
        (json!({ "type": "string", "enum": agents }), "The agent.".to_owned())
    } else {
        let text = format!("One of {} agents; `GET /v1/services` names them.", agents.len());
        (json!({ "type": "string" }), text)
    };
    json!({ "name": "agent", "in": "path", "required": true, "description": text, "schema": schema })
}

fn method_parameter() -> Value {
    json!({
        "name": "method",
        "in": "path",
        "required": true,
        "description": "A method of the service; the agent passes on whatever is called.",
        "schema": { "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,99}$" },
    })
}
