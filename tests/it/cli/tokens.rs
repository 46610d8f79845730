//! Bearer tokens as operators have them: made, listed, revoked, in a file that has none of them.

use super::process::Place;
use dialback::tokens::{BearerTokenError, Tokens};
use std::{
    os::unix::fs::PermissionsExt,
    time::{Duration, SystemTime},
};

fn create(place: &Place, args: &[&str]) -> String {
    let ended = place.run(&[&["token", "create"], args].concat()).expect(0, &[]);
    assert_eq!((ended.stdout.lines().count(), ended.stderr.as_str()), (1, ""));
    ended.stdout.trim_end().to_owned()
}

fn caller(
    place: &Place,
    file: &str,
    token: &str,
    now: SystemTime,
) -> Result<String, BearerTokenError> {
    let tokens = Tokens::read(place.path(file)).expect("a file of tokens");
    tokens.caller(token, now).map(ToString::to_string)
}

#[test]
fn a_token_is_the_only_line_printed_and_authenticates_the_caller_until_it_expires() {
    let place = Place::empty();
    let (before, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let token = create(&place, &["billing", "--ttl", "2d", "--file", "tokens"]);
    assert!(token.starts_with("dbt1_") && token.len() == 77, "{token}");
    assert_eq!(caller(&place, "tokens", &token, before), Ok("caller/billing".into()));
    // The file counts whole seconds.
    let end = before + 2 * day;
    assert_eq!(
        caller(&place, "tokens", &token, end - Duration::from_secs(2)),
        Ok("caller/billing".into())
    );
    assert_eq!(caller(&place, "tokens", &token, end + day), Err(BearerTokenError::Expired));
    let mode = std::fs::metadata(place.path("tokens")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!place.read("tokens").contains(&token[5..21]), "{}", place.read("tokens"));
}

#[test]
fn tokens_are_listed_with_their_ids_and_revoked_by_name_or_id() {
    let place = Place::empty();
    let [first, second] = [(); 2].map(|()| create(&place, &["billing"]));
    let other = create(&place, &["ops", "--ttl", "1h"]);
    let now = SystemTime::now();
    let list = place.run(&["token", "list", "--json"]).expect(0, &[]).json();
    let id = list[1]["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (list.as_array().map(Vec::len), &list[1]["caller"], &list[1]["state"]),
        (Some(3), &"billing".into(), &"valid".into())
    );
    let table = place.run(&["token", "list"]).expect(0, &[]).stdout;
    let heads: Vec<_> = table.lines().next().expect("a line").split_whitespace().collect();
    assert_eq!(heads, ["ID", "CALLER", "STATE", "CREATED", "EXPIRES"]);
    assert!(table.contains(&id) && !table.contains(&second[5..17]), "{table}");
    let told = place.run(&["token", "revoke", "billing", "--id", &id]).expect(0, &[]).stdout;
    assert!(told.starts_with(&format!("revoked token {id} of billing, valid until ")), "{told}");
    let known = |token: &str| caller(&place, "certs/tokens", token, now);
    assert_eq!(known(&second), Err(BearerTokenError::Unknown));
    assert_eq!(known(&first), Ok("caller/billing".into()));
    place.run(&["token", "revoke", "billing"]).expect(0, &[]);
    assert_eq!(
        (known(&first), known(&other)),
        (Err(BearerTokenError::Unknown), Ok("caller/ops".into()))
    );
    place.run(&["token", "revoke", "billing"]).expect(2, &["error: ", "no token of billing"]);
    place.run(&["token", "revoke", "ops"]).expect(0, &[]);
    place.run(&["token", "list"]).expect_out("no tokens\n");
}

#[test]
fn faults_of_tokens_are_reported_with_line_and_remedy() {
    let place = Place::empty();
    place
        .run(&["token", "list"])
        .expect(2, &["certs/tokens is not there", "dialback token create"]);
    place.run(&["token", "create", "billing", "--ttl", "0s"]).expect(2, &["--ttl"]);
    place.run(&["token", "create", "billing", "--ttl", "367d"]).expect(2, &["366 days"]);
    place.run(&["token", "create", "Billing"]).expect(2, &["Billing"]);
    assert!(!place.path("certs").exists(), "nothing was made");
    let token = create(&place, &["billing"]);
    let good = place.read("certs/tokens");
    // A token in the place of its hash is not repeated.
    place.write(
        "certs/tokens",
        format!("{good}ops {token} 2026-01-01T00:00:00Z 2026-01-02T00:00:00Z\nops\n"),
    );
    for args in [&["list"][..], &["create", "ops"], &["revoke", "billing"]] {
        let ended = place.run(&[&["token"], args].concat());
        let ended = ended.expect(2, &["error: certs/tokens:4: ", "error: certs/tokens:5: "]);
        assert!(!(ended.stderr + &ended.stdout).contains(&token));
    }
    place.write("certs/tokens", &good);
    let mode = |mode| {
        std::fs::set_permissions(place.path("certs/tokens"), PermissionsExt::from_mode(mode))
    };
    mode(0o644).expect("changed");
    place.run(&["token", "create", "ops"]).expect(2, &["mode 0644", "chmod 600 certs/tokens"]);
    mode(0o600).expect("changed");
    place.write("file", "");
    place
        .run(&["token", "create", "ops", "--file", "file/tokens"])
        .expect(1, &["cannot write file"]);
    create(&place, &["ops"]);
}

#[test]
fn a_token_that_cannot_be_printed_is_revoked() {
    let place = Place::new();
    create(&place, &["billing"]);
    let before = place.read("certs/tokens");
    let (reader, gone) = std::io::pipe().expect("a pipe");
    drop(reader);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opened");
    for stdout in [std::process::Stdio::from(gone), std::process::Stdio::from(full)] {
        let mut command = place.command(&["token", "create", "billing"]);
        command.stdout(stdout);
        super::process::Running::start(command)
            .end()
            .expect(1, &["error: cannot write to standard output", "token revoked"]);
        assert_eq!(place.read("certs/tokens"), before);
    }
}
