//! Sites of MCP servers, and the metadata of their authorisation.

use super::{McpSetup, call, policy, server};
use crate::{
    forward::upstream::{HttpUpstream, reply},
    http::client::{Http, HttpReply},
    world::soon,
};
use dialback::{AgentPolicy, Site};

async fn with_site(upstream: &HttpUpstream) -> McpSetup {
    let name = |text: &str| text.parse().expect("a name");
    let host = "jira.test".parse().expect("a host");
    let site = Site::new(host, name("warehouse"), name("jira")).mcp().public(name("dev"));
    let forward = server(&format!("{}/api/mcp/", upstream.url()));
    McpSetup::with(forward, policy(), AgentPolicy::default(), |gateway| gateway.site(site)).await
}

impl McpSetup {
    async fn at_site(&self, verb: &str, path: &str, rest: &str) -> HttpReply {
        let mut http = Http::connect(self.gateway.local_addr()).await;
        http.send(format!("{verb} {path} HTTP/1.1\r\nhost: jira.test\r\n{rest}\r\n")).await;
        soon("a response", http.reply()).await.expect("a response")
    }
}

#[tokio::test]
async fn the_path_of_a_site_is_the_server_whatever_its_own_path_is() {
    let upstream = super::tracker().await;
    let setup = with_site(&upstream).await;
    let body = call("get_issue").to_string();
    let length = body.len();
    for path in ["/mcp", "/", "/mcp/"] {
        let mut http = Http::connect(setup.gateway.local_addr()).await;
        http.send(format!(
            "POST {path} HTTP/1.1\r\nhost: jira.test\r\ncontent-type: application/json\r\n\
             authorization: Bearer of-the-server\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
        let answer = soon("a response", http.reply()).await.expect("a response");
        assert_eq!(answer.status, 200, "{path}");
    }
    for seen in upstream.seen() {
        assert!(seen.head.starts_with("POST /api/mcp/ HTTP/1.1\r\n"), "{}", seen.head);
        // On a public site it is the server's.
        assert_eq!(seen.header("authorization"), Some("Bearer of-the-server"));
        assert_eq!(seen.header("host"), Some(&upstream.address().to_string()[..]));
    }
    assert_eq!(setup.at_site("GET", "/other", "").await.status, 404);
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn the_metadata_of_authorisation_pass_unchanged() {
    let document = r#"{"resource":"https://jira.test/mcp","tools":[{"name":"x"}]}"#;
    let head = [("content-type", "application/json")];
    let upstream = HttpUpstream::answering(reply("200 OK", &head, document)).await;
    let setup = with_site(&upstream).await;
    for path in
        ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"]
    {
        let answer = setup.at_site("GET", path, "").await;
        assert_eq!((answer.status, answer.text()), (200, document), "{path}");
        let seen = upstream.seen().pop().expect("a request");
        assert!(seen.head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{}", seen.head);
    }
    let path = "/.well-known/oauth-protected-resource/v1/agents/warehouse/mcp/jira";
    let headers = [("authorization", "Bearer ops")];
    let at = setup.gateway.local_addr();
    let answer = soon("a response", Http::once(at, "GET", path, &headers, b"")).await;
    assert_eq!(answer.text(), document);
    assert_eq!(
        setup.at_site("DELETE", "/.well-known/oauth-protected-resource", "").await.status,
        405
    );
}
