//! A server and a client of OpenAI's API, with a token of the node as the API key.

use super::{
    super::super::{
        process::{DialbackProcess, until_has},
        programs::{program, run},
    },
    ExampleSetup, example_dir,
};
use rustix::process::Signal;
use std::{
    fs::File,
    process::{Command, Stdio},
};

/// More words than a test waits for.
const ENDLESS: &str = "10000000";

fn setup() -> ExampleSetup {
    ExampleSetup::start("openai", &program("python3", "python3"))
}

fn client(setup: &ExampleSetup, key: &str, args: &[&str]) -> Command {
    let mut client = Command::new(program("python3", "python3"));
    client.arg(example_dir("openai").join("client.py")).args(args);
    client.env("OPENAI_BASE_URL", format!("http://llm.localhost:{}/v1", setup.port));
    client.env("OPENAI_API_KEY", key);
    client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    client
}

/// A client whose answer has begun, and does not end by itself.
fn endless_client(setup: &ExampleSetup) -> DialbackProcess {
    let answer = setup.work_dir.path("answer.txt");
    let mut endless = client(setup, &setup.token, &["again", ENDLESS]);
    endless.stdout(File::create(&answer).expect("a file"));
    let endless = DialbackProcess::start(endless);
    until_has(&answer, "again again");
    endless
}

#[test]
fn a_token_is_the_key_of_clients_and_the_model_sees_their_caller_only() {
    let mut setup = setup();
    let asks = client(&setup, &setup.token, &["who is a pretty bird"]);
    DialbackProcess::start(asks).end().expect_out("who is a pretty bird\n");
    setup.server.wait_for_line("asked by caller/ops");
    let mut whole = Command::new("curl");
    whole.args(["-sS", "-m", "30", "-H", &format!("authorization: Bearer {}", setup.token)]);
    whole.args(["--json", "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}"]);
    whole.arg(format!("http://llm.localhost:{}/v1/chat/completions", setup.port));
    let answer: serde_json::Value = serde_json::from_str(&run(&mut whole)).expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "hello");
    let wrong = client(&setup, "wrong", &["hello"]);
    DialbackProcess::start(wrong).end().expect(1, &["error: HTTP 401 (not_executed): "]);
}

#[test]
fn an_answer_arrives_word_by_word_and_a_client_that_stops_ends_it_at_the_model() {
    let mut setup = setup();
    let endless = endless_client(&setup);
    endless.signal(Signal::INT);
    endless.end().expect(0, &[]);
    setup.server.wait_for_line("stopped: the client has gone");
}

#[test]
fn an_answer_whose_model_is_killed_is_an_error_and_the_next_request_is_not_executed() {
    let setup = setup();
    let endless = endless_client(&setup);
    setup.server.signal(Signal::KILL);
    endless.end().expect(1, &["error: "]);
    let next = client(&setup, &setup.token, &["hello"]);
    DialbackProcess::start(next).end().expect(1, &["error: HTTP 503 (not_executed): "]);
}
