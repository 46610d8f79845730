//! Description and JSON Schemas of a method.

use crate::wire::MethodInfo;

/// Description of a method in lists, and in the OpenAPI document of the HTTP gateway.
///
/// ```
/// use dialback::{Context, Description, Service, Status};
///
/// let service = Service::new("HelloService")
///     .method("Hello", |name: String, _ctx: Context| async move { Ok(format!("hello:{name}")) })
///     .describe("Greets.")
///     .describe_method("Hello", Description::new("Greets by name.").request(r#"{"type":"string"}"#));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it describes a method once it is given to `Service::describe_method`"]
pub struct Description {
    text: String,
    request_schema: String,
    reply_schema: String,
}

impl Description {
    /// A sentence or two in plain text or CommonMark, at most 1 KiB.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Adds the JSON Schema (2020-12) of a message of the request, at most 4 KiB. It is taken as it
    /// is: nothing checks messages against it. One that has references (`$ref`, `$defs`) or unknown
    /// keywords is left out of the OpenAPI document.
    pub fn request(mut self, schema: impl Into<String>) -> Self {
        self.request_schema = schema.into();
        self
    }

    /// Adds the JSON Schema of a message of the reply, as [`Description::request`].
    pub fn reply(mut self, schema: impl Into<String>) -> Self {
        self.reply_schema = schema.into();
        self
    }

    pub(super) fn into_info(self, info: &mut MethodInfo) {
        let Self { text, request_schema, reply_schema } = self;
        (info.description, info.request_schema, info.reply_schema) =
            (text, request_schema, reply_schema);
    }
}

impl From<&str> for Description {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Description {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}
