//! Tunnels on the command line: the flags of commands that dial a node.

use super::process::{DialbackProcess, RULES, WorkDir};
use std::{fs, os::unix::fs::PermissionsExt};

/// A node that accepts tunnels, its address, and the URL of its tunnel under a name that its
/// certificate has.
fn node_with_tunnel(dir: &WorkDir) -> (DialbackProcess, String, String) {
    dir.write("rules.toml", RULES);
    let listen = ["--listen", "127.0.0.1:0", "--tunnel", "127.0.0.1:0"];
    let (mut node, at) =
        dir.listening(&[&["node", "--policy", "rules.toml"][..], &listen].concat());
    let line = node.wait_for_line("tunnels are accepted at ");
    let port_and_path = line.split("wss://127.0.0.1:").nth(1).expect("a URL");
    (node, at, format!("wss://localhost:{}", port_and_path.trim()))
}

#[test]
fn the_certificate_of_a_tunnel_is_verified_with_the_cas_of_the_flag() {
    let dir = WorkDir::new();
    dir.make_ca("other");
    let (_node, at, url) = node_with_tunnel(&dir);
    let agents = ["agents", "--node", &at, "--path", "tunnel", "--tunnel-url", &url];
    let with = |flags: &[&str]| dir.run(&[&agents, flags].concat());
    with(&[]).expect(0, &[]);
    with(&["--tunnel-verify", "--tunnel-ca", "certs/ca.pem"]).expect(0, &[]);
    let refused = with(&["--tunnel-verify", "--tunnel-ca", "other/ca.pem"]);
    refused.expect(78, &["the certificate of localhost:", "is refused"]);
}

#[test]
fn cas_of_tunnels_are_refused_without_verification_and_where_they_cannot_be_read() {
    let dir = WorkDir::new();
    for command in [&["agents"][..], &["agent"], &["call", "a", "B/c"], &["services"]] {
        let with = |flags: &[&str]| dir.run(&[command, flags].concat());
        let alone = with(&["--tunnel-ca", "certs/ca.pem"]);
        alone.expect(2, &["error: --tunnel-ca needs --tunnel-verify beside it"]);
        let gone = with(&["--tunnel-verify", "--tunnel-ca", "gone.pem"]);
        gone.expect(2, &["the CAs of tunnels: gone.pem cannot be read"]);
        let key = with(&["--tunnel-verify", "--tunnel-ca", "certs/ca.key"]);
        key.expect(2, &["there is no certificate in the file"]);
    }
}

#[test]
fn a_password_of_a_proxy_that_others_can_read_is_refused_and_not_shown() {
    let dir = WorkDir::new();
    dir.write("password", "hunter2");
    let mode = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(dir.path("password"), permissions).expect("changed");
    };
    let proxy = ["--proxy", "http://office@127.0.0.1:1", "--proxy-password-file", "password"];
    let with = |command: &[&str]| dir.run(&[command, &["--path", "tunnel"], &proxy].concat());
    mode(0o644);
    for command in [&["agents"][..], &["agent"]] {
        let ended = with(command).expect(2, &["password has mode 0644", "`chmod 600 password`"]);
        assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
    }
    // It is read, and the proxy is not there.
    mode(0o640);
    with(&["agents"]).expect(78, &["no answer of 127.0.0.1:1"]);
    dir.write("password", "x".repeat(5_000));
    with(&["agents"]).expect(2, &["password is too large for the file of a password"]);
    dir.write("password", "hunter2");
    let nobody = ["--proxy", "http://127.0.0.1:1", "--proxy-password-file", "password"];
    dir.run(&[&["agents"], &nobody[..]].concat()).expect(2, &["password is for no user"]);
    fs::remove_file(dir.path("password")).expect("removed");
    with(&["agents"]).expect(2, &["cannot read password", "No such file"]);
}
