//! Services and methods that one caller may call, over all agents, each with the agents that host
//! it. Pure: rules and registrations in, a list out.

use crate::{
    directory::{ListedMethod, ListedService},
    name::{MethodPath, Name, PeerName},
    policy::{NodePolicy, PolicyTarget, PolicyView},
    wire::{CallKind, MethodInfo, ServiceInfo},
};
use std::collections::BTreeMap;

/// Requester that a list is made for.
pub(super) struct Viewer<'a> {
    /// Rules that apply to the requester; `None` for the node's own program, which has none.
    view: Option<PolicyView<'a>>,
    policy: &'a NodePolicy,
}

/// A requester's view of one agent.
pub(super) struct OnAgent<'a>(Option<PolicyView<'a>>);

impl<'a> Viewer<'a> {
    pub(super) fn new(policy: &'a NodePolicy, requester: &PeerName) -> Self {
        Self { view: Some(policy.view(requester)), policy }
    }

    /// Viewer of the node's own program, which sees everything.
    pub(super) const fn own(policy: &'a NodePolicy) -> Self {
        Self { view: None, policy }
    }

    pub(super) fn on(&self, agent: &Name) -> OnAgent<'a> {
        OnAgent(self.view.as_ref().map(|view| view.on(PolicyTarget::Agent(agent))))
    }
}

impl OnAgent<'_> {
    /// True if any rule allows something on the agent.
    pub(super) fn sees_it(&self) -> bool {
        self.0.as_ref().is_none_or(PolicyView::allows_something)
    }

    fn sees_method(&self, service: &str, method: &MethodInfo) -> bool {
        let Some(view) = &self.0 else { return true };
        if method.is_any() {
            return view.allows_some_of(service);
        }
        let path = method.path(service).parse::<MethodPath>();
        path.is_ok_and(|path| view.allows(&path))
    }

    /// Services of the agent with the methods that the requester may call, if there are any.
    pub(super) fn services(&self, services: &[ServiceInfo]) -> Vec<ServiceInfo> {
        let seen = |service: &ServiceInfo| {
            let ServiceInfo { name, methods, description } = service;
            let is_seen = |method: &&MethodInfo| self.sees_method(name, method);
            let seen: Vec<_> = methods.iter().filter(is_seen).cloned().collect();
            // A service without methods reveals nothing.
            let is_shown = !seen.is_empty() || (methods.is_empty() && self.sees_it());
            let (name, description) = (name.clone(), description.clone());
            is_shown.then_some(ServiceInfo { name, methods: seen, description })
        };
        services.iter().filter_map(seen).collect()
    }
}

/// Merges the services of agents, sorted by name, into one list for a viewer. Costs one evaluation
/// of the viewer's rules per agent, and one of the rules about the agent per method.
pub(super) fn list<'a>(
    viewer: &Viewer<'_>,
    agents: impl IntoIterator<Item = (&'a Name, &'a [ServiceInfo])>,
) -> Vec<ListedService> {
    let mut listed = BTreeMap::new();
    for (agent, services) in agents {
        for service in viewer.on(agent).services(services) {
            let hosts_service = viewer.policy.may_host(agent, &service.name);
            let name = service.name.clone();
            let may_host = |method: &MethodInfo| match method.kind {
                // A forward of TCP takes no call that names only a service.
                CallKind::Tcp => false,
                CallKind::Http => viewer.policy.may_host(agent, &method.path(&name)),
                _ => hosts_service,
            };
            add(listed.entry(name.clone()).or_default(), agent, may_host, service);
        }
    }
    listed.into_iter().map(|(name, listed)| listed.finish(name)).collect()
}

#[derive(Default)]
struct Listing {
    description: String,
    methods: BTreeMap<(String, u8), ListedMethod>,
}

impl Listing {
    fn finish(self, name: String) -> ListedService {
        let Self { description, methods } = self;
        ListedService { name, description, methods: methods.into_values().collect() }
    }
}

