//! Tests of links between the two ends of a connection, without a node, an agent or a caller.

use super::*;
use crate::{
    certs::{Ca, LeafProfile},
    limits::Limits,
    name::{NodeAddress, Role},
    net,
    tls::{CredentialPem, Credentials},
    wire::{Control, PROTOCOL_VERSION, Welcome},
};
use std::{future::Future, pin::Pin, time::SystemTime};

const MESSAGE_BYTES_MAX: usize = 1 << 20;
const WORDS: HelloWords = HelloWords { instance: [1; 16], calls_in_flight_max: 0 };

fn new_ca() -> Ca {
    Ca::generate("dialback.local", SystemTime::now()).expect("a CA")
}

/// New credentials of a peer, whose certificate this CA has signed and which trusts this CA.
fn credentials(ca: &Ca, peer: &str) -> Credentials {
    let peer: PeerName = peer.parse().expect("a peer");
    let hosts: &[&str] = if peer.role == Role::Node { &["127.0.0.1"] } else { &[] };
    let profile = LeafProfile::new(ca.trust_domain(), &peer, hosts, SystemTime::now());
    let leaf = ca.leaf(&profile).expect("a leaf");
    let pem = CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.pem().as_bytes(),
        ..CredentialPem::default()
    };
    Credentials::from_pem(&pem).expect("credentials")
}

/// A listener and a dialler that trust each other.
struct Ends {
    ca: Ca,
    limits: Arc<Limits>,
    listener: Listener,
    dialler: Dialler,
}

impl Ends {
    fn new() -> Self {
        let (ca, limits) = (new_ca(), Arc::new(Limits::default()));
        let of_node = credentials(&ca, "node/edge-1");
        let net = net::system();
        let loopback = ([127, 0, 0, 1], 0).into();
        let listener = Listener::bind(&net, loopback, &of_node, &limits, None).expect("a listener");
        let dialler = Dialler::new(&net, &credentials(&ca, "agent/a"), WORDS, limits.clone());
        Self { ca, limits, listener, dialler: dialler.expect("a dialler") }
    }

    fn address(&self) -> NodeAddress {
        self.listener.local_addr().to_string().parse().expect("an address")
    }

    /// Dials until WELCOME.
    async fn dialled(&self) -> (Link, ControlStream) {
        let dialled = self.dialler.dial(&self.address(), None).await;
        let (link, control, _welcome) = dialled.expect("a welcome");
        (link, control)
    }

    /// Accepts the next peer up to HELLO.
    async fn greeted(&self) -> Greeted {
        let knock = self.listener.knock().await.expect("the listener is open");
        knock.greet().await.unwrap_or_else(|refused| unreachable!("{}", refused.fault))
    }

    /// Answers HELLO with WELCOME.
    async fn welcomed(&self, greeted: Greeted) -> (Link, ControlStream) {
        let welcome = Welcome {
            protocol: PROTOCOL_VERSION,
            node: "edge-1".into(),
            admission: 1,
            calls_in_flight_max: 0,
            message_bytes_max: MESSAGE_BYTES_MAX as u64,
            view_version: 0,
        };
        let grants = Grants { calls_in_flight_max: 0 };
        let (link, mut control) = greeted.into_link(grants, &self.limits);
        // A link that was judged and closed meanwhile has nobody to welcome.
        drop(control.send(&Control::Welcome(welcome)).await);
        (link, control)
    }

    /// Both ends of a new link, the dialled one first.
    async fn linked(&self) -> [(Link, ControlStream); 2] {
        let accepted = async { self.welcomed(self.greeted().await).await };
        let (dialled, accepted) = soon(async { tokio::join!(self.dialled(), accepted) }).await;
        [dialled, accepted]
    }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(45), future).await.expect("it ends in time")
}

fn opening(link: &Link) -> Pin<Box<impl Future<Output = Result<CallStream, OpenFault>> + use<'_>>> {
    let until = || Instant::now() + Duration::from_secs(600);
    Box::pin(link.open(until, MESSAGE_BYTES_MAX))
}

/// Opens all streams that the peer grants.
async fn all_streams(link: &Link) -> Vec<CallStream> {
    let mut streams = Vec::new();
    while let Poll::Ready(stream) = poll_once(opening(link).as_mut()).await {
        streams.push(stream.expect("a stream"));
    }
    streams
}

