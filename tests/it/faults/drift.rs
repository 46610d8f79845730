//! Many calls and many links, one after the other, in a process of their own: no place, task, file
//! or memory is lost on the way.

use crate::world::{Memory, Rest, Scene, alone, background, soon};
use dialback::{Caller, Credentials, Status};
use serde_bytes::{ByteBuf, Bytes};
use std::net::SocketAddr;

/// What allocators may have set aside for threads that came late.
const RESERVED_KIB_MAX: u64 = 256 * 1_024;

/// Does something so often, and looks whether memory in use has grown since a tenth of it was done,
/// and anything else since the start.
async fn check_drift(
    scene: &Scene,
    times: usize,
    growth_kib_max: u64,
    something: impl AsyncFn(usize),
) {
    let rest = Rest::of_now();
    for n in 0..times / 10 {
        something(n).await;
    }
    let warm = Memory::of_now();
    for n in times / 10..times {
        something(n).await;
    }
    rest.comes_back(&scene.node).await;
    println!("{times} times, {rest:?}");
    warm.expect_growth(growth_kib_max, RESERVED_KIB_MAX);
}

#[test]
fn ten_thousand_calls_leave_nothing_behind() {
    alone("faults::drift::ten_thousand_calls_leave_nothing_behind", async {
        let scene = Scene::open().await;
        let ways = scene.ways_in();
        // Half a kilobyte lost a call would be more.
        check_drift(&scene, 10_000, 4 * 1_024, async |n| {
            let call = ways[n % 2].1.call::<ByteBuf>("Stage/Echo", Bytes::new(b"x"));
            assert!(call.await.is_ok(), "call {n}");
        })
        .await;
    });
}

/// Links that are made and left side by side, because leaving one means waiting for the peer.
const LANES: usize = 20;

#[test]
fn a_thousand_links_leave_nothing_behind() {
    alone("faults::drift::a_thousand_links_leave_nothing_behind", async {
        let scene = Scene::open().await;
        let (at, credentials) = (scene.node.local_addr(), scene.world.credentials("caller/other"));
        // Room for one round of parties that were not yet heard to leave, each with a buffer of 3
        // MiB into which quinn receives: how many of them there are when the memory is read is
        // chance. A connection lost with every link would be more.
        check_drift(&scene, 1_000 / LANES, LANES as u64 * 3 * 1_024, async |n| {
            let lanes: [_; LANES] =
                std::array::from_fn(|_| background(come_and_go(at, credentials.clone())));
            for lane in lanes {
                soon("a link comes and goes", lane)
                    .await
                    .unwrap_or_else(|fault| panic!("{n}: {fault}"));
            }
        })
        .await;
    });
}

/// Links, calls and leaves.
async fn come_and_go(at: SocketAddr, credentials: Credentials) -> Result<(), Status> {
    let caller = Caller::builder(credentials).node(at.to_string()).connect().await;
    let caller = caller.map_err(|fault| fault.to_status())?;
    let callee = caller.agent("warehouse").expect("a name");
    callee.call::<ByteBuf>("Stage/Echo", Bytes::new(b"x")).await?;
    caller.close().await;
    Ok(())
}
