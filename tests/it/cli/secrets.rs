//! Secrets never leak: whatever is done with keys and whatever fails, no line of one is ever
//! printed or logged.

use super::process::{CommandOutput, WorkDir};
use rustix::process::Signal;

/// The texts that must not appear: every line of the key except its frame, and the ends of each, in
/// case a line is truncated.
fn canaries(dir: &WorkDir, key: &str) -> Vec<String> {
    let text = dir.read(key);
    let body: Vec<&str> = text.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(body.len() > 1 && body[0].len() > 40, "{key} is no key");
    // The first bytes of every key in DER are the same: a type and a curve.
    body.iter().map(|line| (*line).to_owned()).chain([body[0][36..].to_owned()]).collect()
}

/// Each key with another's certificate, as a certificate, a CA, a CRL and a config; truncated, and
/// with a mark in the middle.
fn misuse_keys(dir: &WorkDir, level: &[&str]) -> Vec<CommandOutput> {
    let key = "certs/node-edge-1.key";
    let whole = dir.read(key);
    dir.write("cut.key", &whole[..whole.len() / 2]);
    dir.write("marked.key", whole.replacen("A", "!", 3));
    dir.write("bare.key", whole.lines().skip(1).collect::<Vec<_>>().join("\n"));
    let mut ended = Vec::new();
    for wrong in [key, "cut.key", "marked.key", "bare.key"] {
        for args in [
            vec!["node", "--cert", "certs/agent-warehouse.pem", "--key", wrong],
            vec!["node", "--cert", wrong, "--key", key],
            vec!["node", "--cert", "certs/node-edge-1.pem", "--key", wrong, "--ca", wrong],
            vec!["node", "--cert", "certs/node-edge-1.pem", "--crl", wrong],
            vec!["node", "--config", wrong],
            vec!["node", "--policy", wrong],
            vec!["certs", "inspect", wrong],
            vec!["policy", "check", wrong],
            vec!["config", "check", wrong],
        ] {
            ended.push(dir.run(&[level, &args].concat()));
        }
    }
    ended
}

#[test]
fn no_key_is_in_any_log_error_or_output_at_trace_level() {
    let dir = WorkDir::new();
    let level = ["--log-level", "trace"];
    let keys =
        ["node-edge-1", "agent-warehouse", "caller-ops"].map(|one| format!("certs/{one}.key"));
    let secrets: Vec<String> = keys
        .iter()
        .chain([&"certs/ca.key".to_owned()])
        .flat_map(|key| canaries(&dir, key))
        .collect();
    let (mut node, at) =
        dir.listening(&[&level[..], &["node", "--listen", "127.0.0.1:0"]].concat());
    let mut agent = dir.start(&[&level[..], &["agent", "--demo", "--node", &at]].concat());
    agent.wait_for_line("registered as warehouse");
    let mut ended = vec![
        dir.run(
            &[
                &level[..],
                &["call", "--node", &at, "warehouse", "HelloService/Hello", "-d", "\"x\""],
            ]
            .concat(),
        ),
    ];
    // A running node gets a key in place of its certificate, and a truncated one.
    dir.write("certs/node-edge-1.pem", dir.read(&keys[0]));
    node.signal(Signal::HUP);
    node.wait_for_line("reload failed");
    ended.extend(misuse_keys(&dir, &level));
    for running in [agent, node] {
        running.signal(Signal::TERM);
        ended.push(running.end());
    }
    let shown: String = ended.iter().map(|one| format!("{}{}", one.stdout, one.stderr)).collect();
    assert!(shown.contains("TRACE"), "traces were not on");
    for secret in &secrets {
        assert!(!shown.contains(secret.as_str()), "a line of a key was printed");
    }
    // The canary is in its own file, so the search would have found it.
    assert!(dir.read(&keys[0]).contains(&secrets[0]));
}

