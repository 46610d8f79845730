//! calls
use dialback::{
    certs::{Ca, LeafProfile},
    *,
};
use std::time::SystemTime;

fn credentials(ca: &Ca, party: &str) -> Credentials {
    let party: PeerName = party.parse().unwrap();
    let hosts: &[&str] =
        if party.role == Role::Node { &["localhost", "127.0.0.1", "::1"] } else { &[] };
    let leaf =
        ca.leaf(&LeafProfile::new(ca.trust_domain(), &party, hosts, SystemTime::now())).unwrap();
    Credentials::from_pem(&CredentialPem {
        cert: leaf.cert.as_bytes(),
        key: leaf.key.as_bytes(),
        ca: ca.pem().as_bytes(),
        crl: None,
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let ca = Ca::generate("dialback.local", SystemTime::now()).unwrap();
    let node = Node::builder(credentials(&ca, "node/edge-1"))
        .listen("[::]:0")
        .policy(NodePolicy::allow_all())
        .start()
        .await
        .unwrap();
    let at = format!("localhost:{}", node.local_addr().port());
    let mut arrivals = node.arrivals();
    let service = Service::new("HelloService")
        .method("Hello", |name: String, _| async move { Ok(format!("hello:{name}")) });
    let agent = Agent::builder(credentials(&ca, "agent/warehouse"))
        .node(&at)
        .serve(service)
        .start()
        .unwrap();
    let arrived = arrivals.next().await.unwrap();
    let reply: String = arrived.call("HelloService/Hello", "hello").await.unwrap();
    assert_eq!(reply, "hello:hello");
    let caller = Caller::connect(&at, credentials(&ca, "caller/ops")).await.unwrap();
    let reply: String =
        caller.agent("warehouse").unwrap().call("HelloService.Hello", "hello").await.unwrap();
    assert_eq!(reply, "hello:hello");
    eprintln!("{:#?}", caller.agents().await.unwrap());
    caller.close().await;
    agent.shutdown().await;
    node.shutdown().await;
}
