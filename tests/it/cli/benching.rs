//! `dialback bench` over three processes: over links and through the gateway.

use super::{
    http::CurlSetup,
    process::{CommandOutput, DialbackProcess, WorkDir, until_has},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A node and an agent with the demo.
struct BenchSetup {
    dir: WorkDir,
    _running: [DialbackProcess; 2],
    at: String,
}

impl BenchSetup {
    fn new() -> Self {
        Self::with_rules(super::process::RULES)
    }

    fn with_rules(rules: &str) -> Self {
        let dir = WorkDir::new();
        dir.write("rules.toml", rules);
        let args = ["node", "--listen", "127.0.0.1:0", "--policy", "rules.toml"];
        let (node, at) = dir.listening(&args);
        let agent = dir.agent(&at);
        Self { dir, _running: [node, agent], at }
    }

    fn args<'a>(&'a self, rest: &'a str) -> Vec<&'a str> {
        ["bench", "--node", &self.at].into_iter().chain(rest.split(' ')).collect()
    }

    fn bench(&self, rest: &str) -> CommandOutput {
        self.dir.run(&self.args(rest))
    }

    /// Runs it with success, and returns the figures of its JSON.
    #[track_caller]
    fn figures(&self, rest: &str) -> Value {
        let ended = self.bench(&format!("{rest} --json -")).expect(0, &[]);
        assert_eq!(ended.stderr, "");
        ended.json()["figures"].take()
    }
}

#[test]
fn a_run_counts_its_calls_and_the_next_compares_with_it() {
    let setup = BenchSetup::new();
    let run = "warehouse --calls 200 --in-flight 4 --size 1KiB";
    let ended = setup.bench(&format!("{run} --links 2 --json first.json")).expect(0, &[]);
    assert_eq!(ended.stderr, "", "no progress without a terminal");
    let headline = "warehouse Demo/Echo (unary) over 2 links to ";
    assert!(ended.stdout.starts_with(headline), "{}", ended.stdout);
    assert!(ended.stdout.contains(": 1027 bytes, 4 in flight, "), "{}", ended.stdout);
    let result: Value = serde_json::from_str(&setup.dir.read("first.json")).expect("JSON");
    assert_eq!(result["version"], json!(1));
    let figures = &result["figures"];
    assert_eq!((&figures["calls"], &figures["failed"]), (&json!(200), &json!(0)));
    let steps = figures["histogram"].as_array().expect("steps");
    let in_steps: u64 = steps.iter().filter_map(|step| step["calls"].as_u64()).sum();
    assert_eq!(in_steps, 200);
    let same = format!("{run} --links 2 --compare first.json --json first.json");
    let ended = setup.bench(&same).expect(0, &[]);
    assert!(ended.stdout.contains("\ncalls             200 "), "{}", ended.stdout);
    assert!(ended.stdout.contains("now / earlier"), "{}", ended.stdout);
    let other = format!("{run} --compare first.json");
    let refused = ["the earlier result has other settings: --links was 2 and is 1; "];
    assert_eq!(setup.bench(&other).expect(2, &refused).stdout, "");
    let ended = setup.bench(&format!("{other} --other-settings")).expect(0, &[]);
    assert!(ended.stdout.contains("\nother settings: --links was 2 and is 1\n"));
}

#[test]
fn files_are_checked_before_the_run() {
    let setup = BenchSetup::new();
    let run = |rest: &str, texts: &[&str]| {
        assert_eq!(setup.bench(&format!("warehouse {rest}")).expect(2, texts).stdout, "");
    };
    run("--compare none.json", &["none.json (--compare): No such file"]);
    setup.dir.write("other.json", "{\"ok\":true}");
    run("--compare other.json", &["other.json (--compare): it is not a file that `dialback bench"]);
    run("--json no/such/dir.json", &["cannot write no/such/dir.json (--json): No such file"]);
    run("Demo/Echo -d {", &["-d is not JSON"]);
}

#[test]
fn streams_are_counted_with_their_messages() {
    let setup = BenchSetup::new();
    let messages = |rest: &str| {
        let figures = setup.figures(&format!("{rest} --calls 20 --in-flight 2"));
        assert_eq!(figures["calls"], json!(20), "{figures}");
        let figure = |name: &str| figures[name].as_f64().expect("a number");
        let a_call = |name| (figure(name) / figure("calls_per_second")).round();
        ["messages_sent_per_second", "messages_received_per_second"].map(a_call)
    };
    assert_eq!(messages("warehouse --stream --messages 7"), [7.0, 7.0]);
    assert_eq!(messages("warehouse Demo/Count -d {\"n\":5}"), [1.0, 5.0]);
    assert_eq!(messages("warehouse Demo/Sum -d {\"value\":1} --messages 9"), [9.0, 1.0]);
}

#[test]
fn latency_with_a_rate_counts_from_the_time_when_a_call_was_due() {
    let setup = BenchSetup::new();
    // The last of 20 calls is due after 19 ms, and starts after 19 calls of 20 ms at least.
    let run = "warehouse Demo/Sleep -d {\"ms\":20} --calls 20 --in-flight 1 --rate 1000";
    let figures = setup.figures(run);
    assert_eq!((&figures["calls"], &figures["missed"]), (&json!(20), &json!(0)));
    let latency = figures["latency_us"]["max"].as_f64().expect("a number");
    assert!(latency >= 380_000.0, "{figures}");
}

#[test]
fn a_rate_that_finds_no_slots_ends_with_1_and_its_result() {
    let setup = BenchSetup::new();
    // 200 calls are due, and one slot makes four of 50 ms at most.
    let run = "warehouse Demo/Sleep -d {\"ms\":50} --in-flight 1 --rate 1000";
    let ended = setup.bench(&format!("{run} --duration 200ms --warm-up 0s"));
    let ended = ended.expect(1, &["more than 1 % of those that were due: lower --rate or"]);
    assert!(ended.stdout.contains("calls were due and all 1 slots were busy"), "{ended:#?}");
}

#[test]
fn if_the_first_call_fails_nothing_else_is_sent() {
    let setup = BenchSetup::new();
    let fails = |rest: &str, code, text: &str| {
        let ended = setup.bench(rest).expect(code, &[text]);
        assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 1), "{ended:#?}");
    };
    fails("nobody", 78, "error: UNAVAILABLE (not_executed): agent nobody is not attached");
    fails("warehouse Demo/Nope", 76, "error: UNIMPLEMENTED (not_executed): ");
    fails("warehouse Demo/Sleep", 67, "a string of 32 bytes was sent: pass a message with -d");
    fails("warehouse --size 5MiB", 72, "error: RESOURCE_EXHAUSTED (not_executed): ");
    let ended = setup.bench("nobody --json -").expect(78, &[]);
    assert_eq!((&ended.json()["code"], ended.stderr.as_str()), (&json!("UNAVAILABLE"), ""));
    setup.dir.issue("certs", dialback::Role::Caller, "intern");
    let intern = "warehouse --cert certs/caller-intern.pem";
    fails(intern, 71, "error: PERMISSION_DENIED (not_executed): ");
}

