//! The admin listener: metrics of a node and its agent, and who may read them.

use crate::{
    http::client::{Http, HttpReply},
    world::{Setup, World, soon, spawn, until},
};
use dialback::{Admin, AdminError, ConfigUpdate};
use std::net::SocketAddr;

const ANY_PORT: &str = "127.0.0.1:0";

async fn get(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> HttpReply {
    soon("an answer", Http::once(at, "GET", path, headers, b"")).await
}

/// The value of one series, as `dialback_links{role="agent"}`; 0 if there is none.
async fn value(at: SocketAddr, series: &str) -> f64 {
    let reply = get(at, "/metrics", &[]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = reply.text().to_owned();
    let of_series = |line: &str| Some(line.strip_prefix(series)?.strip_prefix(' ')?.to_owned());
    text.lines().find_map(of_series).map_or(0.0, |number| number.parse().expect("a number"))
}

async fn reaches(at: SocketAddr, series: &str, expected: f64) {
    let reached = async {
        while value(at, series).await != expected {
            tokio::task::yield_now().await;
        }
    };
    soon(series, reached).await;
}

struct Watched {
    setup: Setup,
    node: SocketAddr,
    agent: SocketAddr,
}

impl Watched {
    async fn open() -> Self {
        let setup = Setup::open().await;
        let node = Admin::of_node(&setup.node, ANY_PORT).await.expect("a listener").local_addr();
        let agent = Admin::of_agent(&setup.agent, ANY_PORT).await.expect("a listener");
        Self { setup, node, agent: agent.local_addr() }
    }
}

#[tokio::test]
async fn calls_are_counted_when_they_begin_and_by_how_they_end() {
    let Watched { setup, node, agent } = Watched::open().await;
    let callee = setup.by_caller();
    let reply: String = callee.call("Stage/Note", "a").await.expect("a reply");
    assert_eq!(reply, "a");
    callee.call::<()>("Stage/Fail", "b").await.expect_err("a failure");
    let held = spawn({
        let callee = callee.clone();
        async move { callee.call::<String>("Stage/Hold", "c").await }
    });
    setup.stage.started("c").await;
    for at in [node, agent] {
        let calls = "dialback_calls_total";
        let of = |code: &str, outcome: &str| {
            format!("{calls}{{kind=\"unary\",code=\"{code}\",outcome=\"{outcome}\"}}")
        };
        reaches(at, &of("NOT_FOUND", "app_error"), 1.0).await;
        reaches(at, &of("OK", "ok"), 1.0).await;
        reaches(at, "dialback_calls_in_flight{kind=\"unary\"}", 1.0).await;
        reaches(at, "dialback_calls_started_total{kind=\"unary\"}", 3.0).await;
        let durations = "dialback_call_duration_seconds";
        reaches(at, &format!("{durations}_count{{kind=\"unary\"}}"), 2.0).await;
        reaches(at, &format!("{durations}_bucket{{le=\"+Inf\",kind=\"unary\"}}"), 2.0).await;
    }
    setup.stage.open();
    soon("the held call", held).await.expect("a reply");
    for at in [node, agent] {
        reaches(at, "dialback_calls_in_flight{kind=\"unary\"}", 0.0).await;
    }
}

#[tokio::test]
async fn links_refusals_and_updates_are_counted() {
    let Watched { setup, node, agent } = Watched::open().await;
    assert_eq!(value(node, "dialback_links{role=\"agent\"}").await, 1.0);
    assert_eq!(value(node, "dialback_links{role=\"caller\"}").await, 1.0);
    assert_eq!(value(agent, "dialback_links{role=\"node\"}").await, 1.0);
    let at = setup.node.local_addr();
    World::new().caller("ops", at).connect().await.expect_err("another CA");
    reaches(node, "dialback_handshakes_refused_total", 1.0).await;
    setup.node.apply(ConfigUpdate::default()).await.expect("it applies");
    assert_eq!(value(node, "dialback_configs_applied_total").await, 1.0);
    drop(setup.caller);
    reaches(node, "dialback_links{role=\"caller\"}", 0.0).await;
    assert_eq!(value(node, "dialback_links_opened_total{role=\"caller\"}").await, 1.0);
    let ends = value(node, "dialback_certificate_expiry_timestamp_seconds").await;
    assert!(ends > value(node, "dialback_start_timestamp_seconds").await);
    setup.node.shutdown().await;
    until("it ends with its node", || std::net::TcpStream::connect(node).is_err()).await;
}

#[tokio::test]
async fn metrics_come_as_prometheus_text_or_as_openmetrics() {
    let watched = Watched::open().await;
    let node = watched.node;
    let plain = get(node, "/metrics", &[("accept", "text/plain, */*")]).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.text().contains("# TYPE dialback_links_opened_total counter\n"));
    assert!(!plain.text().contains("# EOF") && !plain.text().contains("# UNIT"));
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let open = get(node, "/metrics", &accept).await;
    assert!(open.header("content-type").is_some_and(|one| one.starts_with(&accept[0].1[..28])));
    assert!(open.text().contains("# TYPE dialback_links_opened counter\n"));
    assert!(open.text().ends_with("# EOF\n"));
    assert_eq!(get(node, "/healthz", &[]).await.text(), "ok\n");
}

#[tokio::test]
async fn other_machines_pages_of_other_sites_and_writes_are_refused() {
    let Watched { setup, node, .. } = Watched::open().await;
    for host in ["rebound.example", "192.0.2.1:9433"] {
        assert_eq!(get(node, "/metrics", &[("host", host)]).await.status, 403, "{host:?}");
    }
    for host in ["localhost:9433", "127.0.0.1", "[::1]:1"] {
        assert_eq!(get(node, "/metrics", &[("host", host)]).await.status, 200, "{host:?}");
    }
    let post = Http::once(node, "POST", "/metrics", &[], b"x");
    assert_eq!(soon("an answer", post).await.status, 405);
    assert_eq!(get(node, "/metric", &[]).await.status, 404);
    for outside in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9433"] {
        let refused = Admin::of_node(&setup.node, outside).await.expect_err("not on loopback");
        assert!(matches!(refused, AdminError::NotLoopback { .. }), "{refused}");
    }
    let refused = Admin::of_node(&setup.node, "localhost:9433").await.expect_err("a name");
    assert!(matches!(refused, AdminError::Address(_)), "{refused}");
    let refused = Admin::of_node(&setup.node, node).await.expect_err("in use");
    assert!(refused.to_string().contains("choose another address with --admin"), "{refused}");
}
