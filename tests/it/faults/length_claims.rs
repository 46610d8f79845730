//! Frames that claim to be large: a claim alone costs no memory. The tests run in their own
//! process, so that its memory belongs to them.

use crate::{
    raw_peer::{Cbor, Head, Issuer, RawLink, end, frame, header, hello, kind},
    world::{Memory, run_in_own_process},
};
use dialback::{Context, Node, NodePolicy, Service};
use serde_bytes::ByteBuf;

/// As large as the default limits allow.
const CLAIMED: u64 = 4 << 20;

const STREAMS: usize = 100;

/// The memory that a hundred calls with a kilobyte each may take: two messages of the claimed size.
const GROWTH_KIB_MAX: u64 = 8 * 1_024;

/// The memory that allocators may reserve without using it: far below the sum of all claims.
const RESERVED_KIB_MAX: u64 = 128 * 1_024;

#[test]
fn a_hundred_frames_that_claim_four_mebibytes_and_stop_reserve_no_memory() {
    const NAME: &str = "faults::length_claims::a_hundred_frames_that_claim_four_mebibytes_and_stop_reserve_no_memory";
    run_in_own_process(NAME, async {
        let issuer = Issuer::new();
        let weigh = Service::new("Scale")
            .method("Weigh", |bytes: ByteBuf, _: Context| async move { Ok(bytes.len()) });
        let node = Node::builder(issuer.credentials("node/edge-1"))
            .listen("127.0.0.1:0")
            .policy(NodePolicy::allow_all())
            .serve(weigh)
            .start()
            .await
            .expect("a node");
        let link = RawLink::dial(node.local_addr(), &issuer.credentials("caller/ops")).await;
        let mut control = link.open().await;
        control.send(&hello([1, 1], 0)).await;
        control.expect(kind::WELCOME).await;
        let before = Memory::measure();
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            let mut stream = link.open().await;
            let claim =
                [Head::here("Scale/Weigh").frame(), header(kind::MESSAGE, CLAIMED)].concat();
            stream.send(&[claim, vec![0; 1_024]].concat()).await;
            streams.push(stream);
        }
        // A call that is answered arrives after all data that was sent before it.
        let mut last = link.open().await;
        let message = frame(kind::MESSAGE, &Cbor::Bytes(vec![7]).encode());
        last.send(&[Head::here("Scale/Weigh").frame(), message, end()].concat()).await;
        last.finish();
        assert_eq!(last.reply().await.code, 0);
        before.expect_growth(GROWTH_KIB_MAX, RESERVED_KIB_MAX);
        drop(streams);
    });
}
