//! Tests of whole files: accepted, refused, and the error texts.

use super::*;
use crate::limits::Congestion;
use crate::policy::{AllowRule, HttpScope, Origin};
use crate::tls::CrlScope;
use proptest::prelude::*;
use std::time::Duration;

const NODE: &str = r#"# node.toml
listen = "[::]:4433"

[tls]
cert = "certs/node-edge-1.pem"
key = "certs/node-edge-1.key"
ca = "certs/ca.pem"
crl = "certs/crl.pem"

[[allow]]
caller = "billing"              # a caller certificate or token
agent = "acme.*"
method = "HelloService/*"       # also "tcp:db" for a forward
timeout_max = "30s"
idempotent = false

[[deny]]                        # deny wins
caller = "intern.**"
agent = "**"
method = "*/*"

[[host]]
agent = "acme.*"
service = "HelloService"
"#;

const AGENT: &str = r#"# agent.toml
nodes = ["edge-1.example.com:4433", "edge-2.example.com:4433"]

[tls]
cert = "certs/agent-acme.warehouse-1.pem"
key = "certs/agent-acme.warehouse-1.key"
ca = "certs/ca.pem"

[[service]]
name = "HelloService"
forward = "http://127.0.0.1:9000"

[[tcp]]
name = "db"
upstream = "127.0.0.1:5432"

[[allow]]
node = "edge-*"
caller = "billing"
method = "HelloService/*"
"#;

fn paths([cert, key, ca]: [&str; 3], crl: Option<&str>) -> TlsFiles {
    let [cert, key, ca] = [cert, key, ca].map(|path| Some(path.into()));
    TlsFiles { cert, key, ca, crl: crl.map(Into::into), ..TlsFiles::default() }
}

#[test]
fn the_documented_node_file_is_read() {
    let config = NodeConfig::parse(NODE, "node.toml").expect("a config");
    assert_eq!(config.listen, "[::]:4433".parse().ok());
    let names = ["certs/node-edge-1.pem", "certs/node-edge-1.key", "certs/ca.pem"];
    assert_eq!(config.tls, paths(names, Some("certs/crl.pem")));

    let mut allow = AllowRule::parse("billing", "acme.*", "HelloService/*").expect("a rule");
    allow.timeout_max = Some(Duration::from_secs(30));
    allow.origin = Origin::at("node.toml", 10);
    assert_eq!(config.policy.allow, [allow]);
    assert_eq!(config.policy.deny[0].origin.to_string(), "node.toml:17");
    assert_eq!(config.policy.host[0].origin.to_string(), "node.toml:22");
    assert!(config.policy.may_host(&"acme.a".parse().expect("a name"), "HelloService"));
}

#[test]
fn the_documented_agent_file_is_read() {
    let config = AgentConfig::parse(AGENT, "agent.toml").expect("a config");
    let nodes: Vec<_> = config.nodes.iter().map(ToString::to_string).collect();
    assert_eq!(nodes, ["edge-1.example.com:4433", "edge-2.example.com:4433"]);
    assert_eq!(config.tls.crl, None);
    assert_eq!(config.policy.allow[0].origin.to_string(), "agent.toml:17");
    assert!(!config.demo);
    assert_eq!(config.tcp, ["db=127.0.0.1:5432".parse().expect("a forward")]);
}

#[test]
fn a_forward_has_a_name_of_its_own_and_an_upstream() {
    let both = "[[tcp]]\nname = 'db'\nupstream = 'unix:/run/db'\nidle = '1h'\nconnect_timeout = '1s'\n\
        [[tcp]]\nname = 'b'\nupstream = '[::1]:1'\n";
    let forward = |text: &str| text.parse::<TcpForward>().expect("a forward");
    let secs = Duration::from_secs;
    let first = forward("db=unix:/run/db").idle_max(secs(3_600)).connect_wait_max(secs(1));
    let read = AgentConfig::parse(both, "f").expect("a config").tcp;
    assert_eq!(read, [first, forward("b=[::1]:1")]);
    for (bad, expected) in [
        (
            "[[tcp]]\nname = 'db'",
            "f:1: [[tcp]] has no `upstream`; add a line as upstream = \"127.0.0.1:5432\"",
        ),
        ("[[tcp]]\nname = 'D'\nupstream = 'a:1'", "f:2: `name`: name \"D\" "),
        ("[[tcp]]\nname = 'd'\nupstream = 'a'", "f:3: `upstream`: upstream \"a\" names no port"),
        ("[[tcp]]\nname = 'd'\nupstream = 'a:1'\nidle = '0s'", "f:4: `idle`: 0ms is out of range"),
        ("[[tcp]]\nname = 'd'\nupstream = 'a:1'\nport = 1", "f:4: unknown key `port` in [[tcp]]"),
        (
            "tcp = [{ name = 'd', upstream = 'a:1' }, { name = 'd', upstream = 'b:1' }]",
            "f:1: `name`: duplicate [[tcp]] d",
        ),
    ] {
        let faults = AgentConfig::parse(bad, "f").expect_err("a fault").to_string();
        assert!(faults.starts_with(expected), "{faults}");
    }
    let faults = NodeConfig::parse(both, "f").expect_err("a fault").to_string();
    assert!(faults.contains("[[tcp]] belongs in an agent's file"), "{faults}");
}

#[test]
fn an_empty_file_has_all_defaults_and_allows_no_call() {
    let config = NodeConfig::parse("", "node.toml").expect("a config");
    assert_eq!((config.listen, config.tls), (None, TlsFiles::default()));
    assert_eq!(config.policy, NodePolicy::default());
    assert!(AgentConfig::parse("", "agent.toml").is_ok());
}