#[tokio::test]
async fn streams_go_to_those_who_wait_in_their_order_and_nobody_overtakes_them() {
    let ends = Ends::new();
    let [(link, _control), (peer, _its_control)] = ends.linked().await;
    let _held = all_streams(&link).await;
    let mut waiting = [opening(&link), opening(&link), opening(&link)];
    for opening in &mut waiting {
        assert!(poll_once(opening.as_mut()).await.is_pending(), "a stream was left");
    }
    peer.0.connection.set_max_concurrent_bi_streams(1_000u32.into());
    for first in 0..waiting.len() {
        let served = async {
            loop {
                // The newest is polled first and the one whose turn it is last.
                let newcomer = poll_once(opening(&link).as_mut()).await;
                assert!(newcomer.is_pending(), "a newcomer overtook waiter {first}");
                for later in (first + 1..waiting.len()).rev() {
                    let overtook = poll_once(waiting[later].as_mut()).await;
                    assert!(overtook.is_pending(), "waiter {later} overtook waiter {first}");
                }
                match poll_once(waiting[first].as_mut()).await {
                    Poll::Ready(stream) => return stream,
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        };
        soon(served).await.expect("a stream");
    }
    soon(opening(&link)).await.expect("a stream for a newcomer, once nobody waits");
}

#[tokio::test]
async fn a_replaced_link_opens_no_stream_and_keeps_those_it_has() {
    let ends = Ends::new();
    let [(link, _control), (peer, _its_control)] = ends.linked().await;
    let mut before = soon(opening(&link)).await.expect("a stream");
    link.replace();
    let after = poll_once(opening(&link).as_mut()).await;
    assert!(matches!(after, Poll::Ready(Err(OpenFault::Replaced))));
    assert!(poll_once(pin!(link.quiet())).await.is_pending(), "a reply is awaited");
    before.sender.finish();
    assert!(soon(peer.accept(MESSAGE_BYTES_MAX)).await.is_some(), "it broke the stream off");
    drop(before);
    soon(link.quiet()).await;
    assert!(!link.is_closed() && !peer.is_closed());
}

/// Credentials of the same peer and whether a link to a peer under `ca` outlives them.
fn replacements(ca: &Ca, peer: &str) -> [(Credentials, bool); 2] {
    [(credentials(ca, peer), true), (credentials(&new_ca(), peer), false)]
}

/// Whether a link was closed because the CA of its peer is no longer trusted, or not at all.
#[track_caller]
fn check_outlives(link: &Link, outlives: bool) {
    let distrusts = |fault: &LinkFault| {
        matches!(fault, LinkFault::Closed { code: CloseCode::TrustChanged, by_peer: false, .. })
    };
    let ended = link.0.ended.get();
    assert_eq!(ended.is_none(), outlives, "{ended:?}");
    assert!(ended.is_none_or(distrusts), "{ended:?}");
}

#[tokio::test]
async fn a_link_that_is_accepted_while_credentials_are_replaced_is_verified_with_the_new_ones() {
    let ends = Ends::new();
    for (next, outlives) in replacements(&ends.ca, "node/edge-1") {
        let accepted = async {
            let greeted = ends.greeted().await;
            ends.listener.replace(&next, &ends.limits).expect("replaced");
            assert_eq!(ends.listener.trust().judge_all().await, 0, "there is no link yet");
            ends.welcomed(greeted).await
        };
        let address = ends.address();
        let dialled = ends.dialler.dial(&address, None);
        let (_dialled, (link, _control)) = soon(async { tokio::join!(dialled, accepted) }).await;
        check_outlives(&link, outlives);
        // The next round is not to close this one.
        link.close(CloseCode::Goodbye, "");
    }
}

#[tokio::test]
async fn a_link_that_is_dialled_while_credentials_are_replaced_is_verified_with_the_new_ones() {
    let ends = Ends::new();
    for (next, outlives) in replacements(&ends.ca, "agent/a") {
        let accepted = async {
            // The dial waits for WELCOME.
            let greeted = ends.greeted().await;
            ends.dialler.replace(&next, WORDS, ends.limits.clone()).expect("replaced");
            assert_eq!(ends.dialler.trust().judge_all().await, 0, "there is no link yet");
            ends.welcomed(greeted).await
        };
        let both = async { tokio::join!(ends.dialled(), accepted) };
        let ((link, _control), _accepted) = soon(both).await;
        check_outlives(&link, outlives);
        link.close(CloseCode::Goodbye, "");
    }
}
