//! Requests to an enroller: no request obtains a node, another name or a CA certificate.

use super::{
    raw::{RawClient, request, secret},
    *,
};
use crate::world::until;
use dialback::JoinRefusal;
use std::process::Command;

const LONG: Duration = Duration::from_secs(90 * 24 * 3600);

/// A certificate request with extra fields, made by OpenSSL with a new key.
fn request_with_extras(dir: &Path, peer: &str, extensions: &[&str]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    command.args(["-nodes", "-keyout", "wish.key", "-outform", "DER", "-subj"]);
    command.arg(format!("/CN=dialback {}", peer.replace('/', " ")));
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    let made = command.current_dir(dir).output().expect("openssl; `make test` installs it");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

/// The output of OpenSSL for a certificate.
fn openssl_output(dir: &Path, pem: &str, args: &[&str]) -> String {
    fs::write(dir.join("shown.pem"), pem).expect("written");
    let mut command = Command::new("openssl");
    let out = command.args(args).arg("shown.pem").current_dir(dir).output().expect("openssl");
    String::from_utf8(out.stdout).expect("text") + &String::from_utf8_lossy(&out.stderr)
}

#[tokio::test]
async fn a_request_with_extra_fields_gets_only_what_its_token_grants() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let token = site.token("agent/warehouse");
    let wishes = [
        "basicConstraints=critical,CA:TRUE",
        "subjectAltName=URI:spiffe://dialback.local/node/edge-1,DNS:localhost,IP:127.0.0.1",
        "keyUsage=critical,keyCertSign,cRLSign",
        "extendedKeyUsage=serverAuth,clientAuth",
    ];
    let csr = request_with_extras(&site.path(""), "node/edge-1", &wishes);
    let request_body = request(1, &csr, "agent/warehouse", &secret(&token));
    let reply = RawClient::new(None).ask(enroller.local_addr(), &request_body).await;
    assert_eq!(reply.code(), 0, "{}", reply.text(1));
    let text = openssl_output(&site.path(""), reply.text(2), &["x509", "-noout", "-text", "-in"]);
    for wanted in [
        "URI:spiffe://dialback.local/agent/warehouse",
        "CA:FALSE",
        "TLS Web Client Authentication",
        "Subject: CN = dialback agent warehouse",
    ] {
        assert!(text.contains(wanted), "no {wanted:?} in {text}");
    }
    for wish in ["edge-1", "CA:TRUE", "DNS:", "IP Address:", "TLS Web Server", "Certificate Sign"] {
        assert!(!text.contains(wish), "{wish:?} was granted in {text}");
    }
    let ca = site.path("ca/ca.pem");
    let ca = ca.to_str().expect("UTF-8");
    let verified =
        openssl_output(&site.path(""), reply.text(2), &["verify", "-x509_strict", "-CAfile", ca]);
    assert!(verified.contains("shown.pem: OK"), "{verified}");
}

#[tokio::test]
async fn neither_a_handmade_token_nor_a_nodes_certificate_obtains_a_node_certificate() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let at = enroller.local_addr();
    let csr = request_with_extras(&site.path(""), "node/edge-1", &[]);
    let token = site.token("agent/edge-1");
    // A user with write access to the CA's directory owns the CA; even so, an editing mistake there
    // must not create a node.
    let path = site.path("ca/join-tokens.jsonl");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text.replace("agent/edge-1", "node/edge-1")).expect("written");
    let reply =
        RawClient::new(None).ask(at, &request(1, &csr, "node/edge-1", &secret(&token))).await;
    assert_eq!(reply.code(), JoinRefusal::Role.number(), "{}", reply.text(1));
    let node = site.issued(Role::Node, "edge-1");
    let before = site.ca().list().expect("a record").len();
    let reply = RawClient::new(Some(&node)).ask(at, &request(2, &csr, "", &[])).await;
    assert_eq!(reply.code(), JoinRefusal::Role.number(), "{}", reply.text(1));
    assert_eq!(site.ca().list().expect("a record").len(), before);
}

#[tokio::test]
async fn a_failed_proof_of_key_possession_does_not_use_up_the_token() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, token) = (enroller.local_addr(), site.token("agent/a"));
    let good = request_with_extras(&site.path(""), "agent/a", &[]);
    let mut forged = good.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    let raw = RawClient::new(None);
    for csr in [&[][..], b"no request", &forged, &good[..good.len() / 2]] {
        let reply = raw.ask(at, &request(1, csr, "agent/a", &secret(&token))).await;
        assert_eq!(reply.code(), JoinRefusal::Malformed.number(), "{}", reply.text(1));
    }
    let reply = raw.ask(at, &request(1, &good, "agent/a", &secret(&token))).await;
    assert_eq!(reply.code(), 0, "{}", reply.text(1));
}