#[test]
fn three_mistakes_are_reported_at_once_with_their_lines() {
    let text = NODE
        .replace("listen =", "lisen =")
        .replace("\"30s\"", "30")
        .replace("service = \"HelloService\"", "service = \"Hello-Service\"");
    let faults = NodeConfig::parse(&text, "node.toml").expect_err("three faults").to_string();
    assert_eq!(
        faults.lines().collect::<Vec<_>>(),
        [
            "node.toml:2: unknown key `lisen`, did you mean `listen`?",
            "node.toml:14: `timeout_max`: has no unit; write it in quotes, as \"30s\" or \"30ms\"",
            "node.toml:24: `service`: service pattern \"Hello-Service\" has a character that no such name has",
        ]
    );
}

/// Reads a text as a node's file; the faults in one line, without the name of the file.
fn node_faults(text: &str) -> String {
    let faults = NodeConfig::parse(text, "f").err();
    faults.map_or_else(String::new, |faults| faults.to_string())
}

fn agent_faults(text: &str) -> String {
    let faults = AgentConfig::parse(text, "f").err();
    faults.map_or_else(String::new, |faults| faults.to_string())
}

/// Checks that `good` passes and that `bad` is refused with a message that contains `why`.
#[track_caller]
fn check(faults_of: fn(&str) -> String, good: &str, bad: &str, why: &str) {
    assert_eq!(faults_of(good), "", "of {good}");
    let faults = faults_of(bad);
    assert!(faults.contains(why), "{bad:?} was refused with {faults:?}");
    assert_eq!(faults.lines().count(), 1, "{bad:?} was refused with {faults:?}");
}

#[test]
fn a_node_listens_on_an_address_with_a_port() {
    let good = "listen = '0.0.0.0:4433'";
    check(node_faults, good, "[tls]\nstate = 'x'", "above the first [header]");
    check(node_faults, "state = 'var'", "state = 7", "must be a text in quotes");
    check(agent_faults, "nodes = ['localhost']", "state = 'x'", "belongs in a node's file");
    check(node_faults, good, "listen = ':4433'", "write [::] for all");
    check(node_faults, good, "listen = 4433", "must be a text in quotes");
    check(node_faults, good, "listen = 'localhost'", "not an IP address and a port");
    check(node_faults, good, "[tls]\nlisten = '0.0.0.0:4433'", "above the first [header]");
    check(agent_faults, "", good, "belongs in a node's file");
}

#[cfg(feature = "forward")]
#[test]
fn a_forwarded_service_has_a_name_and_an_upstream_and_trust_only_for_https() {
    let table = |lines: &str| format!("[[service]]\nname = 'HelloService'\n{lines}");
    let good = table("forward = 'http://127.0.0.1:9000/api'\nformat = 'cbor'\nmethods = ['Hello']");
    for (bad, why) in [
        (table(""), "f:1: [[service]] has no `forward`; add a line as forward = "),
        ("[[service]]\nforward = 'http://a'".into(), "f:1: [[service]] has no `name`"),
        (table("forward = '127.0.0.1:9000'"), "f:3: `forward`: upstream \"127.0.0.1:9000\" is not"),
        (table("forward = 9000"), "must be a text in quotes, as \"http://127.0.0.1:9000\""),
        (table("forward = 'https://a'"), "f:3: `forward`: an https upstream needs a CA"),
        (
            table("forward = 'http://a'\nupstream_ca = 'ca'"),
            "f:4: `upstream_ca`: http://a is not https",
        ),
        (table("forward = 'http://a'\nformat = 'xml'"), "f:4: `format`: is not json or cbor"),
        (table("forward = 'http://a'\nmethods = []"), "f:4: `methods`: is empty"),
        (table("forward = 'http://a'\nmethods = ['a-b']"), "f:4: `methods`: method \"a-b\""),
        (table("forward = 'http://a'\nmethods = ['A', 'A']"), "f:4: `methods`: duplicate entry A"),
        (table("forward = 'http://a'\nupstream = 'b'"), "f:4: `upstream` belongs in [[tcp]]"),
        (table("forward = 'http://a'\nkeep_alive = 1"), "f:4: `keep_alive`: "),
        (
            table("forward = 'http://a'\nmetadata = ['a b']"),
            "f:4: `metadata`: \"a b\" is not a header name",
        ),
        (table("forward = 'http://a'\nmetadata = ['ä']"), "is not a header name"),
        (table("forward = 'http://a'\nmetadata = ['x', 'Proxy']"), "f:4: `metadata`: Proxy never"),
        (table("forward = 'http://a'\nmethod = ['A']"), "did you mean `methods`?"),
        (table("forward = 'http://a'\ndemo = true"), "above the first [header]"),
        (
            format!("{good}\n{}", table("forward = 'http://a'")),
            "f:7: `name`: duplicate [[service]] HelloService",
        ),
        (good.replace("HelloService", "dialback.X"), "f:2: `name`: dialback.X is reserved"),
        (good.replace("HelloService", "Hello-Service"), "f:2: `name`: service"),
    ] {
        check(agent_faults, &good, &bad, why);
    }
    check(node_faults, "", &good, "belongs in an agent's file");
}

#[cfg(feature = "forward")]
#[test]
fn forwarded_services_are_read_as_written() {
    let text = "[[service]]\nname = 'A'\nforward = 'https://app:8443/x/'\nupstream_ca = 'ca.pem'\n\
                format = 'cbor'\nmethods = ['Hello']\nkeep_alive = false\nmetadata = ['Tenant']\n[[service]]\nname = 'B'\nforward = 'http://b'";
    let config = AgentConfig::parse(text, "agent.toml").expect("a config");
    let [a, b] = &config.forwards[..] else { panic!("{:?}", config.forwards) };
    assert_eq!((a.service.as_str(), a.upstream.to_string()), ("A", "https://app:8443/x/".into()));
    assert_eq!(a.upstream_ca.as_deref(), Some(Path::new("ca.pem")));
    assert_eq!(a.format, crate::agent::ForwardFormat::Cbor);
    assert_eq!(a.methods, Some(vec!["Hello".parse().expect("a method")]));
    assert_eq!((&b.upstream_ca, b.format), (&None, crate::agent::ForwardFormat::Json));
    assert_eq!(b.methods, None);
    assert_eq!((a.keep_alive, b.keep_alive), (false, true));
    assert_eq!((a.metadata.as_deref(), &b.metadata), (Some(&["Tenant".to_owned()][..]), &None));
}