#[test]
fn an_agent_without_the_demo_is_told_apart() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    let args = ["agent", "--node", &at, "--forward", "Stock=http://127.0.0.1:9"];
    let mut agent = dir.start(&args);
    agent.wait_for_line("registered as warehouse");
    let hint = "Demo/Echo is hosted by `dialback agent --demo`: for another agent name a method";
    dir.run(&["bench", "--node", &at, "warehouse"]).expect(76, &[hint]);
}

#[test]
fn failures_are_counted_and_decide_the_exit_code() {
    let rules = format!("{}in_flight = 1\n", super::process::RULES);
    let setup = BenchSetup::with_rules(&rules);
    let run = "warehouse Demo/Sleep -d {\"ms\":50} --calls 12 --in-flight 4 --json failed.json";
    let ended = setup.bench(run).expect(72, &[]);
    let result: Value = serde_json::from_str(&setup.dir.read("failed.json")).expect("JSON");
    let figures = &result["figures"];
    let count = |name: &str| figures[name].as_u64().expect("a number");
    assert_eq!(count("calls") + count("failed"), 12, "{figures}");
    assert!(count("calls") > 0 && count("failed") > 0, "{figures}");
    let line = format!(
        "failed: {} RESOURCE_EXHAUSTED (not_executed), the first: the rule's limit of 1 calls",
        count("failed")
    );
    assert!(ended.stdout.contains(&line), "{ended:#?}");
}

