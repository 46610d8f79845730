//! `dialback services`: lists the services of one agent or of all agents.

use crate::{
    agents::TIMEOUT,
    caller::{self, ReachArgs},
    exit::Failure,
    output::{columns, escape, print_aside, print_json_aside},
};
use clap::{ArgAction, Args, builder::BoolishValueParser};
use dialback::{
    Directory, ListedMethod, ListedService, MethodInfo, Name, ServiceInfo, services_page,
};
use serde_json::Value;

/// `dialback services`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback services warehouse
  dialback services --json
Queries the node as a caller. The rules of the node decide which services are listed.
SERVICE/* is a service whose methods are not known to the agent.")]
pub(crate) struct ServicesArgs {
    /// Name of the agent [default: all attached agents]
    pub(crate) agent: Option<Name>,
    /// Print one JSON array; a failure is one JSON object
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
}

pub(crate) fn run(args: ServicesArgs) -> Result<(), Failure> {
    let (agent, wants_json) = (args.agent, args.json);
    caller::run(args.reach, TIMEOUT, wants_json, None, async |caller, _left| {
        let services = match &agent {
            Some(agent) => of_one(agent, caller.services(agent.as_str()).await?),
            None => caller.all_services().await?,
        };
        match wants_json {
            true => print_json_aside(&listing(services, agent.is_some())).await?,
            false => print_aside(table(&services, agent.as_ref())).await?,
        };
        Ok(())
    })
}

/// The services of one agent in the form of a listing of all agents.
fn of_one(agent: &Name, services: Vec<ServiceInfo>) -> Vec<ListedService> {
    let method = |method: MethodInfo| {
        let MethodInfo { name, kind, description, request_schema, reply_schema } = method;
        let (agents, hosts) = (vec![agent.to_string()], Vec::new());
        ListedMethod { name, kind, description, request_schema, reply_schema, agents, hosts }
    };
    let service = |service: ServiceInfo| {
        let ServiceInfo { name, methods, description } = service;
        ListedService { name, description, methods: methods.into_iter().map(method).collect() }
    };
    services.into_iter().map(service).collect()
}

/// The JSON of the HTTP gateway; for one agent without its name at each method.
fn listing(services: Vec<ListedService>, is_of_one: bool) -> Value {
    let (node, agents) = (String::new(), Vec::new());
    let mut listing = services_page(&Directory { node, agents, services })["services"].take();
    let services = listing.as_array_mut().into_iter().flatten();
    let methods = services.filter_map(|service| service["methods"].as_array_mut()).flatten();
    for method in methods.filter_map(Value::as_object_mut).filter(|_| is_of_one) {
        method.remove("agents");
        method.remove("hosts");
    }
    listing
}

/// Maximum names of agents in one line of the table; a count of the others follows.
const AGENTS_SHOWN: usize = 3;

/// One line per method, in the form in which it is called.
fn table(services: &[ListedService], agent: Option<&Name>) -> String {
    let methods = services
        .iter()
        .flat_map(|service| service.methods.iter().map(move |method| (service, method)));
    let rows: Vec<_> = methods.map(|(service, method)| row(service, method, agent)).collect();
    match (rows.is_empty(), agent) {
        (false, _) => columns(&rows),
        (true, Some(_)) => "the agent hosts no services that this caller may call".into(),
        (true, None) => "no services that this caller may call".into(),
    }
}

fn row(service: &ListedService, method: &ListedMethod, agent: Option<&Name>) -> Vec<String> {
    let path = escape(&method.path(&service.name));
    // Messages of MCP travel as HTTP, which says little about a server.
    let kind = if service.name == "mcp" { "mcp" } else { method.kind.as_str() };
    let mut row = vec![path, kind.to_owned()];
    if agent.is_none() {
        row.push(escape(&some_of(&method.agents)));
    }
    // The first line is enough for a table.
    row.push(escape(method.description.lines().next().unwrap_or_default()));
    row
}

fn some_of(agents: &[String]) -> String {
    let shown = agents.iter().take(AGENTS_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match agents.len().saturating_sub(AGENTS_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dialback::CallKind;

    #[test]
    fn a_method_is_a_line_with_its_agents_where_no_agent_was_named() {
        let name: Name = "warehouse".parse().expect("a name");
        let mut info = MethodInfo::new("Hello", CallKind::Unary);
        info.description = "Greets.\nAt length \x1b[2J.".into();
        let mut services = of_one(&name, vec![ServiceInfo::new("HelloService", vec![info])]);
        assert_eq!(table(&services, Some(&name)), "HelloService/Hello  unary  Greets.");
        assert_eq!(table(&services, None), "HelloService/Hello  unary  warehouse  Greets.");
        services[0].methods[0].description = "evil\x1b[2J".into();
        assert!(table(&services, None).ends_with("evil\\u{1b}[2J"));
        assert!(
            table(&[], None).starts_with("no services")
                && table(&[], Some(&name)).contains("the agent")
        );
    }

    #[test]
    fn of_many_agents_some_are_named() {
        let agents = ["a", "b", "c", "d", "e"].map(String::from);
        assert_eq!(some_of(&agents[..3]), "a, b, c");
        assert_eq!(some_of(&agents), "a, b, c and 2 more");
    }
}