#[test]
fn an_agent_names_its_nodes() {
    let good = "nodes = ['edge-1', '[::1]:4433', '10.0.0.1:1']";
    check(agent_faults, good, "nodes = []", "is empty");
    check(agent_faults, good, "nodes = 'edge-1'", "must be an array");
    check(agent_faults, good, "nodes = [\n'a',\n'::1'\n]", "f:3: `nodes`: node address");
    check(agent_faults, good, "nodes = ['::1']", "f:1: `nodes`: node address");
    check(agent_faults, good, "nodes = ['a', 'a:4433']", "duplicate entry");
    check(node_faults, "", good, "belongs in an agent's file");
    check(agent_faults, "enroll = \"ca.example.com\"", "enroll = \"ca:0\"", "port");
    check(agent_faults, "enroll = \"[::1]:4434\"", "enroll = 4434", "must be a text");
    check(node_faults, "", "enroll = \"ca\"", "belongs in an agent's file");
    check(agent_faults, "demo = true\nledger = 'l'", "demo = 'yes'", "must be true or false");
}

#[cfg(feature = "tunnel")]
#[test]
fn an_agent_names_its_paths() {
    let good = "path = 'auto'\ntunnel_url = 'wss://edge-1.example.com'\nproxy = 'http://u@p:3128'\nproxy_password_file = 'pw'\n[tunnel]\nverify = true\nca = 'ca.pem'";
    check(agent_faults, good, "path = 'tcp'", "f:1: `path`: \"tcp\" is not a path");
    check(agent_faults, good, "tunnel_url = 'https://e'", "write it as \"wss://");
    check(agent_faults, good, "proxy = 'socks5://u:secret@p:1'", "http://[USER@]HOST:PORT");
    let text = agent_faults("proxy = 'socks5://u:secret@p:1'");
    assert!(!text.contains("secret"), "{text}");
    check(agent_faults, good, "proxy_password_file = 'pw'", "needs `proxy`");
    check(agent_faults, good, "[tunnel]\nca = 'ca.pem'", "with verify = true only");
    check(agent_faults, good, "[tunnel]\nproxy = 'http://p:1'", "at the top of the file");
    check(agent_faults, good, "[tunnel]\nlisten = '[::]:443'", "belongs in a node's file");
    check(node_faults, "", "path = 'udp'", "belongs in an agent's file");
    let nodes = "[[node]]\naddress = 'a'\ntunnel_url = 'wss://t'\n[[node]]\naddress = 'b'";
    check(agent_faults, nodes, "[[node]]\ntunnel_url = 'wss://t'", "[[node]] has no `address`");
    check(agent_faults, nodes, "nodes = ['a']\n[[node]]\naddress = 'a:4433'", "duplicate entry");
    let config = AgentConfig::parse(nodes, "f").expect("a file");
    assert_eq!(config.nodes.len(), 2);
    assert_eq!(config.paths.tunnel_urls[0].1.to_string(), "wss://t:443/dialback/tunnel");
}

#[cfg(feature = "tunnel")]
#[test]
fn a_node_names_its_tunnels() {
    let good = "[tunnel]\nlisten = '[::]:443'\npath = '/t'\ncert = 'c'\nkey = 'k'";
    check(node_faults, good, "[tunnel]\nlisten = 'edge'", "`listen`");
    check(node_faults, good, "[tunnel]\npath = 't'", "is not a path");
    check(node_faults, good, "[tunnel]\ncert = 'c'", "cert and key go together");
    check(node_faults, good, "[tunnel]\nverify = true", "belongs in an agent's file");
    check(node_faults, good, "[tunnel]\nlisten = '[::]:80'\ntls = false", "name the proxy");
    let behind = "[tunnel]\nlisten = '[::]:80'\ntls = false\ntrusted_proxy = ['10.0.0.0/8']";
    check(node_faults, behind, "on_gateway = true", "belongs under [tunnel]");
    let ignored = "[tunnel]\non_gateway = true\ntrusted_proxy = ['10.0.0.1']";
    check(node_faults, behind, ignored, "the gateway has its own");
    let at = |path: &str| format!("[tunnel]\non_gateway = true\npath = '{path}'");
    for path in ["/v1/agents", "/v1", "/"] {
        check(node_faults, &at("/v1x"), &at(path), "where the gateway has its API");
    }
    check(agent_faults, "", "[tunnel]\nlisten = '[::]:443'", "belongs in a node's file");
}

#[test]
fn credentials_are_paths_under_tls() {
    check(node_faults, "[tls]\ncert = 'c'", "cert = 'c'", "`cert` belongs under [tls]");
    check(node_faults, "[tls]\ncert = 'c'", "[tls]\ncert = ''", "is empty");
    check(node_faults, "[tls]", "[[tls]]", "must be one table");
}

fn rule(line: &str) -> String {
    format!("[[allow]]\ncaller = 'a'\nagent = 'b'\nmethod = 'C/d'\n{line}")
}

