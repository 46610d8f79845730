//! Descriptions of callable methods: the directory that each caller sees, and the pages that the
//! HTTP gateway renders from it.

use crate::world::{Setup, Stage, World, attached, spawn, until_event};
use dialback::{
    CallKind, Callee, Context, Description, Directory, ListedMethod, ListedService, Node,
    NodePolicy, Outbound, Service, agents_page, openapi,
    policy::{AllowRule, DenyRule, HostRule},
    services_page,
};
use serde_json::{Value, json};
use std::{future::IntoFuture, process::Command};

fn allow(caller: &str, agent: &str, method: &str) -> AllowRule {
    AllowRule::parse(caller, agent, method).expect("a rule")
}

fn stock() -> Service {
    let schema = r#"{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"}}}"#;
    Service::new("acme.v1.Stock")
        .method("Get", |sku: Value, _: Context| async move { Ok(sku) })
        .method("Drop", |(): (), _: Context| async move { Ok(()) })
        .server_stream("List", |(): (), _: Outbound<Value>, _: Context| async move { Ok(()) })
        .describe("What is *in stock*.")
        .describe_method("Get", Description::new("One item.").request(schema).reply(schema))
        .describe_method("List", Description::new("All items.").reply(schema))
}

/// A node with agents `a` and `b` that host the stock, and `c` that hosts the stage; `ops` may call
/// all, `reader` may read on `a` and `c`.
struct PagesSetup {
    world: World,
    node: Node,
    _agents: [dialback::Agent; 3],
}

impl PagesSetup {
    async fn new() -> Self {
        let world = World::new();
        let policy = NodePolicy::default()
            .allow(allow("ops", "**", "*/*"))
            .allow(allow("reader", "a", "acme.**/Get"))
            .allow(allow("reader", "c", "Stage/Note"))
            .deny(DenyRule::parse("ops", "**", "acme.**/Drop").expect("a rule"))
            .host(HostRule::parse("b", "**").expect("a rule"));
        let node = world.node().policy(policy).start().await.expect("a node");
        let at = node.local_addr();
        let _agents = [
            attached(world.agent("a", at).serve(stock())).await,
            attached(world.agent("b", at).serve(stock())).await,
            attached(world.agent("c", at).serve(Stage::default().service())).await,
        ];
        Self { world, node, _agents }
    }

    fn seen_by(&self, peer: &str) -> Directory {
        self.node.directory_for(&peer.parse().expect("a peer name"))
    }
}

