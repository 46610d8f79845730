//! Certificates created with OpenSSL, as by other tools: an intermediate CA, both key usages in
//! every leaf, all kinds of keys.

use crate::world::{attached, soon};
use dialback::{
    Agent, Caller, ConnectError, CredentialFiles, Credentials, CrlScope, Node, NodePolicy,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

/// Extensions that other tools write into a leaf: SPIRE sets both extended usages and three key
/// usages.
const LEAF: &str = "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature,keyEncipherment,keyAgreement
extendedKeyUsage=serverAuth,clientAuth
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
";

const CA: &str = "basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
";

/// A directory for `openssl`: a root, an intermediate, and the certificates they sign.
struct OpensslPki(tempfile::TempDir);

impl OpensslPki {
    fn open() -> Self {
        let pki = Self(tempfile::tempdir().expect("a directory"));
        pki.key("root", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
        pki.key("middle", &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        pki.write("ca.ext", CA);
        pki.request("root");
        pki.run("x509 -req -in root.csr -key root.key -days 30 -extfile ca.ext -out root.pem");
        pki.request("middle");
        pki.sign("middle", "root", "ca.ext", 0x1001);
        pki
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    #[track_caller]
    fn run(&self, line: &str) {
        let Output { status, stderr, .. } = Command::new("openssl")
            .args(line.split(' '))
            .current_dir(self.0.path())
            .output()
            .expect("openssl runs; on Debian: apt-get install openssl");
        assert!(status.success(), "openssl {line}: {}", String::from_utf8_lossy(&stderr));
    }

    /// A key in PKCS #8.
    fn key(&self, name: &str, kind: &[&str]) {
        self.run(&format!("genpkey -out {name}.key -algorithm {}", kind.join(" ")));
        self.close(name);
    }

    fn close(&self, name: &str) {
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(self.path(&format!("{name}.key")), mode).expect("changed");
    }

    fn request(&self, name: &str) {
        self.run(&format!("req -new -key {name}.key -subj /O=SPIRE/CN={name} -out {name}.csr"));
    }

    fn sign(&self, name: &str, by: &str, extensions: &str, serial: u32) {
        self.run(&format!(
            "x509 -req -in {name}.csr -CA {by}.pem -CAkey {by}.key -set_serial {serial} -days 9 -extfile {extensions} -out {name}.pem"
        ));
    }

    /// A leaf of the intermediate for a peer with an existing key; the file has the leaf and then
    /// the intermediate.
    fn leaf(&self, name: &str, peer: &str) {
        let hosts = if peer.starts_with("node/") { ",IP:127.0.0.1,DNS:localhost" } else { "" };
        let names = format!("subjectAltName=URI:spiffe://dialback.local/{peer}{hosts}\n");
        self.write(&format!("{name}.ext"), format!("{LEAF}{names}"));
        self.request(name);
        self.sign(name, "middle", &format!("{name}.ext"), 0x2001);
        let chain = self.read(&format!("{name}.pem")) + &self.read("middle.pem");
        self.write(&format!("{name}.chain.pem"), chain);
    }

    fn files(&self, name: &str) -> CredentialFiles {
        CredentialFiles {
            cert: self.path(&format!("{name}.chain.pem")),
            key: self.path(&format!("{name}.key")),
            ca: self.path("root.pem"),
            node_ca: None,
            crl: None,
            crl_scope: CrlScope::Leaf,
        }
    }

    fn credentials(&self, name: &str) -> Credentials {
        load(&self.files(name))
    }

    /// The CRL of a CA with these serial numbers.
    fn crl(&self, ca: &str, serials: &[u32]) -> String {
        let index: String = serials
            .iter()
            .map(|serial| {
                format!("R\t391231235959Z\t251101000000Z\t{serial:04X}\tunknown\t/CN=x\n")
            })
            .collect();
        self.write("index.txt", index);
        self.write("number", "01\n");
        self.write(
            "ca.cnf",
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=9\ncrl_extensions=e\n[e]\nauthorityKeyIdentifier=keyid\n",
        );
        self.run(&format!(
            "ca -config ca.cnf -gencrl -keyfile {ca}.key -cert {ca}.pem -out list.pem"
        ));
        self.read("list.pem")
    }
}

#[track_caller]
fn load(files: &CredentialFiles) -> Credentials {
    Credentials::from_files(files).unwrap_or_else(|error| panic!("{error}"))
}

async fn node_of(credentials: Credentials) -> Node {
    let node = Node::builder(credentials).listen("127.0.0.1:0").policy(NodePolicy::allow_all());
    node.start().await.expect("a node")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_chains_of_openssl_link_agents_to_nodes() {
    let pki = OpensslPki::open();
    let p256 = ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let kinds: [(&str, &[&str]); 5] = [
        ("p256", &p256),
        ("p384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("p521", &["EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        ("rsa", &["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
        ("ed25519", &["ED25519"]),
    ];
    let mut names: Vec<String> = kinds.map(|(name, _)| name.to_owned()).into();
    for (name, kind) in kinds {
        for role in ["node", "agent"] {
            pki.key(&format!("{role}-{name}"), kind);
        }
    }
    for role in ["node", "agent"] {
        // The older format of elliptic-curve keys, which many guides still create.
        pki.run(&format!("ecparam -name prime256v1 -genkey -noout -out {role}-sec1.key"));
        pki.close(&format!("{role}-sec1"));
        assert!(pki.read(&format!("{role}-sec1.key")).contains("BEGIN EC PRIVATE KEY"));
    }
    names.push("sec1".into());
    for name in &names {
        for role in ["node", "agent"] {
            pki.leaf(&format!("{role}-{name}"), &format!("{role}/{name}"));
        }
        let node = node_of(pki.credentials(&format!("node-{name}"))).await;
        let at = node.local_addr().to_string();
        let agent = Agent::builder(pki.credentials(&format!("agent-{name}"))).node(&at);
        let agent = attached(agent).await;
        assert_eq!(agent.nodes().len(), 1, "{name}");
        assert_eq!(node.agents()[0].name.as_str(), name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_is_rejected_without_its_intermediate_and_accepted_with_it() {
    let pki = OpensslPki::open();
    for (name, peer) in [("node", "node/edge-1"), ("caller", "caller/ops")] {
        pki.key(name, &["ED25519"]);
        pki.leaf(name, peer);
    }
    let node = node_of(pki.credentials("node")).await;
    let bare = CredentialFiles { cert: pki.path("caller.pem"), ..pki.files("caller") };
    for (files, is_taken) in [(pki.files("caller"), true), (bare, false)] {
        let caller = Caller::builder(load(&files)).node(node.local_addr().to_string()).connect();
        match soon("the node decides", caller).await {
            Ok(_) => assert!(is_taken, "half a chain was accepted"),
            Err(error) => assert!(!is_taken && error.to_string().contains("unknown CA"), "{error}"),
        }
    }
}

/// Dials a node that checks these CRLs, and lets a client that checks them dial a plain node: the
/// results of the checking sides.
async fn dial_both_ways(pki: &OpensslPki, lists: &str, scope: CrlScope) -> [Result<(), String>; 2] {
    pki.write("lists.pem", lists);
    let with_crls = |name: &str| {
        let crl = Some(pki.path("lists.pem"));
        load(&CredentialFiles { crl, crl_scope: scope, ..pki.files(name) })
    };
    let mut result = vec![];
    for (node, caller) in [
        (with_crls("node"), pki.credentials("caller")),
        (pki.credentials("node"), with_crls("caller")),
    ] {
        let node = node_of(node).await;
        let caller = Caller::builder(caller).node(node.local_addr().to_string()).connect();
        result.push(match soon("the link is verified", caller).await {
            Ok(_) => Ok(()),
            Err(ConnectError::Link(fault)) => Err(fault.to_string()),
            Err(error) => panic!("{error}"),
        });
    }
    result.try_into().expect("two")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_intermediate_is_rejected_when_the_whole_chain_is_checked() {
    let pki = OpensslPki::open();
    for (name, peer) in [("node", "node/edge-1"), ("caller", "caller/ops")] {
        pki.key(name, &["ED25519"]);
        pki.leaf(name, peer);
    }
    let (of_middle, of_root) = (pki.crl("middle", &[]), pki.crl("root", &[]));
    let revoking = pki.crl("root", &[0x1001]);
    let clean = format!("{of_middle}{of_root}");
    let revoked = format!("{revoking}{of_middle}");
    // With scope leaf the intermediate is not checked; with chain it is, and so its CA needs a CRL.
    assert_eq!(dial_both_ways(&pki, &of_middle, CrlScope::Leaf).await, [Ok(()), Ok(())]);
    assert_eq!(dial_both_ways(&pki, &revoked, CrlScope::Leaf).await, [Ok(()), Ok(())]);
    assert_eq!(dial_both_ways(&pki, &clean, CrlScope::Chain).await, [Ok(()), Ok(())]);
    for (lists, words) in [(&revoked, "revoked"), (&of_middle, "revocation list")] {
        for result in dial_both_ways(&pki, lists, CrlScope::Chain).await {
            let result =
                result.expect_err("a chain with a revoked or unlisted intermediate was accepted");
            assert!(result.contains(words), "{result}");
        }
    }
    // A leaf is checked in either scope.
    let leaf_gone = format!("{}{of_root}", pki.crl("middle", &[0x2001]));
    for scope in [CrlScope::Leaf, CrlScope::Chain] {
        for result in dial_both_ways(&pki, &leaf_gone, scope).await {
            assert!(result.expect_err("a revoked leaf was accepted").contains("revoked"));
        }
    }
}
