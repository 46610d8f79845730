//! Joining and renewing where UDP does not get through.

use super::{HOUR, Site, address, loads};
use crate::world::{Relay, soon, until};
use dialback::{
    Credentials, PathChoice, PathSettings, TunnelListen,
    enroll::{Enroller, Join, Renewal},
};
use std::time::Duration;

/// Leafs that are due five seconds after they were signed.
const SHORT: Duration = Duration::from_secs(8);

/// An enroller that listens for tunnels too.
async fn enroller(site: &Site) -> Enroller {
    let builder = Enroller::builder(site.ca()).listen("127.0.0.1:0").leaf_life(SHORT);
    let builder = builder.tunnel(TunnelListen::at("127.0.0.1:0"));
    builder.start().await.expect("an enroller")
}

fn paths(enroller: &Enroller, choice: PathChoice) -> PathSettings {
    let at = enroller.tunnel_addr().expect("it listens for tunnels");
    let url = format!("wss://{at}").parse().expect("a URL");
    PathSettings::udp().choice(choice).of_enroller(Some(url))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_and_renews_through_a_tunnel() {
    let site = Site::new();
    let enroller = enroller(&site).await;
    let at = address(enroller.local_addr());
    let paths = paths(&enroller, PathChoice::Tunnel);
    let join = Join::new(at.clone(), site.token("agent/warehouse"), site.path("new"));
    let joined = soon("joining ends", join.paths(paths.clone()).run()).await.expect("joined");
    assert_eq!(loads(&joined.files).peer_name().to_string(), "agent/warehouse");
    let renewing = Renewal::new(at, joined.files.clone()).paths(paths).start();
    until("the certificate is renewed", || {
        Credentials::from_files(&joined.files)
            .is_ok_and(|now| now.identity().serial() != joined.serial)
    })
    .await;
    drop(renewing);
    soon("the enroller stops", enroller.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_where_udp_is_dropped() {
    let site = Site::new();
    let enroller = enroller(&site).await;
    let relay = Relay::to(enroller.local_addr()).await;
    relay.block().await;
    let join = Join::new(address(relay.address()), site.token("agent/warehouse"), site.path("new"));
    let join = join.paths(paths(&enroller, PathChoice::Auto));
    soon("joining ends", join.run()).await.expect("joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_of_a_machine_that_neither_path_serves_names_both() {
    let site = Site::new();
    let enroller = site.enroller(HOUR).await;
    let relay = Relay::to(enroller.local_addr()).await;
    relay.block().await;
    let dir = site.path("new");
    let join = Join::new(address(relay.address()), site.token("agent/warehouse"), &dir);
    let closed = "wss://127.0.0.1:1".parse().expect("a URL");
    let join = join.paths(PathSettings::default().of_enroller(Some(closed)));
    let fault = soon("joining ends", join.run()).await.expect_err("no path").to_string();
    for part in [
        "does not answer",
        "By a tunnel over TCP: no answer of 127.0.0.1:1",
        "--tunnel of an enroller",
    ] {
        assert!(fault.contains(part), "{part}: {fault}");
    }
}
