//! The admin listener: metrics of a node and its agent, and who may read them.

use crate::{
    http::client::{Http, HttpReply},
    world::{Setup, Stage, World, check_status, soon, spawn, until},
};
use dialback::{
    Admin, AdminAddress, AdminError, AdminListen, Agent, AgentPolicy, AgentRule, AllowRule, Callee,
    Code, ConfigUpdate, HttpForward, Limits, Node, NodePolicy, Outcome, TcpForward, Upstream,
};
use std::{net::SocketAddr, time::Duration};

const ANY_PORT: &str = "127.0.0.1:0";

fn listen(text: &str) -> AdminListen {
    AdminListen::new(text.parse().expect("an address"))
}

fn port_of(admin: &Admin) -> SocketAddr {
    let AdminAddress::Tcp(address) = admin.address() else { panic!("{}", admin.address()) };
    *address
}

/// The admin listener of a node, which ends with it.
pub(crate) async fn of_node(node: &Node) -> SocketAddr {
    port_of(&Admin::of_node(node, &listen(ANY_PORT)).await.expect("a listener"))
}

async fn of_agent(agent: &Agent) -> SocketAddr {
    port_of(&Admin::of_agent(agent, &listen(ANY_PORT)).await.expect("a listener"))
}

pub(crate) async fn get(at: SocketAddr, path: &str, headers: &[(&str, &str)]) -> HttpReply {
    soon("an answer", Http::once(at, "GET", path, headers, b"")).await
}

/// The value of one series, as `dialback_links{role="agent"}`; 0 if there is none.
pub(crate) async fn value(at: SocketAddr, series: &str) -> f64 {
    let reply = get(at, "/metrics", &[]).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let text = reply.text().to_owned();
    let of_series = |line: &str| Some(line.strip_prefix(series)?.strip_prefix(' ')?.to_owned());
    text.lines().find_map(of_series).map_or(0.0, |number| number.parse().expect("a number"))
}

/// Checks that every call of a node that nobody calls any more has ended, by its metrics.
pub(crate) async fn expect_all_ended(node: &Node) {
    let reply = get(of_node(node).await, "/metrics", &[]).await;
    let sum = |family: &str| {
        let of_family = |line: &str| line.split_once('{').is_some_and(|(name, _)| name == family);
        let values = reply.text().lines().filter(|line| of_family(line));
        values
            .map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("one"))
            .sum::<f64>()
    };
    let started = sum("dialback_calls_started_total");
    assert!(started > 0.0);
    assert_eq!((started, sum("dialback_calls_in_flight")), (sum("dialback_calls_total"), 0.0));
}

/// The number of series.
pub(crate) async fn series_of(at: SocketAddr) -> usize {
    let reply = get(at, "/metrics", &[]).await;
    reply.text().lines().filter(|line| !line.starts_with('#')).count()
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
        let (node, agent) = (of_node(&setup.node).await, of_agent(&setup.agent).await);
        Self { setup, node, agent }
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
    reaches(node, "dialback_handshakes_refused_total{reason=\"certificate\"}", 1.0).await;
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
        let refused = Admin::of_node(&setup.node, &listen(outside)).await;
        let refused = refused.expect_err("not on loopback");
        assert!(matches!(refused, AdminError::NotLoopback { .. }), "{refused}");
    }
    let refused = Admin::of_node(&setup.node, &listen(&node.to_string())).await;
    let refused = refused.expect_err("in use");
    assert!(refused.to_string().contains("choose another address with --admin"), "{refused}");
}

async fn json(at: SocketAddr, path: &str) -> serde_json::Value {
    get(at, path, &[]).await.json()
}

/// What `/readyz` of an agent says about one service.
async fn is_ready(agent: SocketAddr, service: &str) -> bool {
    let readiness = json(agent, "/readyz").await;
    assert_eq!(readiness["ready"], true, "a service does not make its agent unready");
    readiness["services"][service]["ready"].as_bool().expect("a service")
}

async fn becomes(what: &str, agent: SocketAddr, service: &str, expected: bool) {
    let changed = async {
        while is_ready(agent, service).await != expected {
            tokio::task::yield_now().await;
        }
    };
    soon(what, changed).await;
}

/// An agent with forwards to ports where nobody listens yet.
struct Forwards {
    world: World,
    node: Node,
    agent: Agent,
    admin: SocketAddr,
    upstreams: Vec<SocketAddr>,
}

