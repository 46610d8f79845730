//! Tunnels through proxies: TLS 1.2 towards the node, and the addresses that trusted proxies name.

use super::{UPGRADE, answer_to, path_of, with_tunnel};
use crate::{
    audit::AuditLog,
    world::{Background, Presented, Stage, World, attached, logged, quic_client, soon, spawn},
};
use dialback::{Gateway, PathChoice, PathSettings, TunnelListen};
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{future::IntoFuture, io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A proxy that speaks TLS of this version to a node that accepts tunnels, and plain TCP to agents.
struct TlsProxy {
    address: SocketAddr,
    _task: Background<()>,
}

impl TlsProxy {
    async fn to(node: SocketAddr, tls: TlsConnector) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let task = spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let tls = tls.clone();
                carried.spawn(async move {
                    let Ok(mut far) = tls_stream(&tls, node).await else { return };
                    drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                });
            }
        });
        Self { address, _task: task }
    }
}

/// TLS of one version that trusts the CA of this world and shows no certificate.
fn tls_of(world: &World, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let of_link = quic_client(&world.credentials("caller/ops"), Presented::Nothing);
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(world.ca().pem().as_bytes()).expect("a CA");
    roots.add(ca).expect("a CA");
    let config = ClientConfig::builder_with_provider(of_link.crypto_provider().clone());
    let config = config.with_protocol_versions(&[version]).expect("a version");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth()).into()
}

async fn tls_stream(tls: &TlsConnector, to: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").expect("a name");
    tls.connect(name, TcpStream::connect(to).await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_passes_a_proxy_that_speaks_tls_1_2_to_the_node() {
    let (world, stage) = (World::new(), Stage::default());
    let node = with_tunnel(world.node()).start().await.expect("a node");
    let at = node.tunnel_addr().expect("it listens for tunnels");
    for (version, agreed) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let tls = tls_of(&world, version);
        let stream = tls_stream(&tls, at).await.expect("a TLS connection");
        assert_eq!(stream.get_ref().1.protocol_version(), Some(agreed));
        let proxy = TlsProxy::to(at, tls).await;
        let settings = PathSettings::udp().choice(PathChoice::Tunnel);
        let url = format!("ws://{}", proxy.address).parse().expect("a URL");
        let agent = world.agent("warehouse", node.local_addr()).paths(settings.tunnel_url(url));
        let agent = attached(agent.serve(stage.service())).await;
        let handle = node.agent("warehouse").handle().expect("a name");
        let call = handle.call::<String>("Stage/Note", "x").into_future();
        assert_eq!(soon("the call ends", call).await.as_deref(), Ok("x"));
        soon("the agent stops", agent.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_accepts_tunnels_refuses_tls_1_2() {
    let world = World::new();
    let node = world.node().start().await.expect("a node");
    let gateway = Gateway::builder(&node).listen("127.0.0.1:0").tunnel("/way/in").tls();
    let gateway = gateway.tokens(|_, _| Err("nobody".into())).start().await.expect("a gateway");
    let at = gateway.local_addr();
    assert!(tls_stream(&tls_of(&world, &TLS13), at).await.is_ok());
    let error = tls_stream(&tls_of(&world, &TLS12), at).await.expect_err("refused").to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

/// A reverse proxy without TLS that adds a header to the first request of each connection.
struct HeaderProxy {
    address: SocketAddr,
    _task: Background<()>,
}

impl HeaderProxy {
    async fn to(node: SocketAddr, header: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let task = spawn(async move {
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                carried.spawn(async move { drop(carry_with_header(near, node, header).await) });
            }
        });
        Self { address, _task: task }
    }
}

async fn carry_with_header(mut near: TcpStream, node: SocketAddr, header: &str) -> io::Result<()> {
    let mut far = TcpStream::connect(node).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await?);
    }
    head.truncate(head.len() - 2);
    head.extend(format!("{header}\r\n\r\n").bytes());
    far.write_all(&head).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// Returns the address of an agent in `agents` and in the audit log, without its port. The agent
/// links through a proxy on loopback that adds this header.
async fn address_behind_proxy(listen: TunnelListen, header: &'static str) -> [String; 2] {
    let (world, stage, log) = (World::new(), Stage::default(), AuditLog::default());
    let node = world.node().tunnel(listen).audit(log.audit()).start().await.expect("a node");
    let proxy = HeaderProxy::to(node.tunnel_addr().expect("it listens for tunnels"), header).await;
    let url = format!("ws://{}", proxy.address).parse().expect("a URL");
    let settings = PathSettings::udp().choice(PathChoice::Tunnel).tunnel_url(url);
    let agent = world.agent("warehouse", node.local_addr()).paths(settings);
    let _agent = attached(agent.serve(stage.service())).await;
    assert_eq!(path_of(&node).as_deref(), Some("tunnel"));
    let up = [("peer", "agent/warehouse"), ("path", "tunnel")];
    let up = log.wait_for("link_up", &up).await["address"].as_str().expect("text").to_owned();
    [node.agents()[0].address.clone().expect("attached"), up]
        .map(|address| address.parse::<SocketAddr>().expect("an address").ip().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_names_the_address_of_a_tunnel_and_no_other_peer_does() {
    let plain = || TunnelListen::at("127.0.0.1:0").plain();
    let trusting = |range: &str| plain().trusted_proxy(range.parse().expect("a range"));
    // The client wrote the first address itself.
    let forwarded = "X-Forwarded-For: 198.51.100.66, 203.0.113.9";
    let of = address_behind_proxy(trusting("127.0.0.1"), forwarded).await;
    assert_eq!(of, ["203.0.113.9", "203.0.113.9"]);
    let of = address_behind_proxy(trusting("127.0.0.1"), "X-Other: 203.0.113.9").await;
    assert_eq!(of, ["127.0.0.1", "127.0.0.1"]);
    let of = address_behind_proxy(plain(), forwarded).await;
    assert_eq!(of, ["127.0.0.1", "127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tls_only_trusted_proxies_may_connect() {
    let world = World::new();
    let elsewhere = TunnelListen::at("127.0.0.1:0").plain();
    let elsewhere = elsewhere.trusted_proxy("192.0.2.0/24".parse().expect("a range"));
    let node = world.node().tunnel(elsewhere).start().await.expect("a node");
    let at = node.tunnel_addr().expect("it listens for tunnels");
    let forwarded = UPGRADE.replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
    assert_eq!(answer_to(at, forwarded.as_bytes()).await, "");
    logged(&["refused a tunnel of 127.0.0.1: plain HTTP is accepted only from"]).await;
}