#[test]
fn no_join_token_secret_is_in_any_log_error_or_output_at_trace_level() {
    let dir = WorkDir::empty();
    dir.make_ca("ca");
    let level = ["--log-level", "trace"];
    let listen = ["enroll", "--listen", "127.0.0.1:0", "--ca-dir", "ca"];
    let (enroller, at) = dir.listening(&[&level[..], &listen].concat());
    let token = |name| {
        let made = dir.run(&["enroll", "token", "agent", name, "--ca-dir", "ca"]).expect(0, &[]);
        made.stdout.trim().to_owned()
    };
    let (good, other) = (token("warehouse"), token("other"));
    let secrets = [&good, &other].map(|line| line.split(':').nth(3).expect("a secret").to_owned());
    let truncated = &good[..good.len() - 2];
    let renamed = other.replace("agent/other", "agent/evil");
    let mut ended = vec![];
    for (token, code) in [(truncated, 2), (&renamed, 80), (&good, 0), (&good, 2), (&other, 0)] {
        let join = ["agent", "join", "--enroll", &at, "--token", token];
        let joined = dir.run(&[&level[..], &join].concat());
        ended.push(joined.expect(code, &[]));
    }
    let again = ["agent", "join", "--enroll", &at, "--token", &good, "--dir", "again"];
    ended.push(dir.run(&[&level[..], &again].concat()).expect(80, &["TOKEN_USED"]));
    let renew = ["agent", "renew", "--enroll", &at, "--cert", "certs/agent-other.pem"];
    ended.push(dir.run(&[&level[..], &renew].concat()).expect(0, &[]));
    ended.push(dir.run(&["certs", "list", "--dir", "ca"]).expect(0, &[]));
    enroller.signal(Signal::TERM);
    ended.push(enroller.end());
    let kept = ["ca/join-tokens.jsonl", "ca/issued.jsonl"].map(|file| dir.read(file)).concat();
    let shown: String = ended.iter().map(|one| format!("{}{}", one.stdout, one.stderr)).collect();
    assert!(shown.contains("TRACE"), "traces were not on");
    for secret in &secrets {
        assert!(!shown.contains(secret.as_str()), "a token's secret was printed");
        assert!(!kept.contains(secret.as_str()), "a token's secret was stored");
    }
    assert!(good.contains(&secrets[0]) && other.contains(&secrets[1]));
}

#[test]
fn a_bearer_token_is_printed_only_by_the_command_that_creates_it() {
    let dir = WorkDir::empty();
    let level = ["--log-level", "trace"];
    let made = dir.run(&[&level[..], &["token", "create", "billing"]].concat()).expect(0, &[]);
    assert_eq!(made.stderr, "");
    let token = made.stdout.trim().to_owned();
    let kept = dir.read("certs/tokens");
    let mut ended = vec![];
    let mut run = |code, args: &[&str]| {
        ended.push(dir.run(&[&level[..], args].concat()).expect(code, &[]));
    };
    run(0, &["token", "list"]);
    run(0, &["token", "list", "--json"]);
    run(2, &["token", "revoke", "billing", "--id", "3f2a91c07b5d"]);
    // The token in place of its hash, in place of a name, alone, truncated, and as another kind of
    // file.
    let hash = kept.split_whitespace().find(|word| word.starts_with("sha256:")).expect("a hash");
    for wrong in [
        kept.replace(hash, &token),
        kept.replace(hash, &format!("sha256:{}", &token[5..])),
        kept.replace("billing sha256", &format!("{token} sha256")),
        token.clone(),
        token[..70].to_owned(),
    ] {
        dir.write("certs/tokens", wrong);
        run(2, &["token", "list"]);
        run(2, &["token", "create", "ops"]);
        run(2, &["config", "check", "certs/tokens"]);
        run(2, &["policy", "check", "certs/tokens"]);
    }
    let shown: String = ended.iter().map(|one| format!("{}{}", one.stdout, one.stderr)).collect();
    for part in [&token[5..37], &token[37..69]] {
        assert!(!shown.contains(part), "a part of a token was printed: {shown}");
        assert!(!kept.contains(part), "a part of a token was stored");
    }
}