impl Forwards {
    async fn open() -> Self {
        let world = World::new();
        let node = world.node().start().await.expect("a node");
        let free = [(); 3].map(|()| std::net::TcpListener::bind(ANY_PORT).expect("a port"));
        let upstreams: Vec<_> =
            free.iter().map(|free| free.local_addr().expect("an address")).collect();
        drop(free);
        let name = |text: &str| text.parse().expect("a name");
        let upstream = |at: usize| upstreams[at].to_string();
        let passive: Upstream = upstream(0).parse().expect("an upstream");
        let active: Upstream = upstream(1).parse().expect("an upstream");
        let url = format!("http://{}", upstreams[2]).parse().expect("a URL");
        let http = HttpForward::new(name("web"), url, None).expect("a forward");
        let agent = world
            .agent("warehouse", node.local_addr())
            .tcp(TcpForward::new(name("passive"), passive))
            .tcp(TcpForward::new(name("active"), active).checked())
            .http(http.check("GET /up".parse().expect("a check")))
            .start()
            .expect("an agent");
        agent.registered(1).await;
        let admin = of_agent(&agent).await;
        Self { world, node, agent, admin, upstreams }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_unready_while_its_upstream_is_down_and_its_agent_is_not() {
    let Forwards { world: _world, node, agent: _agent, admin, upstreams } = Forwards::open().await;
    assert!(is_ready(admin, "tcp:passive").await, "no call has failed");
    assert!(!is_ready(admin, "tcp:active").await);
    assert!(!is_ready(admin, "http:web").await);
    let callee = node.agent("warehouse").handle().expect("a name");
    let dialled = callee.tcp("passive").await;
    dialled.expect_err("nobody listens");
    assert!(!is_ready(admin, "tcp:passive").await);
    let listeners = upstreams[..2].iter().map(std::net::TcpListener::bind);
    let _listening: Vec<_> = listeners.map(|bound| bound.expect("a listener")).collect();
    becomes("the upstream is back", admin, "tcp:passive", true).await;
    becomes("the upstream is back", admin, "tcp:active", true).await;
    assert!(!is_ready(admin, "http:web").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_handler_hangs_is_unready_until_a_call_succeeds() {
    let Watched { setup, agent, .. } = Watched::open().await;
    let callee = setup.by_caller();
    for _ in 0..3 {
        assert!(is_ready(agent, "Stage").await);
        let held = callee.call::<String>("Stage/Hold", "a").timeout(Duration::from_millis(50));
        held.await.expect_err("its deadline passes");
        until("it has ended", || setup.node.agents()[0].calls_in_flight == 0).await;
    }
    becomes("it hangs", agent, "Stage", false).await;
    let status = json(agent, "/api/v1/status").await;
    assert_eq!(status["last_failures"][0]["method"], "Stage/Hold", "{status}");
    assert_eq!(status["last_failures"][0]["code"], "DEADLINE_EXCEEDED");
    callee.call::<String>("Stage/Note", "b").await.expect("a reply");
    becomes("it answers", agent, "Stage", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_node_shows_links_failures_and_refusals() {
    let Watched { setup, node, agent } = Watched::open().await;
    assert_eq!(json(node, "/readyz").await["ready"], true);
    let ops_only =
        NodePolicy::default().allow(AllowRule::parse("ops", "**", "*/*").expect("a rule"));
    setup
        .node
        .apply(ConfigUpdate { policy: Some(ops_only), ..ConfigUpdate::default() })
        .await
        .expect("it applies");
    let callee = setup.by_caller();
    callee.call::<()>("Stage/Fail", "b").await.expect_err("a failure");
    let intern = setup.world.caller("intern", setup.node.local_addr());
    let intern = intern.connect().await.expect("a link");
    let refused = intern.agent("warehouse").expect("a name").call::<()>("Stage/Note", "c");
    refused.await.expect_err("no rule");
    let status = json(node, "/api/v1/status").await;
    assert_eq!(status["role"], "node");
    assert_eq!(status["state"], "running");
    assert_eq!(status["calls_in_flight"], 0);
    assert_eq!(status["last_minute"]["failed"], 2, "{status}");
    let links = status["links"].as_array().expect("links");
    let peers: Vec<_> = links.iter().filter_map(|link| link["peer"].as_str()).collect();
    assert_eq!(peers, ["agent/warehouse", "caller/intern", "caller/ops"]);
    assert!(links.iter().all(|link| link["rtt_ms"].as_f64().expect("a number") > 0.0));
    assert_eq!(status["last_failures"][1]["caller"], "caller/ops");
    assert_eq!(status["last_failures"][1]["code"], "NOT_FOUND");
    assert_eq!(status["refusals"][0]["who"], "caller/intern");
    assert_eq!(status["link_changes"][0]["peer"], "caller/intern");
    assert!(status["certificate"]["days_left"].as_i64().expect("days") > 0);
    // A node that stops says so while it drains, and an agent that has lost it too.
    let held = spawn({
        let callee = setup.by_caller();
        async move { callee.call::<String>("Stage/Hold", "d").await }
    });
    setup.stage.started("d").await;
    let stopping = spawn(setup.node.shutdown());
    let unready = async {
        while json(node, "/readyz").await["ready"] != false {
            tokio::task::yield_now().await;
        }
    };
    soon("the node drains", unready).await;
    assert_eq!(get(node, "/readyz", &[]).await.status, 503);
    assert_eq!(json(node, "/api/v1/status").await["state"], "draining");
    setup.stage.open();
    drop(soon("the held call", held).await);
    soon("the node stops", stopping).await;
    until("the agent knows", || setup.agent.nodes().is_empty()).await;
    let readiness = json(agent, "/readyz").await;
    assert_eq!(readiness["reasons"], serde_json::json!(["it is registered on no node"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_pass_no_rule_and_are_no_calls() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let nothing =
        AgentPolicy::default().allow(AgentRule::parse("none", "none", "S/M").expect("a rule"));
    let agent = world.agent("warehouse", node.local_addr()).policy(nothing).start();
    let agent = agent.expect("an agent");
    agent.registered(1).await;
    let at = of_node(&node).await;
    assert!(agent.readiness().await.ready);
    assert_eq!(value(at, "dialback_calls_started_total{kind=\"unary\"}").await, 0.0);
    // A caller's is a call, which a rule has to allow.
    let caller = world.caller("ops", node.local_addr()).connect().await.expect("a link");
    let callee = caller.agent("warehouse").expect("a name");
    let refused = callee.call::<()>("dialback.v1.Agent/Probe", &()).await;
    check_status(refused, Code::PermissionDenied, Outcome::NotExecuted);
    let refused = caller.node().call::<()>("dialback.v1.Directory/Probe", &()).await;
    check_status(refused, Code::InvalidArgument, Outcome::AppError);
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_limits_bytes_and_handlers_are_counted() {
    let world = World::new();
    let limits = Limits { calls_in_flight_max: 1, queue_max: 1, ..Limits::default() };
    let node = world.node().limits(limits).start().await.expect("a node");
    let stage = Stage::default();
    let agent = world.agent("warehouse", node.local_addr()).serve(stage.service()).start();
    let agent = agent.expect("an agent");
    agent.registered(1).await;
    let at = of_node(&node).await;
    let at_agent = of_agent(&agent).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let callee: &Callee = handle.as_ref();
    let hold = |id: &'static str| spawn(callee.call::<String>("Stage/Hold", id).into_future());
    let held = hold("a");
    stage.started("a").await;
    let waiting = hold("b");
    reaches(at, "dialback_calls_waiting", 1.0).await;
    let refused = callee.call::<String>("Stage/Note", "c").await;
    check_status(refused, Code::ResourceExhausted, Outcome::NotExecuted);
    assert_eq!(value(at, "dialback_calls_limited_total").await, 1.0);
    stage.open();
    for call in [held, waiting] {
        soon("a held call", call).await.expect("a reply");
    }
    assert_eq!(value(at, "dialback_calls_waiting").await, 0.0);
    assert_eq!(value(at, "dialback_call_wait_duration_seconds_count").await, 1.0);
    for direction in ["in", "out"] {
        let series =
            format!("dialback_call_bytes_total{{kind=\"unary\",direction=\"{direction}\"}}");
        assert!(value(at, &series).await >= 4.0, "two texts of a letter each");
    }
    reaches(at_agent, "dialback_handler_duration_seconds_count", 2.0).await;
    assert_eq!(value(at, "dialback_handler_duration_seconds_count").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_measured_and_the_process_is_shown() {
    let Watched { setup, node, agent } = Watched::open().await;
    let callee = setup.by_caller();
    callee.call::<String>("Stage/Note", "a").await.expect("a reply");
    for (at, role) in [(node, "agent"), (node, "caller"), (agent, "node")] {
        for measure in ["rtt_seconds", "congestion_window_bytes", "mtu_bytes"] {
            let series = format!("dialback_link_{measure}{{role=\"{role}\",stat=\"median\"}}");
            assert!(value(at, &series).await > 0.0, "{series}");
        }
        let by_path = format!("dialback_links_by_path{{role=\"{role}\",path=\"udp\"}}");
        assert_eq!(value(at, &by_path).await, 1.0);
    }
    let sent = value(node, "dialback_link_packets_sent_total").await;
    assert!(sent > 0.0 && value(node, "dialback_link_received_bytes_total").await > 1_000.0);
    drop((callee, setup.caller));
    reaches(node, "dialback_links{role=\"caller\"}", 0.0).await;
    let after = value(node, "dialback_link_packets_sent_total").await;
    assert!(after >= sent, "links that have ended count: {after}, {sent}");
    if cfg!(target_os = "linux") {
        assert!(value(node, "process_resident_memory_bytes").await > 100_000.0);
        assert!(value(node, "process_open_fds").await > 1.0);
    }
    assert_eq!(value(node, "dialback_audit_lines_lost_total").await, 0.0);
    assert!(value(node, "dialback_crl_expiry_timestamp_seconds").await >= 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_page_itself_asks_for_a_drain_and_only_where_the_program_takes_it() {
    let setup = Setup::open().await;
    let admin = Admin::of_node(&setup.node, &listen(ANY_PORT)).await.expect("a listener");
    let at = port_of(&admin);
    let page = get(at, "/", &[]).await;
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
    let text = page.text();
    let token = text.split("name=\"dialback-token\" content=\"").nth(1).expect("a token");
    let token = token.split('"').next().expect("its end").to_owned();
    let ask = async |token: &str, method: &str| {
        let headers = [("dialback-token", token)];
        soon("an answer", Http::once(at, method, "/api/v1/drain", &headers, b"")).await.status
    };
    assert_eq!(ask(&token, "POST").await, 404, "the program does not take it");
    let requested = spawn(admin.drain_requested());
    assert_eq!(ask(&token, "GET").await, 405);
    assert_eq!(ask("", "POST").await, 403);
    assert_eq!(ask(&token[1..], "POST").await, 403);
    assert!(!requested.is_finished());
    assert_eq!(ask(&token, "POST").await, 202);
    soon("the request", requested).await;
    let events = get(at, "/page.js", &[]).await;
    assert_eq!(events.header("content-type"), Some("text/javascript"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_peers_are_labels_only_where_that_is_asked_for() {
    let setup = Setup::open().await;
    let plain = of_node(&setup.node).await;
    let callee = setup.by_caller();
    callee.call::<String>("Stage/Note", "a").await.expect("a reply");
    assert!(!get(plain, "/metrics", &[]).await.text().contains("warehouse"));
    let named = Admin::of_node(&setup.node, &listen(ANY_PORT).peer_labels()).await;
    let named = port_of(&named.expect("a listener"));
    callee.call::<String>("Stage/Note", "b").await.expect("a reply");
    callee.call::<()>("Stage/Fail", "c").await.expect_err("a failure");
    for series in
        ["agent_calls_total{agent=\"agent/warehouse\"", "caller_calls_total{caller=\"caller/ops\""]
    {
        for result in ["ok", "failed"] {
            reaches(named, &format!("dialback_{series},result=\"{result}\"}}"), 1.0).await;
        }
    }
}

/// Names of metrics in the expressions of alerting rules, without the part of a histogram.
fn metrics_of(rules: &str) -> std::collections::BTreeSet<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Texts for people, and names of alerts, are no metrics.
    let lines = rules.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(|line| line.split(move |c| !is_word(c)));
    words
        .filter(|word| word.starts_with("dialback_") || word.starts_with("process_"))
        .map(|name| name.trim_end_matches("_bucket"))
        .collect()
}

#[tokio::test]
async fn every_metric_of_the_alerting_rules_is_exposed_and_every_alert_has_a_remedy() {
    let rules = include_str!("../../deploy/prometheus/alerts.yml");
    let Watched { setup, node, agent } = Watched::open().await;
    setup.by_caller().call::<String>("Stage/Note", "a").await.expect("a reply");
    let mut exposed = String::new();
    for at in [node, agent] {
        exposed += get(at, "/metrics", &[]).await.text();
    }
    let is_exposed = |name: &&&str| {
        exposed.lines().any(|line| {
            line.strip_prefix("# TYPE ").is_some_and(|rest| rest.split(' ').next() == Some(**name))
        })
    };
    let names = metrics_of(rules);
    assert!(names.len() > 10, "{names:?}");
    let missing: Vec<_> = names.iter().filter(|name| !is_exposed(name)).collect();
    // A process without a revocation list has no end of one.
    assert_eq!(missing, [&"dialback_crl_expiry_timestamp_seconds"]);
    let remedies = include_str!("../../docs/operations.md").split("\n## Alerts").nth(1);
    let remedies = remedies.expect("a section").split("\n## ").next().expect("its end");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let named: Vec<_> =
        alerts.filter(|alert| !remedies.contains(&format!("| `{alert}` |"))).collect();
    assert!(named.is_empty(), "docs/operations.md, Alerts, lacks {named:?}");
}
