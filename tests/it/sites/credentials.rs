//! Credentials of sites, beside those that are meant for the upstream.

use super::{SiteSetup, TOKEN, answering, forward, policy, rule};
use crate::{forward::upstream::reply, world::attached};
use dialback::{AgentPolicy, NodePolicy, policy::AgentRule};

/// `Basic` with a user and the token, and with a wrong token.
const BASIC: &str = "Basic dTpnb29kLXRva2VuLW9mLW9wcw==";

fn get(host: &str, line: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: {host}\r\n{line}\r\n\r\n")
}

#[tokio::test]
async fn a_token_is_taken_as_bearer_or_as_password_and_not_passed_on() {
    let (upstream, setup) = answering(reply("200 OK", &[], "hello")).await;
    for line in [format!("authorization: Bearer {TOKEN}"), format!("authorization: {BASIC}")] {
        let answer = setup.raw(get("web.test", &line)).await;
        assert_eq!(answer.status, 200, "{line}");
    }
    let line = format!("dialback-authorization: Bearer {TOKEN}\r\nauthorization: Basic eDp5");
    assert_eq!(setup.raw(get("web.test", &line)).await.status, 200);
    let seen: Vec<_> = upstream.seen();
    let credentials: Vec<_> = seen.iter().map(|seen| seen.header("authorization")).collect();
    assert_eq!(credentials, [None, None, Some("Basic eDp5")]);
    assert!(seen.iter().all(|seen| seen.header("dialback-authorization").is_none()));
    assert!(seen.iter().all(|seen| seen.header("dialback-caller") == Some("caller/ops")));
}

#[tokio::test]
async fn a_site_that_is_not_public_asks_for_a_credential() {
    let (upstream, setup) = answering(reply("200 OK", &[], "hello")).await;
    for line in ["x: 1", "authorization: Bearer wrong", "authorization: Basic eDp5"] {
        let answer = setup.raw(get("web.test", line)).await;
        assert_eq!((answer.status, answer.outcome()), (401, "not_executed"), "{line}");
        assert!(answer.header("www-authenticate").is_some(), "{line}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_public_site_passes_the_credential_of_its_upstream() {
    let (upstream, setup) = answering(reply("200 OK", &[], "hello")).await;
    let answer = setup.raw(get("open.test", "authorization: Bearer of-the-upstream")).await;
    assert_eq!(answer.status, 200);
    let seen = upstream.only();
    assert_eq!(seen.header("authorization"), Some("Bearer of-the-upstream"));
    assert_eq!(seen.header("dialback-caller"), Some("caller/everybody"));
}

#[tokio::test]
async fn rules_of_node_and_agent_decide() {
    let upstream = crate::forward::upstream::HttpUpstream::answering(reply("200 OK", &[], "hello"));
    let upstream = upstream.await;
    let denied = NodePolicy::default().allow(rule("ops", "*/*")).allow(rule("ops", "http:other"));
    let setup = SiteSetup::with(forward(&upstream.url()), denied, |gateway| gateway).await;
    let token = format!("authorization: Bearer {TOKEN}");
    let answer = setup.raw(get("web.test", &token)).await;
    assert_eq!((answer.status, answer.outcome()), (403, "not_executed"));
    drop(setup.agent);
    let owner = AgentRule::parse("*", "billing", "http:web").expect("a rule");
    let setup = SiteSetup::with(forward(&upstream.url()), policy(), |gateway| gateway).await;
    let agent = setup.world.agent("kiosk", setup.node.local_addr());
    let agent = agent.http(forward(&upstream.url())).policy(AgentPolicy::default().allow(owner));
    let _agent = attached(agent).await;
    let path = format!("GET /v1/agents/kiosk/http/web/ HTTP/1.1\r\nhost: a\r\n{token}\r\n\r\n");
    let answer = setup.raw(path).await;
    assert_eq!((answer.status, answer.outcome()), (403, "not_executed"));
    assert!(upstream.seen().is_empty());
}