#[tokio::test]
async fn renewal_and_the_crl_need_a_valid_certificate_that_is_old_enough() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let at = enroller.local_addr();
    let csr = request_with_extras(&site.path(""), "agent/a", &[]);
    let (renew, list) = (request(2, &csr, "", &[]), request(3, &[], "", &[]));
    let agent = site.issued(Role::Agent, "a");
    for request_body in [&renew, &list] {
        let reply = RawClient::new(None).ask(at, request_body).await;
        assert_eq!(reply.code(), JoinRefusal::NoCertificate.number());
        assert_eq!(reply.text(4), "", "no CRL for unauthenticated clients");
    }
    let raw = RawClient::new(Some(&agent));
    assert_eq!(raw.ask(at, &renew).await.code(), JoinRefusal::TooEarly.number());
    let reply = raw.ask(at, &list).await;
    assert_eq!((reply.code(), reply.text(4).contains("BEGIN X509 CRL")), (0, true));
    let other = Site::new();
    let foreign = RawClient::new(Some(&other.issued(Role::Agent, "a")));
    assert_eq!(foreign.send(at, &list).await, None, "another CA's agent gets no answer at all");
}

/// Another request for the key of [`request_with_extras`], with its point in this encoding.
fn again(dir: &Path, form: &str) -> Vec<u8> {
    let openssl = |args: &[&str]| {
        let made = Command::new("openssl").args(args).current_dir(dir).output().expect("openssl");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        made.stdout
    };
    openssl(&["ec", "-in", "wish.key", "-conv_form", form, "-out", "again.key"]);
    openssl(&["req", "-new", "-key", "again.key", "-subj", "/CN=again", "-outform", "DER"])
}

#[tokio::test]
async fn a_token_certifies_no_key_of_a_revoked_certificate_but_another_key() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::new(None));
    let stolen = request_with_extras(&site.path(""), "agent/a", &[]);
    let join = |csr: &[u8], peer: &str, token: &JoinToken| request(1, csr, peer, &secret(token));
    let first = raw.ask(at, &join(&stolen, "agent/a", &site.token("agent/a"))).await;
    assert_eq!(first.code(), 0, "{}", first.text(1));
    let again = again(&site.path(""), "compressed");
    let other = request_with_extras(&site.path(""), "agent/a", &[]);
    let second = raw.ask(at, &join(&other, "agent/c", &site.token("agent/c"))).await;
    assert_eq!(second.code(), 0, "{}", second.text(1));
    site.ca().revoke(&"agent/a".parse().expect("a peer name"), SystemTime::now()).expect("revoked");
    // Under its own name and another, in the same request and another.
    for (csr, peer) in [(&stolen, "agent/a"), (&again, "agent/a"), (&stolen, "caller/b")] {
        let token = site.token(peer);
        let reply = raw.ask(at, &join(csr, peer, &token)).await;
        assert_eq!(reply.code(), JoinRefusal::Revoked.number(), "{peer}: {}", reply.text(1));
        let reply = raw.ask(at, &join(&other, peer, &token)).await;
        assert_eq!(reply.code(), 0, "the token stays valid for another key: {}", reply.text(1));
    }
}

#[tokio::test]
async fn a_renewal_certifies_no_key_of_a_revoked_certificate_but_another_key() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let at = enroller.local_addr();
    let stolen = request_with_extras(&site.path(""), "agent/a", &[]);
    let joined = request(1, &stolen, "agent/a", &secret(&site.token("agent/a")));
    assert_eq!(RawClient::new(None).ask(at, &joined).await.code(), 0);
    site.ca().revoke(&"agent/a".parse().expect("a peer name"), SystemTime::now()).expect("revoked");
    // In the second half of its lifetime, as renewals require.
    let then = SystemTime::now() - 50 * 24 * HOUR;
    let due = LeafRequest::new(Role::Agent, "b".parse().expect("a name"));
    site.ca().issue(&due, then).expect("issued");
    let raw = RawClient::new(Some(&CredentialFiles::in_dir(site.path("ca"), "agent-b")));
    let reply = raw.ask(at, &request(2, &stolen, "", &[])).await;
    assert_eq!(reply.code(), JoinRefusal::Revoked.number(), "{}", reply.text(1));
    let other = request_with_extras(&site.path(""), "agent/b", &[]);
    let reply = raw.ask(at, &request(2, &other, "", &[])).await;
    assert_eq!(reply.code(), 0, "{}", reply.text(1));
}

#[tokio::test]
async fn malformed_requests_get_an_error_or_a_close_and_the_enroller_keeps_serving() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::new(None));
    let mut deep = vec![0xa1, 0x00];
    deep.extend([0x81; 1_000]);
    for bytes in
        [&[][..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100], &deep, &[0xa1, 0x00, 0x18, 0x63]]
    {
        let reply = raw.ask(at, bytes).await;
        assert_eq!(reply.code(), JoinRefusal::Malformed.number(), "{bytes:02x?}");
    }
    let most = 8 * 1024;
    assert!(raw.send(at, &vec![0x00; most]).await.is_some(), "at the limit");
    assert!(raw.send(at, &vec![0x00; most + 1]).await.is_none(), "one past it");
    site.join(at, &site.token("agent/a"), "m").await.expect("joined");
}