#[test]
fn a_rule_has_all_three_matchers_and_limits_in_range() {
    let complete = rule("");
    for key in ["caller", "agent", "method"] {
        let lines = complete.lines().filter(|line| !line.starts_with(key));
        let incomplete = lines.collect::<Vec<_>>().join("\n");
        check(
            node_faults,
            &complete,
            &incomplete,
            &format!("f:1: [[allow]] has no `{key}`; add a line as"),
        );
    }
    check(node_faults, &complete, &complete.replace("'a'", "'A'"), "f:2: `caller`: name pattern");
    check(
        node_faults,
        &complete,
        &complete.replace("'b'", "'agent/b'"),
        "f:3: `agent`: agent pattern",
    );
    check(
        node_faults,
        &complete,
        &complete.replace("'C/d'", "'C'"),
        "f:4: `method`: method pattern",
    );
    check(node_faults, &rule("timeout_max = '1ms'"), &rule("timeout_max = '0s'"), "1ms to 365d");
    check(
        node_faults,
        &rule("timeout_max = '365d'"),
        &rule("timeout_max = '366d'"),
        "366d is out of range",
    );
    check(node_faults, &rule("message_max = '64MiB'"), &rule("message_max = '65MiB'"), "to 64MiB");
    check(node_faults, &rule("message_max = 1_024"), &rule("message_max = 1023"), "1KiB to");
    check(node_faults, &rule("idempotent = true"), &rule("idempotent = 'true'"), "without quotes");
    check(node_faults, &rule("rate = '100/s'"), &rule("rate = 100"), "f:5: `rate`: must be a text");
    check(node_faults, &rule("rate = '1/h'"), &rule("rate = '0/h'"), "not from 1 to 1000000");
    check(node_faults, &rule("rate = '1000000/m'"), &rule("rate = '1000001/m'"), "f:5: `rate`: ");
    check(node_faults, &rule("rate = '6000/m'"), &rule("rate = '100/d'"), "write s, m or h");
    check(node_faults, &rule("in_flight = 1"), &rule("in_flight = 0"), "f:5: `in_flight`: 0 is");
    check(node_faults, &rule("in_flight = 100_000"), &rule("in_flight = 100_001"), "to 100000");
    check(
        node_faults,
        &complete,
        &complete.replace("[[", "[").replace("]]", "]"),
        "array of tables, [[allow]]",
    );
}

#[test]
fn deny_rules_and_rules_of_agents_have_no_limits() {
    let deny = rule("").replace("allow", "deny");
    check(node_faults, &deny, &format!("{deny}idempotent = true"), "has no meaning in a [[deny]]");
    let own = rule("").replace("agent", "node");
    for bound in ["timeout_max = '1s'", "rate = '1/s'", "in_flight = 1"] {
        check(agent_faults, &own, &format!("{own}{bound}"), "belongs in a node's rule");
    }
    check(agent_faults, &own, &format!("{own}agent = 'x'"), "belongs in a node's rule");
    check(agent_faults, &own, &deny, "[[deny]] belongs in a node's file");
}

#[test]
fn the_limits_of_a_rule_are_read() {
    let text = rule(
        "timeout_max = '90s'\nidempotent = true\nmessage_max = '8MiB'\nrate = '6000/m'\nin_flight = 4",
    );
    let allow = &NodeConfig::parse(&text, "f").expect("a config").policy.allow[0];
    assert_eq!(allow.timeout_max, Some(Duration::from_secs(90)));
    assert_eq!((allow.idempotent, allow.message_bytes_max), (true, Some(8 << 20)));
    assert_eq!(allow.rate.map(|rate| rate.to_string()).as_deref(), Some("6000/m"));
    assert_eq!(allow.in_flight, Some(4));
}

#[test]
fn rules_over_http_forwards_may_name_verbs_and_paths() {
    let of_node =
        rule("verbs = ['GET', 'HEAD']\npaths = ['/api/**', '/a b']").replace("C/d", "http:*");
    let of_agent = of_node.replace("agent =", "node =");
    let scope = HttpScope::parse(&["GET", "HEAD"], &["/api/**", "/a b"]).expect("a scope");
    let config = NodeConfig::parse(&of_node, "f").expect("a config");
    assert_eq!(config.policy.allow[0].http, scope);
    let config = NodeConfig::parse(&of_node.replace("allow", "deny"), "f").expect("a config");
    assert_eq!(config.policy.deny[0].http, scope);
    let config = AgentConfig::parse(&of_agent, "f").expect("a config");
    assert_eq!(config.policy.allow[0].http, scope);

    let files = [(node_faults as fn(&str) -> String, of_node), (agent_faults, of_agent)];
    for (faults, good) in files {
        let check = |from: &str, to: &str, why: &str| {
            let bad = good.replace(from, to);
            check(faults, &good, &bad, why);
        };
        check(
            "'GET'",
            "'get'",
            "f:5: `verbs`: verb \"get\" is not in upper case; verbs are case-sensitive; write GET",
        );
        check("'GET'", "'TRACE'", "f:5: `verbs`: verb \"TRACE\" is never forwarded");
        check("['GET', 'HEAD']", "[]", "f:5: `verbs`: is empty; remove the key for all of them");
        check("['GET', 'HEAD']", "'GET'", "f:5: `verbs`: must be an array");
        check("'HEAD'", "'GET'", "f:5: `verbs`: duplicate entry GET");
        check("'HEAD'", "5", "f:5: `verbs`: must be a text in quotes, as \"GET\"");
        check(
            "['/api/**', '/a b']",
            "[]",
            "f:6: `paths`: is empty; remove the key for all of them",
        );
        check("'/a b'", "'/a%20b'", "f:6: `paths`: path pattern \"/a%20b\" has an escape");
        check("'/a b'", "'/api/**'", "f:6: `paths`: duplicate entry /api/**");
        check("verbs", "verb", "did you mean `verbs`?");
    }
}

