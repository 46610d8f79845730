//! Links that are cut at random points of a call.

use super::{McpSetup, events, json_reply, message, request, result, send, server};
use crate::{
    forward::upstream::{HttpUpstream, ServerAction},
    world::{Rng, attached, seed},
};
use serde_json::{Value, json};
use tokio::task::yield_now;

/// Tasks of other parts that run before a link is cut, at most.
const YIELDS_MAX: u64 = 20;

fn titled(title: &str) -> Value {
    let params = json!({ "name": "create_issue", "arguments": { "title": title } });
    request(1, "tools/call", params)
}

#[tokio::test]
async fn a_call_whose_link_is_cut_is_told_truthfully_and_never_made_twice() {
    let mut rng = Rng::new(seed(), 0);
    let upstream = HttpUpstream::start(|_| {
        ServerAction::Answers(json_reply(&result(1, json!({ "content": [] }))))
    })
    .await;
    let McpSetup { world, node, mut agent, gateway } = McpSetup::to(server(&upstream.url())).await;
    let mut told = [0; 3];
    for cut in 0..60 {
        let (title, yields) = (cut.to_string(), rng.below(YIELDS_MAX));
        let (at, body) = (gateway.local_addr(), titled(&title).to_string());
        let calling = send(at, "ops", "POST", &[], &body);
        let cutting = async {
            for _ in 0..yields {
                yield_now().await;
            }
            agent.shutdown_or_abort(std::future::ready(())).await;
        };
        let (answer, ()) = tokio::join!(calling, cutting);
        let text = answer.text();
        let answer = events(text).pop().unwrap_or_else(|| answer.json());
        let ran = upstream.seen().iter().filter(|seen| message(seen) == titled(&title)).count();
        let outcome = answer["error"]["data"]["outcome"].as_str();
        let is_true = match outcome {
            None => ran == 1,
            Some("not_executed") => ran == 0,
            Some(_) => ran <= 1,
        };
        assert!(is_true, "{cut} after {yields}: {answer}, and it ran {ran} times");
        told[match outcome {
            None => 0,
            Some("not_executed") => 1,
            Some(_) => 2,
        }] += 1;
        let again = world.agent("warehouse", node.local_addr());
        agent = attached(again.mcp(server(&upstream.url()))).await;
    }
    assert!(told[0] > 0 && told[1] + told[2] > 0, "answers, not_executed, unknown: {told:?}");
}
