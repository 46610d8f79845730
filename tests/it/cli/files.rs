//! Config files, rules, and precedence: flag, environment, file.

use super::process::{DialbackProcess, WorkDir};

const BAD_NODE: &str = "lisen = \"x\"\n[tls]\ncert = 3\n[[allow]]\ncaller = \"Ops\"\nagent = \"a\"\nmethod = \"*/*\"\n";

#[test]
fn all_faults_of_a_file_are_reported_at_once_each_with_its_line() {
    let dir = WorkDir::new();
    dir.write("bad.toml", BAD_NODE);
    for args in [&["node", "--config", "bad.toml"][..], &["config", "check", "--node", "bad.toml"]]
    {
        let expected = ["error: bad.toml:1: ", "error: bad.toml:3: ", "error: bad.toml:5: "];
        let ended = dir.run(args).expect(2, &expected);
        assert_eq!(ended.stderr.lines().count(), 3, "{ended:#?}");
    }
    dir.run(&["agent", "--config", "gone.toml"]).expect(2, &["error: gone.toml: "]);
    dir.run(&["node", "--policy", "gone.toml"]).expect(2, &["error: gone.toml: "]);
}

#[test]
fn a_file_with_faults_is_checked_as_the_role_of_its_good_keys() {
    let dir = WorkDir::new();
    dir.write("n.toml", "listen = \"x\"\nstate = 1\n[gateway]\nlisten = 2\n");
    let ended = dir.run(&["config", "check", "n.toml"]).expect(2, &["n.toml:1: `listen`"]);
    assert!(!ended.stderr.contains("belongs in"), "{ended:#?}");
    dir.write("a.toml", "nodes = [1]\ndemo = 1\n[[tcp]]\nname = \"db\"\n");
    let ended = dir.run(&["config", "check", "a.toml"]).expect(2, &["a.toml:1: `nodes`"]);
    assert!(!ended.stderr.contains("belongs in"), "{ended:#?}");
}

#[test]
fn the_files_of_the_first_steps_are_valid() {
    let dir = WorkDir::new();
    let first = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/first/");
    let [node, agent] = ["node.toml", "agent.toml"].map(|name| format!("{first}{name}"));
    dir.run(&["config", "check", "--node", &node, "--agent", &agent]).expect(0, &[]);
    dir.run(&["config", "check", &agent]).expect(0, &[]);
    dir.run(&["config", "check", "--agent", &node]).expect(2, &["node.toml:"]);
    let test = |caller, agent| {
        dir.run(&["policy", "test", caller, agent, "HelloService/Hello", "--config", &node])
    };
    let allowed = test("ops", "warehouse").expect(0, &[]).stdout;
    assert!(
        allowed.starts_with("allowed by the [[allow]] rule at ") && allowed.contains("node.toml:")
    );
    for (caller, agent) in
        [("intern", "warehouse"), ("agent/ops", "warehouse"), ("ops", "node/edge-1")]
    {
        let denied = test(caller, agent).expect(1, &[]);
        assert_eq!(
            (denied.stdout.as_str(), denied.stderr.as_str()),
            ("denied: no [[allow]] rule covers it\n", "")
        );
    }
}

#[test]
fn a_check_reads_what_the_file_names_and_says_what_could_not_start() {
    let (dir, bare) = (WorkDir::new(), WorkDir::empty());
    let node = "[tls]\ncert = \"certs/node-edge-1.pem\"\n";
    let agent = "[[http]]\nname = \"web\"\nupstream = \"https://127.0.0.1:1\"\nupstream_ca = \"gone.pem\"\n";
    for dir in [&dir, &bare] {
        dir.write("node.toml", node);
        dir.write("agent.toml", agent);
    }
    let can = "`dialback node --config node.toml` can start\n";
    let checked = dir.run(&["config", "check", "node.toml"]).expect(0, &[]);
    assert!(checked.stdout.ends_with(can), "{checked:#?}");
    let check = ["config", "check", "--node", "node.toml", "--agent", "agent.toml"];
    let faults = dir.run(&check).expect(2, &["agent.toml: upstream of http:web: ", "gone.pem"]);
    assert!(faults.stdout.contains(can), "{faults:#?}");
    bare.run(&check).expect(2, &["node.toml: ", "certs/node-edge-1.pem", "agent.toml: "]);
    let text = [&check[..], &["--text-only"]].concat();
    bare.run(&text).expect(0, &[]);
}

#[test]
fn a_file_of_rules_replaces_the_rules_of_the_config_file() {
    let dir = WorkDir::empty();
    let rule = |kind: &str, caller: &str| {
        format!("[[{kind}]]\ncaller = \"{caller}\"\nagent = \"**\"\nmethod = \"*/*\"\n")
    };
    dir.write("node.toml", rule("allow", "ops"));
    dir.write("rules.toml", rule("allow", "billing") + &rule("deny", "intern"));
    let test = |caller, files: &[&str]| {
        dir.run(&[&["policy", "test", caller, "warehouse", "A/b"], files].concat())
    };
    let config = ["--config", "node.toml"];
    let both = ["--config", "node.toml", "--policy", "rules.toml"];
    test("ops", &config).expect_out("allowed by the [[allow]] rule at node.toml:1\n");
    test("ops", &both).expect(1, &[]);
    test("billing", &both).expect_out("allowed by the [[allow]] rule at rules.toml:1\n");
    let denied = test("intern", &["--policy", "rules.toml"]).expect(1, &[]);
    assert_eq!(denied.stdout, "denied by the [[deny]] rule at rules.toml:5\n");
    test("ops", &[]).expect(2, &["--config"]);
    test("Ops", &config).expect(2, &["Ops"]);
    dir.run(&["policy", "check", "rules.toml"])
        .expect_out("rules.toml: 2 rules: 1 allow, 1 deny, 0 host\n");
    for (text, fault) in [("", "is empty"), ("# none yet\n", "holds no rules")] {
        dir.write("none.toml", text);
        let fault = format!("error: none.toml: {fault}");
        dir.run(&["policy", "check", "none.toml"]).expect(2, &[&fault]);
    }
}

