//! Names of tools in MCP messages, and the paths by which rules decide on messages.

use super::{
    MethodPath, Name, NameError,
    tool::{CLIENT, PROMPTS, RESERVED, RESOURCES, tool_fault},
};
use std::{fmt, str::FromStr, sync::Arc};

/// The name of a tool of an MCP server: 1 to 128 bytes of visible ASCII without `"`, `*` and `\`,
/// and none of `resources`, `prompts` and `client`. Case-sensitive. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ToolName(Arc<str>);

impl ToolName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ToolName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let reserved = "is a reserved name: resources, prompts and client are not tools in rules";
        let is_reserved = RESERVED.contains(&text).then_some(reserved);
        match tool_fault(text).or(is_reserved) {
            Some(why) => Err(NameError::new("tool", text, why)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl MethodPath {
    /// A tool of an MCP server.
    pub(crate) fn mcp_tool(server: &Name, tool: &ToolName) -> Self {
        Self::below_server(server, tool.as_str())
    }

    /// The resources of an MCP server.
    pub(crate) fn mcp_resources(server: &Name) -> Self {
        Self::below_server(server, RESOURCES)
    }

    /// The prompts of an MCP server.
    pub(crate) fn mcp_prompts(server: &Name) -> Self {
        Self::below_server(server, PROMPTS)
    }

    /// The requests of an MCP server to its client.
    pub(crate) fn mcp_client(server: &Name) -> Self {
        Self::below_server(server, CLIENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_not_names_of_tools() {
        for name in ["create_issue", "fs/read:all", "Resources", "client2"] {
            assert_eq!(name.parse::<ToolName>().map(|tool| tool.to_string()), Ok(name.into()));
        }
        for bad in [&RESERVED[..], &["", "a b", "a*"]].concat() {
            assert!(bad.parse::<ToolName>().is_err(), "{bad:?} was taken for a tool");
        }
    }

    #[test]
    fn paths_below_a_server_are_those_of_rules() {
        let (server, tool) = ("jira".parse().expect("a name"), "a/b".parse().expect("a tool"));
        for (path, name) in [
            (MethodPath::mcp_tool(&server, &tool), "a/b"),
            (MethodPath::mcp_resources(&server), "resources"),
            (MethodPath::mcp_prompts(&server), "prompts"),
            (MethodPath::mcp_client(&server), "client"),
        ] {
            assert_eq!(MethodPath::mcp(&server, name), Ok(path));
        }
    }
}
