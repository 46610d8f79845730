//! Unauthenticated clients that guess, stall and flood: each is limited, and machines elsewhere can
//! join all the while.

use super::{
    raw::{RawClient, request, secret},
    *,
};
use crate::world::logged;
use dialback::{JoinRefusal, limits::JOINS_AT_ONCE_MAX};
use std::net::{IpAddr, Ipv4Addr};

const LONG: Duration = Duration::from_secs(90 * 24 * 3600);

/// Another machine in the view of the enroller. All of 127.0.0.0/8 is loopback on Linux.
const OTHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

#[cfg(target_os = "linux")]
#[tokio::test]
async fn ten_wrong_tokens_of_an_address_are_checked_and_the_next_is_not() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::from(OTHER_ADDRESS, None));
    let guess = |n: u8| request(1, b"csr", "agent/a", &[n; 16]);
    for n in 0..10 {
        assert_eq!(raw.ask(at, &guess(n)).await.code(), JoinRefusal::TokenUnknown.number());
    }
    assert_eq!(raw.ask(at, &guess(10)).await.code(), JoinRefusal::TooMany.number());
    // Beyond the limit a right secret and a wrong one get the same answer.
    let good = request(1, b"csr", "agent/a", &secret(&site.token("agent/a")));
    assert_eq!(raw.ask(at, &good).await.code(), JoinRefusal::TooMany.number());
    site.join(at, &site.token("agent/a"), "m").await.expect("another address joins");
    logged(&["rejected a request from 127.0.0.2", "TOKEN_UNKNOWN"]).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_token_with_the_right_secret_is_not_a_guess_and_locks_no_one_out() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::from(OTHER_ADDRESS, None));
    let peer = "agent/a".parse().expect("a peer name");
    let then = SystemTime::now() - 2 * HOUR;
    let expired = site.ca().make_token(&peer, HOUR, then).expect("a token");
    let (used, unused) = (site.token("agent/a"), site.token("agent/a"));
    site.join(at, &used, "m").await.expect("joined");
    for (token, peer, wanted) in [
        (&used, "agent/a", JoinRefusal::TokenUsed),
        (&expired, "agent/a", JoinRefusal::TokenExpired),
        (&unused, "agent/b", JoinRefusal::OtherPeer),
    ] {
        let request_body = request(1, b"csr", peer, &secret(token));
        for _ in 0..11 {
            assert_eq!(raw.ask(at, &request_body).await.code(), wanted.number(), "{wanted}");
        }
    }
    // Another client behind the same address is still checked.
    let request_body = request(1, b"csr", "agent/a", &secret(&unused));
    assert_eq!(raw.ask(at, &request_body).await.code(), JoinRefusal::Malformed.number());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn without_a_secret_every_role_gets_the_same_answer() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::from(OTHER_ADDRESS, None));
    let peer = "agent/expired".parse().expect("a peer name");
    let then = SystemTime::now() - 2 * HOUR;
    site.ca().make_token(&peer, HOUR, then).expect("a token");
    let (used, _unused) = (site.token("agent/used"), site.token("agent/unused"));
    site.join(at, &used, "m").await.expect("joined");
    let mut answers = Vec::new();
    for peer in ["agent/used", "agent/expired", "agent/unused", "agent/nobody"] {
        answers.push(raw.send(at, &request(1, b"csr", peer, &[7; 16])).await);
    }
    assert!(answers[0].is_some() && answers.iter().all(|answer| *answer == answers[0]));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn silent_unauthenticated_clients_have_limited_slots_and_are_evicted() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::from(OTHER_ADDRESS, None));
    let mut silent = Vec::new();
    for _ in 0..JOINS_AT_ONCE_MAX / 4 {
        silent.push(raw.dial(at).await.expect("within its share"));
    }
    site.join(at, &site.token("agent/a"), "m").await.expect("another address joins");
    // One connection over the limit of an address waits until the longest-silent one is evicted.
    let one_more = soon("one more is accepted", raw.dial(at)).await.expect("in its turn");
    soon("the first one is evicted", silent[0].closed()).await;
    assert!(one_more.close_reason().is_none(), "the newest was evicted");
}

#[tokio::test]
async fn a_request_that_never_ends_is_closed() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let raw = RawClient::new(None);
    let connection = raw.dial(enroller.local_addr()).await.expect("linked");
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    send.write_all(&[0xa1]).await.expect("sent");
    let ended = soon("it is closed", connection.closed()).await;
    assert!(ended.to_string().contains("no request came in time"), "{ended}");
    assert!(connection.open_uni().await.is_err());
}
