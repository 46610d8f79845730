//! Places for connections: those of one block of addresses are bounded, and connections that show no caller make room for new ones.

use super::{Http, Open, h2};
use crate::world::{heavy, soon};
use dialback::limits::{
    HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_HOST_MAX, HTTP_CONNECTIONS_PER_NETWORK_MAX,
};
use std::net::Ipv4Addr;
use tokio::net::{TcpSocket, TcpStream};

const NOTE: &str = "/v1/agents/warehouse/Stage/Note";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn from(open: &Open, ip: [u8; 4]) -> Http<TcpStream> {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::from(ip), 0).into()).expect("an address of this machine");
    Http::over(socket.connect(open.at()).await.expect("a connection"))
}

/// Both ends of a thousand connections are in this process, which is more than some systems let it open unasked.
fn may_open_many_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the most");
}

/// Connections that say nothing.
async fn silent(open: &Open, ip: [u8; 4], count: usize) -> Vec<Http<TcpStream>> {
    may_open_many_files();
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(from(open, ip).await);
    }
    all
}

/// Connections over which a caller has asked.
async fn known(open: &Open, ip: [u8; 4], count: usize) -> Vec<Http<TcpStream>> {
    may_open_many_files();
    let mut all = Vec::new();
    // Each asks before the next one comes: one that is silent for 5 s is closed.
    for _ in 0..count {
        let mut http = from(open, ip).await;
        http.send(h2::preface()).await;
        http.send(h2::frame(h2::HEADERS, h2::END_HEADERS, 1, &h2::head(NOTE))).await;
        http.send(h2::frame(h2::DATA, h2::END_STREAM, 1, b"\"x\"")).await;
        let answered = soon("an answer", h2::answered(&mut http, 1)).await;
        assert_eq!(answered, h2::Answered::Status(200));
        all.push(http);
    }
    all
}

/// The status of a call on this connection; none if it is closed.
async fn call(http: &mut Http<TcpStream>) -> Option<u16> {
    http.request("POST", NOTE, &JSON, b"\"x\"").await;
    soon("an answer or an end", http.reply()).await.map(|reply| reply.status)
}

async fn call_from(open: &Open, ip: [u8; 4]) -> Option<u16> {
    call(&mut from(open, ip).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_address_that_has_its_share_the_oldest_silent_connection_makes_room() {
    let _turn = heavy().await;
    let open = Open::anonymous().await;
    let mut elsewhere = from(&open, [127, 0, 1, 1]).await;
    let mut held = silent(&open, [127, 0, 0, 2], HTTP_CONNECTIONS_PER_HOST_MAX).await;
    assert_eq!(call(held.last_mut().expect("one")).await, Some(200), "at its share none is closed");
    assert_eq!(call_from(&open, [127, 0, 0, 2]).await, Some(200));
    soon("the oldest is closed", held[0].closed()).await;
    assert_eq!(call(&mut held[1]).await, Some(200), "the second is not");
    assert_eq!(call(&mut elsewhere).await, Some(200), "nor an older one of another address");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_known_callers_hold_the_share_of_an_address_its_next_connection_is_closed() {
    let _turn = heavy().await;
    let open = Open::anonymous().await;
    let mut held = known(&open, [127, 0, 0, 2], HTTP_CONNECTIONS_PER_HOST_MAX).await;
    assert_eq!(call_from(&open, [127, 0, 0, 2]).await, None);
    assert_eq!(call_from(&open, [127, 0, 0, 3]).await, Some(200));
    held[0].send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    held[0].send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(&mut held[0], 3)).await;
    assert_eq!(answered, h2::Answered::Status(200), "a known one stays");
    drop(held);
    soon("places are given back", async {
        while call_from(&open, [127, 0, 0, 2]).await != Some(200) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_has_half_of_the_places_however_many_addresses_it_has() {
    let _turn = heavy().await;
    let open = Open::anonymous().await;
    let half = HTTP_CONNECTIONS_PER_NETWORK_MAX / 2;
    let _one = known(&open, [127, 0, 0, 2], half).await;
    let _other = known(&open, [127, 0, 0, 3], half).await;
    assert_eq!(call_from(&open, [127, 0, 0, 4]).await, None);
    assert_eq!(call_from(&open, [127, 0, 1, 4]).await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn few_addresses_that_say_nothing_close_no_honest_caller_out() {
    let _turn = heavy().await;
    let open = Open::anonymous().await;
    let mut kept = known(&open, [127, 0, 9, 1], 1).await;
    let mut held = Vec::new();
    for network in 1..=4 {
        held.extend(silent(&open, [127, 0, network, 1], HTTP_CONNECTIONS_MAX / 4).await);
    }
    for _ in 0..20 {
        assert_eq!(call_from(&open, [127, 0, 9, 1]).await, Some(200));
        held.push(from(&open, [127, 0, 1, 1]).await);
    }
    kept[0].send(h2::frame(h2::HEADERS, h2::END_HEADERS, 3, &h2::head(NOTE))).await;
    kept[0].send(h2::frame(h2::DATA, h2::END_STREAM, 3, b"\"x\"")).await;
    let answered = soon("an answer", h2::answered(&mut kept[0], 3)).await;
    assert_eq!(answered, h2::Answered::Status(200), "the one that has asked before stays");
}
