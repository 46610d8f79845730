//! Many calls and many links, one after the other, in a process of their own: no place, task, file
//! or memory is lost on the way.

use crate::world::{Baseline, Memory, Setup, run_in_own_process, soon, spawn};
use dialback::{Caller, Credentials, Status};
use serde_bytes::{ByteBuf, Bytes};
use std::net::SocketAddr;

/// What allocators may have set aside for threads that came late.
const RESERVED_KIB_MAX: u64 = 256 * 1_024;

/// Does something so often, and looks whether memory in use has grown since a tenth of it was done,
/// and anything else since the start.
async fn check_drift(
    setup: &Setup,
    times: usize,
    growth_kib_max: u64,
    something: impl AsyncFn(usize),
) {
    let baseline = Baseline::measure();
    for n in 0..times / 10 {
        something(n).await;
    }
    let warm = Memory::measure();
    for n in times / 10..times {
        something(n).await;
    }
    baseline.wait_until_restored(&setup.node).await;
    println!("{times} times, {baseline:?}");
    warm.expect_growth(growth_kib_max, RESERVED_KIB_MAX);
}

#[test]
fn ten_thousand_calls_leave_nothing_behind() {
    run_in_own_process("faults::leaks::ten_thousand_calls_leave_nothing_behind", async {
        let setup = Setup::open().await;
        let ways = setup.callees();
        // Half a kilobyte lost a call would be more.
        check_drift(&setup, 10_000, 4 * 1_024, async |n| {
            let call = ways[n % 2].1.call::<ByteBuf>("Stage/Echo", Bytes::new(b"x"));
            assert!(call.await.is_ok(), "call {n}");
        })
        .await;
    });
}

/// Links that are made and left side by side, because leaving one means waiting for the peer.
const WORKERS: usize = 20;

#[test]
fn a_thousand_links_leave_nothing_behind() {
    run_in_own_process("faults::leaks::a_thousand_links_leave_nothing_behind", async {
        let setup = Setup::open().await;
        let (at, credentials) = (setup.node.local_addr(), setup.world.credentials("caller/other"));
        // Room for one round of parties that were not yet heard to leave, each with a buffer of 3
        // MiB into which quinn receives: how many of them there are when the memory is read is
        // chance. A connection lost with every link would be more.
        check_drift(&setup, 1_000 / WORKERS, WORKERS as u64 * 3 * 1_024, async |n| {
            let workers: [_; WORKERS] =
                std::array::from_fn(|_| spawn(come_and_go(at, credentials.clone())));
            for worker in workers {
                soon("a link comes and goes", worker)
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