/// One line per method: `acme.v1.Stock/Get a,b (b)`.
fn lines(services: &[ListedService]) -> Vec<String> {
    let line = |service: &ListedService, method: &ListedMethod| {
        let (agents, hosts) = (method.agents.join(","), method.hosts.join(","));
        format!("{}/{} {agents} ({hosts})", service.name, method.name)
    };
    services
        .iter()
        .flat_map(|service| service.methods.iter().map(move |method| line(service, method)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_sees_the_agents_and_methods_that_it_may_call_over_every_way() {
    let setup = PagesSetup::new().await;
    let reader = setup.seen_by("caller/reader");
    let names: Vec<_> = reader.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(lines(&reader.services), ["Stage/Note c ()", "acme.v1.Stock/Get a ()"]);
    let ops = lines(&setup.seen_by("caller/ops").services);
    assert!(ops.contains(&"acme.v1.Stock/Get a,b (b)".to_owned()), "{ops:?}");
    assert!(!ops.iter().any(|line| line.contains("Drop")), "{ops:?}");
    assert_eq!(setup.seen_by("caller/nobody").services, []);
    let own = lines(&setup.seen_by("node/edge-1").services);
    assert!(own.contains(&"acme.v1.Stock/Drop a,b (b)".to_owned()), "{own:?}");

    // The same over a link.
    for (name, expected) in [("reader", reader), ("nobody", setup.seen_by("caller/nobody"))] {
        let caller = setup.world.caller(name, setup.node.local_addr()).connect().await;
        let caller = caller.expect("a caller");
        assert_eq!(caller.all_services().await, Ok(expected.services));
        let of_a = caller.services("a").await;
        match name {
            "reader" => assert_eq!(of_a.expect("seen")[0].methods.len(), 1),
            _ => assert!(of_a.is_err()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_only_what_the_caller_may_call() {
    let setup = PagesSetup::new().await;
    let reader = setup.seen_by("caller/reader");
    let agents = agents_page(&reader);
    assert_eq!((&agents["node"], &agents["agents"][1]["name"]), (&json!("edge-1"), &json!("c")));
    let services = services_page(&reader);
    assert_eq!(services["services"][1]["description"], json!("What is *in stock*."));
    let document = openapi(&reader);
    let paths: Vec<_> = document["paths"].as_object().expect("paths").keys().collect();
    assert_eq!(
        paths,
        [
            "/v1/agents",
            "/v1/agents/{agent}/Stage/Note",
            "/v1/agents/{agent}/acme.v1.Stock/Get",
            "/v1/openapi.json",
            "/v1/services",
        ]
    );
    for page in [agents, services, document] {
        let text = page.to_string();
        assert!(!text.contains("Drop") && !text.contains("\"b\""), "{text}");
    }
    assert_eq!(
        openapi(&setup.seen_by("caller/nobody"))["paths"].as_object().map(|paths| paths.len()),
        Some(3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_describes_its_request_and_its_reply() {
    let setup = PagesSetup::new().await;
    let document = openapi(&setup.seen_by("caller/ops"));
    assert_eq!(document["openapi"], json!("3.1.0"));
    let get = &document["paths"]["/v1/agents/{agent}/acme.v1.Stock/Get"];
    assert_eq!(get["parameters"][0]["schema"]["enum"], json!(["a", "b"]));
    let post = &get["post"];
    assert_eq!(post["operationId"], json!("agent.acme.v1.Stock.Get"));
    assert_eq!(
        (&post["description"], &post["tags"]),
        (&json!("One item."), &json!(["acme.v1.Stock"]))
    );
    let request = &post["requestBody"]["content"];
    assert_eq!(request["application/json"]["schema"]["required"], json!(["sku"]));
    assert_eq!(request["application/cbor"], request["application/json"]);
    let ok = &post["responses"]["200"];
    assert_eq!(ok["content"]["application/cbor"]["schema"]["required"], json!(["sku"]));
    for header in ["dialback-outcome", "dialback-call-id"] {
        assert!(ok["headers"][header].is_object(), "{ok}");
    }
    let on_any = &document["paths"]["/v1/services/acme.v1.Stock/Get"]["post"];
    assert_eq!(on_any["operationId"], json!("service.acme.v1.Stock.Get"));
    assert!(document["paths"].get("/v1/services/Stage/Note").is_none(), "nobody may answer for it");
    let list = &document["paths"]["/v1/agents/{agent}/acme.v1.Stock/List"]["post"];
    let kinds: Vec<_> =
        list["responses"]["200"]["content"].as_object().expect("content").keys().collect();
    assert_eq!(
        kinds,
        ["application/connect+cbor", "application/connect+json", "text/event-stream"]
    );
    let description = list["requestBody"]["description"].as_str().expect("how to ask for events");
    assert!(
        description.contains("`Accept: text/event-stream`")
            && post["requestBody"]["description"].is_null()
    );
    // The gateway accepts any value and ignores an invalid one, so any value is valid.
    let traceparent = &document["components"]["parameters"]["traceparent"]["schema"];
    assert_eq!(*traceparent, json!({ "type": "string" }));
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(
        (&schemes["bearer"]["scheme"], &schemes["mutualTLS"]["type"]),
        (&json!("bearer"), &json!("mutualTLS"))
    );
    assert_eq!(
        document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
            .as_array()
            .map(Vec::len),
        Some(16)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_agent_hosts_nothing_and_is_still_listed() {
    let Setup { node, agent, stage, .. } = Setup::open().await;
    let seen = || node.directory_for(&"caller/ops".parse().expect("a peer name"));
    assert_eq!(seen().services.len(), 1);
    let handle = node.agent("warehouse").handle().expect("a name");
    let callee: &Callee = handle.as_ref();
    let held = spawn(callee.call::<String>("Stage/Hold", "a").into_future());
    stage.busy(1).await;
    let leaving = spawn(agent.shutdown());
    until_event("it drains", node.events(), || node.agents()[0].draining).await;
    let Directory { agents, services, .. } = seen();
    assert!(services.is_empty() && agents[0].attached, "{services:?}");
    stage.open();
    assert_eq!(held.await, Ok("a".into()));
    leaving.await;
    until_event("it has closed", node.events(), || !node.agents()[0].attached).await;
    let Directory { agents, services, .. } = seen();
    assert!(services.is_empty() && agents[0].name == "warehouse", "{services:?}");
}

fn method(name: &str, kind: CallKind, agents: usize) -> ListedMethod {
    let agents: Vec<_> = (0..agents).map(|n| format!("a{n}")).collect();
    ListedMethod {
        name: name.into(),
        kind,
        description: "Does \"it\" \u{1b}[2J.".into(),
        request_schema: r##"{"$ref":"#/nowhere"}"##.into(),
        reply_schema: match name {
            "Few" => r#"{"type":7}"#.into(),
            _ => r#"{"type":["integer","null"],"minimum":0}"#.into(),
        },
        hosts: agents.iter().take(1).cloned().collect(),
        agents,
    }
}

/// A method of each kind, one of two kinds, one of unknown kind, one on more agents than are named.
fn edge_cases() -> Directory {
    let methods = vec![
        method("*", CallKind::Unary, 1),
        method("Both", CallKind::Unary, 1),
        method("Both", CallKind::ServerStream, 2),
        method("Chat", CallKind::Bidirectional, 1),
        method("Few", CallKind::Unary, 100),
        method("Many", CallKind::Unary, 101),
        method("Sum", CallKind::ClientStream, 1),
        method("Tunnel", CallKind::Tcp, 1),
    ];
    let service = ListedService { name: "Odd".into(), description: "*Odd*".into(), methods };
    Directory { node: "edge-1".into(), agents: vec![], services: vec![service] }
}

#[test]
fn methods_with_odd_names_two_kinds_or_many_agents_are_documented() {
    let document = openapi(&edge_cases());
    let paths = &document["paths"];
    let on_agent = |method: &str| &paths[format!("/v1/agents/{{agent}}/Odd/{method}")];
    let wild = on_agent("{method}");
    assert_eq!(
        (&wild["parameters"][0]["name"], &wild["parameters"][1]["name"]),
        (&json!("agent"), &json!("method"))
    );
    assert_eq!(paths["/v1/services/Odd/{method}"]["parameters"][0]["name"], json!("method"));
    let both = on_agent("Both");
    assert_eq!(both["parameters"][0]["schema"]["enum"], json!(["a0", "a1"]));
    assert_eq!(both["post"]["x-dialback-kind"], json!("unary,server_stream"));
    assert_eq!(
        both["post"]["responses"]["200"]["content"].as_object().map(|content| content.len()),
        Some(5)
    );
    for not in ["Chat", "Sum", "Tunnel"] {
        assert!(on_agent(not).is_null(), "{not} cannot be called over HTTP");
    }
    let names =
        |method| on_agent(method)["parameters"][0]["schema"]["enum"].as_array().map(Vec::len);
    assert_eq!((names("Few"), names("Many")), (Some(100), None));
    // A schema with an external reference means any value, and so does an invalid one.
    let reply = &on_agent("Few")["post"]["responses"]["200"]["content"]["application/json"];
    assert_eq!(reply["schema"], json!({}));
    let reply = &on_agent("Many")["post"]["responses"]["200"]["content"]["application/json"];
    assert_eq!(reply["schema"]["minimum"], json!(0));
    assert_eq!(
        on_agent("Few")["post"]["requestBody"]["content"]["application/json"]["schema"],
        json!({})
    );
}

#[test]
fn every_reference_resolves_and_every_operation_id_is_unique() {
    fn walk<'a>(value: &'a Value, refs: &mut Vec<&'a str>, ids: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(key, value)| match (key.as_str(), value.as_str()) {
                    ("$ref", Some(at)) => refs.push(at),
                    ("operationId", Some(id)) => ids.push(id),
                    _ => walk(value, refs, ids),
                })
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, refs, ids)),
            _ => {}
        }
    }
    let document = openapi(&edge_cases());
    let (mut refs, mut ids) = (Vec::new(), Vec::new());
    walk(&document, &mut refs, &mut ids);
    assert!(refs.len() > 20);
    for at in refs {
        assert!(document.pointer(at.trim_start_matches('#')).is_some(), "{at}");
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), count), (11, 11));
}

/// `scripts/openapi.sh` installs the validator and names it here.
fn validator() -> Command {
    let name = std::env::var_os("OPENAPI_SPEC_VALIDATOR");
    Command::new(name.unwrap_or_else(|| "openapi-spec-validator".into()))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs openapi-spec-validator: `bash scripts/openapi.sh` installs it and runs this"]
async fn a_third_party_validator_accepts_the_document_and_rejects_a_broken_one() {
    let setup = PagesSetup::new().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("openapi.json");
    let check = |document: &Value| {
        std::fs::write(&path, document.to_string()).expect("written");
        let output = validator().arg("--schema").arg("3.1").arg(&path).output();
        let output =
            output.expect("openapi-spec-validator, which `bash scripts/openapi.sh` installs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for seen in [setup.seen_by("caller/ops"), setup.seen_by("caller/nobody"), edge_cases()] {
        let (is_good, report) = check(&openapi(&seen));
        assert!(is_good, "{report}");
    }
    let mut broken = openapi(&edge_cases());
    broken["paths"]["/v1/agents"]["get"]["responses"] = json!([]);
    let (is_good, report) = check(&broken);
    assert!(!is_good, "{report}");
}
