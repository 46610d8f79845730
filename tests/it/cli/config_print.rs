//! `dialback config print`: values, sources, secrets, and its output as a config file.

use super::process::{CommandOutput, DialbackProcess, WorkDir};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const EVERY_NODE_KEY: &str = include_str!("../../data/every-key-node.toml");
const OTHER_NODE_KEYS: &str = include_str!("../../data/every-key-node-other.toml");
const EVERY_AGENT_KEY: &str = include_str!("../../data/every-key-agent.toml");

/// The command with these arguments, and variables beside them.
fn output(dir: &WorkDir, args: &[&str], variables: &[(&str, &str)]) -> CommandOutput {
    let mut command = dir.command(&[&["config", "print"], args].concat());
    for shared in ["HTTPS_PROXY", "https_proxy", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        command.env_remove(shared);
    }
    command.envs(variables.iter().copied());
    DialbackProcess::start(command).end()
}

/// A value, its source and its place, by its key.
type Printed = BTreeMap<String, (serde_json::Value, String, String)>;

fn printed(dir: &WorkDir, args: &[&str], variables: &[(&str, &str)]) -> Printed {
    let output = output(dir, &[args, &["--json"]].concat(), variables).expect(0, &[]).json();
    let settings = output["settings"].as_array().expect("settings");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let entry = |one: &serde_json::Value| {
        (text(&one["key"]), (one["value"].clone(), text(&one["source"]), text(&one["at"])))
    };
    let found: Printed = settings.iter().map(entry).collect();
    assert_eq!(found.len(), settings.len(), "a key was printed twice");
    found
}

fn values(printed: &Printed) -> BTreeMap<&String, &serde_json::Value> {
    printed.iter().map(|(key, (value, _, _))| (key, value)).collect()
}