/// Sends a request and disconnects once the enroller has recorded the use of its token. No answer
/// is read.
async fn ask_and_disconnect(site: &Site, at: SocketAddr, request_body: &[u8]) {
    let raw = RawClient::new(None);
    let connection = raw.dial(at).await.expect("connected");
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    send.write_all(request_body).await.expect("sent");
    send.finish().expect("finished");
    let path = site.path("ca/join-tokens.jsonl");
    let is_used = || fs::read_to_string(&path).is_ok_and(|text| text.contains("\"used\":\""));
    until("the use of the token is recorded", is_used).await;
    connection.close(0x40_u8.into(), b"");
}

#[tokio::test]
async fn a_token_whose_answer_was_lost_repeats_the_certificate_for_the_same_key_only() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    let token = site.token("agent/a");
    let [csr, other] = [(); 2].map(|()| request_with_extras(&site.path(""), "agent/a", &[]));
    let request_body = request(1, &csr, "agent/a", &secret(&token));
    ask_and_disconnect(&site, enroller.local_addr(), &request_body).await;
    // A restart keeps the record.
    enroller.shutdown().await;
    let enroller = site.enroller(LONG).await;
    let (at, raw) = (enroller.local_addr(), RawClient::new(None));
    let used = JoinRefusal::TokenUsed.number();
    for (csr, peer) in [(&other, "agent/a"), (&csr, "agent/b"), (&b"csr".to_vec(), "agent/a")] {
        let reply = raw.ask(at, &request(1, csr, peer, &secret(&token))).await;
        assert_eq!((reply.code(), reply.text(2)), (used, ""), "{peer}");
    }
    let [first, second] = [raw.ask(at, &request_body).await, raw.ask(at, &request_body).await];
    assert_eq!(first.code(), 0, "{}", first.text(1));
    assert_eq!(first.text(2), second.text(2), "the same certificate");
    let given = CertificateInfo::all_from_pem(first.text(2).as_bytes()).expect("readable");
    let recorded = site.ca().list().expect("a record");
    let serials: Vec<_> = recorded.iter().map(|leaf| leaf.serial.as_str()).collect();
    assert_eq!(serials, [given[0].serial.as_str()], "only one certificate was signed");
    let peer = "agent/a".parse().expect("a peer name");
    site.ca().revoke(&peer, SystemTime::now()).expect("revoked");
    assert_eq!(raw.ask(at, &request_body).await.code(), JoinRefusal::Revoked.number());
}

/// The bytes of a file of `tests/data/wire`.
fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/wire/{name}.hex"));
    let text = fs::read_to_string(path).expect("a file of tests/data/wire");
    let tokens = text.lines().filter_map(|line| line.split('#').next());
    let tokens = tokens.flat_map(str::split_whitespace);
    tokens.map(|token| u8::from_str_radix(token, 16).expect("two digits")).collect()
}

#[tokio::test]
async fn requests_and_refusals_are_the_golden_bytes() {
    let site = Site::new();
    let enroller = site.enroller(LONG).await;
    for (request_body, answered) in
        [("join-request", "join-refused"), ("list-request", "list-refused")]
    {
        let answer = RawClient::new(None).send(enroller.local_addr(), &golden(request_body)).await;
        assert_eq!(answer, Some(golden(answered)), "{request_body}");
    }
}

#[tokio::test]
async fn during_a_ca_change_the_first_ca_signs_and_leafs_of_both_are_accepted() {
    let site = Site::new();
    let old = site.issued(Role::Agent, "a");
    let [before, other] = ["ca/ca.pem", "ca/old.pem"].map(|name| site.path(name));
    fs::copy(&before, &other).expect("copied");
    let options = InitOptions { force: true, ..InitOptions::default() };
    site.ca().init(&options, SystemTime::now()).expect("a new CA");
    let bundle = [&before, &other].map(|path| fs::read_to_string(path).expect("a CA")).concat();
    fs::write(&before, &bundle).expect("written");
    let enroller = site.enroller(LONG).await;
    let at = enroller.local_addr();
    let list = request(3, &[], "", &[]);
    assert_eq!(RawClient::new(Some(&old)).ask(at, &list).await.code(), 0, "a leaf of the old CA");
    let joined = site.join(at, &site.token("agent/b"), "m").await.expect("joined");
    assert_eq!(RawClient::new(Some(&joined.files)).ask(at, &list).await.code(), 0);
    assert_eq!(fs::read_to_string(&joined.files.ca).expect("CAs"), bundle);
    assert_ne!(leaf_of(&joined.files).issuer, leaf_of(&old).issuer);
}
