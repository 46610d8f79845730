//! A chat server and its clients with Python's package websockets, on both sides of a site.

use super::{
    super::super::process::{DialbackProcess, until_has},
    super::python,
    ExampleSetup, example_dir,
};
use rustix::process::Signal;
use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

/// A client of the room, with this token if there is one.
fn client(setup: &ExampleSetup, python: &Path, token: Option<&str>, args: &[&str]) -> Command {
    let mut client = Command::new(python);
    client.arg(example_dir("websocket").join("client.py"));
    client.arg(format!("ws://chat.localhost:{}", setup.port)).args(args);
    client.env_remove("TOKEN").envs(token.map(|token| ("TOKEN", token)));
    client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    client
}

/// Joins as anna, who says nothing; what she hears is written to anna.txt.
fn anna(setup: &ExampleSetup, python: &Path) -> DialbackProcess {
    let heard = setup.work_dir.path("anna.txt");
    let mut anna = client(setup, python, Some(&setup.token), &["anna"]);
    anna.stdin(Stdio::piped()).stdout(File::create(&heard).expect("a file"));
    let anna = DialbackProcess::start(anna);
    until_has(&heard, "anna (caller/ops) joined\n");
    anna
}

#[test]
fn members_of_a_chat_room_hear_each_other_through_the_node() {
    let python = python();
    let mut setup = ExampleSetup::start("websocket", &python);
    let anna = anna(&setup, &python);
    let bo = client(&setup, &python, Some(&setup.token), &["bo", "hello"]);
    DialbackProcess::start(bo).end().expect_out("bo (caller/ops): hello\n");
    let heard = "bo (caller/ops) joined\nbo (caller/ops): hello\nbo (caller/ops) left\n";
    until_has(&setup.work_dir.path("anna.txt"), heard);
    anna.signal(Signal::KILL);
    setup.server.wait_for_line("anna (caller/ops) left");
}

#[test]
fn a_client_without_a_valid_token_is_refused_before_its_connection_is_upgraded() {
    let python = python();
    let setup = ExampleSetup::start("websocket", &python);
    for token in [None, Some("wrong")] {
        let eve = client(&setup, &python, token, &["eve", "hello"]);
        DialbackProcess::start(eve).end().expect(1, &["error: HTTP 401: UNAUTHENTICATED"]);
    }
}

#[test]
fn a_connection_whose_server_is_killed_ends_without_a_close_frame() {
    let python = python();
    let setup = ExampleSetup::start("websocket", &python);
    let anna = anna(&setup, &python);
    setup.server.signal(Signal::KILL);
    anna.end().expect(1, &["error: no close frame received or sent"]);
    let bo = client(&setup, &python, Some(&setup.token), &["bo", "hello"]);
    let refused =
        "error: HTTP 503: UNAVAILABLE (not_executed): the upstream of http:chat cannot be";
    DialbackProcess::start(bo).end().expect(1, &[refused]);
}
