//! What a rule has to allow for a message.

use crate::name::{MethodPath, Name, ToolName};

/// What a rule has to allow for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Some tool of the server, or its resources or prompts.
    AnyTool,
    /// This tool.
    Tool(ToolName),
    /// The resources of the server.
    Resources,
    /// The prompts of the server.
    Prompts,
    /// The requests of the server to the client, and their answers.
    Client,
}

impl Needs {
    /// The path on which rules decide.
    pub(crate) fn path(&self, server: &Name) -> MethodPath {
        match self {
            Self::AnyTool => MethodPath::mcp_server(server),
            Self::Tool(tool) => MethodPath::mcp_tool(server, tool),
            Self::Resources => MethodPath::mcp_resources(server),
            Self::Prompts => MethodPath::mcp_prompts(server),
            Self::Client => MethodPath::mcp_client(server),
        }
    }

    /// Of a notification of the server.
    pub(super) fn of_server_notification(method: &str) -> Option<Self> {
        let topic = method.strip_prefix("notifications/")?;
        Some(match topic.split('/').next() {
            Some("resources") => Self::Resources,
            Some("prompts") => Self::Prompts,
            Some("elicitation") => Self::Client,
            _ => Self::AnyTool,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_of_the_server_need_what_they_are_about() {
        for (method, expected) in [
            ("notifications/message", Some(Needs::AnyTool)),
            ("notifications/tools/list_changed", Some(Needs::AnyTool)),
            ("notifications/resources/updated", Some(Needs::Resources)),
            ("notifications/prompts/list_changed", Some(Needs::Prompts)),
            ("notifications/elicitation/complete", Some(Needs::Client)),
            ("message", None),
        ] {
            assert_eq!(Needs::of_server_notification(method), expected, "{method}");
        }
    }

    #[test]
    fn rules_decide_by_the_path_below_the_server() {
        let server = "jira".parse().expect("a name");
        let tool = Needs::Tool("a/b".parse().expect("a tool"));
        let needs = [Needs::AnyTool, tool, Needs::Resources, Needs::Prompts, Needs::Client];
        let paths = needs.map(|needs| needs.path(&server).to_string());
        let expected = [
            "mcp:jira",
            "mcp:jira/a/b",
            "mcp:jira/resources",
            "mcp:jira/prompts",
            "mcp:jira/client",
        ];
        assert_eq!(paths, expected);
    }
}
