//! Joining and renewing where UDP does not get through.

use super::{HOUR, Site, address, loads};
use crate::world::{Relay, soon};
use dialback::{
    PathChoice, PathSettings, TunnelListen,
    enroll::{Enroller, Join, Renewal, Renewed},
};

/// An enroller that listens for tunnels too, whose leafs are due for renewal at once.
async fn enroller(site: &Site) -> Enroller {
    let builder = Enroller::builder(site.ca()).listen("127.0.0.1:0").leaf_life(HOUR);
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
    let kept = soon("a look ends", Renewal::new(at, joined.files).paths(paths).once()).await;
    assert!(matches!(kept, Ok(Renewed::Kept { .. })), "{kept:?}");
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
    for part in ["does not answer", "By a tunnel over TCP: no answer of 127.0.0.1:1", "--tunnel"] {
        assert!(fault.contains(part), "{part}: {fault}");
    }
}