#[test]
fn rules_over_other_methods_have_no_verbs_and_no_paths() {
    let own = |line: &str| rule(line).replace("agent =", "node =");
    for (key, line) in [("verbs", "verbs = ['GET']"), ("paths", "paths = ['/api']")] {
        let why = format!(
            "f:5: `{key}` limits rules over HTTP forwards; write method = \"http:NAME\", or remove it"
        );
        for method in ["C/d", "*/*", "tcp:web", "tcp:**"] {
            let [bad, own] = [rule(line), own(line)].map(|text| text.replace("C/d", method));
            let http = |text: &str| text.replace(method, "http:web");
            check(node_faults, &http(&bad), &bad, &why);
            check(agent_faults, &http(&own), &own, &why);
            let [good, bad] = [http(&bad), bad].map(|text| text.replace("allow", "deny"));
            check(node_faults, &good, &bad, &why);
        }
        let host = "[[host]]\nagent = 'a'\nservice = 'C'\n";
        check(node_faults, host, &format!("{host}{line}"), "unknown key");
    }
}

#[test]
fn the_audit_log_is_named_in_either_file_and_flags_go_before_it() {
    let text = "[audit]\nfile = 'audit.log'\ncalls = true\n";
    let named = AuditFile { file: Some("audit.log".into()), calls: Some(true) };
    let of_node = NodeConfig::parse(text, "f").expect("a config").audit;
    assert_eq!(
        (of_node, AgentConfig::parse(text, "f").expect("a config").audit),
        (named.clone(), named.clone())
    );
    let flags = AuditFile { file: Some("-".into()), calls: None };
    assert_eq!(flags.or(named), AuditFile { file: Some("-".into()), calls: Some(true) });
    for faults in [node_faults, agent_faults] {
        check(faults, text, &text.replace("'audit.log'", "''"), "f:2: `file`: is empty");
        check(faults, text, &text.replace("true", "'yes'"), "f:3: `calls`: must be true or false");
        check(faults, text, &text.replace("calls", "call"), "did you mean `calls`?");
        check(faults, text, &format!("[{text}").replace(']', "]]"), "must be one table, [audit]");
    }
}

#[test]
fn the_admin_listener_is_on_loopback() {
    let text = "[admin]\nlisten = '127.0.0.1:9433'\n";
    let expected = Some(AdminConfig::new("127.0.0.1:9433".parse().expect("an address")));
    let of_node = NodeConfig::parse(text, "f").expect("a config").admin;
    let of_agent = AgentConfig::parse(text, "f").expect("a config").admin;
    assert_eq!([&of_node, &of_agent], [&expected; 2]);
    let open = text.replace("127.0.0.1", "0.0.0.0") + "callers = ['ops-*']\n";
    let open = NodeConfig::parse(&open, "f").expect("a config").admin.expect("a listener");
    assert_eq!(open.callers.len(), 1);
    let drained = NodeConfig::parse(&format!("{text}drain = true\n"), "f").expect("a config").admin;
    assert!(drained.is_some_and(|admin| admin.drain));
    for faults in [node_faults, agent_faults] {
        check(faults, text, &text.replace("127.0.0.1", "0.0.0.0"), "listen on loopback");
        check(faults, text, &text.replace("127.0.0.1", "localhost"), "f:2: `listen`: ");
        check(faults, text, "[admin]\n", "f:1: [admin] has no `listen`");
        let misspelt = faults(&text.replace("listen", "listens"));
        assert!(misspelt.contains("did you mean `listen`?"), "{misspelt}");
    }
}

#[test]
fn tables_of_later_versions_are_distinguished_from_mistakes() {
    let expected = "f:1: [cluster] is not supported by this version of dialback";
    let table = "[cluster]\nmembers = ['x']";
    assert_eq!([node_faults(table), agent_faults(table)], [expected, expected]);
}

#[cfg(feature = "gateway")]
#[test]
fn the_gateway_has_an_address_and_an_access_mode() {
    let text = "[gateway]\nlisten = '127.0.0.1:8080'\ntokens = 'certs/tokens'\nanonymous = 'everybody'\ncors_origins = ['https://app.example.com', 'http://localhost:3000']\n[gateway.tls]\ncert = 'c.pem'\nkey = 'c.key'\n";
    let gateway = NodeConfig::parse(text, "f").expect("a config").gateway.expect("a gateway");
    let tls = GatewayTls { certificate: Some(["c.pem".into(), "c.key".into()]) };
    assert_eq!((gateway.tls, gateway.tokens), (Some(tls), Some("certs/tokens".into())));
    assert_eq!(gateway.cors_origins, ["https://app.example.com", "http://localhost:3000"]);
    let wrong = |from: &str, to: &str| text.replace(from, to);
    check(node_faults, text, &wrong("127.0.0.1:8080", ":8080"), "f:2: `listen`: ");
    check(node_faults, text, &wrong("'everybody'", "'Every Body'"), "f:4: `anonymous`: ");
    check(node_faults, text, &wrong("example.com", "example.com/"), "f:5: `cors_origins`: ");
    check(node_faults, text, &wrong("https://app.example.com", "*"), "is not an origin");
    check(node_faults, text, &wrong("tokens", "token"), "did you mean `tokens`?");
    check(
        node_faults,
        text,
        &wrong("key = 'c.key'\n", ""),
        "f:7: `cert`: cert and key go together",
    );
    check(
        node_faults,
        text,
        &wrong("[gateway.tls]\ncert = 'c.pem'\nkey = 'c.key'", "cert = 'c.pem'"),
        "f:6: `cert` belongs under [gateway.tls]",
    );
    check(agent_faults, "", text, "f:1: [gateway] belongs in a node's file");
    check(node_faults, "", "tokens = 'x'", "f:1: `tokens` belongs under [gateway]");
    let own = NodeConfig::parse("[gateway]\ntls = true", "f").expect("a config").gateway;
    assert_eq!(own.expect("a gateway").tls, Some(GatewayTls::default()));
    check(
        node_faults,
        "[gateway]\ntls = false",
        "[gateway]\ntls = 'yes'",
        "f:2: `tls`: must be true or false",
    );
}

