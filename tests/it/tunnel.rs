//! Links through tunnels over TCP: from the start, when UDP dies, and back to UDP.

mod proxies;

use crate::{
    audit::AuditLog,
    world::{Background, Relay, Stage, World, attached, logged, soon, spawn, until},
};
use dialback::{
    AgentEvent, AgentHandle, Events, Gateway, LinkPath, Node, NodeBuilder, NodeEvent,
    PathChangeCause, PathChoice, PathSettings, Status, TunnelListen, TunnelUrl,
};
use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

fn with_tunnel(node: NodeBuilder) -> NodeBuilder {
    node.tunnel(TunnelListen::at("127.0.0.1:0"))
}

fn url(node: &Node) -> TunnelUrl {
    let at = node.tunnel_addr().expect("it listens for tunnels");
    format!("wss://{at}").parse().expect("a URL")
}

fn paths(node: &Node, choice: PathChoice) -> PathSettings {
    PathSettings::udp().choice(choice).tunnel_url(url(node))
}

fn path_of(node: &Node) -> Option<String> {
    node.agents()[0].path.clone()
}

/// The next change of a path that an agent reports: the path before, the one after, and the cause.
async fn next_change(events: &mut Events<AgentEvent>) -> (LinkPath, LinkPath, PathChangeCause) {
    let changed = async {
        loop {
            let event = events.next().await.expect("the agent runs");
            if let AgentEvent::PathChanged { node, old, new, cause } = event {
                assert_eq!(node.as_str(), "edge-1");
                return (old, new, cause);
            }
        }
    };
    soon("the agent reports a change of its path", changed).await
}

