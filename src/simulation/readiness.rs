//! Tests of readiness, on links that are up and carry nothing.

use super::*;
use crate::limits::PROBE_AGE_MAX;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn an_agent_whose_link_carries_nothing_is_unready_within_ten_seconds_and_ready_again_after() {
    let scene = Scene::open().await;
    let (agent, net) = (&scene.agent, &scene.world.net);
    assert!(agent.readiness().await.ready);
    net.set_down(true);
    let began = Instant::now();
    let reasons = loop {
        let readiness = agent.readiness().await;
        if !readiness.ready {
            break readiness.reasons;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(began.elapsed() < PROBE_AGE_MAX + Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(reasons[0].contains("answers no probe"), "{reasons:?}");
    assert_eq!(agent.nodes().len(), 1, "the link still counts as up");
    tokio::time::sleep(MINUTE).await;
    assert_eq!(agent.readiness().await.reasons, ["it is registered on no node"]);
    net.set_down(false);
    agent.registered(1).await;
    assert!(agent.readiness().await.ready);
}

#[tokio::test(start_paused = true)]
async fn an_agent_and_a_node_that_stop_are_unready() {
    let scene = Scene::open().await;
    assert!(scene.node.readiness().ready);
    let Scene { node, agent, .. } = scene;
    let stopping = tokio::join!(node.shutdown(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        agent.readiness().await
    });
    assert_eq!(stopping.1.reasons, ["it is registered on no node"]);
}

#[tokio::test(start_paused = true)]
async fn expired_certificates_make_their_owners_unready_until_there_are_new_ones() {
    let scene = Scene::open().await;
    scene.world.net.set_clock_ahead(100 * 24 * HOUR);
    for reasons in [scene.node.readiness().reasons, scene.agent.readiness().await.reasons] {
        assert!(reasons[0].contains("expired"), "{reasons:?}");
    }
    scene.world.net.set_clock_ahead(Duration::ZERO);
    assert!(scene.node.readiness().ready);
}
