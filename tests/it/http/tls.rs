//! The gateway with TLS: callers by certificate, verified as on links, and certificates of a public
//! name.

use super::{GatewaySetup, Http, HttpReply, TOKEN, verify_token};
use crate::audit::AuditLog;
use crate::world::{Pki, Presented, World, quic_client, soon, spawn, until};
use bytes::Bytes;
use dialback::{ConfigUpdate, ServerCertificate, certs::LeafPem};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";

/// A TLS connection that presents a leaf, or none, and trusts the nodes of this world.
async fn tls(
    world: &World,
    at: SocketAddr,
    leaf: Option<LeafPem>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let shown = leaf.map_or(Presented::Nothing, Presented::Leaf);
    let mut config = quic_client(&world.credentials("caller/ops"), shown);
    config.alpn_protocols = vec![alpn.to_vec()];
    let tcp = TcpStream::connect(at).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

async fn post<S>(http: &mut Http<S>, headers: &[(&str, &str)], id: &str) -> Option<HttpReply>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let headers = [&[("content-type", "application/json")], headers].concat();
    http.request("POST", NOTE, &headers, format!("\"{id}\"").as_bytes()).await;
    soon("an answer or an end", http.reply()).await
}

/// Makes one call with this certificate, or none. `None` if the handshake or the connection was
/// rejected.
async fn once(
    setup: &GatewaySetup,
    leaf: Option<LeafPem>,
    headers: &[(&str, &str)],
    id: &str,
) -> Option<HttpReply> {
    let stream = tls(&setup.world, setup.at(), leaf, b"http/1.1").await.ok()?;
    post(&mut Http::over(stream), headers, id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_names_the_caller_and_without_one_a_token_is_needed() {
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tls().tokens(verify_token)).await;
    let leaf = setup.world.leaf("caller/clerk");
    let reply = once(&setup, Some(leaf), &[], "by certificate").await.expect("an answer");
    assert_eq!((reply.status, reply.text()), (200, "\"by certificate\""));
    assert_eq!(setup.stage.started("by certificate").await.caller().to_string(), "caller/clerk");
    let nothing = once(&setup, None, &[], "nothing").await.expect("an answer");
    nothing.expect_error(401, "unauthenticated", "not_executed");
    let good = format!("Bearer {TOKEN}");
    let token =
        once(&setup, None, &[("authorization", &good)], "by token").await.expect("an answer");
    assert_eq!(token.status, 200);
    assert_eq!(setup.stage.started("by token").await.caller().to_string(), "caller/ops");
    let node =
        once(&setup, Some(setup.world.leaf("node/edge-1")), &[], "node").await.expect("an answer");
    node.expect_error(401, "unauthenticated", "not_executed");
    let agent = once(&setup, Some(setup.world.leaf("agent/warehouse")), &[], "agent")
        .await
        .expect("an answer");
    agent.expect_error(403, "permission_denied", "not_executed");
    let foreign = World::new().leaf("caller/ops");
    assert!(
        once(&setup, Some(foreign), &[], "foreign").await.is_none(),
        "another CA's caller was accepted"
    );
    assert_eq!(setup.stage.all_runs(), 2);
    // Plain HTTP gets no answer there.
    let mut plain = Http::connect(setup.at()).await;
    assert!(post(&mut plain, &[], "plain").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_rejected_in_the_handshake_is_audited_with_its_claimed_name() {
    let audit_log = AuditLog::default();
    let audit = audit_log.audit();
    let setup = GatewaySetup::with(|node| node.audit(audit), |gateway| gateway.tls()).await;
    let foreign = World::new().leaf("caller/stranger");
    let facts = dialback::CertificateInfo::all_from_pem(foreign.cert.as_bytes()).expect("facts");
    assert!(once(&setup, Some(foreign), &[], "foreign").await.is_none());
    let claimed = [("claimed_peer", "caller/stranger"), ("claimed_serial", &facts[0].serial)];
    let line = audit_log.wait_for("http_refused", &claimed).await;
    let reason = line["reason"].as_str().expect("text");
    assert!(reason.contains("handshake") && reason.contains("UnknownIssuer"), "{line}");
    assert_eq!(line["address"], "127.0.0.1", "{line}");
    // A client without a certificate claims nothing, and its request is refused.
    once(&setup, None, &[], "nothing").await.expect("an answer").expect_error(
        401,
        "unauthenticated",
        "not_executed",
    );
    until("its line is written", || audit_log.lines("http_refused").len() == 2).await;
    assert_eq!(audit_log.lines("http_refused")[1].get("claimed_peer"), None);
    assert_eq!(setup.stage.all_runs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_rejected_on_an_open_connection() {
    let audit_log = AuditLog::default();
    let audit = audit_log.audit();
    let setup = GatewaySetup::with(|node| node.audit(audit), |gateway| gateway.tls()).await;
    let leaf = setup.world.leaf("caller/ops");
    let facts = dialback::CertificateInfo::all_from_pem(leaf.cert.as_bytes()).expect("facts");
    let stream = tls(&setup.world, setup.at(), Some(leaf), b"http/1.1").await.expect("a handshake");
    let mut http = Http::over(stream);
    assert_eq!(post(&mut http, &[], "before").await.expect("an answer").status, 200);
    let crl = setup.world.crl(&[&facts[0].serial]);
    let next = setup.world.presenting(&setup.world.leaf("node/edge-1"), Some(&crl));
    let next = ConfigUpdate { credentials: Some(next), ..ConfigUpdate::default() };
    setup.node.apply(next).await.expect("applied");
    let refused = post(&mut http, &[], "after").await.expect("an answer");
    refused.expect_error(401, "unauthenticated", "not_executed");
    let claimed = [("claimed_peer", "caller/ops"), ("claimed_serial", &facts[0].serial)];
    let line = audit_log.wait_for("http_refused", &claimed).await;
    assert!(line["reason"].as_str().is_some_and(|text| text.contains("revoked")), "{line}");
    assert_eq!((setup.stage.runs("before"), setup.stage.runs("after")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_an_expired_intermediate_is_rejected_on_an_open_connection() {
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tls()).await;
    let pki = Pki::new();
    let node = setup.world.leaf("node/edge-1");
    let both = Pki::load(&node, &(setup.world.ca().pem().to_owned() + &pki.root_pem));
    let both = ConfigUpdate { credentials: Some(both.expect("loaded")), ..ConfigUpdate::default() };
    setup.node.apply(both).await.expect("applied");
    let now = SystemTime::now();
    let ends = now + Duration::from_secs(3);
    let brief = pki.intermediate(now - Duration::from_secs(3_600), ends);
    let connect = async |others: &[&str]| {
        let leaf = pki.leaf(&pki.profile("caller/ops"), others);
        let stream = tls(&setup.world, setup.at(), Some(leaf), b"http/1.1").await;
        Http::over(stream.expect("a handshake"))
    };
    let (mut brief, mut spare) = (connect(&[&brief]).await, connect(&[&brief, &pki.good]).await);
    assert_eq!(post(&mut brief, &[], "before").await.expect("an answer").status, 200);
    until("the intermediate has ended", || SystemTime::now() > ends + Duration::from_secs(1)).await;
    let refused = post(&mut brief, &[], "after").await.expect("an answer");
    refused.expect_error(401, "unauthenticated", "not_executed");
    assert_eq!(post(&mut spare, &[], "spare").await.expect("an answer").status, 200);
    assert_eq!(setup.stage.runs("after"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_server_certificate_is_presented_and_can_be_replaced() {
    let public = World::new();
    let named = |leaf: &LeafPem| {
        ServerCertificate::from_pem(leaf.cert.as_bytes(), leaf.key.as_bytes()).expect("a pair")
    };
    let (first, second) = (public.leaf("node/public"), public.leaf("node/public"));
    let setup = GatewaySetup::with(
        |node| node,
        |gateway| gateway.certificate(named(&first)).tokens(verify_token),
    )
    .await;
    let shown = async |world: &World| {
        let stream = tls(world, setup.at(), None, b"http/1.1").await.ok()?;
        stream.get_ref().1.peer_certificates().map(|chain| chain[0].to_vec())
    };
    assert!(shown(&setup.world).await.is_none(), "the node's own certificate was presented");
    let before = shown(&public).await.expect("a certificate");
    setup.gateway.set_certificate(Some(named(&second)));
    assert_ne!(shown(&public).await.expect("a certificate"), before);
    setup.gateway.set_certificate(None);
    assert!(shown(&setup.world).await.is_some(), "the node's own certificate was not presented");
}

/// One call over HTTP/2.
async fn over_h2<S>(stream: S, uri: &str, headers: &[(&str, &str)]) -> (u16, Bytes)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    let _connection = spawn(async move { drop(connection.await) });
    let mut request = hyper::Request::post(uri).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from_static(b"\"h2\""))).expect("a request");
    let reply = soon("an answer", sender.send_request(request)).await.expect("an answer");
    let status = reply.status().as_u16();
    (status, reply.into_body().collect().await.expect("a body").to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_works_by_prior_knowledge_without_tls_and_by_alpn_with_tls() {
    let plain = GatewaySetup::anonymous().await;
    let stream = TcpStream::connect(plain.at()).await.expect("a connection");
    let (status, body) = over_h2(stream, &format!("http://localhost{NOTE}"), &[]).await;
    assert_eq!((status, &*body), (200, &b"\"h2\""[..]));
    let setup = GatewaySetup::with(|node| node, |gateway| gateway.tls().tokens(verify_token)).await;
    let leaf = setup.world.leaf("caller/ops");
    let stream = tls(&setup.world, setup.at(), Some(leaf), b"h2").await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (status, body) = over_h2(stream, &format!("https://localhost{NOTE}"), &[]).await;
    assert_eq!((status, &*body), (200, &b"\"h2\""[..]));
}
