//! A node that stops: its gateway accepts nothing new, and calls in flight are finished.

use super::{GatewaySetup, Http};
use crate::world::{soon, spawn};
use bytes::Bytes;
use dialback::Limits;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use tokio::net::TcpStream;

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_calls_closes_idle_connections_and_refuses_new_calls() {
    let setup = GatewaySetup::anonymous().await;
    let (at, stage) = (setup.at(), setup.stage.clone());
    let mut idle = Http::connect(at).await;
    idle.request("POST", "/v1/agents/warehouse/Stage/Note", &JSON, b"\"warm\"").await;
    assert_eq!(soon("an answer", idle.reply()).await.expect("an answer").status, 200);
    let mut busy = Http::connect(at).await;
    busy.request("POST", "/v1/agents/warehouse/Stage/Hold", &JSON, b"\"held\"").await;
    stage.started("held").await;
    let GatewaySetup { node, gateway, agent, .. } = setup;
    let stopping = spawn(node.shutdown());
    soon("the idle connection is closed", idle.closed()).await;
    let late = soon(
        "an answer",
        Http::once(at, "POST", "/v1/agents/warehouse/Stage/Note", &JSON, b"\"late\""),
    )
    .await;
    late.expect_error(503, "unavailable", "not_executed");
    assert!(!stopping.is_finished());
    stage.open();
    let held = soon("the call is finished", busy.reply()).await.expect("an answer");
    assert_eq!((held.status, held.text(), held.outcome()), (200, "\"held\"", "ok"));
    assert_eq!(held.header("connection"), Some("close"));
    soon("the node has stopped", stopping).await;
    assert_eq!(stage.runs("late"), 0);
    assert!(TcpStream::connect(at).await.is_err(), "the gateway still accepts");
    drop((gateway, agent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_outlasts_the_drain_is_aborted_and_the_node_stops_in_time() {
    let limits = Limits { drain_max: Duration::from_millis(200), ..Limits::default() };
    let setup = GatewaySetup::with(
        |node| node.limits(limits),
        |gateway| gateway.anonymous("ops".parse().expect("a name")),
    )
    .await;
    let mut busy = Http::connect(setup.at()).await;
    busy.request("POST", "/v1/agents/warehouse/Stage/Hold", &JSON, b"\"held\"").await;
    setup.stage.started("held").await;
    let GatewaySetup { node, gateway, agent, .. } = setup;
    soon("the node stops", node.shutdown()).await;
    let aborted = soon("the connection ends", busy.reply()).await;
    if let Some(aborted) = aborted {
        aborted.expect_error(503, "unavailable", "unknown");
    }
    drop((gateway, agent));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_gateway_closes_it_and_its_node_keeps_running() {
    let setup = GatewaySetup::anonymous().await;
    let at = setup.at();
    let GatewaySetup { node, gateway, agent, stage, .. } = setup;
    drop(gateway);
    soon("the port is closed", async {
        while TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let warehouse = node.agent("warehouse").handle().expect("a name");
    let noted: String = warehouse.call("Stage/Note", "x").await.expect("a reply");
    assert_eq!((noted.as_str(), stage.runs("x")), ("x", 1));
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_2_connection_gets_goaway_and_its_call_is_finished() {
    let setup = GatewaySetup::anonymous().await;
    let (at, stage) = (setup.at(), setup.stage.clone());
    let stream = TokioIo::new(TcpStream::connect(at).await.expect("a connection"));
    let client = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = client.await.expect("HTTP/2");
    let connection = spawn(connection);
    let request = |method: &str, id: &str| {
        hyper::Request::post(format!("http://localhost/v1/agents/warehouse/Stage/{method}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(format!("\"{id}\""))))
            .expect("a request")
    };
    let held = spawn(sender.send_request(request("Hold", "held")));
    stage.started("held").await;
    let GatewaySetup { node, gateway, agent, .. } = setup;
    let stopping = spawn(node.shutdown());
    // After GOAWAY the client itself sends no more; a request sent just before is answered.
    soon("GOAWAY arrives", async {
        while let Ok(reply) = sender.send_request(request("Note", "late")).await {
            let (status, outcome) = (reply.status().as_u16(), &reply.headers()["dialback-outcome"]);
            assert!(status == 200 || (status == 503 && outcome == "not_executed"), "{reply:?}");
        }
    })
    .await;
    assert!(!stopping.is_finished());
    stage.open();
    let held = soon("the call is finished", held).await.expect("an answer");
    assert_eq!(
        (held.status().as_u16(), &held.headers()["dialback-outcome"]),
        (200, &"ok".parse().expect("a value"))
    );
    assert_eq!(held.into_body().collect().await.expect("a body").to_bytes(), "\"held\"");
    soon("the connection ends", connection).await.expect("a clean shutdown");
    soon("the node has stopped", stopping).await;
    drop((gateway, agent));
}
