//! Tests of the certificate that a server of HTTP shows for a host name.

use super::{ALPN, Peer, Side, ca, credentials, meet_at, profile, signed};
use crate::{
    certs::Ca,
    tls::{
        ClaimSlot, Credentials, GatewayClientTls, HostCertificates, HttpTls, ServerCertificate,
        host_certificates::CertificateByHost,
    },
};
use std::sync::Arc;
use tokio::io::duplex;

const HOSTS: [&str; 7] = [
    "localhost",
    "127.0.0.1",
    "a.example",
    "b.example",
    "x.b.example",
    "y.b.example",
    "z.y.b.example",
];

/// A certificate of a node of all these hosts: a client accepts it for each of them.
fn certificate(ca: &Ca) -> ServerCertificate {
    let mut profile = profile(ca, "node/edge-1");
    profile.hosts = HOSTS.map(str::to_owned).into();
    let leaf = signed(ca, &profile);
    ServerCertificate::from_pem(leaf.cert.as_bytes(), leaf.key.as_bytes()).expect("a pair")
}

/// A server with a certificate of its own, and one for each of these hosts.
struct Server {
    node: Credentials,
    own: ServerCertificate,
    sites: Vec<(String, ServerCertificate)>,
}

impl Server {
    fn new(ca: &Ca, hosts: &[&str]) -> Self {
        let sites = hosts.iter().map(|host| ((*host).to_owned(), certificate(ca))).collect();
        Self { node: credentials(ca, "node/edge-1"), own: certificate(ca), sites }
    }

    fn by_host(&self) -> Arc<HostCertificates> {
        Arc::new(self.sites.iter().cloned().collect())
    }

    fn peer(&self) -> Peer {
        let default = self.own.certified_key().clone();
        let shown = Arc::new(CertificateByHost { default, by_host: self.by_host() });
        let server = self.node.http_config(shown, &[ALPN], &ClaimSlot::default());
        Peer { server: server.expect("a config"), ..Peer::of(&self.node) }
    }

    /// The host of the certificate that this client sees; `None` for the server's own.
    #[track_caller]
    fn shown(&self, host: &'static str, client: Peer) -> Option<&str> {
        let met = meet_at(host, client, self.peer()).unwrap_or_else(|fault| panic!("{fault:?}"));
        let shown = met.dialling.peer_certificates().expect("a chain");
        let is_shown = |one: &ServerCertificate| one.certified_key().cert == shown;
        let found = self.sites.iter().find(|(_, one)| is_shown(one));
        assert_eq!(found.is_none(), is_shown(&self.own));
        found.map(|(host, _)| host.as_str())
    }
}

#[test]
fn the_server_name_selects_the_certificate() {
    let ca = ca();
    let server = Server::new(&ca, &["A.example", "*.b.example", "x.b.example"]);
    for (host, expected) in [
        ("a.example", Some("A.example")),
        ("a.Example", Some("A.example")),
        ("x.b.example", Some("x.b.example")),
        ("y.b.example", Some("*.b.example")),
        ("z.y.b.example", None),
        ("b.example", None),
        ("localhost", None),
        ("127.0.0.1", None),
    ] {
        let client = Peer::of(&credentials(&ca, "caller/ops"));
        assert_eq!(server.shown(host, client), expected, "{host}");
    }
    let mut silent = Peer::of(&credentials(&ca, "caller/ops"));
    silent.client.enable_sni = false;
    assert_eq!(server.shown("a.example", silent), None);
    let empty = Server::new(&ca, &[]);
    assert_eq!(empty.shown("a.example", Peer::of(&credentials(&ca, "caller/ops"))), None);
}

#[test]
fn a_client_certificate_is_verified_whatever_the_server_name() {
    let [ca, other] = [ca(), ca()];
    let server = Server::new(&ca, &["a.example"]);
    for host in ["a.example", "localhost"] {
        let foreign = signed(&other, &profile(&other, "caller/ops"));
        let foreign = meet_at(host, Peer::showing(&ca, &foreign), server.peer());
        assert_eq!(foreign.err().expect("a refusal").by, Side::Accepting, "{host}");
        let known = meet_at(host, Peer::of(&credentials(&ca, "caller/ops")), server.peer());
        let known = known.expect("a handshake");
        assert!(known.accepting.peer_certificates().is_some(), "{host}");
    }
}

#[tokio::test]
async fn an_accepted_connection_knows_its_server_name() {
    let ca = ca();
    let (server, caller) = (Server::new(&ca, &["a.example"]), credentials(&ca, "caller/ops"));
    for (host, expected) in
        [("A.example", Some("a.example")), ("localhost", Some("localhost")), ("127.0.0.1", None)]
    {
        let (near, far) = duplex(1 << 16);
        let tls = HttpTls::with_clients(Some(&server.own), server.by_host(), server.node.clone());
        let client = GatewayClientTls::of_node(host, &caller).expect("a client");
        let (accepted, connected) = tokio::join!(tls.accept(near), client.connect(far));
        assert!(connected.is_ok(), "{host}");
        assert_eq!(accepted.expect("a handshake").sni.as_deref(), expected);
    }
}
