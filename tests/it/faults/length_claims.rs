//! Frames that claim to be large: whoever only claims costs no memory. In a process of its own, or
//! nobody could tell whose it is.

use crate::{
    raw_peer::{Cbor, Head, Issuer, RawLink, end, frame, header, hello, kind},
    world::{Memory, run_in_own_process},
};
use dialback::{Context, Node, NodePolicy, Service};
use serde_bytes::ByteBuf;

/// As large as the default allows.
const CLAIMED: u64 = 4 << 20;

const STREAMS: usize = 100;

/// What a hundred calls with a kilobyte each may take: two messages of the size that each claims.
const GROWTH_KIB_MAX: u64 = 8 * 1_024;

/// And what allocators may set aside without using it: far below what is claimed in all.
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
        // A call that is answered comes after all that was sent before it.
        let mut last = link.open().await;
        let message = frame(kind::MESSAGE, &Cbor::Bytes(vec![7]).encode());
        last.send(&[Head::here("Scale/Weigh").frame(), message, end()].concat()).await;
        last.finish();
        assert_eq!(last.reply().await.code, 0);
        before.expect_growth(GROWTH_KIB_MAX, RESERVED_KIB_MAX);
        drop(streams);
    });
}
