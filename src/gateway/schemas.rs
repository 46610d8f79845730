//! Parts of the OpenAPI document that are the same for every caller.

use super::connect_error::connect_code;
use crate::status::{Code, Outcome};
use serde_json::{Value, json};

/// `components`, to which operations refer.
pub(super) fn components() -> Value {
    json!({
        "securitySchemes": {
            "bearer": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "dbt1",
                "description": "A token that `dialback token create NAME` printed. Its bearer is the caller NAME.",
            },
            "mutualTLS": {
                "type": "mutualTLS",
                "description": "A certificate of a caller, `spiffe://TRUST-DOMAIN/caller/NAME`.",
            },
        },
        "parameters": parameters(),
        "headers": headers(),
        "schemas": { "Error": error(), "Agent": agent(), "Service": service(), "Method": method() },
        "responses": responses(),
    })
}

fn parameters() -> Value {
    json!({
        "timeout": {
            "name": "Connect-Timeout-Ms",
            "in": "header",
            "description": "How long the call may take, in milliseconds. Without it a unary call has 30 s; a rule of the node may cut it.",
            "schema": { "type": "integer", "minimum": 1, "maximum": 9_999_999_999_u64 },
        },
        "traceparent": {
            "name": "traceparent",
            "in": "header",
            // No pattern: by the W3C, calls with an invalid value continue without a trace.
            "description": "W3C Trace Context, `00-TRACE-PARENT-FLAGS`; passed on to the handler. What is none is dropped.",
            "schema": { "type": "string" },
        },
    })
}

fn headers() -> Value {
    let outcomes = [Outcome::Ok, Outcome::AppError, Outcome::NotExecuted, Outcome::Unknown];
    json!({
        "outcome": {
            "description": "What is known of the call's execution. ok, app_error: the handler ran once, and this is its answer. not_executed: it did not run and will not. unknown: it may have run, so that only what is idempotent may be repeated. A stream of replies begins with unknown, and its end says the outcome.",
            "required": true,
            "schema": { "type": "string", "enum": outcomes.map(Outcome::as_str) },
        },
        "callId": {
            "description": "The call's name in the logs of the node and of the agent.",
            "required": true,
            "schema": { "type": "string", "pattern": "^[0-9a-f]{32}$" },
        },
    })
}

/// References to the two headers of every response.
pub(super) fn answer_headers() -> Value {
    json!({
        "dialback-outcome": { "$ref": "#/components/headers/outcome" },
        "dialback-call-id": { "$ref": "#/components/headers/callId" },
    })
}

fn codes() -> Vec<String> {
    // 0 is OK, not an error; 16 is the last.
    (1..=16).filter_map(Code::from_number).map(connect_code).collect()
}

fn error() -> Value {
    json!({
        "type": "object",
        "description": "An error as the Connect protocol writes it. The status of HTTP follows the code: 400 invalid_argument, failed_precondition, out_of_range; 401 unauthenticated; 403 permission_denied; 404 not_found; 409 already_exists, aborted; 429 resource_exhausted; 499 canceled; 500 unknown, internal, data_loss; 501 unimplemented; 503 unavailable; 504 deadline_exceeded.",
        "required": ["code"],
        "properties": {
            "code": { "type": "string", "enum": codes() },
            "message": { "type": "string", "description": "For people." },
            "details": {
                "type": "array",
                "description": "For programs: bytes that both ends agree on.",
                "items": {
                    "type": "object",
                    "required": ["type", "value"],
                    "properties": {
                        "type": { "type": "string" },
                        "value": { "type": "string", "contentEncoding": "base64", "description": "Without padding." },
                    },
                },
            },
        },
    })
}

fn agent() -> Value {
    json!({
        "type": "object",
        "required": ["name", "attached", "since_ms", "node", "calls_in_flight"],
        "properties": {
            "name": { "type": "string" },
            "attached": { "type": "boolean", "description": "Whether it has a link now." },
            "since_ms": { "type": "integer", "description": "Attached or detached since, in milliseconds since 1970." },
            "node": { "type": "string" },
            "address": { "type": "string", "description": "Where its packets come from, while it is attached." },
            "software": { "type": "string", "description": "What it says it runs." },
            "calls_in_flight": { "type": "integer", "minimum": 0 },
            "rtt_us": { "type": "integer", "minimum": 0, "description": "The round-trip time of its link, in microseconds." },
            "draining": { "type": "boolean", "description": "There and true: it is leaving and takes no more calls." },
            "certificate_used_twice": { "type": "boolean", "description": "There and true: two processes run with its certificate." },
        },
    })
}

fn service() -> Value {
    json!({
        "type": "object",
        "required": ["name", "methods"],
        "properties": {
            "name": { "type": "string" },
            "description": { "type": "string" },
            "methods": { "type": "array", "items": { "$ref": "#/components/schemas/Method" } },
        },
    })
}

fn method() -> Value {
    json!({
        "type": "object",
        "required": ["name", "kind", "agents", "hosts"],
        "properties": {
            "name": { "type": "string", "description": "`*` stands for whatever methods the service has." },
            "kind": { "type": "string", "enum": ["unary", "server_stream", "client_stream", "bidirectional", "http", "tcp"] },
            "description": { "type": "string" },
            "request_schema": { "type": ["object", "boolean"], "description": "JSON Schema of a message of the request." },
            "reply_schema": { "type": ["object", "boolean"], "description": "JSON Schema of a message of the reply." },
            "agents": { "type": "array", "items": { "type": "string" }, "description": "On which agents it may be called." },
            "hosts": { "type": "array", "items": { "type": "string" }, "description": "Which of them may answer a call that names only the service." },
        },
    })
}

fn responses() -> Value {
    let error =
        json!({ "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } });
    json!({
        "Failed": {
            "description": "The call failed; the header says whether its handler ran.",
            "headers": answer_headers(),
            "content": error,
        },
        "Unauthenticated": {
            "description": "Neither a caller's certificate nor a good token was shown. Nothing was executed.",
            "headers": answer_headers(),
            "content": error,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_but_ok_is_an_error_in_connects_spelling() {
        let codes = codes();
        assert_eq!(codes.len(), 16);
        assert_eq!((codes[0].as_str(), codes[15].as_str()), ("canceled", "unauthenticated"));
        assert!(codes.contains(&"deadline_exceeded".into()) && !codes.contains(&"ok".into()));
    }
}
