//! Connection limits: each block of addresses is limited, and unauthenticated connections are
//! evicted for new ones.

use super::{GatewaySetup, Http, h2};
use crate::world::{soon, spawn, take_turn};
use dialback::limits::{
    HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_HOST_MAX, HTTP_CONNECTIONS_PER_NETWORK_MAX,
    HTTP_FIRST_BYTES_WAIT_MAX,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};
use tokio::net::{TcpSocket, TcpStream};

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn from(setup: &GatewaySetup, ip: [u8; 4]) -> Http<TcpStream> {
    connect(setup.at(), ip).await
}

async fn connect(at: SocketAddr, ip: [u8; 4]) -> Http<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::from(ip), 0).into()).expect("an address of this machine");
    Http::over(socket.connect(at).await.expect("a connection"))
}

/// Both ends of a thousand connections are in this process, which exceeds the default file limit of
/// some systems.
fn may_open_many_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the limit");
}

/// Silent connections.
async fn silent(setup: &GatewaySetup, ip: [u8; 4], count: usize) -> Vec<Http<TcpStream>> {
    may_open_many_files();
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(from(setup, ip).await);
    }
    all
}

/// A connection with one authenticated call.
async fn authenticated(at: SocketAddr, ip: [u8; 4]) -> Http<TcpStream> {
    let mut http = connect(at, ip).await;
    http.send(h2::preface()).await;
    http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &h2::head(NOTE))).await;
    http.send(h2::frame(h2::DATA, h2::END_STREAM, 1, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(&mut http, 1)).await;
    assert_eq!(answered, h2::Answered::Status(200));
    http
}

/// Connections with one authenticated call each. They are opened in batches, because one that is
/// silent for 5 s or does not answer the PINGs of the server is closed.
async fn known(setup: &GatewaySetup, ip: [u8; 4], count: usize) -> Vec<Http<TcpStream>> {
    may_open_many_files();
    let mut all = Vec::new();
    while all.len() < count {
        let some = 0..(count - all.len()).min(16);
        let connecting: Vec<_> = some.map(|_| spawn(authenticated(setup.at(), ip))).collect();
        for one in connecting {
            all.push(one.await);
        }
    }
    all
}

/// The status of a call on this connection; none if it is closed.
async fn call(http: &mut Http<TcpStream>) -> Option<u16> {
    http.request("POST", NOTE, &JSON, b"\"x\"").await;
    soon("an answer or an end", http.reply()).await.map(|reply| reply.status)
}

async fn call_from(setup: &GatewaySetup, ip: [u8; 4]) -> Option<u16> {
    call(&mut from(setup, ip).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_an_address_its_oldest_silent_connection_is_evicted() {
    let _turn = take_turn().await;
    // On an overloaded machine the silent ones were closed for their silence.
    soon("it is detected in time", async { while !check_oldest_is_evicted().await {} }).await;
}

/// False if it took so long that connections were closed for their silence.
async fn check_oldest_is_evicted() -> bool {
    let setup = GatewaySetup::anonymous().await;
    let began = Instant::now();
    let mut elsewhere = from(&setup, [127, 0, 1, 1]).await;
    let mut held = silent(&setup, [127, 0, 0, 2], HTTP_CONNECTIONS_PER_HOST_MAX).await;
    let last = call(held.last_mut().expect("one")).await;
    let next = call_from(&setup, [127, 0, 0, 2]).await;
    soon("the oldest is closed", held[0].closed()).await;
    let kept = [call(&mut held[1]).await, call(&mut elsewhere).await];
    let is_in_time = began.elapsed() < HTTP_FIRST_BYTES_WAIT_MAX;
    if is_in_time {
        assert_eq!(last, Some(200), "at the limit none is closed");
        assert_eq!(next, Some(200), "one is evicted");
        assert_eq!(kept, [Some(200); 2], "the second is not closed, nor one of another address");
    }
    is_in_time
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_an_address_authenticated_connections_are_kept() {
    let _turn = take_turn().await;
    let setup = GatewaySetup::anonymous().await;
    let mut held = known(&setup, [127, 0, 0, 2], HTTP_CONNECTIONS_PER_HOST_MAX).await;
    assert_eq!(call_from(&setup, [127, 0, 0, 2]).await, None);
    assert_eq!(call_from(&setup, [127, 0, 0, 3]).await, Some(200));
    held[0].send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    held[0].send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(&mut held[0], 3)).await;
    assert_eq!(answered, h2::Answered::Status(200), "an authenticated one stays");
    drop(held);
    soon("the slots are free", async {
        while call_from(&setup, [127, 0, 0, 2]).await != Some(200) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_gets_half_of_the_connections_however_many_addresses_it_has() {
    let _turn = take_turn().await;
    let setup = GatewaySetup::anonymous().await;
    let half = HTTP_CONNECTIONS_PER_NETWORK_MAX / 2;
    let _one = known(&setup, [127, 0, 0, 2], half).await;
    let _other = known(&setup, [127, 0, 0, 3], half).await;
    assert_eq!(call_from(&setup, [127, 0, 0, 4]).await, None);
    assert_eq!(call_from(&setup, [127, 0, 1, 4]).await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_silent_addresses_do_not_lock_out_an_honest_caller() {
    let _turn = take_turn().await;
    let setup = GatewaySetup::anonymous().await;
    let mut kept = known(&setup, [127, 0, 9, 1], 1).await;
    let mut held = Vec::new();
    for network in 1..=4 {
        held.extend(silent(&setup, [127, 0, network, 1], HTTP_CONNECTIONS_MAX / 4).await);
    }
    for _ in 0..20 {
        assert_eq!(call_from(&setup, [127, 0, 9, 1]).await, Some(200));
        held.push(from(&setup, [127, 0, 1, 1]).await);
    }
    kept[0].send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    kept[0].send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(&mut kept[0], 3)).await;
    assert_eq!(answered, h2::Answered::Status(200), "the authenticated one stays");
}
