//! The MCP server, with the client and the server of its SDK.

use super::{super::python, ExampleSetup, example_dir};
use std::process::{Command, Output, Stdio};

impl ExampleSetup {
    /// Runs the client with these arguments, as the owner of a token.
    fn mcp_client(&self, token: &str, arguments: &[&str]) -> Output {
        let mut client = Command::new(python());
        client.arg(example_dir("mcp").join("client.py")).args(arguments);
        client.env("MCP_TOKEN", token).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        client.output().expect("it runs")
    }

    #[track_caller]
    fn check_client(&self, token: &str, arguments: &[&str], expected: (i32, &str)) {
        let Output { status, stdout, stderr } = self.mcp_client(token, arguments);
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert_eq!(status.code(), Some(expected.0), "{arguments:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(expected.1), "{arguments:?}: {out}{err}");
    }
}

#[test]
fn tools_are_listed_and_called_over_http_and_stdio_in_every_revision() {
    let setup = ExampleSetup::start("mcp", &python());
    let base = format!("http://127.0.0.1:{}/v1/agents/warehouse/mcp", setup.port);
    let all = "list_issues\ncreate_issue\ndelete_all\nask_title\n";
    for server in ["tracker", "tracker-stdio"] {
        let url = format!("{base}/{server}");
        for mode in ["auto", "legacy"] {
            let with_mode = |rest: &[&str]| -> Vec<String> {
                let own = [&url[..], "--mode", mode];
                [&own[..], rest].concat().into_iter().map(str::to_owned).collect()
            };
            let check = |token: &str, rest: &[&str], expected: (i32, &str)| {
                let arguments = with_mode(rest);
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                setup.check_client(token, &arguments, expected);
            };
            check(&setup.dev_token, &[], (0, "list_issues\ncreate_issue\n"));
            let issue = format!("{{\"title\": \"{server} {mode}\"}}");
            check(&setup.dev_token, &["create_issue", &issue], (0, "created"));
            if mode == "legacy" {
                continue;
            }
            check(&setup.token, &[], (0, all));
            let title = format!("{server} {mode}\n");
            check(&setup.token, &["list_issues"], (0, &title));
            let denied = "error -32009: caller/dev may not call";
            check(&setup.dev_token, &["delete_all"], (1, denied));
        }
    }
    // Only ops may be asked for something, and only by the server over HTTP.
    let question = ["ask_title", "{\"question\": \"Which?\"}", "--answer", "no heating"];
    for (server, expected) in [
        ("tracker", (0, "created no heating")),
        ("tracker-stdio", (1, "no rule over mcp:tracker-stdio/client")),
    ] {
        let url = format!("{base}/{server}");
        let arguments = [&[&url[..]], &question[..]].concat();
        setup.check_client(&setup.token, &arguments, expected);
    }
}
