//! Forwarded TCP connections: bytes, half-closes and resets; an aborted one never looks complete.

mod limits;
mod setup;
mod rules;

use crate::world::{attached, check_status, soon, spawn};
use dialback::{ByteStream, Code, Outcome};
use setup::{ForwardSetup, expect_reset, opened, read_all, status_of, write};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Bytes without repetition.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 + n / 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_flow_both_ways_and_either_side_may_send_first() {
    let setup = ForwardSetup::open().await;
    for callee in setup.callees() {
        let (mut stream, mut upstream) = setup.connect_by(&callee).await;
        write(&mut upstream, b"220 ready").await;
        let mut greeting = [0; 9];
        soon("the greeting arrives", stream.read_exact(&mut greeting)).await.expect("read");
        assert_eq!(&greeting, b"220 ready");
        write(&mut stream, b"QUIT").await;
        let mut greeting = [0; 4];
        soon("the greeting arrives", upstream.read_exact(&mut greeting)).await.expect("read");
        assert_eq!(&greeting, b"QUIT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_arrive_intact_both_ways_at_once() {
    let setup = ForwardSetup::open().await;
    let (stream, upstream) = setup.connect().await;
    let (sent, answered) = (pattern(9 << 20), pattern((7 << 20) + 1));
    let (mut from_agent, mut to_agent) = tokio::io::split(stream);
    let (mut from_caller, mut to_caller) = tokio::io::split(upstream);
    let (got_by_upstream, got_by_caller, (), ()) = tokio::join!(
        read_all(&mut from_caller),
        read_all(&mut from_agent),
        async {
            write(&mut to_agent, &sent).await;
            to_agent.shutdown().await.expect("a half-close");
        },
        async {
            write(&mut to_caller, &answered).await;
            to_caller.shutdown().await.expect("a half-close");
        },
    );
    assert!(got_by_upstream.expect("a clean end") == sent, "outgoing data was changed");
    assert!(got_by_caller.expect("a clean end") == answered, "incoming data was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_close_of_the_caller_leaves_the_other_direction_open() {
    let setup = ForwardSetup::open().await;
    for callee in setup.callees() {
        let (mut stream, mut upstream) = setup.connect_by(&callee).await;
        write(&mut stream, b"question").await;
        stream.shutdown().await.expect("a half-close");
        assert_eq!(read_all(&mut upstream).await.expect("a clean end"), b"question");
        write(&mut upstream, b"answer").await;
        drop(upstream);
        assert_eq!(read_all(&mut stream).await.expect("a clean end"), b"answer");
        assert!(stream.write_all(b"more").await.is_err(), "this direction was closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_close_of_the_upstream_leaves_the_other_direction_open() {
    let setup = ForwardSetup::open().await;
    for callee in setup.callees() {
        let (mut stream, mut upstream) = setup.connect_by(&callee).await;
        upstream.shutdown().await.expect("a half-close");
        assert_eq!(read_all(&mut stream).await.expect("a clean end"), b"");
        let late = pattern(1 << 20);
        let (got, ()) = tokio::join!(read_all(&mut upstream), async {
            write(&mut stream, &late).await;
            stream.shutdown().await.expect("a half-close");
            // Both directions have ended: dropping it loses nothing.
            drop(stream);
        });
        assert!(got.expect("a clean end") == late, "outgoing data was truncated");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_the_upstream_is_passed_on_after_the_bytes_before_it() {
    let setup = ForwardSetup::open().await;
    for callee in setup.callees() {
        let (mut stream, mut upstream) = setup.connect_by(&callee).await;
        write(&mut upstream, b"some").await;
        let mut some = [0; 4];
        soon("data arrives", stream.read_exact(&mut some)).await.expect("read");
        upstream.set_zero_linger().expect("set");
        drop(upstream);
        let error = expect_reset(read_all(&mut stream).await);
        let status = status_of(&error);
        assert_eq!(
            (status.code(), status.outcome()),
            (Code::Aborted, Outcome::AppError),
            "{status}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_dropped_early_resets_the_upstream() {
    let setup = ForwardSetup::open().await;
    for callee in setup.callees() {
        let (mut stream, mut upstream) = setup.connect_by(&callee).await;
        write(&mut stream, b"some").await;
        let mut some = [0; 4];
        soon("data arrives", upstream.read_exact(&mut some)).await.expect("read");
        drop(stream);
        expect_reset(read_all(&mut upstream).await);
    }
    // Half of it is not all of it.
    let (mut stream, mut upstream) = setup.connect().await;
    stream.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut upstream).await.expect("a clean end"), b"");
    drop(stream);
    let refused = async { while upstream.write_all(&[0; 1024]).await.is_ok() {} };
    soon("the upstream can no longer write", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_was_not_reached_and_the_next_connection_tries_again() {
    let setup = ForwardSetup::open().await;
    let at = setup.upstream.0.local_addr().expect("an address");
    let other = ForwardSetup::open().await;
    let ForwardSetup { upstream, .. } = setup;
    drop(upstream);
    let down = setup.caller.agent("warehouse").expect("a name");
    let status =
        check_status(opened(down.tcp("db")).await, Code::Unavailable, Outcome::NotExecuted);
    assert!(status.message().starts_with("the upstream of tcp:db cannot be reached: "), "{status}");
    assert!(!status.message().contains(&at.to_string()), "callers need not know where it is");
    let again = TcpListener::bind(at).await.expect("the same port");
    let (stream, accepted) = tokio::join!(opened(down.tcp("db")), again.accept());
    assert!(stream.is_ok() && accepted.is_ok());
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_node_or_caller_resets_both_ends_and_neither_sees_fin() {
    for lost in ["agent", "node", "caller"] {
        let setup = ForwardSetup::open().await;
        let (mut stream, mut upstream) = setup.connect().await;
        write(&mut stream, b"some").await;
        let mut some = [0; 4];
        soon("data arrives", upstream.read_exact(&mut some)).await.expect("read");
        let ForwardSetup { node, agent, caller, .. } = setup;
        match lost {
            "agent" => drop(agent),
            "node" => drop(node),
            _ => caller.close().await,
        }
        let (here, there) = tokio::join!(read_all(&mut stream), read_all(&mut upstream));
        expect_reset(here);
        expect_reset(there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_peer_is_detected_while_no_one_reads_and_buffers_are_full() {
    let setup = ForwardSetup::open().await;
    let (stream, mut upstream) = setup.connect().await;
    let filling = spawn(async move {
        let chunk = vec![7; 64 << 10];
        while upstream.write_all(&chunk).await.is_ok() {}
    });
    // It blocks when every window is full; nothing here reads.
    let failure = stream.failure();
    crate::world::until("the agent is busy", || setup.node.agents()[0].calls_in_flight == 1).await;
    setup.node.agent("warehouse").handle().expect("a name").disconnect();
    let status = soon("the loss is detected", failure).await;
    assert_eq!(
        (status.code(), status.outcome()),
        (Code::Unavailable, Outcome::Unknown),
        "{status}"
    );
    soon("the upstream is reset", filling).await;
    drop(stream);
}

/// A pair of connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let (near, far) = tokio::join!(TcpStream::connect(at), listener.accept());
    (near.expect("connected"), far.expect("accepted").0)
}

/// A connection whose local end is relayed to a socket; returns the other end of that socket.
async fn relayed(
    setup: &ForwardSetup,
) -> (TcpStream, TcpStream, crate::world::Background<Result<[u64; 2], dialback::Status>>) {
    let (stream, upstream): (ByteStream, _) = setup.connect().await;
    let (near, far) = pair().await;
    (near, upstream, spawn(stream.relay(far)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_ends_well_with_both_directions_and_counts_their_bytes() {
    let setup = ForwardSetup::open().await;
    let (mut near, mut upstream, relay) = relayed(&setup).await;
    write(&mut near, b"question").await;
    near.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut upstream).await.expect("a clean end"), b"question");
    write(&mut upstream, &pattern(300_000)).await;
    drop(upstream);
    assert!(read_all(&mut near).await.expect("a clean end") == pattern(300_000));
    assert_eq!(soon("the relay ends", relay).await, Ok([8, 300_000]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_forwards_resets_in_both_directions_even_while_no_one_reads() {
    let setup = ForwardSetup::open().await;
    for is_full in [false, true] {
        let (mut near, mut upstream, relay) = relayed(&setup).await;
        if is_full {
            let full = async { while upstream.write_all(&[7; 1 << 16]).await.is_ok() {} };
            drop(tokio::time::timeout(std::time::Duration::from_millis(300), full).await);
        }
        upstream.set_zero_linger().expect("set");
        drop(upstream);
        let failed = soon("the relay ends", relay).await.expect_err("a reset");
        assert!(matches!(failed.code(), Code::Aborted | Code::Internal), "{failed}");
        expect_reset(read_all(&mut near).await);
        let (near, mut upstream, relay) = relayed(&setup).await;
        near.set_zero_linger().expect("set");
        drop(near);
        let failed = soon("the relay ends", relay).await.expect_err("a reset");
        assert_eq!(failed.code(), Code::Aborted, "{failed}");
        expect_reset(read_all(&mut upstream).await);
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_be_a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("bound");
    let setup = ForwardSetup::open().await;
    let forward = format!("local=unix:{}", path.display()).parse().expect("a forward");
    let at = setup.node.local_addr();
    let _agent = attached(setup.world.agent("other", at).tcp(forward)).await;
    let callee = setup.caller.agent("other").expect("a name");
    let (stream, accepted) = tokio::join!(opened(callee.tcp("local")), listener.accept());
    let (mut stream, mut upstream) = (stream.expect("a connection"), accepted.expect("one").0);
    write(&mut stream, b"question").await;
    stream.shutdown().await.expect("a half-close");
    assert_eq!(read_all(&mut upstream).await.expect("a clean end"), b"question");
    write(&mut upstream, b"answer").await;
    drop(upstream);
    assert_eq!(read_all(&mut stream).await.expect("a clean end"), b"answer");
}