#[test]
fn ctrl_c_ends_a_run_early_and_prints_its_result() {
    let setup = BenchSetup::new();
    let run = "warehouse Demo/Append -d {\"id\":\"b\"} --in-flight 1 --duration 1h --warm-up 0s";
    let running = setup.dir.start(&setup.args(run));
    until_has(&setup.dir.path("ledger.txt"), &"started b\ndone b\n".repeat(3));
    running.signal(Signal::INT);
    let ended = running.end().expect(130, &[]);
    let calls = ended.stdout.lines().find_map(|line| line.strip_prefix("calls  "));
    let calls: u64 = calls.and_then(|calls| calls.trim().parse().ok()).expect("a number of calls");
    assert!(calls > 0, "{ended:#?}");
    assert!(ended.stdout.contains("\ninterrupted: "), "{ended:#?}");
}

#[track_caller]
fn check_gateway(setup: &CurlSetup, rest: &[&str], code: i32, texts: &[&str]) -> CommandOutput {
    let args = ["bench", "warehouse", "--calls", "50", "--gateway", &setup.gateway];
    setup.work_dir.run(&[&args[..], rest].concat()).expect(code, texts)
}

#[test]
fn calls_through_the_gateway_have_a_token_or_none() {
    let setup = CurlSetup::new("anonymous = \"ops\"");
    let token = setup.work_dir.read("token");
    for rest in [&[][..], &["--token", &token]] {
        let ended = check_gateway(&setup, rest, 0, &[]);
        assert!(ended.stdout.contains("through the gateway http://127.0.0.1:"), "{ended:#?}");
        assert!(ended.stdout.contains("\ncalls             50\n"), "{ended:#?}");
    }
    let expected = ["error: UNAUTHENTICATED (not_executed): "];
    check_gateway(&setup, &["--token", "wrong"], 80, &expected);
    let expected = ["error: UNIMPLEMENTED (not_executed): "];
    check_gateway(&setup, &["Demo/Nope"], 76, &expected);
    let sleep = ["Demo/Sleep", "-d", "{\"ms\":60000}", "--timeout", "100ms"];
    check_gateway(&setup, &sleep, 68, &["error: DEADLINE_EXCEEDED (unknown): "]);
}

#[test]
fn calls_through_an_https_gateway_verify_its_certificate_and_show_the_callers() {
    let setup = CurlSetup::new("tls = true");
    let token = setup.work_dir.read("token");
    let ca = ["--gateway-ca", "certs/ca.pem"];
    let with_token = [&ca[..], &["--token", &token]].concat();
    for rest in [&[][..], &ca, &with_token] {
        let ended = check_gateway(&setup, rest, 0, &[]);
        assert!(ended.stdout.contains("\ncalls             50\n"), "{ended:#?}");
    }
    setup.work_dir.make_ca("other");
    let other = ["--gateway-ca", "other/ca.pem"];
    check_gateway(&setup, &other, 78, &["cannot complete the TLS handshake with the gateway at"]);
    setup.work_dir.write("empty.pem", "");
    let empty = ["--gateway-ca", "empty.pem"];
    check_gateway(&setup, &empty, 2, &["empty.pem (--gateway-ca): ", "no certificate"]);
}
