//! Forwards below a path of the gateway, and the rules on verbs and paths.

use super::{SiteSetup, TOKEN, forward, policy, rule};
use crate::{
    forward::upstream::{HttpUpstream, reply},
    world::attached,
};
use dialback::{
    AgentPolicy, NodePolicy,
    policy::{AgentRule, DenyRule, HttpScope},
};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {TOKEN}\r\n\r\n")
}

#[tokio::test]
async fn the_rest_of_the_path_goes_to_the_upstream_and_its_places_are_moved() {
    let lines = [("location", "/login"), ("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2")];
    let upstream = HttpUpstream::answering(reply("302 Found", &lines, "")).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let answer = setup.raw(get("/v1/agents/warehouse/http/web/a/b?c=d")).await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), Some("/v1/agents/warehouse/http/web/login"));
    let seen = upstream.only();
    assert!(seen.head.starts_with("GET /a/b?c=d HTTP/1.1\r\n"), "{}", seen.head);
    assert_eq!(seen.header("x-forwarded-prefix"), Some("/v1/agents/warehouse/http/web"));
    assert_eq!(seen.header("host"), Some(upstream.address().to_string().as_str()));
}

#[tokio::test]
async fn the_path_of_a_forward_itself_is_redirected_to_its_directory() {
    let upstream = HttpUpstream::answering(reply("200 OK", &[], "hello")).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let answer = setup.raw(get("/v1/agents/warehouse/http/web?x")).await;
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("/v1/agents/warehouse/http/web/?x"));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_below_a_path() {
    let upstream = HttpUpstream::answering(reply("200 OK", &[], "hello")).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let request = get("/v1/agents/warehouse/http/web/");
    let request = request.replace("\r\n\r\n", "\r\norigin: https://evil.example\r\n\r\n");
    assert_eq!(setup.raw(request).await.status, 403);
    assert!(upstream.seen().is_empty());
}

fn scope(verbs: &[&str], paths: &[&str]) -> HttpScope {
    HttpScope::parse(verbs, paths).expect("a scope")
}

/// Status and outcome of a request of `ops` at this site.
async fn asked(setup: &SiteSetup, host: &str, request: &str) -> (u16, String) {
    let lines = format!("host: {host}\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0");
    let answer = setup.raw(format!("{request} HTTP/1.1\r\n{lines}\r\n\r\n")).await;
    (answer.status, answer.header("dialback-outcome").unwrap_or("ok").to_owned())
}

#[tokio::test]
async fn rules_of_the_node_name_verbs_and_paths() {
    let upstream = HttpUpstream::answering(reply("200 OK", &[], "hello")).await;
    let mut allowed = rule("ops", "http:web");
    allowed.http = scope(&["GET", "HEAD"], &["/api"]);
    let mut denied = DenyRule::parse("ops", "**", "http:web").expect("a rule");
    denied.http = scope(&[], &["/api/private/**"]);
    let rules = NodePolicy { host: policy().host, ..NodePolicy::default() };
    let rules = rules.allow(allowed).deny(denied);
    let setup = SiteSetup::with(forward(&upstream.url()), rules, |gateway| gateway).await;
    let refused = (403, "not_executed".to_owned());
    for host in ["web.test", "any.test"] {
        for good in ["GET /api/x", "HEAD /api", "GET /api/./y/../x"] {
            assert_eq!(asked(&setup, host, good).await.0, 200, "{host}: {good}");
        }
        let before = upstream.seen().len();
        for bad in ["POST /api/x", "GET /other", "GET /apix", "GET /api/../other"] {
            assert_eq!(asked(&setup, host, bad).await, refused, "{host}: {bad}");
        }
        for bad in ["GET /api/private/x", "GET /api//private/x", "GET /api/%70rivate/x"] {
            let answer = asked(&setup, host, bad).await;
            // By service no agent is left that may answer.
            assert!(matches!(answer.0, 403 | 503) && answer.1 == "not_executed", "{host}: {bad}");
        }
        assert_eq!(upstream.seen().len(), before, "nothing of these was sent");
    }
}

#[tokio::test]
async fn the_owner_of_an_agent_limits_verbs_and_paths_too() {
    let upstream = HttpUpstream::answering(reply("200 OK", &[], "hello")).await;
    let setup = SiteSetup::to(&upstream.url()).await;
    let mut owner = AgentRule::parse("*", "ops", "http:web").expect("a rule");
    owner.http = scope(&["GET"], &[]);
    let node = setup.node.local_addr();
    let by_rule = setup.world.agent("by-rule", node).policy(AgentPolicy::default().allow(owner));
    let _by_rule = attached(by_rule.http(forward(&upstream.url()))).await;
    let limited = forward(&upstream.url()).scope(scope(&["GET"], &["/a"]));
    let _limited = attached(setup.world.agent("limited", node).http(limited)).await;
    for (agent, request, status) in [
        ("by-rule", "GET", 200),
        ("by-rule", "DELETE", 403),
        ("limited", "GET", 200),
        ("limited", "DELETE", 403),
    ] {
        let line = format!("{request} /v1/agents/{agent}/http/web/a");
        assert_eq!(asked(&setup, "gateway", &line).await.0, status, "{agent} {request}");
    }
    assert_eq!(asked(&setup, "gateway", "GET /v1/agents/limited/http/web/b").await.0, 403);
    assert_eq!(upstream.seen().len(), 2);
}
