//! Bearer tokens as operators use them: created, listed, revoked, in a file that contains no token.

use super::process::WorkDir;
use dialback::tokens::{BearerTokenError, Tokens};
use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime},
};

fn create(dir: &WorkDir, args: &[&str]) -> String {
    let ended = dir.run(&[&["token", "create"], args].concat()).expect(0, &[]);
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (1, ""));
    ended.stdout.trim_end().to_owned()
}

fn caller(
    dir: &WorkDir,
    file: &str,
    token: &str,
    now: SystemTime,
) -> Result<String, BearerTokenError> {
    let tokens = Tokens::read(dir.path(file)).expect("a file of tokens");
    tokens.caller(token, now).map(ToString::to_string)
}

#[test]
fn a_token_is_the_only_line_printed_and_authenticates_the_caller_until_it_expires() {
    let dir = WorkDir::empty();
    let (before, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let token = create(&dir, &["billing", "--ttl", "2d", "--file", "tokens"]);
    assert!(token.starts_with("dbt1_") && token.len() == 77, "{token}");
    assert_eq!(caller(&dir, "tokens", &token, before), Ok("caller/billing".into()));
    // The file has a resolution of whole seconds.
    let end = before + 2 * day;
    assert_eq!(
        caller(&dir, "tokens", &token, end - Duration::from_secs(2)),
        Ok("caller/billing".into())
    );
    assert_eq!(caller(&dir, "tokens", &token, end + day), Err(BearerTokenError::Expired));
    let mode = std::fs::metadata(dir.path("tokens")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!dir.read("tokens").contains(&token[5..21]), "{}", dir.read("tokens"));
}

#[test]
fn tokens_are_listed_with_their_ids_and_revoked_by_name_or_id() {
    let dir = WorkDir::empty();
    let [first, second] = [(); 2].map(|()| create(&dir, &["billing"]));
    let other = create(&dir, &["ops", "--ttl", "1h"]);
    let now = SystemTime::now();
    let list = dir.run(&["token", "list", "--json"]).expect(0, &[]).json();
    let id = list[1]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (list.as_array().map(Vec::len), &list[1]["caller"], &list[1]["state"]),
        (Some(3), &"billing".into(), &"valid".into())
    );
    let table = dir.run(&["token", "list"]).expect(0, &[]).stdout;
    let heads: Vec<_> = table.lines().next().expect("a line").split_whitespace().collect();
    assert_eq!(heads, ["ID", "CALLER", "STATE", "CREATED", "EXPIRES"]);
    assert!(table.contains(&id) && !table.contains(&second[5..17]), "{table}");
    let output = dir.run(&["token", "revoke", "billing", "--id", &id]).expect(0, &[]).stdout;
    assert!(
        output.starts_with(&format!("revoked token {id} of billing, valid until ")),
        "{output}"
    );
    let known = |token: &str| caller(&dir, "certs/tokens", token, now);
    assert_eq!(known(&second), Err(BearerTokenError::Unknown));
    assert_eq!(known(&first), Ok("caller/billing".into()));
    dir.run(&["token", "revoke", "billing"]).expect(0, &[]);
    assert_eq!(
        (known(&first), known(&other)),
        (Err(BearerTokenError::Unknown), Ok("caller/ops".into()))
    );
    dir.run(&["token", "revoke", "billing"]).expect(2, &["error: ", "no token of billing"]);
    dir.run(&["token", "revoke", "ops"]).expect(0, &[]);
    dir.run(&["token", "list"]).expect_out("no tokens\n");
}

#[test]
fn faults_of_tokens_are_reported_with_line_and_remedy() {
    let dir = WorkDir::empty();
    dir.run(&["token", "list"])
        .expect(2, &["certs/tokens does not exist", "dialback token create"]);
    dir.run(&["token", "create", "billing", "--ttl", "0s"]).expect(2, &["--ttl"]);
    dir.run(&["token", "create", "billing", "--ttl", "367d"]).expect(2, &["366 days"]);
    dir.run(&["token", "create", "Billing"]).expect(2, &["Billing"]);
    assert!(!dir.path("certs").exists(), "nothing was made");
    let token = create(&dir, &["billing"]);
    let good = dir.read("certs/tokens");
    // A token in place of its hash is not printed.
    dir.write(
        "certs/tokens",
        format!("{good}ops {token} 2026-01-01T00:00:00Z 2026-01-02T00:00:00Z\nops\n"),
    );
    for args in [&["list"][..], &["create", "ops"], &["revoke", "billing"]] {
        let ended = dir.run(&[&["token"], args].concat());
        let ended = ended.expect(2, &["error: certs/tokens:4: ", "error: certs/tokens:5: "]);
        assert!(!(ended.stderr + &ended.stdout).contains(&token));
    }
    dir.write("certs/tokens", &good);
    let mode =
        |mode| std::fs::set_permissions(dir.path("certs/tokens"), PermissionsExt::from_mode(mode));
    mode(0o644).expect("changed");
    dir.run(&["token", "create", "ops"]).expect(2, &["mode 0644", "chmod 600 certs/tokens"]);
    mode(0o600).expect("changed");
    dir.write("file", "");
    dir.run(&["token", "create", "ops", "--file", "file/tokens"]).expect(1, &["cannot write file"]);
    create(&dir, &["ops"]);
}

#[test]
fn a_token_that_cannot_be_printed_is_revoked() {
    let dir = WorkDir::new();
    create(&dir, &["billing"]);
    let before = dir.read("certs/tokens");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opened");
    for stdout in [std::process::Stdio::from(writer), std::process::Stdio::from(full)] {
        let mut command = dir.command(&["token", "create", "billing"]);
        command.stdout(stdout);
        super::process::DialbackProcess::start(command)
            .end()
            .expect(1, &["error: cannot write to standard output", "token revoked"]);
        assert_eq!(dir.read("certs/tokens"), before);
    }
}