#[cfg(feature = "gateway")]
#[test]
fn a_gateway_beyond_loopback_is_neither_plain_nor_anonymous() {
    let outside = "[gateway]\nlisten = '0.0.0.0:8080'\ntokens = 't'\n";
    let proxied = format!("{outside}trusted_proxy = ['10.0.0.0/8', '192.0.2.1']\n");
    check(node_faults, &proxied, outside, "f:2: `listen`: plain HTTP is allowed on loopback only");
    check(node_faults, &format!("{outside}tls = true"), &format!("{outside}tls = false"), "f:2: ");
    check(node_faults, &proxied, &format!("{proxied}anonymous = 'a'\n"), "f:5: `anonymous`: ");
    check(node_faults, &proxied, &proxied.replace("/8", "/33"), "f:4: `trusted_proxy`: ");
    let local = "[gateway]\nanonymous = 'a'\n";
    check(
        node_faults,
        local,
        &format!("{local}listen = '[::]:1'\ntls = true"),
        "f:2: `anonymous`: ",
    );
    check(node_faults, local, &format!("{local}trusted_proxy = ['::1']"), "f:2: `anonymous`: ");
}

/// Checks one limit: values at both ends of its range pass, values past them are refused.
#[track_caller]
fn check_limit(key: &str, [past_low, low, high, past_high]: [&str; 4]) {
    let line = |value: &str| format!("[limits]\n{key} = {value}");
    check(node_faults, &line(low), &line(past_low), &format!("f:2: `{key}`: "));
    check(agent_faults, &line(high), &line(past_high), "is out of range");
}

#[test]
fn a_caller_s_share_of_the_memory_holds_a_message_of_the_largest_size() {
    let limits =
        |memory: &str| format!("[limits]\nmemory_max = {memory}\nmessage_bytes_max = '5MiB'");
    check(node_faults, &limits("'20MiB'"), &limits("'19MiB'"), "f:2: a caller may hold");
}

#[test]
fn limits_have_a_range_each() {
    check_limit("message_bytes_max", ["0", "1024", "'64MiB'", "67108865"]);
    check_limit("memory_max", ["'15MiB'", "'16MiB'", "1099511627776", "1099511627777"]);
    check_limit("calls_in_flight_max", ["0", "1", "10000", "10001"]);
    check_limit("caller_calls_in_flight_max", ["-1", "1", "10000", "10001"]);
    check_limit("queue_max", ["0", "1", "100000", "100001"]);
    check_limit("caller_links_max", ["0", "1", "10000", "10001"]);
    check_limit("handshakes_per_address", ["0", "1", "1000000", "1000001"]);
    check_limit("handshakes_burst", ["0", "1", "1000000", "1000001"]);
    check_limit("send_buffer_bytes", ["0", "'256KiB'", "'1GiB'", "'2GiB'"]);
    check_limit("resets_max", ["0", "1", "100000", "100001"]);
    check_limit("queue_wait_max", ["'0s'", "'1ms'", "'1m'", "'61s'"]);
    check_limit("timeout_default", ["'0ms'", "'1ms'", "'365d'", "'366d'"]);
    check_limit("idle_max", ["'999ms'", "'6s'", "'10m'", "'601s'"]);
    check_limit("heartbeat_every", ["'999ms'", "'1s'", "'11s'", "'301s'"]);
    check_limit("heartbeat_lost", ["'999ms'", "'6s'", "'10m'", "'601s'"]);
    check_limit("drain_max", ["'0s'", "'1ms'", "'1h'", "'61m'"]);
}

#[test]
fn a_link_names_its_congestion_control() {
    let of = |text: &str| NodeConfig::parse(text, "f").expect("read").limits.congestion;
    assert_eq!(of(""), Congestion::Rate);
    assert_eq!(of("[link]\ncongestion = 'cubic'"), Congestion::Cubic);
    assert_eq!(of("[link]\ncongestion = 'bbr'\n[limits]\nqueue_max = 1"), Congestion::Bbr);
    let good = "[link]\ncongestion = 'rate'";
    for faults in [node_faults, agent_faults] {
        check(
            faults,
            good,
            "[link]\ncongestion = 'reno'",
            "f:2: `congestion`: must be rate, cubic",
        );
        check(faults, good, "[link]\ncongestion = 1", "must be a text");
        check(faults, good, "[link]\ncongestions = 'rate'", "unknown key `congestions` in [link]");
    }
}

#[test]
fn the_silence_limit_is_longer_than_the_heartbeat() {
    let good = "[limits]\nheartbeat_every = '11s'";
    check(node_faults, good, "[limits]\n\nheartbeat_every = '12s'", "must be longer than");
    check(
        node_faults,
        good,
        "[limits]\nidle_max = '5s'",
        "f:2: `idle_max` (5s) must be longer than",
    );
}

#[test]
fn named_limits_are_read_and_the_others_keep_their_defaults() {
    let text = "[limits]\nqueue_max = 7\ndrain_max = '3s'\nmessage_bytes_max = '1MiB'";
    let limits = NodeConfig::parse(text, "f").expect("a config").limits;
    assert_eq!((limits.queue_max, limits.message_bytes_max), (7, 1 << 20));
    assert_eq!(limits.drain_max, Duration::from_secs(3));
    assert_eq!(limits.idle_max, Limits::default().idle_max);
}

fn policy_faults(text: &str) -> String {
    let faults = PolicyFile::parse(text, "f").err();
    faults.map_or_else(String::new, |faults| faults.to_string())
}

#[test]
fn a_file_of_rules_holds_rules_and_nothing_else() {
    let good = rule("");
    check(policy_faults, &good, "", "f: holds no rules");
    check(policy_faults, &good, "# nothing here\n", "f: holds no rules");
    check(
        policy_faults,
        &good,
        &format!("listen = '[::]:1'\n{good}"),
        "does not belong in a policy file",
    );
    check(policy_faults, &good, "[[allow]]\ncaller = 'a'\nagent = 'b'\nmeth", "this is not TOML");
}