fn add(
    listing: &mut Listing,
    agent: &Name,
    may_host: impl Fn(&MethodInfo) -> bool,
    service: ServiceInfo,
) {
    if listing.description.is_empty() {
        listing.description = service.description;
    }
    for method in service.methods {
        let is_host = may_host(&method);
        let key = (method.name.clone(), method.kind.into());
        let listed = listing.methods.entry(key).or_insert_with(|| unsaid(&method));
        if is_unsaid(listed) {
            let MethodInfo { description, request_schema, reply_schema, .. } = method;
            (listed.description, listed.request_schema, listed.reply_schema) =
                (description, request_schema, reply_schema);
        }
        // A peer may list a method twice.
        if listed.agents.last().is_some_and(|last| last == agent.as_str()) {
            continue;
        }
        listed.agents.push(agent.to_string());
        if is_host {
            listed.hosts.push(agent.to_string());
        }
    }
}

fn unsaid(method: &MethodInfo) -> ListedMethod {
    let [description, request_schema, reply_schema] = [(); 3].map(|()| String::new());
    let (name, kind) = (method.name.clone(), method.kind);
    let (agents, hosts) = (Vec::new(), Vec::new());
    ListedMethod { name, kind, description, request_schema, reply_schema, agents, hosts }
}

fn is_unsaid(method: &ListedMethod) -> bool {
    [&method.description, &method.request_schema, &method.reply_schema]
        .into_iter()
        .all(String::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AllowRule, DenyRule, HostRule};
    use crate::wire::{ANY_METHOD, CallKind};

    fn agents() -> Vec<(Name, Vec<ServiceInfo>)> {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let method = |name: &str| MethodInfo::new(name, CallKind::Unary);
        let mut told = method("Read");
        told.description = "Reads.".into();
        let stock = |methods| ServiceInfo::new("Stock", methods);
        let mut described = stock(vec![told, method("Write")]);
        described.description = "What is there.".into();
        vec![
            (
                name("a"),
                vec![
                    stock(vec![method("Read"), method("Read"), method("Write")]),
                    ServiceInfo::new("tcp", vec![MethodInfo::new("db", CallKind::Tcp)]),
                ],
            ),
            (name("b"), vec![described, ServiceInfo::new("Web", vec![method(ANY_METHOD)])]),
            (name("c"), vec![stock(vec![MethodInfo::new("Read", CallKind::ServerStream)])]),
        ]
    }

    /// One line per method, as `Stock/Read unary a,b (b)`: those that may answer for the service in
    /// parentheses.
    fn shown(policy: &NodePolicy, requester: &str) -> Vec<String> {
        let (agents, requester) = (agents(), requester.parse().expect("a peer"));
        let viewer = Viewer::new(policy, &requester);
        let services = list(&viewer, agents.iter().map(|(name, services)| (name, &services[..])));
        let line = |service: &ListedService, method: &ListedMethod| {
            let (agents, hosts) = (method.agents.join(","), method.hosts.join(","));
            format!("{} {} {agents} ({hosts})", method.path(&service.name), method.kind)
        };
        services
            .iter()
            .flat_map(|service| service.methods.iter().map(move |method| line(service, method)))
            .collect()
    }

    fn allow(caller: &str, agent: &str, method: &str) -> AllowRule {
        AllowRule::parse(caller, agent, method).expect("a rule")
    }

    fn deny(caller: &str, agent: &str, method: &str) -> DenyRule {
        DenyRule::parse(caller, agent, method).expect("a rule")
    }

    #[test]
    fn a_caller_sees_the_methods_and_agents_that_rules_open_to_it_and_no_others() {
        let policy = NodePolicy::default()
            .allow(allow("ops", "**", "*/*"))
            .allow(allow("reader", "a", "Stock/Read"))
            .allow(allow("reader", "c", "Stock/Read"))
            .allow(allow("intern", "**", "*/*"))
            .allow(allow("dba", "a", "tcp:db"))
            .host(HostRule::parse("a", "tcp").expect("a rule"))
            .deny(deny("intern", "a", "*/*"))
            .deny(deny("intern", "b", "Stock/Write"))
            .host(HostRule::parse("b", "Stock").expect("a rule"));
        let all = [
            "Stock/Read unary a,b (b)",
            "Stock/Read server_stream c ()",
            "Stock/Write unary a,b (b)",
            "Web/* unary b ()",
        ];
        assert_eq!(shown(&policy, "caller/ops"), all);
        let few = ["Stock/Read unary a ()", "Stock/Read server_stream c ()"];
        assert_eq!(shown(&policy, "caller/reader"), few);
        let some = ["Stock/Read unary b (b)", "Stock/Read server_stream c ()", "Web/* unary b ()"];
        assert_eq!(shown(&policy, "caller/intern"), some);
        assert_eq!(shown(&policy, "caller/dba"), ["tcp:db tcp a ()"]);
        for nobody in ["caller/other", "agent/ops", "node/ops"] {
            assert_eq!(shown(&policy, nobody), [""; 0], "{nobody}");
        }
    }

    #[test]
    fn a_caller_sees_an_mcp_server_if_some_tool_of_it_is_open() {
        let name = "a".parse::<Name>().expect("a name");
        let servers = ["git", "jira"].map(|name| MethodInfo::new(name, CallKind::Http));
        let services = [ServiceInfo::new("mcp", servers.into())];
        let policy = NodePolicy::default()
            .allow(allow("ops", "**", "mcp:**/*"))
            .allow(allow("dev", "a", "mcp:jira/create_*"))
            .allow(allow("reader", "a", "mcp:git/resources"))
            .allow(allow("intern", "a", "mcp:*/*"))
            .allow(allow("asked", "a", "mcp:jira/client"))
            .allow(allow("rpc", "a", "*/*"))
            .deny(deny("intern", "a", "mcp:jira/*"));
        for (caller, seen) in [
            ("ops", &["git", "jira"][..]),
            ("dev", &["jira"]),
            ("reader", &["git"]),
            ("intern", &["git"]),
            ("asked", &[]),
            ("rpc", &[]),
            ("nobody", &[]),
        ] {
            let caller = format!("caller/{caller}").parse().expect("a peer");
            let listed = list(&Viewer::new(&policy, &caller), [(&name, &services[..])]);
            let methods = listed.iter().flat_map(|service| &service.methods);
            let names: Vec<_> = methods.map(|method| method.name.as_str()).collect();
            assert_eq!(names, seen, "{caller}");
        }
    }

    #[test]
    fn the_description_of_the_first_agent_that_has_one_is_listed() {
        let (agents, policy) = (agents(), NodePolicy::allow_all());
        let requester = "caller/ops".parse().expect("a peer");
        let viewer = Viewer::new(&policy, &requester);
        let services = list(&viewer, agents.iter().map(|(name, services)| (name, &services[..])));
        assert_eq!(services[0].description, "What is there.");
        let told: Vec<_> =
            services[0].methods.iter().map(|method| &method.description[..]).collect();
        assert_eq!(told, ["Reads.", "", ""]);
    }

    #[test]
    fn the_nodes_own_program_sees_all_without_a_rule() {
        let (agents, policy) = (agents(), NodePolicy::default());
        let requester = "node/edge-1".parse().expect("a peer");
        let services = list(
            &Viewer::own(&policy),
            agents.iter().map(|(name, services)| (name, &services[..])),
        );
        assert_eq!(services.iter().map(|service| service.methods.len()).sum::<usize>(), 5);
        let viewer = Viewer::new(&policy, &requester);
        assert_eq!(viewer.on(&agents[0].0).services(&agents[0].1), []);
    }
}
