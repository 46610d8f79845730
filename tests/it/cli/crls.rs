//! Missing CRLs: an error where there was one, unless the configuration says that there is none.

use super::process::{DialbackProcess, WorkDir};
use std::{fs, process::Command};

const ROLES: [&[&str]; 6] = [
    &["node", "--listen", "127.0.0.1:0"],
    &["agent", "--node", "127.0.0.1:1"],
    &["call", "a", "A/b", "--node", "127.0.0.1:1", "--timeout", "100ms"],
    &["agents", "--node", "127.0.0.1:1"],
    &["services", "a", "--node", "127.0.0.1:1"],
    &["tcp", "a", "db", "--listen", "127.0.0.1:0", "--node", "127.0.0.1:1"],
];

fn without_list() -> WorkDir {
    let dir = WorkDir::new();
    fs::remove_file(dir.path("certs/crl.pem")).expect("removed");
    dir
}

#[test]
fn no_role_starts_without_the_crl_that_its_ca_was_created_with() {
    let dir = without_list();
    let remedies = ["certs/crl.pem does not exist", "dialback certs crl", "--crl none"];
    let certs = ["node-edge-1", "agent-warehouse", "caller-ops"].map(|n| format!("certs/{n}.pem"));
    for (at, role) in ROLES.iter().enumerate() {
        let refused = |flags: &[&str]| {
            let ended = dir.run(&[role, flags].concat()).expect(2, &remedies);
            assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
        };
        refused(&[]);
        let cert = certs[at.min(2)].as_str();
        refused(&["--cert", cert]);
        refused(&["--cert", cert, "--ca", "certs/ca.pem"]);
    }
    let renew = ["agent", "renew", "--enroll", "127.0.0.1:1"];
    dir.run(&renew).expect(2, &remedies);
}

#[test]
fn every_role_starts_without_a_crl_where_flag_environment_or_file_say_so() {
    let dir = without_list();
    let node = ["node", "--listen", "127.0.0.1:0"];
    let (first, at) = dir.listening(&[&node[..], &["--crl", "none"]].concat());
    first.signal(rustix::process::Signal::TERM);
    first.end().expect(0, &["no revocation list: revoked certificates are accepted"]);
    let mut by_variable = dir.command(&node);
    by_variable.env("DIALBACK_CRL", "none");
    DialbackProcess::start(by_variable).wait_for_line("listens on ");
    dir.write("none.toml", "[tls]\ncrl = \"none\"\n");
    dir.listening(&[&node[..], &["--config", "none.toml"]].concat());
    let named = ["cert", "key", "ca"].map(|key| {
        let name = if key == "ca" { "ca.pem".into() } else { format!("node-edge-1.{key}") };
        format!("{key} = \"certs/{}\"\n", name.replace(".cert", ".pem"))
    });
    let named = format!("[tls]\n{}", named.concat());
    dir.write("files.toml", &named);
    dir.run(&[&node[..], &["--config", "files.toml"]].concat()).expect(2, &["certs/crl.pem does"]);
    dir.write("gone.toml", format!("{named}crl = \"gone.pem\"\n"));
    dir.run(&[&node[..], &["--config", "gone.toml"]].concat()).expect(2, &["gone.pem does not"]);
    dir.listening(&[&node[..], &["--config", "gone.toml", "--crl", "none"]].concat());
    let call = ["call", "a", "A/b", "--timeout", "100ms", "--node", &at];
    dir.run(&[&call[..], &["--crl", "none"]].concat()).expect(78, &["UNAVAILABLE"]);
    // The flag overrides the file here as well, and a scope needs a CRL.
    dir.run(&[&node[..], &["--config", "none.toml", "--crl", "gone.pem"]].concat())
        .expect(2, &["gone.pem does not exist"]);
    dir.run(&[&node[..], &["--crl", "none", "--crl-scope", "chain"]].concat())
        .expect(2, &["crl_scope is set, but no revocation list"]);
    // A file of that name is still a file.
    dir.run(&[&node[..], &["--crl", "./none"]].concat()).expect(2, &["./none does not exist"]);
}

#[test]
fn a_ca_of_other_tools_needs_no_crl_unless_one_is_next_to_it() {
    let dir = WorkDir::new();
    let run = |line: &str| {
        let mut openssl = Command::new("openssl");
        let ended = openssl.args(line.split(' ')).current_dir(dir.path("")).output();
        let ended = ended.expect("openssl runs");
        assert!(ended.status.success(), "{line}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    fs::create_dir(dir.path("other")).expect("made");
    run(&format!(
        "req -x509 {key} -keyout root.key -out other/ca.pem -days 9 -subj /CN=Root -addext keyUsage=keyCertSign,cRLSign"
    ));
    run(&format!("req -new {key} -keyout other/agent-w.key -out r.csr -subj /CN=w"));
    dir.write(
        "ext",
        "subjectAltName=URI:spiffe://acme.example/agent/w\nextendedKeyUsage=clientAuth\n",
    );
    run(
        "x509 -req -in r.csr -CA other/ca.pem -CAkey root.key -set_serial 7 -days 9 -extfile ext -out other/agent-w.pem",
    );
    let agent = ["agent", "--demo", "--node", "127.0.0.1:1", "--cert", "other/agent-w.pem"];
    dir.start(&agent).wait_for_line("no revocation list: revoked certificates are accepted");
    dir.write("other/crl.number", "4\n");
    dir.run(&agent).expect(2, &["other/crl.pem does not exist"]);
}

#[test]
fn an_enroller_whose_crl_is_gone_does_not_start_until_it_is_signed_again() {
    let dir = without_list();
    let enroll = ["enroll", "--ca-dir", "certs", "--listen", "127.0.0.1:0"];
    dir.run(&enroll).expect(2, &["certs/crl.pem does not exist", "dialback certs crl --dir certs"]);
    dir.run(&["certs", "crl"]).expect(0, &[]);
    dir.start(&enroll).wait_for_line("listens on ");
}