const HTTP_RULES: &str = r#"[[allow]]
caller = "ops"
agent = "warehouse"
method = "http:web"
verbs = ["GET"]
paths = ["/api/*", "/a b"]

[[allow]]
caller = "admin"
agent = "**"
method = "http:**"

[[deny]]
caller = "**"
agent = "**"
method = "http:*"
paths = ["/api/secret"]
"#;

#[test]
fn rules_are_tried_for_one_request_to_an_http_forward() {
    let dir = WorkDir::empty();
    dir.write("rules.toml", HTTP_RULES);
    let test = |caller, method, request: &[&str]| {
        let call = ["policy", "test", caller, "warehouse", method, "--policy", "rules.toml"];
        dir.run(&[&call, request].concat())
    };
    let web = |caller, verb, path| test(caller, "http:web", &["--verb", verb, "--path", path]);
    let allowed = "allowed by the [[allow]] rule at rules.toml:1\n";
    web("ops", "GET", "/api/x").expect_out(allowed);
    web("ops", "GET", "/api/./x/../%79")
        .expect_out(&format!("{allowed}the normalised path is /api/y\n"));
    for (caller, verb, path, shown) in [
        ("ops", "PUT", "/api/x", ""),
        ("ops", "GET", "/", ""),
        ("ops", "GET", "/api/x%2Fy", "some servers read the path as /api/x/y\n"),
    ] {
        let denied = web(caller, verb, path).expect(1, &[]).stdout;
        let expected = "denied: no [[allow]] rule covers its verb and path; the [[allow]] rule at rules.toml:1 covers GET on /api/*, /a b\n";
        assert_eq!(denied, format!("{expected}{shown}"));
    }
    let denied = web("admin", "PUT", "//api/secret").expect(1, &[]).stdout;
    let expected =
        "denied by the [[deny]] rule at rules.toml:13\nsome servers read the path as /api/secret\n";
    assert_eq!(denied, expected);
    // Without a request, the scopes are shown.
    let denied_in_part = "the [[deny]] rule at rules.toml:13 covers /api/secret\ntest one request with --verb and --path\n";
    test("ops", "http:web", &[])
        .expect_out(&format!("{allowed}this rule covers GET on /api/*, /a b\n{denied_in_part}"));
    test("admin", "http:web", &[]).expect_out(&format!(
        "allowed by the [[allow]] rule at rules.toml:8\nthis rule covers all verbs and paths\n{denied_in_part}"
    ));
    test("admin", "http:acme.web", &[])
        .expect_out("allowed by the [[allow]] rule at rules.toml:8\n");
    dir.run(&["policy", "check", "rules.toml"]).expect_out(
        "rules.toml: 3 rules: 2 allow, 1 deny, 0 host\n\
         rules.toml:1: ops on warehouse http:web (GET on /api/*, /a b)\n",
    );
}

#[test]
fn a_request_to_test_needs_verb_and_path_and_an_http_forward() {
    let dir = WorkDir::empty();
    dir.write("rules.toml", HTTP_RULES);
    let test = |method, request: &[&str], expected: &str| {
        let call = ["policy", "test", "ops", "warehouse", method, "--policy", "rules.toml"];
        dir.run(&[&call, request].concat()).expect(2, &[expected]);
    };
    test("http:web", &["--verb", "GET"], "--path <PATH>");
    test("http:web", &["--path", "/api"], "--verb <VERB>");
    let get = |path| ["--verb", "GET", "--path", path];
    test("tcp:web", &get("/"), "tcp:web is not an HTTP forward; --verb and --path are for http:");
    test("http:web", &get("/../x"), "path \"/../x\" has .. segments that climb above /");
    test("http:web", &get("/api?x=1"), "has a ? or #");
    test("http:web", &["--verb", "G T", "--path", "/"], "verb \"G T\" is not a token");
}

#[test]
fn a_flag_overrides_the_environment_and_that_overrides_the_file() {
    let dir = WorkDir::new();
    dir.write("node.toml", "listen = \"127.0.0.1:0\"\n");
    let listens = |variable: Option<&str>, flags: &[&str], at: &str| {
        let mut command = dir.command(&[&["node", "--config", "node.toml"], flags].concat());
        command.envs(variable.map(|value| ("DIALBACK_LISTEN", value)));
        let line = DialbackProcess::start(command).wait_for_line("listens on ");
        assert!(line.contains(at), "{line}");
    };
    listens(None, &[], "127.0.0.1:");
    listens(Some("127.0.0.2:0"), &[], "127.0.0.2:");
    listens(Some("127.0.0.2:0"), &["--listen", "127.0.0.3:0"], "127.0.0.3:");
}

#[test]
fn an_agent_takes_its_nodes_and_its_demo_from_its_file_by_default() {
    let dir = WorkDir::new();
    let (_node, at) = dir.node();
    dir.write("agent.toml", format!("nodes = [\"{at}\"]\ndemo = true\nledger = \"l.txt\"\n"));
    let mut agent = dir.start(&["agent", "--config", "agent.toml"]);
    agent.wait_for_line("registered as warehouse with node edge-1");
    drop(agent);
    dir.run(&["agent", "--config", "agent.toml", "--demo=false"]).expect(2, &["ledger"]);
}
