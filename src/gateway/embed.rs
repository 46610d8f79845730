//! Decides which schemas of agents are embedded in the OpenAPI document: well-formed JSON Schema
//! (2020-12) without references. One agent must not break the document for all its readers.

use serde_json::Value;
use std::collections::HashSet;

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];

/// Unknown keywords are refused: `$ref` and similar ones lead anywhere that an agent chooses.
pub(super) fn may_embed(schema: &Value) -> bool {
    match schema {
        Value::Bool(_) => true,
        Value::Object(keywords) => keywords.iter().all(|(keyword, value)| is_fit(keyword, value)),
        _ => false,
    }
}

fn is_fit(keyword: &str, value: &Value) -> bool {
    match keyword {
        "type" => is_type(value),
        "properties" | "patternProperties" | "dependentSchemas" => {
            value.as_object().is_some_and(|schemas| schemas.values().all(may_embed))
        }
        "items"
        | "additionalProperties"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "contains"
        | "propertyNames"
        | "not"
        | "if"
        | "then"
        | "else"
        | "contentSchema" => may_embed(value),
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => value
            .as_array()
            .is_some_and(|schemas| !schemas.is_empty() && schemas.iter().all(may_embed)),
        "required" => is_set_of_texts(value),
        "dependentRequired" => {
            value.as_object().is_some_and(|names| names.values().all(is_set_of_texts))
        }
        "enum" | "examples" => value.is_array(),
        "const" | "default" => true,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
        "multipleOf" => value.as_f64().is_some_and(|number| number > 0.0),
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
        | "minContains" | "maxContains" => value.is_u64(),
        "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => value.is_boolean(),
        "title" | "description" | "$comment" | "format" | "pattern" | "contentEncoding"
        | "contentMediaType" => value.is_string(),
        other => other.starts_with("x-"),
    }
}

fn is_type(value: &Value) -> bool {
    let is_known = |name: &str| TYPES.contains(&name);
    match value {
        Value::String(name) => is_known(name),
        Value::Array(names) => {
            !names.is_empty()
                && is_set_of_texts(value)
                && names.iter().filter_map(Value::as_str).all(is_known)
        }
        _ => false,
    }
}

fn is_set_of_texts(value: &Value) -> bool {
    let mut seen = HashSet::new();
    let mut is_new =
        |value: &Value| value.as_str().is_some_and(|text| seen.insert(text.to_owned()));
    value.as_array().is_some_and(|items| items.iter().all(&mut is_new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn passes(text: &str) -> bool {
        may_embed(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn common_schemas_pass() {
        for good in [
            "true",
            "{}",
            r#"{"type":"object","required":["a"],"properties":{"a":{"type":["string","null"],"maxLength":7}},"additionalProperties":false}"#,
            r#"{"type":"array","items":{"anyOf":[{"const":1},{"minimum":-0.5}]},"uniqueItems":true}"#,
            r#"{"title":"t","description":"d","$comment":"c","format":"date-time","examples":[1],"default":null,"x-anything":[{}]}"#,
            // Names of properties are not keywords.
            r#"{"properties":{"$ref":{"type":"string"},"type":true},"dependentRequired":{"a":["b"]}}"#,
            r#"{"enum":[{"$ref":"x"}]}"#,
        ] {
            assert!(passes(good), "{good}");
        }
    }

    #[test]
    fn references_and_unknown_keywords_are_refused() {
        for bad in [
            r##"{"$ref":"#/components/schemas/Error"}"##,
            r#"{"items":{"$ref":"https://evil.example/x"}}"#,
            r#"{"anyOf":[true,{"$dynamicRef":"x"}]}"#,
            r#"{"$id":"x"}"#,
            r#"{"$schema":"https://evil.example/dialect"}"#,
            r#"{"$defs":{}}"#,
            r#"{"discriminator":7}"#,
            r#"{"properties":{"a":{"nullable":true}}}"#,
        ] {
            assert!(!passes(bad), "{bad}");
        }
    }

    #[test]
    fn every_keyword_has_its_type() {
        let one = |keyword: &str, value: Value| {
            may_embed(&Value::Object(Map::from_iter([(keyword.to_owned(), value)])))
        };
        for (keyword, good, bad) in [
            ("type", json!("integer"), json!("int")),
            ("type", json!(["null"]), json!([])),
            ("type", json!(["null", "array"]), json!(["null", "null"])),
            ("type", json!("null"), json!(7)),
            ("properties", json!({"a": true}), json!({"a": 1})),
            ("patternProperties", json!({}), json!([])),
            ("dependentSchemas", json!({"a": {}}), json!(true)),
            ("items", json!({}), json!([])),
            ("not", json!(false), json!(null)),
            ("allOf", json!([true]), json!([])),
            ("prefixItems", json!([{}]), json!([3])),
            ("required", json!([]), json!(["a", "a"])),
            ("required", json!(["a"]), json!([1])),
            ("dependentRequired", json!({"a": []}), json!({"a": "b"})),
            ("enum", json!([null]), json!("a")),
            ("const", json!(null), json!(null)),
            ("minimum", json!(-1.5), json!("1")),
            ("multipleOf", json!(0.1), json!(0)),
            ("minLength", json!(0), json!(-1)),
            ("maxItems", json!(9), json!(1.5)),
            ("uniqueItems", json!(true), json!("true")),
            ("pattern", json!("^a"), json!(1)),
        ] {
            assert!(one(keyword, good.clone()), "{keyword}: {good}");
            assert_eq!(one(keyword, bad.clone()), keyword == "const", "{keyword}: {bad}");
        }
    }
}