#[test]
fn the_cas_of_nodes_and_the_scope_of_lists_are_read_where_they_belong() {
    let good = "[tls]\nnode_ca = 'n.pem'\ncrl_scope = 'chain'";
    let tls = AgentConfig::parse(good, "f").expect("good").tls;
    assert_eq!((tls.node_ca, tls.crl_scope), (Some("n.pem".into()), Some(CrlScope::Chain)));
    let stronger = TlsFiles { crl_scope: Some(CrlScope::Leaf), ..TlsFiles::default() };
    assert_eq!(
        stronger.or(TlsFiles { crl_scope: tls.crl_scope, ..TlsFiles::default() }).crl_scope,
        Some(CrlScope::Leaf)
    );
    check(node_faults, good, "[tls]\ncrl_scope = 'leafs'", "f:2: `crl_scope`: must be leaf");
    check(agent_faults, good, "[tls]\nnode_ca = ''", "f:2: `node_ca`: is empty");
    check(agent_faults, good, "node_ca = 'n.pem'", "`node_ca` belongs under [tls]");
    check(node_faults, good, "crl_scope = 'leaf'", "`crl_scope` belongs under [tls]");
}

#[test]
fn cert_key_and_ca_are_required_together_after_all_sources_are_merged() {
    let some = |text: &str| Some(PathBuf::from(text));
    let flags = TlsFiles { cert: some("flag.pem"), ..TlsFiles::default() };
    let gap = flags.complete().expect_err("a gap").to_string();
    assert!(gap.starts_with("key and ca are missing; set cert, key and ca"), "{gap}");

    let merged = flags.or(paths(["c", "k", "a"], Some("r"))).complete().expect("no gap");
    let merged = merged.expect("all three");
    assert_eq!((merged.cert, merged.key), ("flag.pem".into(), "k".into()));
    assert_eq!((merged.ca, merged.crl), ("a".into(), some("r")));
    assert_eq!((merged.node_ca, merged.crl_scope), (None, CrlScope::Leaf));

    let only_crl = TlsFiles { crl: some("r"), ..TlsFiles::default() };
    assert_eq!(only_crl.complete(), Ok(None));
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_fault() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("node.toml");
    let fault = || NodeConfig::read(&path).expect_err("a fault").to_string();
    assert!(fault().contains("node.toml: cannot be read: "), "{}", fault());

    std::fs::write(&path, b"\n\nlisten = '\xff'").expect("written");
    assert!(
        fault().ends_with("node.toml:3: is not UTF-8 text; save the file as UTF-8"),
        "{}",
        fault()
    );

    std::fs::write(&path, vec![b'\n'; CONFIG_BYTES_MAX + 1]).expect("written");
    assert!(fault().contains("more than 4 MiB"), "{}", fault());

    std::fs::write(&path, vec![b'\n'; 3]).expect("written");
    assert!(fault().contains("node.toml: is empty"), "{}", fault());

    std::fs::write(&path, vec![b'#'; CONFIG_BYTES_MAX]).expect("written");
    assert!(NodeConfig::read(&path).is_ok());
    assert!(AgentConfig::read(dir.path()).is_err());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        drop((NodeConfig::parse(&text, "f"), AgentConfig::parse(&text, "f")));
        drop((PolicyFile::parse(&text, "f"), parse_duration(&text)));
        drop((parse_bytes(&text), parse_listen(&text)));
    }

    #[test]
    fn no_text_of_known_keys_makes_the_parser_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "[", "]", "[[", "]]", "\n", "=", "\"", "'", ",", ".", "{", "}", "#", "é", "\r",
            "listen", "tls", "allow", "limits", "nodes", "caller", "queue_max", "30", "5s", "true",
        ]), 0..40),
    ) {
        let text = words.concat();
        drop((NodeConfig::parse(&text, "f"), AgentConfig::parse(&text, "f")));
        drop((PolicyFile::parse(&text, "f"), parse_duration(&text)));
    }

    #[test]
    fn a_sample_with_a_byte_changed_is_read_or_refused_and_never_panics(
        at in 0..NODE.len(), byte in 0u8..128,
    ) {
        let mut bytes = NODE.as_bytes().to_vec();
        bytes[at] = byte;
        let text = String::from_utf8(bytes).expect("all ASCII");
        if let Err(faults) = NodeConfig::parse(&text, "f") {
            prop_assert!(faults.iter().all(|fault| fault.line >= 1 && fault.line <= 25), "{faults}");
        }
    }
}

#[test]
fn rules_for_mcp_servers_name_their_tools() {
    let node = |method: &str, kind: &str| {
        let text = format!("[[{kind}]]\ncaller = 'a'\nagent = 'b'\nmethod = '{method}'\n");
        NodeConfig::parse(&text, "f").map(drop).map_err(|faults| faults.to_string())
    };
    let agent = |method: &str| {
        let text = format!("[[allow]]\nnode = 'n'\ncaller = 'a'\nmethod = '{method}'\n");
        AgentConfig::parse(&text, "f").map(drop).map_err(|faults| faults.to_string())
    };
    for (bad, right) in [("mcp:jira", "mcp:jira/*"), ("mcp:*", "mcp:*/*")] {
        for refused in [node(bad, "allow"), node(bad, "deny"), agent(bad)] {
            let text = refused.expect_err(bad);
            let remedy = format!("none of its tools; write {right}");
            assert!(text.starts_with("f:4: `method`") && text.contains(&remedy), "{text}");
        }
    }
    for good in ["mcp:jira/*", "mcp:jira/client", "tcp:db", "tcp:*", "http:web", "http:*", "A/b"] {
        assert_eq!((node(good, "allow"), agent(good)), (Ok(()), Ok(())), "{good}");
    }
}