/// The output is a config file that gives the same values, each of them with its line.
#[track_caller]
fn check_round_trip(dir: &WorkDir, role: &str, file: &str, text: &str) {
    dir.write("given.toml", text);
    let first = printed(dir, &[role, "--config", "given.toml", "--unmasked"], &[]);
    let text = output(dir, &[role, "--config", "given.toml", "--unmasked"], &[]).expect(0, &[]);
    dir.write("printed.toml", &text.stdout);
    let second = printed(dir, &[role, "--config", "printed.toml", "--unmasked"], &[]);
    assert_eq!(values(&first), values(&second), "{file}");
    for (key, (value, source, at)) in &second {
        let has_line = value.is_null() || key == "limits.memory_max" || source == "file";
        assert!(has_line, "{file}: {key} = {value} of {source} {at}");
    }
    // No comment is needed: the settings and not the sources decide.
    let is_setting = |line: &&str| !line.starts_with('#');
    let bare: Vec<_> = text.stdout.lines().filter(is_setting).collect();
    dir.write("bare.toml", bare.join("\n"));
    let third = printed(dir, &[role, "--config", "bare.toml", "--unmasked"], &[]);
    assert_eq!(values(&first), values(&third), "{file}");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// Sample config files of the repository: the role, the file, and its text.
fn samples() -> Vec<(&'static str, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in ["examples", "deploy"] {
        for path in files_below(&root.join(dir)) {
            let (name, shown) = (path.file_name().expect("a name"), path.display().to_string());
            for role in ["node", "agent"] {
                let text = || fs::read_to_string(&path).expect("a text");
                if name == &*format!("{role}.toml") {
                    found.push((role, shown.clone(), text()));
                } else if name == &*format!("{role}.yaml") {
                    // The file in a ConfigMap.
                    let text = text();
                    let lines = text.split_once(&format!("{role}.toml: |\n"));
                    let lines = lines.expect("a file").1.lines();
                    let inside =
                        lines.take_while(|line| line.is_empty() || line.starts_with("    "));
                    found.push((role, shown.clone(), inside.collect::<Vec<_>>().join("\n")));
                }
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn the_output_is_a_config_file_with_the_same_values() {
    let dir = WorkDir::new();
    for (role, file, text) in samples() {
        check_round_trip(&dir, role, &file, &text);
    }
    check_round_trip(&dir, "node", "every key", EVERY_NODE_KEY);
    check_round_trip(&dir, "node", "the other keys", OTHER_NODE_KEYS);
    check_round_trip(&dir, "agent", "every key", EVERY_AGENT_KEY);
}

#[test]
fn a_node_runs_with_the_printed_file() {
    let dir = WorkDir::new();
    let flags = ["--listen", "127.0.0.1:0", "--tunnel", "127.0.0.1:0", "--state", "state"];
    let text = output(&dir, &[&["node", "--audit", "audit.log"], &flags[..]].concat(), &[]);
    dir.write("node.toml", text.expect(0, &[]).stdout);
    let (_node, address) = dir.listening(&["node", "--config", "node.toml"]);
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    assert!(dir.path("state").is_dir() && dir.path("audit.log").is_file());
}

/// Keys of the table in docs/operations.md, of one role: `limits.idle_max`.
fn documented(role: &str) -> BTreeSet<String> {
    let text = include_str!("../../../docs/operations.md");
    let section = text.split("## Config keys").nth(1).expect("a section");
    let rows = section.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.split(" | ").collect();
        (cells[0].to_owned(), cells[1].to_owned())
    });
    let mut keys = BTreeSet::new();
    for (names, _) in rows.filter(|(_, of)| of == role || of == "both") {
        let mut table = String::new();
        for span in names.split('`').skip(1).step_by(2) {
            let (name, key) = span.rsplit_once(' ').unwrap_or(("", span));
            let key = span.split(" = ").next().filter(|_| span.contains(" = ")).unwrap_or(key);
            if span.starts_with('[') {
                table = name.trim_matches(['[', ']']).to_owned() + ".";
            }
            keys.insert(format!("{table}{key}"));
        }
    }
    keys
}

/// Keys without the numbers of their tables: `tcp[0].name` is `tcp.name`.
fn bare_keys(printed: &Printed) -> BTreeSet<String> {
    let bare = |key: &String| match key.split_once('[') {
        Some((table, rest)) => table.to_owned() + rest.split_once(']').expect("a number").1,
        None => key.clone(),
    };
    let set = printed.iter().filter(|(_, (value, _, _))| !value.is_null());
    // `tls` may be a table too.
    set.map(|(key, _)| bare(key)).filter(|key| !key.starts_with("gateway.tls.")).collect()
}

#[test]
fn every_documented_key_is_printed_and_every_printed_key_is_documented() {
    let dir = WorkDir::new();
    dir.write("node.toml", EVERY_NODE_KEY);
    dir.write("agent.toml", EVERY_AGENT_KEY);
    for role in ["node", "agent"] {
        let printed = printed(&dir, &[role, "--config", &format!("{role}.toml")], &[]);
        let mut printed = bare_keys(&printed);
        if role == "node" {
            // With `tls = false` in the same table, and of a listener on every address.
            let other = ["gateway.trusted_proxy", "tunnel.cert", "tunnel.key"];
            printed.extend(other.map(str::to_owned));
        }
        // Rules have a table of their own, in another form.
        let rules = ["allow.", "deny.", "host."];
        printed.retain(|key| !rules.iter().any(|rule| key.starts_with(rule)));
        let documented = documented(role);
        assert!(documented.len() > 50, "{documented:?}");
        assert_eq!(printed, documented, "of {role}");
    }
}

#[test]
fn a_flag_overrides_the_environment_and_the_environment_the_file() {
    let dir = WorkDir::new();
    let file = "listen = \"127.0.0.1:1\"\nstate = \"a\"\n\n[limits]\nmemory_max = \"64MiB\"\n[tls]\ncert = \"certs/node-edge-1.pem\"\n[gateway]\n";
    dir.write("node.toml", file);
    let keys = [
        (
            "listen",
            "--listen",
            "DIALBACK_LISTEN",
            "node.toml:1",
            ["127.0.0.1:1", "[::1]:2", "[::1]:3"],
        ),
        ("state", "--state", "DIALBACK_STATE", "node.toml:2", ["a", "b", "c"]),
        (
            "limits.memory_max",
            "--memory-max",
            "DIALBACK_MEMORY_MAX",
            "node.toml:5",
            ["64MiB", "65MiB", "66MiB"],
        ),
        (
            "tls.cert",
            "--cert",
            "DIALBACK_CERT",
            "node.toml:7",
            ["certs/node-edge-1.pem", "./certs/node-edge-1.pem", "certs/../certs/node-edge-1.pem"],
        ),
        (
            "gateway.listen",
            "--gateway",
            "DIALBACK_GATEWAY",
            "",
            ["127.0.0.1:8080", "[::1]:5", "[::1]:6"],
        ),
        ("admin.listen", "--admin", "DIALBACK_ADMIN", "", ["", "[::1]:7", "[::1]:8"]),
    ];
    for (key, flag, variable, line, [in_file, by_variable, by_flag]) in keys {
        let run = |flags: &[&str], variables: &[(&str, &str)]| {
            let args = [&["node", "--config", "node.toml"], flags].concat();
            let mut printed = printed(&dir, &args, variables);
            let found = printed.remove(key);
            found.map(|(value, source, at)| {
                (value.as_str().unwrap_or_default().to_owned(), source, at)
            })
        };
        let expected = |value: &str, source: &str, at: &str| {
            Some((value.to_owned(), source.to_owned(), at.to_owned()))
        };
        let of_file = if line.is_empty() { ("default", "") } else { ("file", line) };
        let lowest = (!in_file.is_empty()).then(|| expected(in_file, of_file.0, of_file.1));
        assert_eq!(run(&[], &[]), lowest.flatten(), "{key}");
        let set = [(variable, by_variable)];
        assert_eq!(run(&[], &set), expected(by_variable, "environment", variable), "{key}");
        assert_eq!(run(&[flag, by_flag], &set), expected(by_flag, "flag", flag), "{key}");
    }
    let printed = printed(&dir, &["node", "--config", "node.toml"], &[]);
    let of = |key: &str| (&*printed[key].1, &*printed[key].2);
    assert_eq!(of("tls.key"), ("default", ""), "found beside the certificate");
    assert_eq!(of("limits.idle_max"), ("default", ""));
}

#[test]
fn a_setting_that_has_no_effect_is_not_the_source() {
    let dir = WorkDir::new();
    let file = "nodes = [\"a\"]\nproxy = \"http://u@p:1\"\nproxy_password_file = \"f\"\n[[node]]\naddress = \"b\"\ntunnel_url = \"wss://b\"\n[[tcp]]\nname = \"db\"\nupstream = \"a:1\"\n[[tcp]]\nname = \"x\"\nupstream = \"a:2\"\n";
    dir.write("agent.toml", file);
    let flags = ["--proxy", "http://v@q:1", "--tunnel-url", "wss://c", "--tcp", "db=a:3"];
    let args = [&["agent", "--config", "agent.toml"], &flags[..]].concat();
    let printed = printed(&dir, &args, &[("DIALBACK_NODE", "c:1,d:2")]);
    let of = |key: &str| {
        let (value, _, at) = &printed[key];
        (value.as_str().unwrap_or_default(), at.as_str())
    };
    assert_eq!(of("proxy_password_file"), ("", ""), "a password belongs to its proxy");
    assert_eq!(printed["nodes"].0, serde_json::json!(["c:1", "d:2"]));
    assert_eq!(printed["nodes"].2, "DIALBACK_NODE");
    assert!(!printed.contains_key("node[0].address"), "{printed:#?}");
    assert_eq!((of("tcp[0].name"), of("tcp[0].upstream")), (("db", "--tcp"), ("a:3", "--tcp")));
    assert_eq!(of("tcp[0].idle"), ("5m", ""));
    assert_eq!(of("tcp[1].upstream"), ("a:2", "agent.toml:12"));
}

#[test]
fn rules_have_the_lines_of_the_file_that_they_are_of() {
    let dir = WorkDir::new();
    let rule = |caller: &str| {
        format!("[[allow]]\ncaller = \"{caller}\"\nagent = \"**\"\nmethod = \"*/*\"\n")
    };
    dir.write("node.toml", rule("ops"));
    // Equal rules are told apart by nothing, and both are printed.
    dir.write("rules.toml", rule("a") + &rule("b") + &rule("b"));
    let config = ["node", "--config", "node.toml"];
    let one = printed(&dir, &config, &[]);
    assert_eq!(one["allow[0].caller"].2, "node.toml:2");
    let three = printed(&dir, &[&config[..], &["--policy", "rules.toml"]].concat(), &[]);
    assert_eq!(three["allow[0].caller"].2, "rules.toml:2");
    assert_eq!(three["allow[1].caller"].2, "rules.toml:6");
    assert_eq!(three["allow[2].caller"].0, "b");
    assert!(!three.contains_key("allow[3].caller"));
}

#[test]
fn secrets_are_not_printed_and_a_masked_file_is_refused() {
    let dir = WorkDir::new();
    let places = [
        ("proxy", "proxy = \"http://agent:SECRET@proxy.example.com:3128\"\n"),
        ("tunnel_url", "tunnel_url = \"wss://edge.example.com/t?key=SECRET\"\n"),
        ("enroll_tunnel_url", "enroll_tunnel_url = \"wss://ca.example.com/t?key=SECRET\"\n"),
        ("node[0].tunnel_url", "[[node]]\naddress = \"b\"\ntunnel_url = \"wss://b/t?SECRET\"\n"),
        (
            "http[0].health",
            "[[http]]\nname = \"a\"\nupstream = \"http://a\"\nhealth = \"GET /h?k=SECRET\"\n",
        ),
        (
            "service[0].health",
            "[[service]]\nname = \"A\"\nforward = \"http://a\"\nhealth = \"GET /h?k=SECRET\"\n",
        ),
        (
            "mcp[0].health",
            "[[mcp]]\nname = \"a\"\nupstream = \"http://a\"\nhealth = \"GET /h?k=SECRET\"\n",
        ),
        ("mcp[0].command", "[[mcp]]\nname = \"b\"\ncommand = [\"npx\", \"--token=SECRET\"]\n"),
        ("mcp[0].command", "[[mcp]]\nname = \"b\"\ncommand = [\"env\", \"KEY=SECRET\", \"x\"]\n"),
    ];
    for (key, text) in places {
        dir.write("agent.toml", text);
        let args = ["agent", "--config", "agent.toml"];
        let masked = output(&dir, &args, &[]).expect(0, &[]);
        let json = output(&dir, &[&args[..], &["--json"]].concat(), &[]).expect(0, &[]);
        for shown in [&masked, &json] {
            let all = format!("{}{}", shown.stdout, shown.stderr);
            assert!(!all.contains("SECRET") && all.contains("<masked>"), "{key}: {all}");
        }
        let says = format!("# <masked> is in place of secrets in {key}; --unmasked prints them.");
        assert!(masked.stdout.contains(&says), "{key}: {masked:#?}");
        let is_masked = |one: &&serde_json::Value| one["masked"] == true;
        let json = json.json();
        let settings = json["settings"].as_array().expect("settings");
        let keys: Vec<_> = settings.iter().filter(is_masked).map(|one| &one["key"]).collect();
        assert_eq!(keys, [key]);
        dir.write("masked.toml", &masked.stdout);
        let name = key.rsplit('.').next().expect("a key");
        let fault = format!("`{name}`: has <masked> in place of a secret");
        for command in [&["agent"][..], &["config", "print", "agent"]] {
            dir.run(&[command, &["--config", "masked.toml"]].concat()).expect(2, &[&fault]);
        }
        dir.run(&["config", "check", "masked.toml"]).expect(2, &[&fault]);
        check_round_trip(&dir, "agent", key, text);
    }
    let variable = [("HTTPS_PROXY", "http://u:SECRET@p:1")];
    let found = output(&dir, &["agent"], &variable).expect(0, &[]).stdout;
    assert!(!found.contains("SECRET"), "{found}");
    assert!(found.contains("# proxy = \"http://u:<masked>@p:1\""), "{found}");
    let flags = ["agent", "--proxy", "http://u:SECRET@p:1", "--mcp", "a=stdio:x SECRET"];
    let found = output(&dir, &flags, &[]).expect(0, &[]).stdout;
    assert!(!found.contains("SECRET") && found.contains("# --proxy"), "{found}");
    // Contents of named files are never a part of it.
    dir.write("proxy-password", "SECRET");
    let flags = ["agent", "--proxy", "http://u@p:1", "--proxy-password-file", "proxy-password"];
    let found = output(&dir, &[&flags[..], &["--unmasked"]].concat(), &[]).expect(0, &[]).stdout;
    assert!(!found.contains("SECRET") && !found.contains("masked>"), "{found}");
}

#[test]
fn a_collector_of_the_environment_is_printed_with_its_variable_and_counts_last() {
    let dir = WorkDir::new();
    let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://shared.example.com:4318")];
    let found = output(&dir, &["agent"], &variable).expect(0, &[]).stdout;
    let line = found.lines().find(|line| line.contains("otlp =")).expect("the key");
    assert!(line.starts_with("# otlp = \"http://shared.example.com:4318/"), "{line}");
    assert!(line.ends_with("# OTEL_EXPORTER_OTLP_ENDPOINT"), "{line}");
    let flag = ["node", "--otlp", "http://127.0.0.1:4318"];
    let found = output(&dir, &flag, &variable).expect(0, &[]).stdout;
    let line = found.lines().find(|line| line.contains("otlp =")).expect("the key");
    assert!(line.starts_with("otlp = \"http://127.0.0.1:4318/"), "{line}");
    assert!(line.ends_with("# --otlp"), "{line}");
}

#[test]
fn a_file_with_faults_is_reported_as_by_a_check_and_nothing_is_printed() {
    let (dir, bare) = (WorkDir::new(), WorkDir::empty());
    for (role, text) in [
        ("node", "lisen = \"x\"\n[tls]\ncert = 3\n[[allow]]\ncaller = \"Ops\"\nagent = \"a\"\n"),
        ("agent", "listen = \"[::]:1\"\n[[tcp]]\nname = \"db\"\n"),
        ("node", ""),
    ] {
        dir.write("bad.toml", text);
        let checked =
            dir.run(&["config", "check", &format!("--{role}"), "bad.toml"]).expect(2, &[]);
        let printed = output(&dir, &[role, "--config", "bad.toml"], &[]).expect(2, &["bad.toml"]);
        assert_eq!((printed.stdout.as_str(), &printed.stderr), ("", &checked.stderr));
    }
    output(&dir, &["node", "--config", "gone.toml"], &[]).expect(2, &["error: gone.toml: "]);
    output(&dir, &["node", "--tokens", "t"], &[])
        .expect(2, &["--tokens requires the HTTP gateway"]);
    output(&dir, &["node", "--lisen", "x"], &[]).expect(2, &["--listen"]);
    // Without certificates the rest is printed, and the failure is that of the command.
    let printed =
        output(&bare, &["node", "--state", "s"], &[]).expect(2, &["certs does not exist"]);
    assert!(printed.stdout.contains("\nstate = \"s\""), "{printed:#?}");
    assert!(printed.stdout.contains("\n# not set: cert, key, ca, node_ca, crl\n"), "{printed:#?}");
}
