//! Many calls and many links, one after the other, in their own process: no permit, task, file or
//! memory leaks.

use crate::world::{Baseline, Memory, Setup, run_in_own_process, soon, spawn};
use dialback::{Caller, Credentials, Status};
use serde_bytes::{ByteBuf, Bytes};
use std::net::SocketAddr;

/// The memory that allocators may have reserved for threads that started late.
const RESERVED_KIB_MAX: u64 = 256 * 1_024;

/// Repeats an operation and checks that memory in use has not grown since a tenth of the
/// repetitions, and anything else since the start.
async fn check_leaks(
    setup: &Setup,
    times: usize,
    growth_kib_max: u64,
    something: impl AsyncFn(usize),
) {
    // The node may start its part of a link a moment after the other side knows of it.
    drop(setup.caller.agents().await);
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
        // A leak of half a kilobyte per call would be more.
        check_leaks(&setup, 10_000, 4 * 1_024, async |n| {
            let call = ways[n % 2].1.call::<ByteBuf>("Stage/Echo", Bytes::new(b"x"));
            assert!(call.await.is_ok(), "call {n}");
        })
        .await;
    });
}

/// Links that are made and closed concurrently, because closing one waits for the peer.
const WORKERS: usize = 20;

#[test]
fn a_thousand_links_leave_nothing_behind() {
    run_in_own_process("faults::leaks::a_thousand_links_leave_nothing_behind", async {
        let setup = Setup::open().await;
        let (at, credentials) = (setup.node.local_addr(), setup.world.credentials("caller/other"));
        // Room for one round of peers whose close was not received yet, each with a receive buffer
        // of quinn of 3 MiB; their number at the measurement is random. A leaked connection per
        // link would be more.
        check_leaks(&setup, 1_000 / WORKERS, WORKERS as u64 * 3 * 1_024, async |n| {
            let workers: [_; WORKERS] =
                std::array::from_fn(|_| spawn(open_and_close(at, credentials.clone())));
            for worker in workers {
                soon("a link opens and closes", worker)
                    .await
                    .unwrap_or_else(|fault| panic!("{n}: {fault}"));
            }
        })
        .await;
    });
}

/// Links, calls and closes.
async fn open_and_close(at: SocketAddr, credentials: Credentials) -> Result<(), Status> {
    let caller = Caller::builder(credentials).node(at.to_string()).connect().await;
    let caller = caller.map_err(|fault| fault.to_status())?;
    let callee = caller.agent("warehouse").expect("a name");
    callee.call::<ByteBuf>("Stage/Echo", Bytes::new(b"x")).await?;
    caller.close().await;
    Ok(())
}
