//! `dialback services`: what an agent hosts.

use crate::{
    agents::TIMEOUT,
    args::ServicesArgs,
    caller::Reach,
    exit::Failure,
    output::{columns, escape, print, print_json},
};
use dialback::ServiceInfo;
use serde_json::{Value, json};

/// Runs the command.
pub(crate) fn run(args: ServicesArgs) -> Result<(), Failure> {
    let (agent, wants_json) = (args.agent, args.json);
    let listed = Reach::new(args.reach, TIMEOUT)?.run(async |caller, _left| {
        let services = caller.services(agent.as_str()).await?;
        if wants_json { print_json(&listing(&services)) } else { print(&table(&services)) }
    });
    listed.map_err(|failure| failure.told_as_json(wants_json))
}

/// The same in JSON, with the shape of a method as a word: on the wire it is a number.
fn listing(services: &[ServiceInfo]) -> Value {
    let methods_of = |service: &ServiceInfo| -> Value {
        let methods = service.methods.iter();
        methods.map(|method| json!({"name": method.name, "kind": method.kind.as_str()})).collect()
    };
    services
        .iter()
        .map(|service| json!({"name": service.name, "methods": methods_of(service)}))
        .collect()
}

/// One line a method, in the form in which it is called.
fn table(services: &[ServiceInfo]) -> String {
    let methods = services.iter().flat_map(|service| {
        service.methods.iter().map(|method| {
            let path = escape(&method.path(&service.name));
            vec![path, method.kind.as_str().to_owned()]
        })
    });
    let rows: Vec<_> = methods.collect();
    if rows.is_empty() { "the agent hosts no services".into() } else { columns(&rows) }
}