/// The next move of a link that a node reports: the paths before and after.
async fn next_move(events: &mut Events<NodeEvent>) -> [LinkPath; 2] {
    let moved = async {
        loop {
            let event = events.next().await.expect("the node runs");
            if let NodeEvent::Moved { peer, old, new, old_path, new_path } = event {
                assert!(peer.to_string() == "agent/warehouse" && old != new, "{old}, {new}");
                return [old_path, new_path];
            }
        }
    };
    soon("the node reports a move", moved).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_and_a_caller_meet_through_tunnels() {
    let (world, stage) = (World::new(), Stage::default());
    let node = with_tunnel(world.node()).start().await.expect("a node");
    let (at, mut events) = (node.local_addr(), node.events());
    let agent = world.agent("warehouse", at).paths(paths(&node, PathChoice::Tunnel));
    let agent = attached(agent.serve(stage.service())).await;
    let caller = world.caller("ops", at).paths(paths(&node, PathChoice::Tunnel)).connect().await;
    let caller = caller.expect("a caller");
    assert_eq!(path_of(&node).as_deref(), Some("tunnel"));
    let event = soon("the agent attaches", events.next()).await.expect("the node runs");
    assert!(matches!(event, NodeEvent::Attached { path: LinkPath::Tunnel, .. }), "{event:?}");
    let event = soon("the caller links", events.next()).await.expect("the node runs");
    assert!(matches!(event, NodeEvent::CallerLinked { path: LinkPath::Tunnel, .. }), "{event:?}");
    let callee = caller.agent("warehouse").expect("a name");
    for size in [1, 100_000, 2_000_000] {
        let message = "x".repeat(size);
        let call = callee.call::<String>("Stage/Note", &message).into_future();
        assert_eq!(soon("the call ends", call).await.as_ref().map(String::len), Ok(size));
    }
    let address = node.agents()[0].address.clone().expect("attached");
    assert!(address.starts_with("127.0.0.1:"), "{address} is the TCP peer's address");
    soon("the agent stops", agent.shutdown()).await;
    soon("the node stops", node.shutdown()).await;
}

/// Calls in turn until it is stopped, at about 50 a second.
struct Calls {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    task: Background<(Vec<Status>, Duration)>,
}

impl Calls {
    fn start(callee: &AgentHandle) -> Self {
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (callee, stopped, count) = (callee.clone(), stop.clone(), made.clone());
        let task = spawn(async move {
            let (mut failed, mut longest) = (Vec::new(), Duration::ZERO);
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let began = Instant::now();
                let id = count.fetch_add(1, Ordering::Relaxed).to_string();
                if let Err(status) = callee.call::<String>("Stage/Note", &id).await {
                    failed.push(status);
                }
                longest = longest.max(began.elapsed());
            }
            (failed, longest)
        });
        Self { stop, made, task }
    }

    async fn some_more(&self) {
        let before = self.made.load(Ordering::Relaxed);
        until("calls go on", || self.made.load(Ordering::Relaxed) > before + 20).await;
    }

    async fn end(self) -> (Vec<Status>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        soon("the calls end", self.task).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_udp_dies_moves_to_a_tunnel_and_back_without_losing_a_call() {
    let (world, stage, log) = (World::new(), Stage::default(), AuditLog::default());
    let node = with_tunnel(world.node()).audit(log.audit()).start().await.expect("a node");
    let relay = Relay::to(node.local_addr()).await;
    let agent = world.agent("warehouse", relay.address()).paths(paths(&node, PathChoice::Auto));
    let agent = attached(agent.serve(stage.service())).await;
    let (mut events, mut moves) = (agent.events(), node.events());
    assert_eq!(path_of(&node).as_deref(), Some("udp"));
    let handle = node.agent("warehouse").handle().expect("a name");
    let calls = Calls::start(&handle);
    calls.some_more().await;
    relay.block().await;
    until("the link is in a tunnel", || path_of(&node).as_deref() == Some("tunnel")).await;
    calls.some_more().await;
    let (udp, tunnel) = (LinkPath::Udp, LinkPath::Tunnel);
    assert_eq!(next_change(&mut events).await, (udp, tunnel, PathChangeCause::UdpSilent));
    assert_eq!(next_move(&mut moves).await, [udp, tunnel]);
    logged(&[&relay.address().to_string(), "goes on through a tunnel over TCP"]).await;
    relay.restore().await;
    until("the link is on UDP again", || path_of(&node).as_deref() == Some("udp")).await;
    calls.some_more().await;
    assert_eq!(next_change(&mut events).await, (tunnel, udp, PathChangeCause::UdpAnswers));
    assert_eq!(next_move(&mut moves).await, [tunnel, udp]);
    logged(&[&relay.address().to_string(), "the link has left its tunnel"]).await;
    let (failed, longest) = calls.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    println!("the longest call took {longest:?}");
    let there = [("peer", "agent/warehouse"), ("old_path", "udp"), ("path", "tunnel")];
    let there = log.wait_for("link_moved", &there).await;
    let back = [("peer", "agent/warehouse"), ("old_path", "tunnel"), ("path", "udp")];
    let back = log.wait_for("link_moved", &back).await;
    assert_eq!(back["old_address"], there["address"]);
    assert_ne!(there["address"], there["old_address"]);
}

/// Blocks and restores UDP in turn for this long, each for twenty seconds.
async fn flapped(lasts: Duration) {
    let (world, stage) = (World::new(), Stage::default());
    let node = with_tunnel(world.node()).start().await.expect("a node");
    let relay = Relay::to(node.local_addr()).await;
    let agent = world.agent("warehouse", relay.address()).paths(paths(&node, PathChoice::Auto));
    let _agent = attached(agent.serve(stage.service())).await;
    let calls = Calls::start(&node.agent("warehouse").handle().expect("a name"));
    let began = Instant::now();
    let mut is_blocked = false;
    while began.elapsed() < lasts {
        match is_blocked {
            true => relay.restore().await,
            false => relay.block().await,
        }
        is_blocked = !is_blocked;
        tokio::time::sleep(lasts.min(Duration::from_secs(20))).await;
    }
    relay.restore().await;
    calls.some_more().await;
    let made = calls.made.load(Ordering::Relaxed);
    let (failed, longest) = calls.end().await;
    println!("{made} calls, {} failed, the longest took {longest:?}", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long; make test-long"]
async fn a_path_that_comes_and_goes_every_20_s_loses_no_call_in_three_minutes() {
    flapped(Duration::from_secs(180)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_that_breaks_is_opened_again_under_the_same_link() {
    let (world, stage) = (World::new(), Stage::default());
    let node = with_tunnel(world.node()).start().await.expect("a node");
    let mut arrivals = node.arrivals();
    let cut = CutRelay::to(node.tunnel_addr().expect("it listens for tunnels")).await;
    let settings = PathSettings::udp().choice(PathChoice::Tunnel);
    let settings = settings.tunnel_url(format!("wss://{}", cut.address).parse().expect("a URL"));
    let agent = world.agent("warehouse", node.local_addr()).paths(settings);
    let agent = attached(agent.serve(stage.service())).await;
    let mut events = agent.events();
    let handle = soon("it arrives", arrivals.next()).await.expect("the node runs");
    let calls = Calls::start(&handle);
    for _ in 0..3 {
        calls.some_more().await;
        let before = node.agents()[0].address.clone();
        cut.cut();
        until("the tunnel is another one", || node.agents()[0].address != before).await;
        let replaced = (LinkPath::Tunnel, LinkPath::Tunnel, PathChangeCause::TunnelEnded);
        assert_eq!(next_change(&mut events).await, replaced);
    }
    calls.some_more().await;
    let (failed, longest) = calls.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    println!("the longest call took {longest:?}");
}

/// Carries TCP connections to an address, until all of them are cut.
struct CutRelay {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    _task: Background<()>,
}

impl CutRelay {
    async fn to(node: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, cuts) = (listener.local_addr().expect("bound"), watch::Sender::new(0));
        let seen = cuts.clone();
        let task = spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = seen.subscribe();
                carried.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(node).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, cuts, _task: task }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_accepts_tunnels_at_its_path_only() {
    let (world, stage) = (World::new(), Stage::default());
    let node = world.node().start().await.expect("a node");
    let gateway = Gateway::builder(&node).listen("127.0.0.1:0").tunnel("/way/in");
    let gateway = gateway.trusted_proxy("127.0.0.1".parse().expect("a range"));
    let gateway = gateway.tokens(|_, _| Err("nobody".into())).start().await.expect("a gateway");
    let url = format!("ws://{}/way/in", gateway.local_addr()).parse().expect("a URL");
    let settings = PathSettings::udp().choice(PathChoice::Tunnel).tunnel_url(url);
    let agent = world.agent("warehouse", node.local_addr()).paths(settings);
    let _agent = attached(agent.serve(stage.service())).await;
    let handle = node.agent("warehouse").handle().expect("a name");
    let call = handle.call::<String>("Stage/Note", "x").into_future();
    assert_eq!(soon("the call ends", call).await.as_deref(), Ok("x"));
    let other = format!("ws://{}/other", gateway.local_addr()).parse().expect("a URL");
    let settings = PathSettings::udp().choice(PathChoice::Tunnel).tunnel_url(other);
    let refused = world.caller("ops", node.local_addr()).paths(settings);
    let refused = refused.connect_timeout(Duration::from_secs(2)).connect().await;
    let text = refused.expect_err("refused").to_string();
    assert!(text.contains("is not a tunnel: the answer is 4"), "{text}");
}

/// Sends this, and returns all that comes until the node closes the connection.
async fn answer_to(node: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node).await.expect("a connection");
    drop(stream.write_all(bytes).await);
    let mut answer = Vec::new();
    drop(soon("the node closes it", stream.read_to_end(&mut answer)).await);
    String::from_utf8_lossy(&answer).into_owned()
}

const UPGRADE: &str = "GET /dialback/tunnel HTTP/1.1\r\nHost: edge\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: dialback.tunnel.v1\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_tcp_peers_are_closed_and_honest_links_go_on() {
    let (world, stage) = (World::new(), Stage::default());
    let plain = TunnelListen::at("127.0.0.1:0").plain();
    let node = world.node().tunnel(plain).start().await.expect("a node");
    let at = node.tunnel_addr().expect("it listens for tunnels");
    let settings = PathSettings::udp().choice(PathChoice::Tunnel);
    let settings = settings.tunnel_url(format!("ws://{at}").parse().expect("a URL"));
    let agent = world.agent("warehouse", node.local_addr()).paths(settings);
    let _agent = attached(agent.serve(stage.service())).await;
    let calls = Calls::start(&node.agent("warehouse").handle().expect("a name"));
    // Idle connections of unauthenticated clients are the first to go, at the limit of one address.
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(at).await.expect("a connection"));
    }
    let message = |first: u8, length: &[u8]| {
        // A masked binary frame that announces a length.
        let mut bytes = UPGRADE.as_bytes().to_vec();
        bytes.push(first);
        bytes.extend(length);
        bytes.extend([0; 4]);
        bytes
    };
    let text = message(0x81, &[0x80]);
    let too_large = message(0x82, &[0xff, 0, 0, 0, 1, 0, 0, 0, 0]);
    let version = UPGRADE.replace("13", "12");
    let (garbage, no_upgrade, no_path, text, too_large, nonsense) = tokio::join!(
        answer_to(at, &[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5]),
        answer_to(at, b"GET /dialback/tunnel HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n"),
        answer_to(at, b"GET / HTTP/1.1\r\nHost: e\r\nConnection: close\r\n\r\n"),
        answer_to(at, &text),
        answer_to(at, &too_large),
        answer_to(at, version.as_bytes()),
    );
    assert!(!garbage.contains(" 101 "), "{garbage}");
    assert!(no_upgrade.starts_with("HTTP/1.1 426 "), "{no_upgrade}");
    assert!(no_path.starts_with("HTTP/1.1 404 "), "{no_path}");
    for opened in [&text, &too_large] {
        assert!(opened.starts_with("HTTP/1.1 101 "), "{opened}");
    }
    assert!(nonsense.starts_with("HTTP/1.1 426 "), "{nonsense}");
    let silent_tunnel = answer_to(at, UPGRADE.as_bytes()).await;
    assert!(silent_tunnel.starts_with("HTTP/1.1 101 "), "{silent_tunnel}");
    calls.some_more().await;
    let (failed, longest) = calls.end().await;
    assert!(failed.is_empty(), "{failed:?}");
    println!("the longest call took {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_udp_registers_through_a_tunnel_soon() {
    let (world, stage) = (World::new(), Stage::default());
    let node = with_tunnel(world.node()).start().await.expect("a node");
    let relay = Relay::to(node.local_addr()).await;
    relay.block().await;
    let began = Instant::now();
    let agent = world.agent("warehouse", relay.address()).paths(paths(&node, PathChoice::Auto));
    let agent = agent.serve(stage.service()).start().expect("an agent");
    let event = soon("it registers", agent.events().next()).await.expect("the agent runs");
    let AgentEvent::Registered { path: LinkPath::Tunnel, .. } = event else { panic!("{event:?}") };
    println!("registered after {:?}", began.elapsed());
    assert_eq!(path_of(&node).as_deref(), Some("tunnel"));
    logged(&["answers through a tunnel over TCP"]).await;
}
