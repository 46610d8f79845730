//! Tunnels through proxies that speak TLS 1.2 to the node.

use super::with_tunnel;
use crate::world::{Background, Presented, Stage, World, attached, quic_client, soon, spawn};
use dialback::{Gateway, PathChoice, PathSettings};
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{future::IntoFuture, io, net::SocketAddr, sync::Arc};
use tokio::net::{TcpListener, TcpStream};
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