#[test]
fn a_nodes_file_among_rules_is_pointed_to_the_check_that_fits() {
    let refused = PolicyFile::parse("listen = '[::]:4433'\n", "f").expect_err("no rules");
    assert!(refused.to_string().contains("`dialback config check`"), "{refused}");
}

const EVERY_NODE_KEY: [&str; 2] = [
    include_str!("../../tests/data/every-key-node.toml"),
    include_str!("../../tests/data/every-key-node-other.toml"),
];
const EVERY_AGENT_KEY: &str = include_str!("../../tests/data/every-key-agent.toml");

/// The keys of tables, and whether some table has a value for them.
type HasValue<'a> = std::collections::BTreeMap<(&'a str, &'a str), bool>;

fn has_values(tables: &[SettingTable]) -> HasValue<'_> {
    let mut found = HasValue::new();
    for table in tables {
        for setting in &table.settings {
            let has = setting.value.is_some() && !setting.is_implied;
            *found.entry((table.name, setting.key)).or_default() |= has;
        }
    }
    found
}

/// The files have every key that is read, each key is listed with its value, and the value is not
/// the default.
#[track_caller]
fn check_listed(places: &[&KeyPlaces], listed: &[SettingTable], defaults: &[SettingTable]) {
    let (listed_keys, mut read) = (has_values(listed), HasValue::new());
    for (table, key, has) in places.iter().flat_map(|places| places.keys()) {
        let is_table = |name: &str| listed.iter().any(|table| table.name == name);
        if !(table.is_empty() && is_table(key)) {
            *read.entry((table, key)).or_default() |= has;
        }
    }
    let lacking: Vec<_> = read.iter().filter(|(_, has)| !**has).collect();
    assert!(lacking.is_empty(), "the files of every key lack {lacking:?}");
    let unlisted: Vec<_> = read.keys().filter(|key| listed_keys.get(*key) != Some(&true)).collect();
    assert!(unlisted.is_empty(), "`config print` would not print {unlisted:?}");
    for default in defaults {
        let other = listed.iter().find(|table| table.name == default.name).expect("a table");
        let is_same = |setting: &&Setting| {
            setting.value.is_some() && other.get(setting.key) == Some(*setting)
        };
        let same: Vec<_> = default.settings.iter().filter(is_same).collect();
        assert!(same.is_empty(), "the files of every key have the defaults {same:?}");
    }
}

#[test]
fn every_key_that_is_read_is_listed_with_its_value() {
    let node = EVERY_NODE_KEY.map(|text| NodeConfig::parse(text, "f").expect("a config"));
    let listed: Vec<_> = node.iter().flat_map(NodeConfig::settings).collect();
    let places = node.each_ref().map(|config| &config.places);
    let first = &node[0].settings();
    assert!(listed.len() > first.len());
    check_listed(&places, &listed, &[]);
    check_listed(&[], first, &NodeConfig::default().settings());
    let agent = AgentConfig::parse(EVERY_AGENT_KEY, "f").expect("a config");
    check_listed(&[&agent.places], &agent.settings(), &AgentConfig::default().settings());
}

#[test]
fn places_are_those_of_the_keys_and_not_of_their_tables() {
    let text = "\nnodes = ['a']\n[[node]]\naddress = 'b'\n[[node]]\naddress = 'c'\ntunnel_url = 'wss://c'\n[limits]\nidle_max =\n";
    let text = text.replace("idle_max =", "idle_max = '20s'");
    let places = AgentConfig::parse(&text, "f").expect("a config").places;
    let of = |table: &str, key: &str| places.of(table, 0, key).map(ToString::to_string);
    assert_eq!(of("", "nodes"), Some("f:2".into()));
    assert_eq!(of("limits", "idle_max"), Some("f:9".into()));
    assert_eq!(of("node", "tunnel_url"), Some("f:7".into()), "the first with a URL of its own");
    assert_eq!((of("", "demo"), of("gateway", "listen")), (None, None));
    let places =
        AgentConfig::parse(&text.replace("nodes = ['a']", ""), "f").expect("a config").places;
    let nodes = places.of("", 0, "nodes").map(ToString::to_string);
    assert_eq!(nodes, Some("f:4".into()), "a node without a URL of its own is one of `nodes`");
}

#[test]
fn a_masked_value_is_refused() {
    for (text, key) in [
        ("proxy = 'http://a:<masked>@p:1'", "proxy"),
        ("[[mcp]]\nname = 'a'\ncommand = ['a', '<masked>']", "command"),
        ("tunnel_url = 'wss://a/t?<masked>'", "tunnel_url"),
        ("[[http]]\nname = 'a'\nupstream = 'http://a'\nhealth = 'GET /h?<masked>'", "health"),
    ] {
        let faults = AgentConfig::parse(text, "f").expect_err("a fault").to_string();
        let fault = format!("`{key}`: has <masked> in place of a secret");
        assert!(faults.contains(&fault), "{faults}");
    }
}

#[test]
fn a_proxys_url_is_listed_as_it_is_parsed_and_without_its_password_where_it_is_masked() {
    for (text, masked) in [
        ("http://p:3128", None),
        ("http://a@p:3128", None),
        ("http://a%40b:s%3Acret%25@[::1]:80", Some("http://a%40b:<masked>@[::1]:80")),
    ] {
        let file = format!("proxy = '{text}'");
        let settings = AgentConfig::parse(&file, "f").expect("a config").settings();
        let setting = settings[0].get("proxy").expect("a setting");
        let shown = |value: &Option<SettingValue>| match value {
            Some(SettingValue::Text(text)) => Some(text.clone()),
            _ => None,
        };
        assert_eq!(shown(&setting.value).as_deref(), Some(text));
        assert_eq!(shown(&setting.masked).as_deref(), masked);
    }
}
